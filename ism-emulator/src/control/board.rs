// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! BOARD_POST, and what a member that goes leaves on the board.
//!
//! Invariant: an entry is in its readers' event queues before its post is answered.

use ism_abi::{BoardEntry, BoardPostReply, BoardPostRequest, board, event};

use super::{Answer, Call, Reply};
use crate::board::{Posted, Poster, Presence};
use crate::events::Kind;
use crate::fabric::Fabric;
use crate::refusal::Refusal;
use crate::wish::MemberId;

/// Events that may wait for a member that posts, for each presence of its quota: a list of eight ends, and some.
const EVENTS_PER_PRESENCE: usize = 32;

pub(super) fn post(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let request = BoardPostRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    let member = fabric.members.get(&call.id).ok_or(Refusal::NotReady)?;
    if member.abilities.is_none_or(|abilities| !abilities.board) {
        return Err(Refusal::Unsupported);
    }
    // What it posts it is told as well: who takes no events gets no more of them by posting.
    if member.events.waiting() > EVENTS_PER_PRESENCE * member.config.quota.board as usize {
        return Err(Refusal::Busy);
    }
    let posted = fabric.post_on_board(call.id, &request)?;
    let body = BoardPostReply { listeners: posted, reserved: 0 };
    Ok(Some(Reply::ok(&body.to_bytes())))
}

impl Fabric {
    /// Posts, and tells who is to know; how many listeners a caller has.
    fn post_on_board(&mut self, id: MemberId, request: &BoardPostRequest) -> Result<u32, Refusal> {
        let member = self.members.get(&id).ok_or(Refusal::NotReady)?;
        let (gid, circle, quota) = (member.gid(), member.circle, member.config.quota.board);
        let poster = Poster { member: id, gid, circle, quota };
        let Posted { listeners, told, withdrawn } = self.board.post(&poster, request)?;
        // Who has not heard that a caller came need not hear that it has left.
        let mut withdraw = |((to, _), event): &(Presence, u64)| {
            self.members.get_mut(to).is_some_and(|member| member.events.withdraw(*event))
        };
        let unheard: Vec<_> = withdrawn.into_iter().filter(|it| withdraw(it)).collect();
        for (to, entry) in told {
            if !unheard.iter().any(|(reader, _)| *reader == (to, entry.reader)) {
                self.tell_entry(&poster, request, to, &entry);
            }
        }
        Ok(listeners)
    }

    fn tell_entry(
        &mut self,
        poster: &Poster,
        request: &BoardPostRequest,
        to: MemberId,
        entry: &BoardEntry,
    ) {
        let event = self.push_event(to, Kind::Plain, event::BOARD_ENTRY, &entry.to_bytes());
        if entry.kind == board::CALL {
            // A listener that is told of those before it is not the poster of their entries.
            let caller = self.gids.get(&entry.gid).copied().unwrap_or(poster.member);
            let (caller, reader) = ((caller, entry.id), (to, entry.reader));
            self.board.keep_event((poster.circle, request.key), caller, reader, event);
        }
    }

    /// A member is gone, and leaves everywhere.
    pub(crate) fn leave_board(&mut self, id: MemberId) {
        for request in self.board.of(id) {
            // It is there, so it can leave.
            let _ = self.post_on_board(id, &request);
        }
    }
}
