// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Fabrics of two or three members, and the usual expectations.
//!
//! Invariant: every wait has a deadline.

use std::time::{Duration, Instant};

use ism_abi::{DmbGranted, Gid, PeerGone, Signals, mode};
use ism_frontend::commands::Dmb;
use ism_frontend::memory::SharedBytes;
use ism_frontend::{Daemon, Driver, Event, Fabric, Options, PATIENCE};

/// Both modes of the wire.
pub const MODES: [u8; 2] = [mode::MAPPED, mode::COPIED];

/// The longest that one test may use its daemon.
const LIMIT: Duration = Duration::from_secs(120);

/// A usual DMB: Linux's default.
pub const DMB: u32 = 64 << 10;

/// A deadline that only a broken daemon misses.
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Name of a mode in the daemon's configuration.
pub fn mode_name(mode: u8) -> &'static str {
    if mode == mode::COPIED { "copied" } else { "mapped" }
}

/// A fabric in which every pair has this mode.
pub fn fabric(mode: u8) -> Fabric {
    Fabric::new().set(&format!("mode = {:?}", mode_name(mode)))
}

/// A daemon with VMs of these names in one group.
pub fn daemon(mode: u8, names: &[&str]) -> Daemon {
    let with = names.iter().fold(fabric(mode), |fabric, name| fabric.vm(name, &["all"]));
    start(&with)
}

/// Starts a daemon that no test can wait for endlessly.
pub fn start(fabric: &Fabric) -> Daemon {
    let mut daemon = fabric.start().expect("daemon");
    daemon.limit(LIMIT).expect("watchdog");
    daemon
}

/// A daemon, and a driver after HELLO for each of two VMs of one group.
pub fn pair(mode: u8) -> (Daemon, Driver, Driver) {
    let daemon = daemon(mode, &["a", "b"]);
    let (a, b) = (join(&daemon, "a"), join(&daemon, "b"));
    (daemon, a, b)
}

/// A VM's driver after HELLO.
pub fn join(daemon: &Daemon, name: &str) -> Driver {
    daemon.join(name, Options::default()).expect("a member joins")
}

/// A driver's GID.
pub fn gid(driver: &Driver) -> Gid {
    driver.config().gid
}

/// The next event, which must be a grant.
pub fn granted(driver: &mut Driver) -> DmbGranted {
    match driver.next_event(soon()) {
        Ok(Event::Granted(grant)) => grant,
        other => panic!("a grant was expected, not {other:?}"),
    }
}

/// The next event, which must be signals.
pub fn signalled(driver: &mut Driver) -> Signals {
    match driver.next_event(soon()) {
        Ok(Event::Signals(signals)) => signals,
        other => panic!("signals were expected, not {other:?}"),
    }
}

/// The next event, which must say that a peer is gone.
pub fn gone(driver: &mut Driver) -> PeerGone {
    match driver.next_event(soon()) {
        Ok(Event::PeerGone(gone)) => gone,
        other => panic!("the end of a peer was expected, not {other:?}"),
    }
}

/// Asserts that no event is waiting: PING comes back after all that the daemon had to say before.
pub fn no_event(driver: &mut Driver) {
    driver.ping(1).expect("ping");
    let event = driver.poll_event().expect("event queue");
    assert!(event.is_none(), "an event nobody expects: {event:?}");
}

/// Asserts that the device refused with this status.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: ism_frontend::Result<T>, status: u32) {
    match result {
        Err(error) if error.status() == Some(status) => {}
        other => panic!("status {status} was expected, not {other:?}"),
    }
}

/// Registers a DMB at `owner` for `writer`, and takes the grant.
pub fn grant(
    owner: &mut Driver,
    writer: &mut Driver,
    index: u32,
    len: u32,
    mode: u8,
) -> (Dmb, DmbGranted) {
    let dmb = owner.register(gid(writer), index, len, mode).expect("register");
    let grant = granted(writer);
    assert_eq!(grant.token, dmb.token());
    (dmb, grant)
}

/// Writes to a granted DMB, by whichever way its mode has, and signals the owner.
pub fn write(writer: &mut Driver, grant: &DmbGranted, offset: u32, bytes: &[u8]) {
    if grant.mode == mode::COPIED {
        writer.move_to(grant.token, offset, bytes, true).expect("move");
    } else {
        let place = writer.granted_bytes(grant).expect("the granted DMB is mapped");
        place.write(offset.into(), bytes).expect("in bounds");
        writer.signal(grant.token).expect("signal");
    }
}

/// Asserts that the bytes are all zero.
#[track_caller]
pub fn all_zero(bytes: &SharedBytes) {
    let copy = bytes.to_vec().expect("readable");
    let first = copy.iter().position(|byte| *byte != 0);
    assert_eq!(first, None, "a byte of {} is not zero", copy.len());
}

/// Looks until `condition` holds; for states of the host that tell nobody when they change.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1)); // The pace of looking, not a wait.
    }
}
