// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stack's middle: takes what the device and the clock say to the connections, and what
//! connections give up back to the control.
//!
//! Invariant: while a thread sleeps, whoever has taken signals leaves the doorbells armed; so each
//! signal is either taken and passed on, or rings. However much peers say meanwhile, who dispatches looks twice.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ism_client::board::Told;
use ism_client::{Device, Event};
use smc_proto::Instant;
use smc_proto::conn::{Gone, Ready};
use smc_proto::group::Fate;
use smc_proto::stats::{Stats, Technology};
use smc_ring::Turn;
use smc_wire::cdc::Cursor;
use smc_wire::id::DmbToken;

use crate::channel::Inner;
use crate::chores::{Chore, Chores};
use crate::clock;
use crate::control::{Control, Fed, Later};
use crate::family::Family;
use crate::hub::{Hub, News};
use crate::parked::TCP_END;
use crate::shared::{Due, Outcome, Shared};
use crate::table::Table;
use crate::tcp::Standing;

/// What all sockets of a stack share.
pub(crate) struct Core {
    pub(crate) device: Device,
    /// How long a handshake looks for an answer before it sleeps.
    pub(crate) handshake_spin: Duration,
    control: Mutex<Control>,
    table: Arc<Table>,
    /// Who takes the device's events, and where they are put.
    turn: Turn,
    events: Mutex<Vec<Event>>,
    /// Threads that sleep or are about to.
    sleeping: AtomicUsize,
    /// Connections whose peer is gone, until TCP has said how.
    doomed: Mutex<Vec<(Instant, Arc<Shared>)>>,
    /// What has to wait for a process that is stopped.
    chores: Mutex<Chores>,
    /// When the time matters next, in nanoseconds; `u64::MAX` for never.
    timer: AtomicU64,
    device_gone: AtomicBool,
    pub(crate) family: Arc<Family>,
    /// For children, when there is one.
    hub: OnceLock<Hub>,
    /// Who is told of entries of the board.
    pub(crate) board: OnceLock<Reader>,
}

/// Reads the board.
pub(crate) type Reader = Box<dyn Fn(&Told) + Send + Sync>;

impl Core {
    pub(crate) fn new(
        device: Device,
        control: Control,
        table: Arc<Table>,
        family: Arc<Family>,
        handshake_spin: Duration,
    ) -> Self {
        Self {
            device,
            handshake_spin,
            control: Mutex::new(control),
            table,
            turn: Turn::default(),
            events: Mutex::default(),
            sleeping: AtomicUsize::new(0),
            doomed: Mutex::default(),
            chores: Mutex::default(),
            timer: AtomicU64::new(u64::MAX),
            device_gone: AtomicBool::new(false),
            family,
            hub: OnceLock::new(),
            board: OnceLock::new(),
        }
    }

    // The control

    /// Runs `act` with the control, then what it wishes.
    pub(crate) fn control<R>(&self, act: impl FnOnce(&mut Control, Instant) -> R) -> R {
        let now = clock::now();
        let mut later = Vec::new();
        let result = {
            let mut control = self.lock();
            let result = act(&mut control, now);
            control.carry_out(now, &mut later);
            result
        };
        later.into_iter().for_each(|later| self.afterwards(now, later));
        self.set_timer();
        result
    }

    /// Says when the time matters next, after anything that may have changed it.
    pub(crate) fn set_timer(&self) {
        let doomed = self.doomed();
        // Under both locks, so that of two threads the later one's word stays.
        let control = self.lock();
        let doomed = doomed.iter().map(|(at, _)| *at).min();
        let again = self.chores().again();
        let next = [control.next_timeout(), doomed, again].into_iter().flatten().min();
        self.timer.store(next.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }

    fn doomed(&self) -> MutexGuard<'_, Vec<(Instant, Arc<Shared>)>> {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn chores(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn afterwards(&self, now: Instant, later: Later) {
        match later {
            Later::Settled(socket) => {
                // A new peer rings always.
                self.silence();
                // It is no child's yet. The peer may have written before anybody knew whose the signal was.
                let due = socket.observed();
                self.follow(due, &socket);
                if socket.is_orphan() {
                    // Alone with it, it is not kept from that.
                    let _ = self.ask_tcp(&socket);
                }
                let act = |it| socket.act(it, |inner| inner.readiness());
                let (ready, due) = socket.channel().and_then(act).unzip();
                socket.notify(ready.unwrap_or(Ready::READABLE | Ready::WRITABLE));
                self.follow(due.unwrap_or_default(), &socket);
            }
            Later::Abort { socket, tell_peer } => {
                let doom = Chore::Doom(now.after(TCP_END));
                self.run(if tell_peer { Chore::Abort } else { doom }, socket);
            }
        }
    }

    /// The peer of a connection is gone. `None`, here and below: not yet, another process has it and is stopped.
    pub(crate) fn doom(&self, deadline: Instant, socket: &Arc<Shared>) -> Option<()> {
        // Its last word may not have been signalled.
        let due = socket.look()?;
        self.follow(due, socket);
        if self.is_gone() || socket.is_left() {
            return self.abort(socket, Gone::Unreachable);
        }
        self.judge(deadline, socket)
    }

