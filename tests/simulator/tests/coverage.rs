// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the random scripts reach, so that they cannot stop reaching it unseen.
//!
//! Invariant: the scripts are those of `smc-simulator --seed 1`, run after run the same.

use proptest::strategy::ValueTree;
use smc_simulator::coverage::{Coverage, Kind};
use smc_simulator::runs::{Selection, case};

const RUNS: u64 = 1200;

/// Every way from one state to another that two ends can take; the table has more rows, which need
/// a state that only a socket has (a listener, a handshake).
const TRANSITIONS: [&str; 17] = [
    "Active -> AppCloseWait1",
    "Active -> Closed",
    "Active -> PeerCloseWait1",
    "Active -> ProcessAbort",
    "AppCloseWait1 -> AppCloseWait2",
    "AppCloseWait1 -> Closed",
    "AppCloseWait1 -> PeerFinCloseWait",
    "AppCloseWait1 -> ProcessAbort",
    "AppCloseWait2 -> Closed",
    "AppCloseWait2 -> PeerFinCloseWait",
    "AppFinCloseWait -> Closed",
    "PeerCloseWait1 -> AppFinCloseWait",
    "PeerCloseWait1 -> Closed",
    "PeerCloseWait1 -> PeerCloseWait2",
    "PeerCloseWait2 -> Closed",
    "PeerFinCloseWait -> Closed",
    "ProcessAbort -> Closed",
];

const MESSAGES: [&str; 25] = [
    "CLC: proposal",
    "CLC: accept",
    "CLC: confirm",
    "CDC before the end of the handshake",
    "LLC: CONFIRM LINK",
    "LLC: CONFIRM LINK v2, answer",
    "LLC: ADD LINK",
    "LLC: ADD LINK v2",
    "LLC: ADD LINK v2, answer",
    "LLC: ADD LINK CONTINUATION",
    "LLC: ADD LINK CONTINUATION, answer",
    "LLC: DELETE LINK",
    "LLC: DELETE LINK v2",
    "LLC: CONFIRM RKEY",
    "LLC: CONFIRM RKEY v2, answer",
    "LLC: DELETE RKEY",
    "LLC: DELETE RKEY v2, answer",
    "LLC: TEST LINK",
    "LLC: TEST LINK v2, answer",
    "event: shutdown",
    "CDC: failover validation / none",
    "CDC: urgent present / none",
    "CDC: write blocked / none",
    "CDC: none / done writing",
    "CLC: decline, no common SMC-R device (0x03030002)",
];

const ENDINGS: [&str; 11] = [
    "established: SMC-D copied, V2, first contact",
    "established: SMC-D copied, V2, later",
    "established: SMC-D mapped, V2, first contact",
    "established: SMC-D mapped, V2, later",
    "established: SMC-R, V1, first contact",
    "established: SMC-R, V1, later",
    "established: SMC-R, V2, first contact",
    "established: SMC-R, V2, later",
    "moved to another link",
    "a link was lost that nobody may notice",
    "Answer taken out of the data",
];

fn missing(coverage: &Coverage, kind: Kind, names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| coverage.count(kind, name) == 0).collect()
}

#[test]
fn states_messages_and_endings_are_reached() {
    let mut coverage = Coverage::default();
    for run in 0..RUNS {
        let case = case(&Selection::default(), run).expect("a script");
        case.current().play(&mut coverage, false).expect("a run as TCP would have it");
    }
    let missing = [
        missing(&coverage, Kind::Transition, &TRANSITIONS),
        missing(&coverage, Kind::Message, &MESSAGES),
        missing(&coverage, Kind::Ending, &ENDINGS),
    ];
    assert!(missing.iter().all(Vec::is_empty), "not reached: {missing:?}\n{coverage}");
}
