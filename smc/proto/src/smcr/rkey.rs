// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CONFIRM RKEY and DELETE RKEY: each side tells the other of its RMBs, one at a time.
//!
//! Invariant: each command for a buffer is answered once; the peer's keys are taken for links that
//! exist only, all of a message's or none (RFC 7609, 3.5.5, A.3.5 and A.3.7).

use arrayvec::ArrayVec;
use smc_wire::llc::{Body, ConfirmRkey, DeleteRkey, LinkRtoken};

use super::buffer::{Buffer, Kind, Mr, Usage};
use super::core::Core;
use super::link::{LinkId, LinkIds, SLOTS, Slot};
use super::rtoken::Rtoken;
use super::step::{Event, Progress};
use super::wish::{BufferError, Wish};
use super::{FLOW_WAIT, REGISTER_WAIT, WAIT};
use crate::Instant;
use crate::id::BufferId;

/// An RMB of which the peer shall be told, as soon as no other flow is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) buffer: BufferId,
    /// Over which link, if that is active.
    pub(super) carrier: Option<LinkId>,
    pub(super) since: Instant,
}

impl Request {
    /// When it is given up.
    pub(super) fn deadline(&self) -> Instant {
        self.since.after(FLOW_WAIT)
    }
}

/// Our side's flow for one RMB.
#[derive(Debug)]
pub(super) struct Rkey {
    buffer: BufferId,
    /// Over which link the peer shall be told, if that is active.
    wanted: Option<LinkId>,
    stage: Stage,
    pub(super) deadline: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Memory regions on active links are missing.
    Registering,
    /// CONFIRM RKEY went over this link.
    Confirming(LinkId),
    /// DELETE RKEY went over this link.
    Deleting(LinkId),
}

impl Rkey {
    /// Begins what the buffer waits for; `None` if it is over already.
    pub(super) fn start(core: &mut Core, now: Instant, request: Request) -> Option<Self> {
        let Request { buffer, carrier: wanted, .. } = request;
        let (stage, deadline) = (Stage::Registering, now.after(REGISTER_WAIT));
        let mut flow = Self { buffer, wanted, stage, deadline };
        let progress = match core.buffers.get(buffer)?.usage {
            Usage::Leaving => flow.delete(core, now),
            _ => {
                let active: LinkIds = active(core).collect();
                active.into_iter().for_each(|link| core.register(link, buffer));
                flow.confirm(core, now)
            }
        };
        (progress == Progress::Waiting).then_some(flow)
    }

    pub(super) fn step(&mut self, core: &mut Core, now: Instant, event: &Event) -> Progress {
        match (self.stage, event) {
            (Stage::Registering, Event::Registered(_) | Event::Down(_) | Event::Failed(_)) => {
                self.confirm(core, now)
            }
            (Stage::Registering, Event::Deadline) => self.shared(core, Err(BufferError::Register)),
            (Stage::Confirming(_), Event::Deadline) => self.shared(core, Err(BufferError::Timeout)),
            (Stage::Deleting(_), Event::Deadline) => self.deleted(core, false),
            (Stage::Confirming(carrier), &(Event::Down(link) | Event::Failed(link)))
                if link == carrier =>
            {
                self.shared(core, Err(BufferError::Gone))
            }
            (Stage::Deleting(carrier), &(Event::Down(link) | Event::Failed(link)))
                if link == carrier =>
            {
                self.deleted(core, false)
            }
            (Stage::Confirming(carrier), &Event::Message { link, response: true, body }) => {
                match body {
                    Body::ConfirmRkey(answer) if link == carrier && self.is_ours(core, answer) => {
                        let refused = answer.negative.then_some(BufferError::Refused);
                        self.shared(core, refused.map_or(Ok(()), Err))
                    }
                    _ => Progress::Ignored,
                }
            }
            (Stage::Deleting(carrier), &Event::Message { link, response: true, body }) => {
                match body {
                    Body::DeleteRkey(answer) if link == carrier => {
                        let is_ours = core.link(carrier).is_some_and(|link| link.deletes == 0);
                        self.deleted(core, is_ours && !answer.negative)
                    }
                    _ => Progress::Ignored,
                }
            }
            _ => Progress::Ignored,
        }
    }