    /// The peer of a connection is gone: it ends as TCP says that the peer did, if TCP says so before
    /// `deadline`.
    pub(crate) fn judge(&self, deadline: Instant, socket: &Arc<Shared>) -> Option<()> {
        self.ask_tcp(socket)?;
        let (over, due) = socket.peer_is_over()?;
        self.follow(due, socket);
        if over {
            return Some(());
        }
        if deadline <= clock::now() && socket.is_closed() {
            // A child has it, and TCP's word is with the child.
            let due = socket.tcp_stands_soon(Standing::Closed)?;
            self.follow(due, socket);
        } else if socket.tcp_is_over() || deadline <= clock::now() {
            self.abort(socket, Gone::Unreachable)?;
        } else {
            self.doomed().push((deadline, Arc::clone(socket)));
        }
        Some(())
    }

    pub(crate) fn abort(&self, socket: &Arc<Shared>, why: Gone) -> Option<()> {
        let Some(channel) = socket.channel() else { return Some(()) };
        let end = |inner: &mut Inner<'_>| inner.command(|conn| conn.handle_gone(why));
        let ((), due) = socket.act_soon(channel, end)?;
        self.follow(due, socket);
        Some(())
    }

    /// Gives back what a connection had.
    #[cold]
    pub(crate) fn release(&self, socket: &Arc<Shared>) -> Option<()> {
        let (mut written, mut fate) = (Cursor::START, Fate::Discard);
        let (mut counted, mut due) = (Technology::default(), Due::default());
        if let Some(channel) = socket.channel() {
            let look =
                |inner: &mut Inner<'_>| (inner.conn.info(), inner.may_reuse(), inner.counted());
            let ((info, reuse, sum), more) = socket.act_soon(channel, look)?;
            due = more;
            written = info.rx_prod;
            fate = if reuse { Fate::Reuse } else { Fate::Discard };
            counted = sum;
        }
        self.control(|control, now| {
            if control.release(now, socket, written, fate) {
                control.closed.add(&counted);
            }
        });
        self.follow(due, socket);
        Some(())
    }

    /// What follows from an act on a connection.
    pub(crate) fn follow(&self, due: Due, socket: &Arc<Shared>) {
        if due.release {
            self.run(Chore::Release, Arc::clone(socket));
        }
        if due.news {
            self.tell_others(socket);
        }
    }

    /// Goes on with a handshake as far as it can be without waiting; what the last look found.
    pub(crate) fn advance(&self, socket: &Arc<Shared>) -> Fed {
        if let (Some(Outcome::Tcp(_, word)), Some(tcp)) = (socket.outcome(), socket.tcp()) {
            word.take(&*tcp);
        }
        while socket.outcome().is_none() {
            let fed = self.control(|control, now| control.feed(now, socket));
            if fed != Fed::Message {
                return fed;
            }
        }
        Fed::Others
    }

    /// Gives up a handshake, unless another thread has just ended it: then there is a connection to be closed.
    pub(crate) fn give_up(&self, socket: &Shared) {
        self.control(|control, now| {
            if socket.outcome().is_none() {
                control.release(now, socket, Cursor::START, Fate::Discard);
            }
        });
    }

    /// Asks TCP how it stands.
    fn ask_tcp(&self, socket: &Arc<Shared>) -> Option<()> {
        let due = socket.ask_tcp()?;
        self.follow(due, socket);
        Some(())
    }

    // Children

    /// The way to children; `None`: there are no descriptors for it.
    pub(crate) fn hub(&self) -> Option<&Hub> {
        if self.hub.get().is_none() {
            // The next child may find some.
            let _ = self.hub.set(Hub::new(&self.family).ok()?);
        }
        self.hub.get()
    }

    /// The way to children, if there are some.
    pub(crate) fn busy_hub(&self) -> Option<&Hub> {
        self.hub.get().filter(|hub| hub.is_busy())
    }

    /// Has children that have a connection look at it.
    pub(crate) fn tell_others(&self, socket: &Shared) {
        if let Some(channel) = socket.channel()
            && !channel.seat().is_alone()
            && let Some(hub) = self.busy_hub()
        {
            hub.tell(channel.seat().others(), channel.seat().slot);
        }
    }

    /// Takes what children say, and gives back what those have that have ended.
    pub(crate) fn serve_children(&self) {
        let Some(hub) = self.hub.get() else { return };
        for news in hub.take() {
            let sockets = self.control(|control, _| control.connections());
            match news {
                News::Look(slot) => {
                    let has = |it: &Shared| it.channel().is_some_and(|it| it.seat().slot == slot);
                    if let Some(socket) = sockets.into_iter().find(|socket| has(socket)) {
                        self.run(Chore::Look, socket);
                    }
                }
                News::Ended(process) => self.bury(process, sockets),
            }
        }
    }

    // Signals, events, time

    /// Takes what there is, and arms the doorbells again if another thread sleeps.
    pub(crate) fn dispatch(&self) {
        self.take();
        if self.sleeping.load(Ordering::SeqCst) > 0 && matches!(self.device.arm(), Ok(false)) {
            self.take_armed();
        }
    }

