// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An established connection with its memory: the protocol's machine, our DMB, the peer's.
//!
//! Invariant: every wish of the machine is carried out before the lock is given back, except what
//! concerns others than the two DMBs; that is left in [`Effects`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ism_client::Remote;
use smc_proto::conn::{Connection, Gone, How, Ready, Wish};
use smc_proto::endpoint::Established;
use smc_proto::smcd::dmb::PeerElement;
use smc_proto::stats::Technology;
use smc_ring::area::AreaView;
use smc_ring::{Area, OutOfBounds, Ring, View};
use smc_wire::cdc::{ConnectionState, ProducerFlags, Smcd};

use crate::spin::{Look, Spin};
use crate::tally::Tally;
use crate::wakeup::Wakeup;

/// An established connection.
#[derive(Debug)]
pub(crate) struct Channel {
    inner: Mutex<Inner>,
    /// Ours, to be looked at without the lock.
    area: Area<AreaView>,
    pub(crate) spin: Spin,
    /// What the handshake settled.
    pub(crate) established: Established,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) conn: Connection,
    /// Ours, which the peer writes.
    area: Area<AreaView>,
    pub(crate) ring: Ring,
    /// The peer's, which we write; until the release.
    pub(crate) far: Option<Far>,
    /// The halves of our area that the machine has been told.
    seen: (u64, u64),
    /// The peer is dead: its area says nothing any more.
    peer_dead: bool,
    /// Our area says that we look by ourselves.
    watched: bool,
    /// It is in somebody's epoll set, so it is never watched.
    pub(crate) polled: bool,
    /// Threads that sleep until something happens here.
    sleepers: Vec<Arc<Wakeup>>,
    /// Directions that the machine has shut down in TCP.
    tcp_shut: (bool, bool),
    /// SO_RCVLOWAT, at least 1.
    pub(crate) low_water: u32,
    effects: Effects,
    pub(crate) tally: Tally,
}

/// The peer's DMB.
#[derive(Debug)]
pub(crate) struct Far {
    area: Area<AreaView>,
    pub(crate) ring: Ring,
    remote: Arc<Remote>,
}

/// What has to be done without the lock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Effects {
    /// Events for who waits.
    pub(crate) news: Ready,
    pub(crate) shut_tcp: bool,
    pub(crate) reset_tcp: bool,
    /// Nobody touches the rings any more.
    pub(crate) release: bool,
}

impl Channel {
    /// The connection, over our DMB's memory and the peer's DMB, if it is still there.
    ///
    /// # Errors
    /// The memory is not what the handshake said.
    pub(crate) fn new(
        established: Established,
        peer: PeerElement,
        own: &View,
        remote: Option<Arc<Remote>>,
        spin: Duration,
    ) -> Result<Self, OutOfBounds> {
        let size = established.receive.size.bytes() as usize;
        let own = own.part(0, size)?;
        let peer_size = peer.ring_len() as usize + Smcd::LEN;
        let far = |remote: Arc<Remote>| {
            let theirs = remote.memory().part(peer.cdc_offset() as usize, peer_size)?;
            Ok(Far { area: Area::of(&theirs)?, ring: Ring::of(&theirs)?, remote })
        };
        let area = Area::of(&own)?;
        let inner = Inner {
            conn: Connection::new(&established.params),
            area: area.clone(),
            ring: Ring::of(&own)?,
            far: remote.map(far).transpose()?,
            seen: (0, 0),
            peer_dead: false,
            watched: false,
            polled: false,
            sleepers: Vec::new(),
            tcp_shut: (false, false),
            low_water: 1,
            effects: Effects::default(),
            tally: Tally::default(),
        };
        Ok(Self { inner: Mutex::new(inner), area, spin: Spin::new(spin), established })
    }

    /// Runs `act` with the connection. Its effects are the caller's to carry out.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> (R, Effects) {
        let mut inner = self.lock();
        let result = act(&mut inner);
        let effects = std::mem::take(&mut inner.effects);
        if !effects.news.is_empty() {
            inner.sleepers.iter().for_each(|sleeper| sleeper.wake());
        }
        (result, effects)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look for Channel {
    #[inline]
    fn has_changed(&self, seen: (u64, u64)) -> bool {
        self.area.read() != seen
    }
}

impl Inner {
    /// Tells the machine what our area says now.
    #[inline]
    pub(crate) fn look(&mut self) {
        if self.peer_dead {
            return;
        }
        let halves = self.area.read();
        if halves != self.seen {
            self.seen = halves;
            self.conn.handle_cdc_smcd(halves.0, halves.1);
            self.pump();
        }
    }

    /// Carries out what the machine wishes.
    #[inline]
    pub(crate) fn pump(&mut self) {
        while let Some(wish) = self.conn.poll_wish() {
            match wish {
                Wish::PublishSmcd(area) => self.publish(&area),
                Wish::Wake(news) => self.effects.news |= news,
                Wish::FetchUrgent { at } => self.fetch_urgent(at),
                Wish::ShutdownTcp(how) => self.shut_tcp(how),
                Wish::AbortTcp => self.effects.reset_tcp = true,
                Wish::Release => {
                    self.far = None;
                    self.effects.release = true;
                }
                // A mapped sender copies nothing, and there is no SMC-R here.
                Wish::Write(_) | Wish::PublishSmcr(..) => {}
            }
        }
    }