    /// Asks as soon as each active link has its memory region (`smc_llc_send_confirm_rkey`).
    fn confirm(&mut self, core: &mut Core, now: Instant) -> Progress {
        let Some(buffer) = core.buffers.get(self.buffer) else { return Progress::Done };
        let wanted = self.wanted.and_then(|link| core.link(link));
        let wanted = wanted.filter(|link| link.is_active()).map(|link| link.id);
        let Some(carrier) = wanted.or(core.active()) else {
            return self.shared(core, Err(BufferError::Gone));
        };
        let mrs = || core.links().filter(|link| link.is_active()).map(|l| (l, buffer.mr(l.slot)));
        if mrs().any(|(_, mr)| mr == Mr::Failed) {
            return self.shared(core, Err(BufferError::Register));
        }
        if mrs().any(|(_, mr)| !matches!(mr, Mr::Ready(_))) {
            return Progress::Waiting;
        }
        let rtoken = |link| core.slot(link).and_then(|slot| buffer.rtoken(slot));
        let Some(this_link) = rtoken(carrier) else {
            return self.shared(core, Err(BufferError::Register));
        };
        let others = core.links().filter(|link| link.is_active() && link.id != carrier);
        let others = others.filter_map(|link| {
            Some(LinkRtoken { link: link.number, rtoken: buffer.rtoken(link.slot)? })
        });
        let request = ConfirmRkey::request(this_link, others);
        self.stage = Stage::Confirming(carrier);
        self.deadline = now.after(WAIT);
        match core.send(now, carrier, false, Body::ConfirmRkey(request)) {
            Some(_) => Progress::Waiting,
            None => self.shared(core, Err(BufferError::Gone)),
        }
    }

    /// Whether an answer is to our request and not to an earlier one.
    fn is_ours(&self, core: &Core, answer: &ConfirmRkey) -> bool {
        let Stage::Confirming(carrier) = self.stage else { return false };
        let slot = core.slot(carrier);
        let ours = slot.and_then(|slot| core.buffers.get(self.buffer)?.rtoken(slot));
        ours == Some(answer.this_link)
    }

    fn shared(&self, core: &mut Core, result: Result<(), BufferError>) -> Progress {
        finish_enter(core, self.buffer, result);
        Progress::Done
    }

    /// Asks for the deletion (`smc_llc_do_delete_rkey`).
    fn delete(&mut self, core: &mut Core, now: Instant) -> Progress {
        let buffer = core.buffers.get(self.buffer);
        let carrier = core.links().find(|link| link.is_sendable()).map(|link| (link.id, link.slot));
        let found = buffer
            .zip(carrier)
            .and_then(|(buffer, (carrier, slot))| Some((carrier, buffer.rtoken(slot)?.rkey)));
        let Some((carrier, rkey)) = found else { return self.deleted(core, false) };
        self.stage = Stage::Deleting(carrier);
        self.deadline = now.after(WAIT);
        match core.send(now, carrier, false, Body::DeleteRkey(DeleteRkey::request(&[rkey]))) {
            Some(_) => {
                if let Some(link) = core.link_mut(carrier) {
                    link.deletes = link.deletes.saturating_add(1);
                }
                Progress::Waiting
            }
            None => self.deleted(core, false),
        }
    }

    fn deleted(&self, core: &mut Core, confirmed: bool) -> Progress {
        finish_leave(core, self.buffer, confirmed);
        Progress::Done
    }
}

/// The active links.
fn active(core: &Core) -> impl Iterator<Item = LinkId> {
    core.links().filter(|link| link.is_active()).map(|link| link.id)
}

/// Answers `share_rmb` or `register_sndbuf`; a buffer that failed leaves the group.
pub(super) fn finish_enter(core: &mut Core, buffer: BufferId, result: Result<(), BufferError>) {
    let Some(entry) = core.buffers.get_mut(buffer) else { return };
    entry.usage = Usage::InUse;
    entry.implicit = false;
    if result.is_err() {
        core.forget_buffer(buffer);
    }
    core.wish(Wish::BufferReady { buffer, result });
}

