// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The close table, row by row, and all walks through it.

use std::collections::BTreeSet;

use smc_proto::Instant;
use smc_proto::conn::close::{Event, Facts, ROWS, State, Tell};
use smc_proto::conn::{Gone, How, LINGER};
use smc_wire::cdc::ConnectionState;

use crate::world::{A, Kind, World};

use State::{
    Active, AppCloseWait1, AppCloseWait2, AppFinCloseWait, Closed, Init, Listen, PeerAbortWait,
    PeerCloseWait1, PeerCloseWait2, PeerFinCloseWait, ProcessAbort,
};

// row 53
#[test]
fn the_table_is_the_kernels_but_for_what_its_documentation_says() {
    let none = Facts::default();
    let peer_closed = Facts { peer_closed: true, ..none };
    let only_done = Facts { sent_done: true, ..none };
    let released = Facts { released: true, sent_final: true, ..none };
    let shut = Facts { sent_final: true, ..none };
    let aborted = Facts { sent_final: true, sent_abort: true, ..none };
    use Event::{AbortSent, Close, PeerAborted, PeerClosed, PeerDone, ShutdownWrite, Terminate};
    use Tell::{Abort, Done, Final, FinalAfterDone, Nothing};
    let expected = [
        (Init, Close, none, Nothing, Closed),
        (Listen, Close, none, Nothing, Closed),
        (Active, Close, none, Final, PeerCloseWait1),
        (Active, ShutdownWrite, none, Done, PeerCloseWait1),
        (AppCloseWait1, ShutdownWrite, none, Done, AppCloseWait2),
        (AppCloseWait1, Close, none, Final, PeerFinCloseWait),
        (AppCloseWait1, Close, peer_closed, Final, Closed),
        (AppCloseWait2, Close, none, Final, PeerFinCloseWait),
        (AppCloseWait2, Close, peer_closed, Final, Closed),
        (PeerCloseWait1, Close, only_done, FinalAfterDone, PeerCloseWait1),
        (PeerCloseWait2, Close, only_done, FinalAfterDone, PeerCloseWait2),
        (PeerCloseWait2, Close, aborted, FinalAfterDone, Closed),
        (AppFinCloseWait, Close, none, FinalAfterDone, Closed),
        (ProcessAbort, Close, none, Abort, Closed),
        (PeerAbortWait, Close, none, Nothing, Closed),
        (Init, PeerDone, none, Nothing, AppCloseWait1),
        (Active, PeerDone, none, Nothing, AppCloseWait1),
        (Init, PeerClosed, none, Nothing, AppCloseWait1),
        (Active, PeerClosed, none, Nothing, AppCloseWait1),
        (PeerCloseWait1, PeerDone, none, Nothing, PeerCloseWait2),
        (PeerCloseWait1, PeerDone, aborted, Nothing, Closed),
        (PeerCloseWait1, PeerClosed, released, Nothing, Closed),
        (PeerCloseWait1, PeerClosed, shut, Nothing, AppFinCloseWait),
        (PeerCloseWait1, PeerClosed, only_done, Nothing, AppFinCloseWait),
        (PeerCloseWait2, PeerClosed, released, Nothing, Closed),
        (PeerCloseWait2, PeerClosed, shut, Nothing, AppFinCloseWait),
        (PeerFinCloseWait, PeerClosed, none, Nothing, Closed),
        (Init, PeerAborted, none, Nothing, ProcessAbort),
        (Active, PeerAborted, none, Nothing, ProcessAbort),
        (AppCloseWait1, PeerAborted, none, Nothing, ProcessAbort),
        (AppFinCloseWait, PeerAborted, none, Nothing, ProcessAbort),
        (PeerCloseWait1, PeerAborted, only_done, Nothing, ProcessAbort),
        (PeerCloseWait1, PeerAborted, shut, Nothing, Closed),
        (PeerCloseWait2, PeerAborted, only_done, Nothing, ProcessAbort),
        (PeerCloseWait2, PeerAborted, shut, Nothing, Closed),
        (AppCloseWait2, PeerAborted, none, Abort, Closed),
        (PeerFinCloseWait, PeerAborted, none, Nothing, Closed),
        (PeerAbortWait, PeerAborted, none, Nothing, Closed),
        (Active, Terminate, none, Abort, PeerAbortWait),
        (AppCloseWait1, Terminate, none, Abort, PeerAbortWait),
        (AppCloseWait2, Terminate, none, Abort, PeerAbortWait),
        (AppFinCloseWait, Terminate, none, Abort, PeerAbortWait),
        (PeerCloseWait1, Terminate, none, Abort, PeerAbortWait),
        (PeerCloseWait2, Terminate, none, Abort, PeerAbortWait),
        (PeerFinCloseWait, Terminate, none, Abort, PeerAbortWait),
        (ProcessAbort, Terminate, none, Abort, PeerAbortWait),
        (PeerAbortWait, AbortSent, none, Nothing, Closed),
    ];
    for (from, event, facts, tell, to) in expected {
        let row = from.row(event).unwrap();
        assert_eq!((row.tell, row.next.resolve(from, facts)), (tell, to), "{from:?} {event:?}");
    }
    // And there is no other.
    for from in State::ALL {
        for event in Event::ALL {
            let rows = ROWS.iter().filter(|row| row.event == event && row.from.contains(&from));
            let known = expected.iter().any(|&(f, e, ..)| (f, e) == (from, event));
            assert_eq!(rows.count(), usize::from(known), "{from:?} {event:?}");
        }
    }
}

