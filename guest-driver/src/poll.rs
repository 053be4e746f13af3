// SPDX-License-Identifier: GPL-2.0

//! When to look for signals, and when to be rung for them.
//!
//! After traffic a thread of the lowest priority looks at the signal pages and the event ring for
//! a while (`poll_max_us`), with doorbells `SILENT` and interrupts off; then it arms them and
//! sleeps. It learns from success: each time in a row that it found nothing, twice as many
//! interrupts pass before it tries again. A CPU that is wanted by others is theirs at once; then
//! senders look in its place, and a timer, the backstop, which arms the doorbells when it finds
//! nothing.
//!
//! Invariant: doorbells are `SILENT` only while the phase is `Polling` or `Waiting`, that is,
//! while the thread is on a CPU, from which it cannot be preempted, or the backstop is set. After
//! arming there is always one more look.

use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use crate::{
    abi::signal_page,
    counters::Counter,
    device::Device,
    dmb::RESCAN_MS,
    local::Look,
    native::{self, thread, Queue, Work},
    sync::Spin,
};

/// The thread sleeps; doorbells are armed.
const ASLEEP: u32 = 0;
/// The thread is to run, but others have the CPU; doorbells are armed.
const LOADED: u32 = 1;
/// The thread is to run; doorbells are silent and the backstop is set.
const WAITING: u32 = 2;
/// The thread looks; doorbells are silent.
const POLLING: u32 = 3;

/// How long signals may go unseen while the thread waits for a CPU.
const BACKSTOP_NS: u64 = 500_000;
/// After this many failures in a row the pause grows no more: 2^6 interrupts.
const FAILURES: u32 = 6;
/// Looks of an interrupt that keeps finding something, before the thread takes over.
const LOOKS: u32 = 8;

/// How well looking went.
pub(crate) struct Timing {
    /// Times in a row that the thread found nothing.
    failures: u32,
    /// Interrupts to pass before it tries again.
    pause: u32,
}

impl Timing {
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            pause: 0,
        }
    }

    /// The thread went to sleep, after it had found something or not.
    fn learn(&mut self, found: bool) {
        if found {
            *self = Self::new();
        } else {
            self.failures = self.failures.saturating_add(1).min(FAILURES);
            self.pause = 1u32.wrapping_shl(self.failures);
        }
    }

    fn interrupted(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }

    /// Nanoseconds to look without success; 0: not at all.
    fn budget(&self) -> u64 {
        match self.pause {
            0 => native::poll_max_ns(),
            _ => 0,
        }
    }
}

/// The traffic that the thread saw.
struct Seen {
    /// When it was last.
    last: u64,
    /// `Poller::sent` then.
    sent: u64,
    /// Whether looking found any.
    found: bool,
}

/// Why the thread stopped looking.
enum Until {
    /// Others have something to do.
    CpuWanted,
    /// Nothing came for long enough.
    Expired,
}

pub(crate) struct Poller {
    phase: AtomicU32,
    /// Signals sent, so that the thread sees that a reply may come.
    sent: AtomicU64,
    timing: Spin<Timing>,
}

impl Poller {
    pub(crate) fn new(timing: Spin<Timing>) -> Self {
        Self {
            phase: AtomicU32::new(ASLEEP),
            sent: AtomicU64::new(0),
            timing,
        }
    }

    pub(crate) fn budget_us(&self) -> u64 {
        self.timing.lock().budget() / 1000
    }
}

impl Device {
    // ---- Looking ----

    /// Looks once, everywhere. True: something was there. Any context.
    pub(crate) fn look(&self) -> bool {
        if self.is_dead() {
            return false;
        }
        let drained = self.drain();
        self.look_at_pages() || drained
    }

    fn look_at_pages(&self) -> bool {
        let Some(window) = self.window.as_ref() else {
            return false;
        };
        // Released before anything else happens.
        let look = self.local.lock().look(self.native, window);
        match look {
            Look::Nothing => false,
            Look::Found(count) => {
                self.counters.add(Counter::SignalsDelivered, count.into());
                true
            }
            Look::Garbage => {
                self.doubt_device();
                false
            }
        }
    }

    /// Doorbells and interrupts off. With the timing lock held, as the three below.
    fn silence(&self) {
        self.set_doorbells(signal_page::SILENT);
        let _events = self.events.lock();
        self.native.callbacks_off(Queue::Event);
    }

    /// Doorbells and interrupts on, then one more look. True: it found something.
    fn arm(&self) -> bool {
        self.set_doorbells(signal_page::ARMED);
        let quiet = {
            let _events = self.events.lock();
            self.native.callbacks_on(Queue::Event)
        };
        self.look() || !quiet
    }

    fn set_doorbells(&self, value: u32) {
        if let Some(window) = self.window.as_ref() {
            self.local.lock().set_doorbell(window, value);
        }
    }

    fn set_phase(&self, phase: u32) {
        self.poller.phase.store(phase, SeqCst);
    }

    /// The first arming: without it every signal rings.
    pub(crate) fn start_polling(&self) {
        let _timing = self.poller.timing.lock();
        if self.arm() {
            self.hand_over();
        }
    }

    // ---- What wakes the thread ----

    /// A signal was sent. Where the sender keeps the thread from its CPU it looks in its place;
    /// else one may come back soon, so the thread is woken. Any context.
    pub(crate) fn note_traffic(&self) {
        self.poller.sent.fetch_add(1, Relaxed);
        match self.poller.phase.load(Relaxed) {
            POLLING => {}
            WAITING => {
                self.look();
            }
            _ => {
                let timing = self.poller.timing.lock();
                let phase = self.poller.phase.load(Relaxed);
                if (phase == ASLEEP || phase == LOADED) && timing.budget() != 0 {
                    self.hand_over();
                }
            }
        }
    }