    #[inline]
    fn publish(&mut self, area: &Smcd) {
        let Some(far) = &self.far else { return };
        let (prod, cons) = area.to_halves();
        if far.area.publish(prod, cons) && far.remote.signal().is_err() {
            self.conn.handle_gone(Gone::Unreachable);
        }
    }

    #[cold]
    fn fetch_urgent(&mut self, at: u32) {
        let mut byte = [0];
        // The machine names a place in the ring.
        let _ = self.ring.read(at as usize, &mut byte);
        self.conn.handle_urgent_byte(byte[0]);
    }

    /// TCP is shut down when both directions are over and not before: its FIN is how the peer's end of
    /// a process is seen, and CDC says the rest.
    #[cold]
    fn shut_tcp(&mut self, how: How) {
        self.tcp_shut.0 |= how != How::Write;
        self.tcp_shut.1 |= how != How::Read;
        self.effects.shut_tcp |= self.tcp_shut == (true, true);
    }

    /// Runs a command of the machine and its wishes.
    pub(crate) fn command<R>(&mut self, act: impl FnOnce(&mut Connection) -> R) -> R {
        let result = act(&mut self.conn);
        self.pump();
        result
    }

    /// What the application can do without waiting, SO_RCVLOWAT counted in.
    pub(crate) fn readiness(&self) -> Ready {
        let ready = self.conn.readiness();
        let few = self.conn.unread() < self.low_water;
        if !few || self.conn.is_read_shut() || self.conn.error().is_some() {
            return ready;
        }
        let others =
            [Ready::WRITABLE, Ready::URGENT, Ready::ERROR, Ready::HANG_UP, Ready::READ_CLOSED];
        let others = others.into_iter().filter(|it| ready.contains(*it));
        others.fold(Ready::NOTHING, |all, it| all | it)
    }

    /// The peer's process has ended, its TCP connection says. As TCP has it: what it had sent can be read
    /// to its end, unless it died with bytes unread, or reset the connection.
    #[cold]
    pub(crate) fn peer_died(&mut self, reset: bool) {
        self.look();
        let info = self.conn.info();
        if self.peer_dead || self.peer_is_over() {
            return;
        }
        self.peer_dead = true;
        let unread = self.conn.peer_free() < info.peer_ring;
        let end = if reset || unread { ConnectionState::ABORTED } else { ConnectionState::CLOSED };
        let last = Smcd {
            prod: info.rx_prod,
            cons: info.rx_cons,
            flags: ProducerFlags::EMPTY,
            state: info.rx_state | end,
        };
        let (prod, cons) = last.to_halves();
        self.command(|conn| conn.handle_cdc_smcd(prod, cons));
    }

    /// What was counted so far.
    #[cold]
    pub(crate) fn counted(&mut self) -> Technology {
        self.tally.sum(&mut self.conn).clone()
    }

    /// Whether one side did not close in order, so that the DMBs must not be used again.
    pub(crate) fn is_broken(&self) -> bool {
        let info = self.conn.info();
        let aborted = info.rx_state | info.tx_state;
        self.peer_dead || aborted.contains(ConnectionState::ABORTED)
    }

    /// Whether the peer has closed or aborted, or it was said for it.
    pub(crate) fn peer_is_over(&self) -> bool {
        let over = ConnectionState::CLOSED | ConnectionState::ABORTED;
        self.conn.info().rx_state.intersects(over)
    }

    /// Whether the peer has said that it sends no more.
    pub(crate) fn peer_is_done(&self) -> bool {
        !self.conn.info().rx_state.is_empty()
    }

    /// From now on nobody needs to signal: a thread looks by itself. What it compares with.
    pub(crate) fn watch(&mut self) -> (u64, u64) {
        if !self.watched && !self.polled && self.sleepers.is_empty() {
            self.area.watch();
            self.watched = true;
        }
        self.seen
    }

    /// From now on every change is signalled, but those that were made before: look.
    pub(crate) fn unwatch(&mut self) {
        if self.watched {
            self.watched = false;
            self.area.unwatch();
        }
        self.look();
    }

    /// A thread is going to sleep until something happens here.
    pub(crate) fn add_sleeper(&mut self, sleeper: &Arc<Wakeup>) {
        self.sleepers.push(Arc::clone(sleeper));
        self.unwatch();
    }

    /// It sleeps no more.
    pub(crate) fn remove_sleeper(&mut self, sleeper: &Arc<Wakeup>) {
        let at = self.sleepers.iter().position(|it| Arc::ptr_eq(it, sleeper));
        if let Some(at) = at {
            self.sleepers.swap_remove(at);
        }
    }
}
