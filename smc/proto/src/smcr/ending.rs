// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A link group's end: connections are killed, the peer is told by DELETE LINK ALL, all is destroyed.
//!
//! Invariant: over at the latest 2 s per link after it began (`__smc_lgr_terminate`,
//! `smc_llc_send_link_delete_all`).

use smc_wire::llc::{Body, DeleteLink, DeleteReason, DeleteTarget};

use super::WAIT;
use super::buffer::Usage;
use super::core::Core;
use super::link::{LinkId, LinkIds, WorkId};
use super::rkey::{finish_enter, finish_leave};
use super::wish::{BufferError, Wish};
use crate::Instant;

/// A group that ends.
#[derive(Debug)]
pub(super) struct Ending {
    message: DeleteLink,
    /// Links over which the peer was not told yet, the next one last.
    links: LinkIds,
    sent: Option<(LinkId, WorkId)>,
    pub(super) deadline: Instant,
}

impl Ending {
    /// Begins; `None` if nobody can be told.
    pub(super) fn start(
        core: &mut Core,
        now: Instant,
        orderly: bool,
        reason: DeleteReason,
    ) -> Option<Self> {
        core.kill_members();
        let buffers: Vec<_> = core.buffers.iter().map(|b| (b.id, b.usage)).collect();
        for (buffer, usage) in buffers {
            match usage {
                Usage::Entering => finish_enter(core, buffer, Err(BufferError::Gone)),
                Usage::Leaving => finish_leave(core, buffer, false),
                Usage::Idle | Usage::InUse => {}
            }
        }
        let mut links: LinkIds =
            core.links().filter(|link| link.is_sendable()).map(|link| link.id).collect();
        links.reverse();
        let message = DeleteLink { target: DeleteTarget::All, orderly, reason };
        let mut ending = Self { message, links, sent: None, deadline: now };
        ending.tell(core, now).then_some(ending)
    }

    /// Why the group ends.
    pub(super) fn reason(&self) -> DeleteReason {
        self.message.reason
    }

    /// Tells the peer over the next link; whether there was one.
    fn tell(&mut self, core: &mut Core, now: Instant) -> bool {
        while let Some(link) = self.links.pop() {
            if let Some(work) = core.send(now, link, false, Body::DeleteLink(self.message)) {
                self.sent = Some((link, work));
                self.deadline = now.after(WAIT);
                return true;
            }
        }
        false
    }

    /// A send ended; whether there is more to be waited for.
    pub(super) fn sent(
        &mut self,
        core: &mut Core,
        now: Instant,
        link: LinkId,
        work: WorkId,
        ok: bool,
    ) -> bool {
        if self.sent != Some((link, work)) {
            return true;
        }
        !ok && self.tell(core, now)
    }

    /// A link failed, or the deadline passed (`None`); whether there is more to be waited for.
    pub(super) fn failed(&mut self, core: &mut Core, now: Instant, link: Option<LinkId>) -> bool {
        let is_over = link.is_none_or(|link| self.sent.is_some_and(|(over, _)| over == link));
        !is_over || self.tell(core, now)
    }
}

/// Destroys what is left.
pub(super) fn finish(core: &mut Core, reason: DeleteReason) {
    let links: LinkIds = core.links().map(|link| link.id).collect();
    links.into_iter().for_each(|link| core.clear_link(link));
    core.wish(Wish::GroupGone { reason });
}