    /// Wakes the thread. It may take a while to get a CPU; until then the backstop looks.
    fn hand_over(&self) {
        self.silence();
        self.set_phase(WAITING);
        self.native.backstop_start(BACKSTOP_NS);
        self.native.poller_wake();
    }

    /// The event queue's interrupt.
    pub(crate) fn event_interrupt(&self) {
        self.counters.one(Counter::Interrupts);
        if self.is_dead() {
            return;
        }
        self.look();
        let mut timing = self.poller.timing.lock();
        for _ in 0..LOOKS {
            let phase = self.poller.phase.load(Relaxed);
            if phase != ASLEEP && phase != LOADED {
                return;
            }
            timing.interrupted();
            if timing.budget() != 0 || phase == LOADED {
                return self.hand_over();
            }
            // Without the thread: who rang has silenced the doorbell.
            if !self.arm() {
                return;
            }
        }
        // More than can be served here, and for what is left there may be no interrupt.
        self.hand_over();
    }

    /// The backstop: nobody looked for a while. From the timer.
    pub(crate) fn backstop(&self) {
        let _timing = self.poller.timing.lock();
        if self.poller.phase.load(Relaxed) != WAITING {
            return;
        }
        if !self.look() {
            if !self.arm() || self.is_dead() {
                return self.set_phase(LOADED);
            }
            self.silence();
        }
        self.native.backstop_start(BACKSTOP_NS);
    }

    /// The slow look, for what got lost: a doorbell, or a bit that was set with a store that was
    /// not atomic (TCG with one CPU).
    pub(crate) fn rescan(&self) {
        let lost = native::without_bh(|| self.rescan_now());
        self.counters.add(Counter::SignalsDelivered, lost.into());
        self.counters.add(Counter::SignalsLost, lost.into());
        self.ring_the_late();
        if !self.is_dead() && self.local.lock().used() != 0 {
            self.native.work_queue(Work::Rescan, RESCAN_MS);
        }
    }

    /// Returns how many DMBs had lost a signal.
    fn rescan_now(&self) -> u32 {
        if self.is_dead() {
            return 0;
        }
        let timing = self.poller.timing.lock();
        if matches!(self.poller.phase.load(Relaxed), ASLEEP | LOADED) {
            // Also arms again what a lost doorbell has silenced.
            if self.arm() {
                self.hand_over();
            }
        }
        drop(timing);
        let window = self.window.as_ref();
        self.local.lock().signal_changed(self.native, window)
    }

    // ---- The thread ----

    /// The thread's life.
    pub(crate) fn poll_thread(&self) {
        while !thread::should_stop() {
            let phase = &self.poller.phase;
            thread::sleep_unless(|| thread::should_stop() || phase.load(SeqCst) != ASLEEP);
            if phase.load(SeqCst) != ASLEEP {
                self.poll();
            }
        }
    }

    /// Looks until nothing came for as long as the budget says.
    fn poll(&self) {
        let budget = self.poller.timing.lock().budget();
        let mut seen = Seen {
            last: native::now_ns(),
            sent: self.poller.sent.load(Relaxed),
            found: false,
        };
        while !thread::should_stop() {
            // `POLLING` begins and ends without preemption: else the thread could lose its CPU,
            // for long, when everybody thinks that it looks.
            match thread::unpreempted(|| self.poll_once(&mut seen, budget)) {
                Until::CpuWanted => thread::cpu_yield(),
                Until::Expired => return,
            }
        }
    }

    /// Looks until the CPU is wanted, and says so, or falls asleep.
    fn poll_once(&self, seen: &mut Seen, budget: u64) -> Until {
        self.take_over();
        loop {
            match self.look_until(seen, budget) {
                Until::CpuWanted => {
                    self.step_aside();
                    return Until::CpuWanted;
                }
                Until::Expired if native::without_bh(|| self.fall_asleep(seen.found)) => {
                    return Until::Expired;
                }
                Until::Expired => {
                    seen.last = native::now_ns();
                    seen.found = true;
                }
            }
        }
    }

    fn look_until(&self, seen: &mut Seen, budget: u64) -> Until {
        loop {
            let found = native::without_bh(|| self.look());
            let sent = self.poller.sent.load(Relaxed);
            let now = native::now_ns();
            if found {
                self.counters.one(Counter::PollsHit);
                seen.found = true;
            }
            if found || sent != seen.sent {
                seen.last = now;
                seen.sent = sent;
            } else if now.saturating_sub(seen.last) > budget {
                return Until::Expired;
            }
            if thread::cpu_wanted() {
                return Until::CpuWanted;
            }
            thread::cpu_relax();
        }
    }

    fn take_over(&self) {
        let _timing = self.poller.timing.lock();
        if self.poller.phase.load(Relaxed) != WAITING {
            self.silence();
        }
        self.set_phase(POLLING);
    }

    /// Others are to have the CPU. What was waited for is often just what they do.
    fn step_aside(&self) {
        let _timing = self.poller.timing.lock();
        self.set_phase(WAITING);
        self.native.backstop_start(BACKSTOP_NS);
    }

    /// After the thread had `found` something or not. False: something came just then.
    fn fall_asleep(&self, found: bool) -> bool {
        let mut timing = self.poller.timing.lock();
        if self.arm() && !self.is_dead() {
            self.silence();
            return false;
        }
        self.counters.one(Counter::PollsMissed);
        timing.learn(found);
        self.set_phase(ASLEEP);
        true
    }
}
