// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An established connection with its memory: the protocol's machine, our DMB, the peer's.
//!
//! Invariant: every wish of the machine is carried out before the lock is given back, except what
//! concerns others than the two DMBs; that is left in [`Effects`].
#![expect(unsafe_code, reason = "the state's lock believes the family who has ended")]

mod hold;

use std::sync::Arc;
use std::time::Duration;

use ism_client::Remote;
use smc_proto::conn::{Connection, Gone, How, Ready, Wish};
use smc_proto::endpoint::Established;
use smc_proto::smcd::dmb::PeerElement;
use smc_proto::stats::Technology;
use smc_ring::area::AreaView;
use smc_ring::{Area, Kept, Notice, OutOfBounds, Ring, View};
use smc_wire::cdc::{ConnectionState, ProducerFlags, Smcd};

use crate::clock;
use crate::family::{Family, Member};
use crate::pace::Pace;
use crate::seat::Seat;
use crate::spin::{Look, Spin};
use crate::state::{Common, State};
use crate::tally::Tally;
use crate::wakeup::Wakeup;

/// An established connection.
#[derive(Debug)]
pub(crate) struct Channel {
    kept: Kept<State, Local>,
    /// Where the state is.
    seat: Seat,
    /// Ours, which the peer writes; it is looked at without the lock.
    pub(crate) area: Area<AreaView>,
    pub(crate) ring: Ring,
    /// The peer was gone when it was established.
    is_orphan: bool,
    pub(crate) spin: Spin,
    /// What the handshake settled.
    pub(crate) established: Established,
}

/// What the lock protects, as who has it sees it.
#[derive(Debug)]
pub(crate) struct Inner<'a> {
    pub(crate) conn: &'a mut Connection,
    pub(crate) common: &'a mut Common,
    pub(crate) local: &'a mut Local,
    pub(crate) channel: &'a Channel,
}

/// This process's part.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// It is in somebody's epoll set, so it is never watched.
    pub(crate) polled: bool,
    /// Threads that sleep until something happens here.
    pub(crate) sleepers: Vec<Arc<Wakeup>>,
    /// A thread that sleeps on our area itself.
    pub(crate) dozes: bool,
    /// The peer has shown that it knows how to wake such a one.
    pub(crate) peer_wakes: bool,
    /// The events that this process has heard of.
    events: u32,
    /// In place of the state, when that is not to be looked at.
    apart: Option<Box<State>>,
    /// This process was told of the release.
    released: bool,
    effects: Effects,
    pub(crate) tally: Tally,
    pub(crate) pace: Pace,
    /// The peer's DMB, which we write; until the release.
    far: Option<Far>,
}

/// The peer's DMB.
#[derive(Debug, Clone)]
pub(crate) struct Far {
    pub(crate) area: Area<AreaView>,
    pub(crate) ring: Ring,
    remote: Arc<Remote>,
}

/// A connection that a child is going to have. Made before the fork, under the connection's lock, so that nothing
/// is half changed in the child's copy.
#[derive(Debug)]
pub(crate) struct Share {
    kept: Kept<State, Local>,
    place: (u32, smc_ring::Place<State>),
    area: Area<AreaView>,
    ring: Ring,
    established: Established,
    spin: Duration,
}

