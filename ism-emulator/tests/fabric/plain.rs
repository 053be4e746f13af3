// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each command, event and status on the way it is meant to go, and one step beside it.
//!
//! Invariant tested: the specification's text, one test a rule.

use crate::world::{World, body, config, event_body, gid, kind, register, status};
use ism_abi::{
    DmbGranted, RegisterReply, SignalRequest, TokenRequest, command, event, status as s,
};
use ism_emulator::Mode;

#[test]
fn register_grants_then_answers() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let request = register(gid(2), 7, 64 << 10, Mode::Mapped).to_bytes();
    let reply = w.call(a, command::REGISTER, &request).unwrap();
    assert_eq!(status(&reply), s::OK);
    let mine = RegisterReply::from_bytes(body(&reply)).unwrap();
    let events = w.take_events(b);
    assert_eq!(kind(&events[0]), event::DMB_GRANTED);
    let theirs = DmbGranted::from_bytes(event_body(&events[0])).unwrap();
    assert_eq!(
        (theirs.token, theirs.index, theirs.gid),
        (mine.token, 7, gid(1))
    );
    // The same request again: the same answer.
    assert_eq!(w.call(a, command::REGISTER, &request).unwrap(), reply);
    let signal = SignalRequest { token: mine.token }.to_bytes();
    assert_eq!(w.fabric.signal(b, &signal, w.now), Ok(Some(a)));
    let signals = w.fabric.signals(a).unwrap();
    assert_eq!(
        signals.take().map(|batch| (batch.base, batch.mask)),
        Some((0, 1 << 7))
    );
    let token = TokenRequest { token: mine.token }.to_bytes();
    assert_eq!(
        status(&w.call(a, command::UNREGISTER, &token).unwrap()),
        s::OK
    );
    assert_eq!(kind(&w.take_events(b)[0]), event::DMB_UNREGISTERED);
    assert_eq!(w.zeroed.len(), 1);
}
