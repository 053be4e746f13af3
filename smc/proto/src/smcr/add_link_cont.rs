// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ADD LINK CONTINUATION: the keys of ADD LINK in version 1, two in a message, server and client in
//! turn until both have told all.
//!
//! Invariant: ends after at most [`Exchange::MAX_ROUNDS`] messages of the peer, whatever it claims
//! (RFC 7609, A.3.3; `smc_llc_srv_rkey_exchange`, `smc_llc_cli_rkey_exchange`).

use smc_wire::llc::{AddLinkCont, Body, RkeyUpdate};

use super::add_link::{our_keys, take_key};
use super::core::{Core, Role};
use super::link::LinkId;
use crate::Instant;

/// One side of the exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    carrier: LinkId,
    new: LinkId,
    ours: Vec<RkeyUpdate>,
    /// How many of `ours` were told.
    told: usize,
    rounds: usize,
}

/// How an exchange stands after a message of the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The peer has to say more.
    More,
    /// Both have told all.
    Done,
    /// Messages cannot be sent, or the peer does not come to an end.
    Broken,
}

impl Exchange {
    /// As many as 255 keys need.
    const MAX_ROUNDS: usize = 128;

    /// Begins; the server sends first.
    pub(super) fn start(
        core: &mut Core,
        now: Instant,
        carrier: LinkId,
        new: LinkId,
    ) -> Option<Self> {
        let ours = our_keys(core, carrier, new);
        let mut exchange = Self { carrier, new, ours, told: 0, rounds: 0 };
        if core.role == Role::Server && !exchange.tell(core, now) {
            return None;
        }
        Some(exchange)
    }

    /// Takes the peer's message and goes on.
    pub(super) fn take(&mut self, core: &mut Core, now: Instant, message: &AddLinkCont) -> Turn {
        self.rounds += 1;
        if self.rounds > Self::MAX_ROUNDS {
            return Turn::Broken;
        }
        for update in message.updates() {
            take_key(core, self.carrier, self.new, update);
        }
        let server_done = core.role == Role::Server && self.is_told() && message.left() == 0;
        if server_done {
            return Turn::Done;
        }
        if !self.tell(core, now) {
            return Turn::Broken;
        }
        let client_done = core.role == Role::Client && self.is_told() && message.left() == 0;
        if client_done { Turn::Done } else { Turn::More }
    }

    fn is_told(&self) -> bool {
        self.told >= self.ours.len()
    }

    /// Sends the next two keys, or the news that there is none.
    fn tell(&mut self, core: &mut Core, now: Instant) -> bool {
        let Some(number) = core.link(self.new).map(|link| link.number) else { return false };
        let rest = self.ours.get(self.told..).unwrap_or_default();
        let message = AddLinkCont::next(number, rest.iter().copied());
        self.told = self.ours.len().min(self.told + AddLinkCont::MAX);
        let answer = core.role == Role::Client;
        core.send(now, self.carrier, answer, Body::AddLinkCont(message)).is_some()
    }
}