    /// Takes what there is, unless another thread does just now.
    pub(crate) fn take(&self) {
        self.turn.take(|| self.take_events());
        self.timers();
    }

    /// Takes what there was when the doorbells were armed; whether anything came of it. What comes later rings, so
    /// there need be no third look, which a peer that signals without end would make the last but one.
    #[cold]
    fn take_armed(&self) -> bool {
        let timer = self.timer.load(Ordering::Relaxed);
        let mut signals = Vec::new();
        self.device.poll_signals(&mut signals);
        let mut told = signals.into_iter().fold(false, |told, signal| self.event(signal) | told);
        if self.device.has_events() {
            // Another thread that takes them may be past them. Peers have them from the fabric only, which takes
            // longer than this, so it does not go on for ever.
            self.turn.ask(|| self.take_events());
            told = true;
        }
        self.timers();
        told || timer != self.timer.load(Ordering::Relaxed)
    }

    /// For who has the turn.
    fn take_events(&self) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if self.device.poll(&mut events).is_err() {
            self.device_is_gone();
        }
        for event in events.drain(..) {
            self.event(event);
        }
    }

    /// False: nobody was told of anything by it.
    fn event(&self, event: Event) -> bool {
        match event {
            Event::Signal { index } => {
                let socket = self.table.get(index);
                return socket.is_some_and(|socket| self.run(Chore::Look, socket));
            }
            Event::Unregistered { token } => {
                self.control(|control, _| control.forget_remote(DmbToken(token)));
            }
            Event::PeerGone { gid } => {
                // What it said before may end a handshake well.
                let handshakes = self.control(|control, _| control.handshakes());
                for socket in &handshakes {
                    self.advance(socket);
                }
                self.control(|control, now| control.peer_gone(now, gid));
            }
            Event::Board(told) => {
                if let Some(read) = self.board.get() {
                    read(&told);
                }
            }
            Event::Software { gid, code, info } => {
                self.control(|control, now| control.software(now, gid, code, info));
            }
        }
        true
    }

    #[cold]
    fn device_is_gone(&self) {
        if !self.device_gone.swap(true, Ordering::Relaxed) {
            self.control(Control::device_gone);
        }
    }

    fn timers(&self) {
        let next = self.timer.load(Ordering::Relaxed);
        if next == u64::MAX || clock::now().0 < next {
            return;
        }
        self.control(|control, now| control.time(now));
        self.end_doomed();
        self.run_again();
        self.set_timer();
    }

    /// Ends the connections whose TCP has said, or will not say, how.
    #[cold]
    fn end_doomed(&self) {
        let doomed = std::mem::take(&mut *self.doomed());
        for (at, socket) in doomed {
            self.run(Chore::Judge(at), socket);
        }
    }

    /// When [`Core::dispatch`] is due for the time's sake.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self.timer.load(Ordering::Relaxed) {
            u64::MAX => None,
            at => Some(Instant(at)),
        }
    }

    // Sleep

    /// A thread is about to sleep on the device's descriptor. False: it must not, something was there and
    /// has been taken.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        match self.device.arm() {
            Ok(true) => return true,
            // Nobody is kept awake by signals that say nothing.
            Ok(false) if !self.take_armed() => return true,
            Ok(false) => {}
            // Nothing comes any more, so nothing can be missed.
            Err(_) if self.is_gone() => return true,
            Err(_) => self.device_is_gone(),
        }
        self.wake_up();
        false
    }

    /// The device is gone; its descriptor says nothing more.
    pub(crate) fn is_gone(&self) -> bool {
        self.device_gone.load(Ordering::Relaxed)
    }

    /// It sleeps no more.
    pub(crate) fn wake_up(&self) {
        if self.sleeping.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.silence();
        }
    }

    /// So many sleep on the device's descriptor whom this library does not see. The caller dispatches.
    pub(crate) fn never_silence(&self, sleepers: usize) {
        self.sleeping.fetch_add(sleepers, Ordering::SeqCst);
    }

    /// Spares peers the ringing while nobody sleeps, which is a system call for each signal.
    fn silence(&self) {
        self.device.silence(|| self.sleeping.load(Ordering::SeqCst) > 0);
    }

    /// The device's descriptor was readable.
    pub(crate) fn rung(&self) {
        self.device.woken();
        self.dispatch();
    }

    /// What was counted: by handshakes, by connections that are over, and by those that are not.
    pub(crate) fn stats(&self) -> Stats {
        let (mut stats, live) = self.control(|control, _| {
            let mut stats = control.endpoint.stats().clone();
            stats.smcd.add(&control.closed);
            (stats, control.all())
        });
        for socket in live {
            if let Some(channel) = socket.channel()
                && let Some((counted, due)) = socket.act(channel, |inner| inner.counted())
            {
                stats.smcd.add(&counted);
                self.follow(due, &socket);
            }
        }
        stats
    }

    /// Sockets of which something is held here.
    pub(crate) fn sockets(&self) -> usize {
        self.lock().sockets()
    }
}
