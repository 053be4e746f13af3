// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as programs use it: DMBs, signals, events and sleep, over any [`Port`].
//!
//! Invariant: a DMB, a granted place or a peer stays usable as long as somebody holds it, also after its
//! peer or the device is gone; what nobody holds any more is given back. Events are taken by one thread at a
//! time, so each is in the tables before the next is looked at; the tables' lock is never held while the
//! fabric is asked for something.

mod dmb;
mod peer;
mod tables;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use ism_abi::Gid;
use rustix::event::epoll;

use dmb::Grant;
pub use dmb::{Dmb, Remote};
use peer::{Forgotten, Peer};
use tables::Tables;

use crate::bell::{Bell, Taken};
use crate::board::{Post, Told};
use crate::error::{Error, Result};
use crate::own::Own;
use crate::port::{Identity, Port, PortEvent, Registered, Wanted};

/// What a device tells its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The own DMB with this index was written, or perhaps not: look at it.
    Signal {
        /// The index.
        index: u32,
    },
    /// A peer ended a DMB that this member might write.
    Unregistered {
        /// Its name.
        token: u64,
    },
    /// A peer is gone. Its DMBs are dead; what it wrote can still be read.
    PeerGone {
        /// The peer.
        gid: Gid,
    },
    /// A peer sent a software event.
    Software {
        /// The sender, as the fabric knows it.
        gid: Gid,
        /// dibs' `subtype`.
        code: u32,
        /// dibs' `data`.
        info: u64,
    },
    /// Somebody posted an entry on the board, and one of this member's ends or listeners is told.
    Board(Told),
}

/// An ISM device of this process. Cheap to clone; its member lives as long as a clone, or anything that
/// came out of one.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("identity", &self.0.identity).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    port: Box<dyn Port>,
    identity: Identity,
    /// Held by who takes the port's events.
    turn: Mutex<()>,
    tables: Mutex<Tables>,
    /// The port's descriptors and every bell.
    epoll: Own,
    /// Where peers go that are over and that nobody holds any more.
    forgotten: Arc<Forgotten>,
    gone: AtomicBool,
    /// This process is a child of the one that joined.
    in_child: AtomicBool,
}

/// The descriptor of the port in the epoll set; bells have their peer's address.
const PORT: u64 = 0;
/// Descriptors asked about in one look.
const READY: usize = 16;
/// Events of the port taken in one look: more than it has queued at a time, so those that are left make it readable.
const AT_ONCE: usize = 1024;

