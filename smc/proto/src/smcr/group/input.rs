// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens outside: answers to wishes, messages, ports, time.
//!
//! Invariant: an answer for what is no more, and a message of anyone for what is not yet, change
//! nothing.

use smc_wire::cdc::{self, Smcr};
use smc_wire::llc::{Body, Message};

use super::super::buffer::Mr;
use super::super::flow::Flow;
use super::super::link::{Change, LinkId, LinkIds, WorkId};
use super::super::qp::{Port, QueuePair};
use super::super::rkey::Request;
use super::super::rtoken::Rtoken;
use super::super::step::Event;
use super::super::wish::Wish;
use super::super::{SEND_WAIT, failover};
use super::{LinkGroup, Phase, Received};
use crate::Instant;
use crate::id::{BufferId, DeviceId};

/// What a receive buffer holds at most (`SMC_WR_BUF_V2_SIZE`).
const MAX_RECEIVED: usize = 8192;

impl LinkGroup {
    /// [`Wish::CreateQp`] was carried out; `None` if it failed.
    pub fn handle_qp_created(&mut self, now: Instant, link: LinkId, qp: Option<QueuePair>) {
        let Some(qp) = qp else { return self.handle_qp_failed(now, link) };
        let Some(entry) = self.core.link_mut(link) else { return };
        if !entry.change(Change::Created) {
            return;
        }
        entry.qp = Some(qp);
        if matches!(self.phase, Phase::Preparing) {
            self.core.register_all(link);
        }
        self.feed(now, &Event::Created(link));
        self.settle(now);
    }

    /// A queue pair could not be created, or not be made ready to receive or send.
    pub fn handle_qp_failed(&mut self, now: Instant, link: LinkId) {
        self.lose(now, link, Event::Failed(link));
    }

    /// [`Wish::RegisterMr`] was carried out; `None` if it failed.
    pub fn handle_mr_registered(
        &mut self,
        now: Instant,
        link: LinkId,
        buffer: BufferId,
        rtoken: Option<Rtoken>,
    ) {
        let Some(slot) = self.core.slot(link) else { return };
        let Some(entry) = self.core.buffers.get_mut(buffer) else { return };
        if entry.mr(slot) != Mr::Pending {
            return;
        }
        entry.set_mr(slot, rtoken.map_or(Mr::Failed, |rtoken| Mr::Ready(rtoken.into())));
        self.feed(now, &Event::Registered(link));
        self.settle(now);
    }

    /// A send that [`Wish::PostSend`] asked for has completed, well or not.
    pub fn handle_sent(&mut self, now: Instant, link: LinkId, work: WorkId, ok: bool) {
        if let Phase::Ending(ending) = &mut self.phase
            && !ending.sent(&mut self.core, now, link, work, ok)
        {
            return self.finish_end();
        }
        if ok {
            self.core.sent(now, link, work);
        } else {
            self.handle_link_failed(now, link);
        }
    }

    /// A link's queue pair failed: any work request completed with an error, or it reported a fatal
    /// event (`smc_wr_tx_process_cqe`, `smc_wr_rx_process_cqes`, `smc_ib_qp_event_handler`).
    pub fn handle_link_failed(&mut self, now: Instant, link: LinkId) {
        self.lose(now, link, Event::Down(link));
    }

    /// [`Wish::Drain`] was carried out.
    pub fn handle_drained(&mut self, now: Instant, link: LinkId) {
        self.feed(now, &Event::Drained(link));
        self.settle(now);
    }

    /// A port of ours that this group may use (same PNET id, namespace and, in version 2, a route) is
    /// up, or changed its addresses (`smcr_port_add`).
    pub fn handle_port_up(&mut self, now: Instant, port: Port) {
        self.core.add_port(port);
        self.core.want_link |= self.core.active().is_some();
        self.settle(now);
    }

    /// A port of ours is down or gone (`smcr_port_err`).
    pub fn handle_port_down(&mut self, now: Instant, device: DeviceId) {
        self.core.ports.retain(|port| port.device != device);
        for link in failover::links_of(&self.core, device) {
            self.lose(now, link, Event::Down(link));
        }
    }

    /// A message came over a link. Anything may be in it.
    ///
    /// CDC counts as long as the queue pair exists: its sender has got, or will get, the completion,
    /// and will not send it again on another link.
    pub fn handle_recv(&mut self, now: Instant, link: LinkId, bytes: &[u8]) -> Received {
        let (is_open, longest) = (self.is_open(), bytes.len().min(MAX_RECEIVED));
        let bytes = bytes.get(..longest).unwrap_or_default();
        let Some(entry) = self.core.link_mut(link).filter(|_| is_open) else {
            return Received::Dropped;
        };
        entry.test.traffic(now);
        if bytes.first() == Some(&cdc::TYPE) {
            return Smcr::parse(bytes).map_or(Received::Dropped, Received::Cdc);
        }
        let is_usable = entry.is_usable();
        match Message::parse(bytes) {
            Ok(Message { body: Body::Unknown(_), .. }) => Received::Dropped,
            Ok(message) if is_usable && message.version == self.core.version => {
                self.message(now, link, &message, bytes);
                self.settle(now);
                Received::Control
            }
            _ => Received::Dropped,
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if let Phase::Ending(ending) = &self.phase {
            return Some(ending.deadline);
        }
        let flow = self.flow.as_ref().map(Flow::deadline);
        let requests = self.requests.iter().map(Request::deadline);
        let links = self.core.links().flat_map(|link| {
            [link.test.deadline(), link.outbox.full_since().map(|since| since.after(SEND_WAIT))]
        });
        flow.into_iter().chain(requests).chain(links.flatten()).min()
    }

    /// The time is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Ending(ending) = &mut self.phase {
            if ending.deadline <= now && !ending.failed(&mut self.core, now, None) {
                self.finish_end();
            }
            return;
        }
        if self.flow.as_ref().is_some_and(|flow| flow.deadline() <= now) {
            self.feed(now, &Event::Deadline);
        }
        self.expire_requests(now);
        let links: LinkIds = self.core.links().map(|link| link.id).collect();
        links.into_iter().for_each(|link| self.check_link(now, link));
        self.settle(now);
    }

    /// The next thing to do; see [`Wish`].
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.core.poll_wish()
    }
}