/// What has to be done without the lock.
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "what follows from an act is not the connection's own to do"]
pub(crate) struct Effects {
    /// Events for who waits.
    pub(crate) news: Ready,
    pub(crate) shut_tcp: bool,
    pub(crate) reset_tcp: bool,
    /// Nobody touches the rings any more.
    pub(crate) release: bool,
    /// The events were found here first.
    pub(crate) fresh: bool,
    /// A killed process had left the state half changed: other processes do not know of the end yet.
    pub(crate) anew: bool,
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
        seat: Seat,
        spin: Duration,
    ) -> Result<Self, OutOfBounds> {
        let size = established.receive.size.bytes() as usize;
        let own = own.part(0, size)?;
        let peer_size = peer.ring_len() as usize + Smcd::LEN;
        let far = |remote: Arc<Remote>| {
            let theirs = remote.memory().part(peer.cdc_offset() as usize, peer_size)?;
            Ok(Far { area: Area::of(&theirs)?, ring: Ring::of(&theirs)?, remote })
        };
        let (area, ring) = (Area::of(&own)?, Ring::of(&own)?);
        let far = remote.map(far).transpose()?;
        let state = State::new(&established.params);
        let is_orphan = far.is_none();
        let local = Local { far, ..Local::default() };
        let (place, owner) = (seat.place.clone(), seat.member().owner());
        let family = Arc::clone(seat.family());
        // SAFETY: the family gives a place to one connection at a time, and one that was given up to none.
        let kept = unsafe { Kept::new(place, owner, |it| family.is_over(it), state, local) };
        area.unwatch();
        Ok(Self { kept, seat, area, ring, is_orphan, spin: Spin::new(spin), established })
    }

    /// What a child is going to have, which holds the connection from now on; `None` if it cannot have it, or if
    /// another thread has it for longer than `time`: one that this fork has interrupted perhaps.
    pub(crate) fn share(&self, child: Member, time: Duration) -> Option<(Share, Effects)> {
        let (share, effects) = self.with_soon(Some(time), |inner| {
            let far = match &inner.local.far {
                // In the child nobody rings by way of the fabric.
                Some(far) if !far.remote.has_bell() => return None,
                far => far.clone(),
            };
            let place = self.seat.for_child(child.process())?;
            let own = Local { events: self.seat.events(), far, ..Local::default() };
            let kept = self.kept.share(child.owner(), own);
            // Each signal is for both now.
            inner.unwatch();
            let (area, ring) = (self.area.clone(), self.ring.clone());
            let (established, spin) = (self.established.clone(), self.spin.cap());
            Some(Share { kept, place, area, ring, established, spin })
        })?;
        Some((share?, effects))
    }

    /// In the child, before anything is sent. It does not wait for another process that has the connection, and may be
    /// stopped.
    pub(crate) fn inherit(share: Share, family: &Arc<Family>, member: Member) -> Self {
        let Share { mut kept, place, area, ring, established, spin } = share;
        if let Some(far) = &kept.local_mut().far {
            // Its device rings bells only.
            far.remote.in_child();
        }
        let seat = Seat::of_child(family, member, place);
        let spin = Spin::new(spin);
        Self { kept, seat, area, ring, is_orphan: false, spin, established }
    }

    /// Who has it.
    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Whether the peer was gone when it was established.
    pub(crate) fn is_orphan(&self) -> bool {
        self.is_orphan
    }
}

impl Look for Channel {
    #[inline]
    fn has_changed(&self, seen: (u64, u64)) -> bool {
        self.area.read() != seen
    }
}

