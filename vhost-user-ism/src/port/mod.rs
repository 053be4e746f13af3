// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VM's port on the fabric: its vhost-user device.
//!
//! Invariant: a [`Port`] lives as long as its VM is configured, a [`Link`] as long as one
//! front-end is connected; other VMs' threads reach a VM only through these two.

pub mod backend;
pub mod events;
pub mod exit;
pub mod front;
#[cfg(test)]
mod hostile;

pub mod poll;
pub mod queues;
mod quota_log;
pub mod serve;
pub mod vring;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use ism_abi::layout::QUEUE_CONTROL;
use ism_emulator::{MemberId, Reply, SignalSet, Tag};
use virtio_queue::QueueT;

use crate::config::Name;
use crate::mapper::{Job, Mapper, Threads};
use crate::memory::GuestMemory;
use queues::{Chain, give_back};
use quota_log::QuotaLog;
use vring::{Vring, lock};

/// Buffers of each virtqueue.
const QUEUE_SIZE: usize = 1024;

/// A VM on the fabric.
pub struct Port {
    id: MemberId,
    name: Name,
    title: String,
    signals: Arc<SignalSet>,
    link: RwLock<Option<Arc<Link>>>,
    /// The fabric has events for this VM, or there was no buffer for one.
    events_waiting: AtomicBool,
    quota_log: QuotaLog,
    mappers: Threads,
    kind: Kind,
}

/// What is behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A VM.
    Vm,
    /// A process of this host, which can be woken by its peers without the daemon.
    Process,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vm => "VM",
            Self::Process => "process",
        })
    }
}

/// One front-end's connection.
#[derive(Default)]
pub struct Link {
    vrings: OnceLock<Vec<Vring>>,
    memory: RwLock<Option<Arc<GuestMemory>>>,
    mapper: Mutex<Option<Mapper>>,
    /// Control buffers without an answer, by tag.
    waiting: Mutex<HashMap<u64, Chain>>,
    next_tag: AtomicU64,
}

impl Port {
    /// The port of the member `id`.
    pub fn new(id: MemberId, name: Name, signals: Arc<SignalSet>, kind: Kind) -> Self {
        Self {
            id,
            title: format!("{kind} {name}"),
            name,
            signals,
            link: RwLock::new(None),
            events_waiting: AtomicBool::new(false),
            quota_log: QuotaLog::default(),
            mappers: Threads::default(),
            kind,
        }
    }

    /// The member's id.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The member's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What it is and its name, as lines of the log begin.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What is behind it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The front-end's connection, if one is there.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the front-end's connection.
    pub fn set_link(&self, link: Option<Arc<Link>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Hands a job to the front-end's mapping thread; false if there is none.
    pub fn send_job(&self, job: Job) -> bool {
        let Some(link) = self.link() else { return false };
        lock(&link.mapper).as_ref().is_some_and(|mapper| mapper.send(job))
    }

    /// Answers a control buffer. One that a reset has taken back is not answered.
    pub fn reply(&self, tag: Tag, reply: &Reply) {
        self.quota_log.see(&self.title, reply);
        if let Some(link) = self.link() {
            link.reply(tag, reply);
        }
    }
}

impl Link {
    /// The ring with this number, once the front-end has started one.
    pub fn vring(&self, queue: u16) -> Option<&Vring> {
        self.vrings.get()?.get(usize::from(queue))
    }

    /// The guest's memory as it was checked last.
    pub fn memory(&self) -> Option<Arc<GuestMemory>> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the guest's memory; who uses the old one keeps it mapped until done.
    pub fn set_memory(&self, memory: Option<Arc<GuestMemory>>) {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    /// Keeps a control buffer until its answer comes. `None`: as many as the queue has buffers
    /// wait already, so the driver has made one of them available again without waiting for it.
    fn keep_waiting(&self, chain: Chain) -> Option<Tag> {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= QUEUE_SIZE {
            return None;
        }
        let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
        waiting.insert(tag, chain);
        Some(Tag(tag))
    }

    fn reply(&self, tag: Tag, reply: &Reply) {
        let (Some(vring), Some(memory)) = (self.vring(QUEUE_CONTROL), self.memory()) else {
            return;
        };
        let call = vring.with_queue(|queue| {
            // Looked up with the queue held: what was forgotten when the ring stopped cannot get
            // into the ring that runs after it.
            let Some(chain) = lock(&self.waiting).remove(&tag.0) else { return false };
            // A buffer that cannot be written is given back empty: its driver made it so.
            let written = chain.write_reply(&memory, reply.as_bytes()).unwrap_or(0);
            give_back(queue, &memory, chain.head(), written)
                && queue.needs_notification(&*memory).unwrap_or(true)
        });
        if call == Some(true) {
            vring.call();
        }
    }

    /// The rings are stopped: control buffers are the driver's again.
    fn forget_waiting(&self) {
        lock(&self.waiting).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_buffers_wait_than_the_queue_has() {
        let link = Link::default();
        let keep = || link.keep_waiting(Chain::default());
        let kept: Vec<Tag> = std::iter::from_fn(keep).take(2 * QUEUE_SIZE).collect();
        assert_eq!(kept.len(), QUEUE_SIZE);
        link.forget_waiting();
        assert!(keep().is_some());
    }
}