impl Device {
    /// The device behind `port`.
    ///
    /// # Errors
    /// No descriptors.
    pub fn new(port: Box<dyn Port>) -> Result<Self> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::io("epoll_create"))?;
        let epoll = Own::new(epoll);
        for fd in port.fds() {
            let data = epoll::EventData::new_u64(PORT);
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN).map_err(Error::io("epoll_ctl"))?;
        }
        let identity = port.identity();
        let (turn, tables, gone) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let forgotten = Arc::default();
        let in_child = AtomicBool::new(false);
        let inner = Inner { port, identity, turn, tables, epoll, forgotten, gone, in_child };
        Ok(Self(Arc::new(inner)))
    }

    /// This member's address.
    pub fn gid(&self) -> Gid {
        self.0.identity.gid
    }

    /// SMC's CHID.
    pub fn fabric_id(&self) -> u16 {
        self.0.identity.fabric_id
    }

    /// Bytes of the longest DMB, and how many there may be.
    pub fn limits(&self) -> Identity {
        self.0.identity
    }

    /// Whether memory can be shared with a member.
    ///
    /// # Errors
    /// It cannot: `UNREACHABLE`, or `WRONG_MODE` where the device copies; or the device is gone.
    pub fn query(&self, gid: Gid, vlan: Option<u16>) -> Result<()> {
        self.0.port.query(gid, vlan)
    }

    /// Makes a DMB of `len` zeroed bytes that `writer` alone may write. It knows of it when this returns.
    ///
    /// # Errors
    /// REGISTER's (spec/virtio-ism.md), or the device is gone. Ordinary: use TCP then.
    pub fn register(&self, writer: Gid, len: u32) -> Result<Dmb> {
        self.0.housekeep();
        let index = self.0.reserve_index()?;
        let wanted = Wanted { writer, index, len, vlan: None };
        let registered = self.0.port.register(&wanted);
        // Everything that happened before the reply is in the event queue by now, the end of an earlier
        // instance with the same peer included.
        let polled = self.0.take_port_events();
        let registered = registered.and_then(|it| polled.map(|()| it));
        let known = registered.and_then(|it| Ok((self.0.writer(writer, &it)?, it)));
        let mut tables = self.0.lock();
        tables.end_register();
        match known {
            Ok((peer, registered)) => {
                tables.own.insert(index, Some(Arc::clone(&peer)));
                drop(tables);
                Ok(Dmb::new(self.clone(), peer, index, registered))
            }
            Err(error) => {
                tables.release_index(index);
                Err(error)
            }
        }
    }

    /// A peer's DMB that this member may write, by its token. No request is made for it.
    ///
    /// # Errors
    /// It was not granted, or is dead.
    pub fn remote(&self, token: u64) -> Result<Remote> {
        let find = || self.0.lock().grants.get(&token).cloned();
        let grant = match find() {
            Some(grant) => Some(grant),
            None => {
                // The grant came before whoever told the token knew it (ISM-DRV-22).
                self.0.take_port_events()?;
                find()
            }
        };
        let grant = grant.ok_or(Error::NoToken(token))?;
        Ok(Remote::new(self.clone(), grant))
    }

    /// Sends a software event.
    ///
    /// # Errors
    /// `UNREACHABLE`, `BUSY`, or the device is gone.
    pub fn send_event(&self, gid: Gid, code: u32, info: u64) -> Result<()> {
        self.0.port.send_event(gid, code, info)
    }

    /// Posts an entry on the board; how many listen to a caller, else 0. Who is told of it has it in its
    /// event queue when this returns, so also this member.
    ///
    /// # Errors
    /// Ordinary, use TCP then: `UNSUPPORTED` if there is no board, `NO_SPACE` if it is full, `BUSY`. `IN_USE`,
    /// `INVALID` (spec/virtio-ism.md), or the device is gone.
    pub fn post(&self, post: &Post) -> Result<u32> {
        self.0.port.post(post)
    }

    /// Appends what happened. Costs no system call if nothing did. However much peers say meanwhile, it is bounded.
    ///
    /// # Errors
    /// The device is gone: nothing else will happen. What was there before was appended.
    pub fn poll(&self, events: &mut Vec<Event>) -> Result<()> {
        let taken = self.0.take_port_events();
        {
            let mut tables = self.0.lock();
            events.extend(tables.events.drain(..));
            tables.take_signals(events);
        }
        self.0.housekeep();
        taken
    }

    /// Appends what peers have signalled in memory, and nothing else. Never waits for a thread that is in
    /// [`Device::poll`]; of several threads each has a part.
    pub fn poll_signals(&self, events: &mut Vec<Event>) {
        self.0.lock().take_signals(events);
    }

    /// Whether there is something for [`Device::poll`] besides that.
    pub fn has_events(&self) -> bool {
        // Arming it once more changes nothing.
        !matches!(self.0.port.arm(), Ok(true))
            || self.0.is_taking()
            || !self.0.lock().events.is_empty()
    }

    /// Before sleep: from now on [`Device::fd`] becomes readable when something happens. False: something
    /// has, so [`Device::poll`] instead.
    ///
    /// # Errors
    /// The device is gone.
    pub fn arm(&self) -> Result<bool> {
        // In this order: what was in the port is there, in a thread's hand, or in the tables.
        let port_quiet = self.0.port.arm();
        let taking = self.0.is_taking();
        let quiet = {
            let tables = self.0.lock();
            // No short cut: each peer must find its word armed.
            tables.peers.values().fold(tables.events.is_empty(), |quiet, peer| peer.arm() & quiet)
        };
        Ok(port_quiet? && !taking && quiet)
    }

    /// After sleep, when [`Device::fd`] was readable: makes it unreadable. Then [`Device::poll`].
    pub fn woken(&self) {
        if self.0.is_rung_by_the_one() {
            return;
        }
        let mut ready = [const { std::mem::MaybeUninit::uninit() }; READY];
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok((ready, _)) = epoll::wait(&self.0.epoll, &mut ready[..], Some(&zero)) else {
            return;
        };
        for event in ready {
            match event.data.u64() {
                PORT => self.0.port.drain(),
                id => self.0.drain_bell(id),
            }
        }
    }

    /// Peers need not ring until the next [`Device::arm`]: this process looks by itself. Unless somebody `sleeps`,
    /// which is asked when nobody can arm: who says so before arming is not silenced.
    pub fn silence(&self, sleeps: impl FnOnce() -> bool) {
        let tables = self.0.lock();
        if !sleeps() {
            tables.peers.values().for_each(|peer| peer.silence());
        }
    }

    /// Readable when something happened since [`Device::arm`]; for poll, select and epoll, in which it can be
    /// registered like any other descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.epoll.as_fd()
    }

    /// The device is gone: every operation fails.
    pub fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }

    /// Numbers of what is held here, for tests and statistics: own DMBs, grants, peers.
    pub fn counts(&self) -> (usize, usize, usize) {
        let tables = self.0.lock();
        (tables.own.len(), tables.grants.len(), tables.peers.len())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Changed by single calls, so a panic elsewhere leaves the tables whole.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a thread may have an event of the port in its hand.
    fn is_taking(&self) -> bool {
        matches!(self.turn.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// The lowest free index, in use from now on.
    fn reserve_index(&self) -> Result<u32> {
        let mut tables = self.lock();
        let index = match tables.free.pop_first() {
            Some(index) => index,
            None if tables.next_index < self.identity.max_dmbs => {
                tables.next_index += 1;
                tables.next_index - 1
            }
            None => return Err(Error::NoIndex(self.identity.max_dmbs)),
        };
        tables.own.insert(index, None);
        tables.registering += 1;
        Ok(index)
    }

    /// The writer of a DMB that was just registered; it may have ended since.
    fn writer(&self, gid: Gid, registered: &Registered) -> Result<Arc<Peer>> {
        let peer = self.peer_of(gid, Some(registered.instance));
        peer.set_inbox(&registered.page)?;
        self.listen(&peer);
        Ok(peer)
    }

    /// The peer of the living instance with `gid`, or of the one that has just ended. One that is known by another
    /// instance is replaced.
    fn peer_of(&self, gid: Gid, instance: Option<u64>) -> Arc<Peer> {
        let mut tables = self.lock();
        let is_it = |peer: &&Arc<Peer>| peer.gid() == gid && peer.is_of(instance);
        if let Some(peer) = tables.peers.get(&gid).filter(is_it) {
            return Arc::clone(peer);
        }
        let ended = tables.ended.iter().filter(|_| instance.is_some()).find(is_it);
        if let Some(peer) = ended {
            return Arc::clone(peer);
        }
        let peer = self.new_peer(gid, instance);
        tables.peers.insert(gid, Arc::clone(&peer));
        peer
    }

    fn new_peer(&self, gid: Gid, instance: Option<u64>) -> Arc<Peer> {
        Arc::new(Peer::new(gid, gid == self.identity.gid, instance, &self.forgotten))
    }

    /// Takes what the port has to say. Signals of the pages are not its.
    fn take_port_events(&self) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..AT_ONCE {
            match self.port.poll() {
                Ok(Some(event)) => self.take(event)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    if matches!(error, Error::Gone) {
                        self.gone.store(true, Ordering::Relaxed);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn take(&self, event: PortEvent) -> Result<()> {
        match event {
            PortEvent::Signals { base, mask } => {
                let mut tables = self.lock();
                let bits = (0..u64::BITS).filter(|bit| mask & (1 << bit) != 0);
                for index in bits.filter_map(|bit| base.checked_add(bit)) {
                    // An index that was unregistered meanwhile is nobody's (ISM-DRV-21).
                    if tables.own.contains_key(&index) {
                        tables.events.push_back(Event::Signal { index });
                    }
                }
            }
            PortEvent::Granted { owner, token, index, memory, page } => {
                let peer = self.peer_of(owner, None);
                peer.set_outbox(&page)?;
                self.listen(&peer);
                let grant = Arc::new(Grant::new(token, index, memory, peer));
                self.lock().grants.insert(token, grant);
            }
            PortEvent::Unregistered { token } => {
                let mut tables = self.lock();
                if let Some(grant) = tables.grants.remove(&token) {
                    grant.end();
                    tables.events.push_back(Event::Unregistered { token });
                }
            }
            PortEvent::PeerGone { gid, instance } => self.peer_gone(gid, instance),
            PortEvent::Board(told) => self.lock().events.push_back(Event::Board(told)),
            PortEvent::Software { gid, code, info } => {
                self.lock().events.push_back(Event::Software { gid, code, info });
            }
        }
        Ok(())
    }

    fn peer_gone(&self, gid: Gid, instance: u64) {
        let ended = {
            let mut tables = self.lock();
            tables.events.push_back(Event::PeerGone { gid });
            let is_it = |peer: &&Arc<Peer>| peer.is_of(Some(instance));
            let known = match tables.peers.get(&gid).filter(is_it) {
                Some(_) => tables.peers.remove(&gid),
                None => None,
            };
            let ended = known.unwrap_or_else(|| self.new_peer(gid, Some(instance)));
            ended.end(instance);
            // Its grants are the dead; a later instance's have another peer.
            tables.grants.retain(|_, grant| {
                let lives = !Arc::ptr_eq(grant.peer(), &ended);
                if !lives {
                    grant.end();
                }
                lives
            });
            if tables.registering > 0 {
                tables.ended.push(Arc::clone(&ended));
            }
            ended
        };
        self.ignore(&ended);
    }

    /// Tells the fabric of the instances that nobody holds any more.
    fn housekeep(&self) {
        for (gid, instance) in self.forgotten.take() {
            // A failure leaves window space in use until this member goes.
            let _ = self.port.forget(gid, instance);
        }
    }

    /// Hears a peer's bell from now on, if it has one.
    fn listen(&self, peer: &Arc<Peer>) {
        if peer.is_over() {
            return;
        }
        // Without a bell the fabric rings.
        peer.open_bell(
            || self.port.bell(peer.gid()),
            |bell| {
                let data = epoll::EventData::new_u64(peer.id());
                epoll::add(&self.epoll, bell, data, epoll::EventFlags::IN).is_ok()
            },
        );
        if peer.is_over() {
            // It has ended meanwhile, perhaps before it had a bell.
            self.ignore(peer);
        }
    }

    fn ignore(&self, peer: &Peer) {
        if let Some(bell) = peer.bell() {
            bell.close();
            let _ = epoll::delete(&self.epoll, bell.fd());
        }
    }

    /// The usual case, one peer that rang, without asking epoll who it was. What else is readable stays so.
    fn is_rung_by_the_one(&self) -> bool {
        let tables = self.lock();
        let mut peers = tables.peers.values();
        match (peers.next(), peers.next()) {
            (Some(peer), None) => peer.bell().is_some_and(|bell| bell.take() == Taken::Ring),
            _ => false,
        }
    }

    fn drain_bell(&self, id: u64) {
        let peer = self.lock().peers.values().find(|peer| peer.id() == id).cloned();
        if let Some(peer) = peer
            && peer.bell().is_some_and(|bell| bell.take() == Taken::Closed)
        {
            // The peer's process has gone; the fabric will say so.
            self.ignore(&peer);
        }
    }

    /// An own DMB's user is done with it.
    fn unregister(&self, token: u64, index: u32) {
        // What fails here fails with the device, and then nothing is left to give back.
        let _ = self.port.unregister(token);
        self.lock().release_index(index);
    }

    /// Rings for a granted DMB.
    fn ring(&self, peer: &Peer, token: u64) -> Result<()> {
        if self.in_child.load(Ordering::Relaxed) {
            // A peer that does not hear has ended, and its TCP connection says so.
            let _ = peer.bell().is_some_and(Bell::ring_unheard);
            return Ok(());
        }
        if peer.bell().is_some_and(|bell| bell.ring()) {
            return Ok(());
        }
        self.port.ring(token)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use crate::loopback::Loopback;

    #[test]
    fn nobody_sleeps_while_another_thread_has_an_event_in_its_hand() {
        let device = Loopback::new(0xFF01).unwrap().join([1; 16]).unwrap();
        let taking = device.0.turn.lock().unwrap();
        assert!(!device.arm().unwrap() && device.has_events());
        drop(taking);
        assert!(device.arm().unwrap() && !device.has_events());
    }
}