impl Inner<'_> {
    /// The connection is given up: tells peer and processes.
    #[cold]
    fn begin_anew(&mut self) {
        self.pump();
        self.unwatch();
        self.local.effects.anew = true;
        if self.channel.seat.is_left() {
            // Who was killed was about to close it.
            self.command(|conn| conn.close(clock::now(), Duration::ZERO));
        }
    }

    /// What has to be done, and wakes who sleeps for it. A process also hears of what another has found.
    #[inline]
    fn take_effects(&mut self) -> Effects {
        let seat = &self.channel.seat;
        let found = !self.local.effects.news.is_empty();
        if self.local.events != seat.events() {
            self.local.effects.news |= self.conn.readiness();
        }
        // Also by a process that lags: nobody else finds it, as it was looked at.
        if found {
            seat.count_event();
            self.local.effects.fresh = !seat.is_alone();
        }
        self.local.events = seat.events();
        if self.common.released && !self.local.released {
            self.local.released = true;
            self.local.far = None;
            self.local.effects.release = true;
        }
        let news = self.take_news();
        Effects { news, ..std::mem::take(&mut self.local.effects) }
    }

    /// The events, of which who sleeps is told.
    #[inline]
    fn take_news(&mut self) -> Ready {
        let news = std::mem::take(&mut self.local.effects.news);
        if !news.is_empty() {
            self.local.sleepers.iter().for_each(|sleeper| sleeper.wake());
            if self.local.dozes && self.channel.area.rouse() {
                self.channel.area.wake();
            }
        }
        news
    }

    /// Tells the machine what our area says now.
    #[inline]
    pub(crate) fn look(&mut self) {
        if self.common.peer_dead {
            return;
        }
        let halves = self.channel.area.read();
        if halves != self.common.seen {
            self.common.seen = halves;
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
                Wish::Wake(news) => self.local.effects.news |= news,
                Wish::FetchUrgent { at } => self.fetch_urgent(at),
                Wish::ShutdownTcp(how) => self.shut_tcp(how),
                Wish::AbortTcp => {
                    self.common.tcp_ended = true;
                    self.local.effects.reset_tcp = true;
                }
                Wish::Release => {
                    self.common.released = true;
                    self.channel.seat.set_released();
                }
                // A mapped sender copies nothing, and there is no SMC-R here.
                Wish::Write(_) | Wish::PublishSmcr(..) => {}
            }
        }
    }

    /// The peer's DMB, which may be another connection's after the release.
    #[inline]
    pub(crate) fn far(&self) -> Option<&'_ Far> {
        self.local.far.as_ref().filter(|_| !self.common.released)
    }

    #[inline]
    fn publish(&mut self, area: &Smcd) {
        let Some(far) = self.far() else { return };
        let (prod, cons) = area.to_halves();
        match far.area.publish(prod, cons) {
            Notice::Nothing => {}
            Notice::Wake => far.area.wake(),
            Notice::Signal => {
                if far.remote.signal().is_err() {
                    self.conn.handle_gone(Gone::Unreachable);
                }
            }
        }
    }

    #[cold]
    fn fetch_urgent(&mut self, at: u32) {
        let mut byte = [0];
        // The machine names a place in the ring.
        let _ = self.channel.ring.read(at as usize, &mut byte);
        self.conn.handle_urgent_byte(byte[0]);
    }

    /// TCP is shut down when both directions are over and not before: its FIN is how the peer's end of
    /// a process is seen, and CDC says the rest.
    #[cold]
    fn shut_tcp(&mut self, how: How) {
        self.common.tcp_shut.0 |= how != How::Write;
        self.common.tcp_shut.1 |= how != How::Read;
        let both = self.common.tcp_shut == (true, true);
        self.common.tcp_ended |= both;
        self.local.effects.shut_tcp |= both;
    }

    /// Runs a command of the machine and its wishes.
    pub(crate) fn command<R>(&mut self, act: impl FnOnce(&mut Connection) -> R) -> R {
        let result = act(self.conn);
        self.pump();
        result
    }

    /// SO_SNDBUF. A peer that has no bell is no process, but a kernel, and keeps no request.
    pub(crate) fn limit_sending(&mut self, bytes: u32) {
        let keeps = self.far().is_some_and(|far| far.remote.has_bell());
        self.command(|conn| conn.limit_sending(bytes, keeps));
    }

    /// Whether the peer sends nothing until some of what is here is read: that is as much as its SO_SNDBUF.
    pub(crate) fn peer_waits(&self) -> bool {
        let asks = || self.conn.info().rx_flags.contains(ProducerFlags::CONSUMER_UPDATE_REQUESTED);
        self.conn.unread() > 0 && asks()
    }

    /// What the application can do without waiting, SO_RCVLOWAT counted in.
    pub(crate) fn readiness(&self) -> Ready {
        let ready = self.conn.readiness();
        let few = self.conn.unread() < self.common.low_water;
        if !few || self.peer_waits() || self.conn.is_read_shut() || self.conn.error().is_some() {
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
        if self.common.peer_dead || self.peer_is_over() {
            return;
        }
        self.common.peer_dead = true;
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
        self.local.tally.sum(self.conn).clone()
    }

    /// Whether both sides closed in order and the peer has nothing left to write, so that the DMBs may be used again.
    pub(crate) fn may_reuse(&self) -> bool {
        let info = self.conn.info();
        let aborted = (info.rx_state | info.tx_state).contains(ConnectionState::ABORTED);
        !aborted && !self.common.peer_dead && self.conn.is_ring_reusable()
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
        let others = self.local.polled || !self.local.sleepers.is_empty();
        // After the release the area may be another connection's.
        let has = !self.common.watched && !self.common.released;
        if has && !others && self.channel.seat.is_alone() {
            self.channel.area.watch();
            self.common.watched = true;
        }
        self.common.seen
    }

    /// From now on every change is signalled, but those that were made before: look.
    pub(crate) fn unwatch(&mut self) {
        if self.common.watched && !self.common.released {
            self.common.watched = false;
            self.channel.area.unwatch();
        }
        self.look();
    }
}
