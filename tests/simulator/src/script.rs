// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What applications do, and what goes wrong: random scripts that shrink.
//!
//! Invariant: a step means something in every state of the world (a step that cannot be done is
//! none), so that any part of a failing script is a script.

use std::time::Duration;

use proptest::prelude::*;

/// Which side of a connection: the one that connects, or the one that accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that connects.
    Client,
    /// The one that accepts.
    Server,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The end dies: nothing of it is heard again; its memory, queue pairs and TCP connections go.
    Kill,
    /// Its ISM device is removed.
    DeviceGone,
    /// One of its RoCE ports goes down, and stays so until `PortUp`.
    PortDown,
    /// All its RoCE ports are up.
    PortUp,
    /// One link between it and another end loses what is under way, and breaks.
    LinkLost,
    /// It has no receive buffers for a while: what is sent to it is repeated (RNR).
    NotReady,
    /// Its next registrations of memory fail.
    NoMemory,
    /// The signals to it are lost until its next look.
    SignalsLost,
}

/// A step of a script. Connections are counted modulo those that there are, ends likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the steps' documentation says")]
pub enum Step {
    /// A new connection between two ends.
    Connect { from: u8, to: u8 },
    /// `send` of so many bytes; with `more`, MSG_MORE.
    Send { conn: u8, side: Side, bytes: u32, more: bool },
    /// `send(MSG_OOB)` of so many bytes, the last of which is urgent.
    Urgent { conn: u8, side: Side, bytes: u16 },
    /// `recv` of up to so many bytes; with `peek`, MSG_PEEK.
    Receive { conn: u8, side: Side, bytes: u32, peek: bool },
    /// `recv(MSG_OOB)`.
    ReceiveUrgent { conn: u8, side: Side },
    /// `shutdown(SHUT_WR)`.
    HalfClose { conn: u8, side: Side },
    /// `close`.
    Close { conn: u8, side: Side },
    /// Time passes.
    Wait(Duration),
    /// Something goes wrong at an end.
    Fault { end: u8, fault: Fault },
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

/// Mostly small, sometimes more than a ring.
fn bytes() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1..200u32, 4 => 1_000..20_000u32, 1 => 20_000..200_000u32]
}

fn wait() -> impl Strategy<Value = Step> {
    let nanos = prop_oneof![
        6 => 0..50_000u64,
        3 => 0..5_000_000u64,
        1 => 0..8_000_000_000u64,
        1 => 0..700_000_000_000u64,
    ];
    nanos.prop_map(|nanos| Step::Wait(Duration::from_nanos(nanos)))
}

fn fault() -> impl Strategy<Value = Fault> {
    use Fault::{DeviceGone, Kill, LinkLost, NoMemory, NotReady, PortDown, PortUp, SignalsLost};
    prop_oneof![
        1 => Just(Kill),
        1 => Just(DeviceGone),
        2 => Just(PortDown),
        2 => Just(PortUp),
        2 => Just(LinkLost),
        2 => Just(NotReady),
        2 => Just(NoMemory),
        3 => Just(SignalsLost),
    ]
}

/// One step; with `faults`, one in fifteen is something that goes wrong.
fn step(faults: bool) -> impl Strategy<Value = Step> {
    let conn = || any::<u8>();
    prop_oneof![
        4 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Step::Connect { from, to }),
        20 => (conn(), side(), bytes(), prop::bool::weighted(0.1))
            .prop_map(|(conn, side, bytes, more)| Step::Send { conn, side, bytes, more }),
        3 => (conn(), side(), 1..600u16)
            .prop_map(|(conn, side, bytes)| Step::Urgent { conn, side, bytes }),
        20 => (conn(), side(), bytes(), prop::bool::weighted(0.1))
            .prop_map(|(conn, side, bytes, peek)| Step::Receive { conn, side, bytes, peek }),
        2 => (conn(), side()).prop_map(|(conn, side)| Step::ReceiveUrgent { conn, side }),
        3 => (conn(), side()).prop_map(|(conn, side)| Step::HalfClose { conn, side }),
        4 => (conn(), side()).prop_map(|(conn, side)| Step::Close { conn, side }),
        12 => wait(),
        if faults { 5 } else { 0 } => (any::<u8>(), fault())
            .prop_map(|(end, fault)| Step::Fault { end, fault }),
    ]
}

/// Scripts of up to `steps` steps.
pub fn scripts(steps: usize, faults: bool) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(faults), 1..=steps)
}

/// One step between two ends that have two links, with data under way whenever one is lost.
fn step_over_links() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![3 => Just(Fault::LinkLost), 2 => Just(Fault::PortDown)];
    let bytes = || prop_oneof![3 => 1..400u32, 1 => 1_000..9_000u32];
    prop_oneof![
        16 => (any::<u8>(), side(), bytes())
            .prop_map(|(conn, side, bytes)| Step::Send { conn, side, bytes, more: false }),
        8 => (any::<u8>(), side(), bytes())
            .prop_map(|(conn, side, bytes)| Step::Receive { conn, side, bytes, peek: false }),
        10 => (0..30_000u64).prop_map(|nanos| Step::Wait(Duration::from_nanos(nanos))),
        1 => (any::<u8>(), side()).prop_map(|(conn, side)| Step::HalfClose { conn, side }),
        2 => (any::<u8>(), fault).prop_map(|(end, fault)| Step::Fault { end, fault }),
        // Up again, and time for a new link.
        2 => any::<u8>().prop_map(|end| Step::Fault { end, fault: Fault::PortUp }),
        2 => Just(Step::Wait(Duration::from_millis(30))),
    ]
}

/// Scripts of up to `steps` steps in which links are lost under data, after some connections have
/// been made.
pub fn failovers(steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let connect = Step::Connect { from: 0, to: 0 };
    let begin = [connect, connect, Step::Wait(Duration::from_millis(50))];
    let rest = prop::collection::vec(step_over_links(), 1..=steps);
    rest.prop_map(move |rest| begin.into_iter().chain(rest).collect())
}