/// Answers `unshare_rmb`. If the peer did not confirm, the old keys are made invalid here.
pub(super) fn finish_leave(core: &mut Core, buffer: BufferId, confirmed: bool) {
    let Some(entry) = core.buffers.get_mut(buffer) else { return };
    entry.usage = Usage::Idle;
    if !confirmed {
        core.forget_buffer(buffer);
    }
    core.wish(Wish::BufferFree { buffer });
}

/// Buffers that need no word to the peer are ready when each active link has them: send buffers, and
/// the RMB of the first contact.
pub(super) fn settle_silent(core: &mut Core) {
    while let Some((buffer, result)) = next_silent(core) {
        finish_enter(core, buffer, result);
    }
}

fn next_silent(core: &Core) -> Option<(BufferId, Result<(), BufferError>)> {
    let is_silent = |buffer: &&Buffer| buffer.kind == Kind::Sndbuf || buffer.implicit;
    let entering = core.buffers.iter().filter(|buffer| buffer.usage == Usage::Entering);
    entering.filter(is_silent).find_map(|buffer| Some((buffer.id, registered(core, buffer)?)))
}

/// Whether each link has a buffer's memory region, or one cannot; `None` while that is open.
fn registered(core: &Core, buffer: &Buffer) -> Option<Result<(), BufferError>> {
    let links = core.links().filter(|link| link.is_usable() && link.qp.is_some());
    let mut mrs = links.map(|link| buffer.mr(link.slot)).peekable();
    mrs.peek()?;
    let mut all = Some(Ok(()));
    for mr in mrs {
        match mr {
            Mr::Failed => return Some(Err(BufferError::Register)),
            Mr::None | Mr::Pending => all = None,
            Mr::Ready(_) => {}
        }
    }
    all
}

/// An answer to DELETE RKEY came, perhaps to one that was given up.
///
/// In version 2 it does not say which key it is about. A link keeps the order, so that it is to our last
/// request if no other answer is to come; if one is, the key's deletion is not proven. (Linux takes the
/// first answer for that of its last request, and goes on using keys that the peer may still hold.)
pub(super) fn peer_deleted(core: &mut Core, link: LinkId) {
    if let Some(link) = core.link_mut(link) {
        link.deletes = link.deletes.saturating_sub(1);
    }
}

/// The peer has a new RMB (`smc_llc_rmt_conf_rkey`).
///
/// Refused, with nothing taken, if it names a link that this side does not have: Linux passes over
/// it, and takes the number 0 for an unused slot (`smc_core.c:2653`).
pub(super) fn peer_confirms(core: &mut Core, now: Instant, link: LinkId, request: &ConfirmRkey) {
    let taken = take(core, link, request).is_some();
    let answer = ConfirmRkey { negative: !taken, retry: !taken, ..*request };
    core.send(now, link, true, Body::ConfirmRkey(answer));
}

fn take(core: &mut Core, link: LinkId, request: &ConfirmRkey) -> Option<()> {
    let mut others = ArrayVec::<(Slot, Rtoken), SLOTS>::new();
    for other in request.others().ok()? {
        let known = core.numbered(other.link).filter(|known| known.id != link)?;
        others.try_push((known.slot, other.rtoken)).ok()?;
    }
    let index = core.rtokens.add(core.slot(link)?, request.this_link)?;
    for (slot, rtoken) in others {
        core.rtokens.set(index, slot, rtoken);
    }
    Some(())
}

/// RMBs of the peer are no more (`smc_llc_rmt_delete_rkey`).
pub(super) fn peer_deletes(core: &mut Core, now: Instant, link: LinkId, request: &DeleteRkey) {
    let Some(slot) = core.slot(link) else { return };
    let version = core.version;
    let answer = request.answer(version, |rkey| !core.rtokens.delete(slot, rkey));
    core.send(now, link, true, Body::DeleteRkey(answer));
}