/// What the application or the peer of A does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Close,
    ShutWr,
    ShutRdWr,
    PeerDone,
    PeerClosed,
    PeerAborted,
    Gone,
}

const ACTS: [Act; 7] = [
    Act::Close,
    Act::ShutWr,
    Act::ShutRdWr,
    Act::PeerDone,
    Act::PeerClosed,
    Act::PeerAborted,
    Act::Gone,
];

fn act(world: &mut World, act: Act) {
    let mut say = |state| {
        world.ends[A].area.state |= state;
        world.look(A);
    };
    match act {
        Act::PeerDone => say(ConnectionState::DONE_WRITING),
        Act::PeerClosed => say(ConnectionState::CLOSED),
        Act::PeerAborted => say(ConnectionState::ABORTED),
        Act::Close => world.close(A),
        Act::Gone => {
            world.conn(A).handle_gone(Gone::Group);
            world.run(A);
        }
        Act::ShutWr | Act::ShutRdWr => {
            let how = if act == Act::ShutWr { How::Write } else { How::Both };
            let _ = world.conn(A).shutdown(Instant(0), how, LINGER);
            world.run(A);
        }
    }
}

// row 53
#[test]
fn every_walk_through_the_states_ends_closed() {
    let mut seen = BTreeSet::new();
    let mut walks: Vec<Vec<Act>> = vec![vec![]];
    for _ in 0..5 {
        let longer = |walk: &Vec<Act>| {
            let walk = walk.clone();
            ACTS.into_iter().map(move |next| [&walk[..], &[next]].concat())
        };
        walks = walks.iter().flat_map(longer).collect();
    }
    for walk in walks {
        let mut world = World::new([Kind::Copied(64); 2], (64, 64));
        world.prompt = false;
        for &step in &walk {
            let before = world.conn(A).state();
            act(&mut world, step);
            seen.insert((before as u8, step));
        }
        let gone = walk.contains(&Act::Gone);
        let both = is_over(&walk);
        if gone || both {
            assert_eq!(world.conn(A).state(), Closed, "{walk:?}");
            assert!(world.ends[A].released, "{walk:?}");
        } else {
            assert!(!world.ends[A].released, "{walk:?}");
        }
        assert_eq!(world.ends[A].tcp_aborted, gone && !before_end(&walk), "{walk:?}");
    }
    // Each row was taken from each state that a connection stays in.
    for row in ROWS {
        for &from in row.from {
            let passing = [Init, Listen, PeerAbortWait].contains(&from);
            let taken =
                seen.iter().any(|&(state, act)| state == from as u8 && event(act) == row.event);
            assert!(taken || passing, "{from:?} {:?}", row.event);
        }
    }
}

fn event(act: Act) -> Event {
    match act {
        Act::Close | Act::ShutRdWr => Event::Close,
        Act::ShutWr => Event::ShutdownWrite,
        Act::PeerDone => Event::PeerDone,
        Act::PeerClosed => Event::PeerClosed,
        Act::PeerAborted => Event::PeerAborted,
        Act::Gone => Event::Terminate,
    }
}

/// Whether the connection was released before what it ran on was gone.
fn before_end(walk: &[Act]) -> bool {
    let at = walk.iter().position(|&act| act == Act::Gone).unwrap();
    is_over(&walk[..at])
}

/// Whether both ends have closed.
fn is_over(walk: &[Act]) -> bool {
    walk.contains(&Act::Close)
        && (walk.contains(&Act::PeerClosed) || walk.contains(&Act::PeerAborted))
}
