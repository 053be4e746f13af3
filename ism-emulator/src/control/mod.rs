// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control queue: one table of commands.
//!
//! Invariant: every request is answered exactly once, at once or by [`Wish::Reply`], unless its
//! member is reset or gone before.

mod attach;
mod board;
mod hello;
mod peer;
mod register;
mod reply;
mod unregister;
mod vlan;

use std::time::Duration;

use ism_abi::{
    AttachReply, BoardPostReply, BoardPostRequest, ForgetPeerRequest, HelloReply, HelloRequest,
    Ping, QueryReply, QueryRequest, RegisterReply, RegisterRequest, ReplyHeader, RequestHeader,
    SignalEventRequest, StatsReply, TokenRequest, VlanRequest, command,
};

use crate::fabric::Fabric;
use crate::refusal::Refusal;
use crate::stats::count;
use crate::wish::{MemberId, Tag, Wish};

pub use reply::Reply;

/// A request on its way to its handler.
struct Call<'a> {
    id: MemberId,
    tag: Tag,
    /// As many bytes as the command's body has.
    body: &'a [u8],
    now: Duration,
}

/// What a handler says; `Ok(None)`: answered later, by tag.
type Answer = Result<Option<Reply>, Refusal>;

/// A command of the table.
struct Command {
    code: u16,
    /// Bytes of the request's body.
    body: usize,
    /// Bytes of the reply's body.
    reply: usize,
    /// Refused before HELLO.
    ready: bool,
    run: fn(&mut Fabric, &Call<'_>) -> Answer,
}

/// A command that any driver may send at any time: HELLO. PING is none, so that a driver whose
/// device was reset behind its back (a paused VM) learns of it.
const fn early(
    code: u16,
    body: usize,
    reply: usize,
    run: fn(&mut Fabric, &Call<'_>) -> Answer,
) -> Command {
    Command { code, body, reply, ready: false, run }
}

/// A command that HELLO comes before.
const fn after_hello(
    code: u16,
    body: usize,
    reply: usize,
    run: fn(&mut Fabric, &Call<'_>) -> Answer,
) -> Command {
    Command { code, body, reply, ready: true, run }
}

const COMMANDS: &[Command] = &[
    early(command::HELLO, HelloRequest::SIZE, HelloReply::SIZE, hello::hello),
    after_hello(command::PING, Ping::SIZE, Ping::SIZE, hello::ping),
    after_hello(command::STATS, 0, StatsReply::SIZE, hello::stats),
    after_hello(command::QUERY_RGID, QueryRequest::SIZE, QueryReply::SIZE, peer::query),
    after_hello(command::FORGET_PEER, ForgetPeerRequest::SIZE, 0, peer::forget),
    after_hello(command::REGISTER, RegisterRequest::SIZE, RegisterReply::SIZE, register::register),
    after_hello(command::UNREGISTER, TokenRequest::SIZE, 0, unregister::unregister),
    after_hello(command::ATTACH, TokenRequest::SIZE, AttachReply::SIZE, attach::attach),
    after_hello(command::DETACH, TokenRequest::SIZE, 0, attach::detach),
    after_hello(command::ADD_VLAN, VlanRequest::SIZE, 0, vlan::add),
    after_hello(command::DEL_VLAN, VlanRequest::SIZE, 0, vlan::del),
    after_hello(command::SIGNAL_EVENT, SignalEventRequest::SIZE, 0, peer::signal_event),
    after_hello(command::BOARD_POST, BoardPostRequest::SIZE, BoardPostReply::SIZE, board::post),
];

fn find(request: &[u8]) -> Option<&'static Command> {
    let code = RequestHeader::from_bytes(request)?.command;
    COMMANDS.iter().find(|c| c.code == code)
}

/// Bytes of the reply to a request, whatever its status: those that the buffer must have room for
/// before [`Fabric::control`] is called.
pub fn reply_len(request: &[u8]) -> usize {
    ReplyHeader::SIZE + find(request).map_or(0, |command| command.reply)
}

impl Fabric {
    /// Takes a control request, the whole device-readable part of the buffer. `None`: answered
    /// later by [`Wish::Reply`] with this tag; unless the member is reset, disconnected or removed
    /// before, which ends all its tags.
    pub fn control(
        &mut self,
        id: MemberId,
        tag: Tag,
        request: &[u8],
        now: Duration,
    ) -> Option<Reply> {
        match self.dispatch(id, tag, request, now) {
            Ok(reply) => reply,
            Err(refusal) => {
                if let Some(member) = self.members.get(&id) {
                    count(&member.counters.errors, 1);
                }
                Some(Reply::refused(refusal, reply_len(request)))
            }
        }
    }

    fn dispatch(&mut self, id: MemberId, tag: Tag, request: &[u8], now: Duration) -> Answer {
        let member = self.members.get_mut(&id).ok_or(Refusal::NotReady)?;
        if !member.control_rate.take(now) {
            return Err(Refusal::Busy);
        }
        let header = RequestHeader::from_bytes(request).ok_or(Refusal::Invalid)?;
        let command = find(request).ok_or(Refusal::Unsupported)?;
        if command.ready && !member.ready {
            return Err(Refusal::NotReady);
        }
        let body = request.get(RequestHeader::SIZE..).ok_or(Refusal::Invalid)?;
        if body.len() != command.body || header.reserved != [0; 6] {
            return Err(Refusal::Invalid);
        }
        (command.run)(self, &Call { id, tag, body, now })
    }

    /// Answers control buffers that waited.
    fn answer_later(&mut self, id: MemberId, tags: Vec<Tag>, reply: Reply) {
        let wish = |tag| Wish::Reply { member: id, tag, reply };
        self.wishes.extend(tags.into_iter().map(wish));
    }

    /// Refuses control buffers that waited; `body` is the reply body's length in bytes.
    fn refuse_later(&mut self, id: MemberId, tags: Vec<Tag>, refusal: Refusal, body: usize) {
        if let Some(member) = self.members.get(&id) {
            count(&member.counters.errors, u64::try_from(tags.len()).unwrap_or(u64::MAX));
        }
        self.answer_later(id, tags, Reply::refused(refusal, ReplyHeader::SIZE + body));
    }
}
