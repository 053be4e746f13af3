// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A thread that goes on with handshakes which the program does not ask about, and hears when the TCP
//! connection of a polled socket ends.
//!
//! Invariant: it touches no data; with nothing to mind it sleeps.
//!
//! A program that has connected may do something else before it sends, and its peer's accept would wait
//! for it as TCP's does not. A server's handshake is left to the program for a while: it may fork, and
//! then it is the child's.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ism_client::own::Own;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;
use smc_socket::Stack;

use crate::descriptor;
use crate::meeting::Meeting;
use crate::process;
use crate::sock::{Sock, Stage, lock};
use crate::table::File;

/// How long a client's handshake is left to the program.
const GRACE: Duration = Duration::from_millis(5);
/// How long a server's is: it may be about to fork.
const SERVER_GRACE: Duration = Duration::from_millis(100);
/// How often handshakes that go on are looked at without a reason.
const TICK: Duration = Duration::from_millis(10);
/// How often connections that are closed are, which wait for a word that may never come.
const LATE: Duration = Duration::from_millis(200);
/// Closed connections that are kept at a time: each has a descriptor.
const KEPT: usize = 256;
/// What the wake-up's events are known by, the device's and the children's; connections have larger numbers.
const WAKE: u64 = 0;
const DEVICE: u64 = 1;
const CHILDREN: u64 = 2;

/// This process hands accepted connections to its children, or to others.
static FORKS: AtomicBool = AtomicBool::new(false);

/// Connections have been accepted, and there is a child now: its handshakes are its own. Or one was passed on.
pub(crate) fn has_forked() {
    FORKS.store(true, Ordering::Relaxed);
}

/// Whether handshakes of accepted connections that nobody has begun are left to children.
pub(crate) fn forks() -> bool {
    FORKS.load(Ordering::Relaxed)
}

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Minder(Arc<Inbox>);

#[derive(Debug)]
struct Inbox {
    wake: Own,
    /// When the thread looks next at what is left to the program, in µs since `start`.
    due: AtomicU64,
    start: Instant,
    /// Nothing is left to the program any longer.
    hurry: AtomicBool,
    /// Nobody can add any more.
    over: AtomicBool,
    new: Mutex<Vec<(Weak<File>, Instant)>>,
    /// Closed by the program during their handshakes.
    closed: Mutex<Vec<Arc<File>>>,
}

/// What the thread has.
struct Ward {
    inbox: Arc<Inbox>,
    stack: Option<Stack>,
    epoll: Own,
    /// By what the epoll instance knows them by.
    known: HashMap<u64, Weak<File>>,
    next: u64,
    /// Not yet looked at, with when they are.
    waiting: Vec<(Weak<File>, Instant)>,
    /// Handshakes that go on.
    handshakes: Vec<Weak<File>>,
    /// The device is listened to.
    hears: bool,
    /// The children are.
    serves: bool,
}

impl Minder {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptors, no thread.
    pub(crate) fn start(stack: Option<Stack>) -> io::Result<Self> {
        let wake = Own::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let epoll = Own::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let [hurry, over] = [const { AtomicBool::new(false) }; 2];
        let (due, start) = (AtomicU64::new(u64::MAX), Instant::now());
        let (new, closed) = (Mutex::default(), Mutex::default());
        let inbox = Arc::new(Inbox { wake, due, start, hurry, over, new, closed });
        let mut ward = Ward {
            inbox: Arc::clone(&inbox),
            stack,
            epoll,
            known: HashMap::new(),
            next: CHILDREN + 1,
            waiting: Vec::new(),
            handshakes: Vec::new(),
            hears: false,
            serves: false,
        };
        let thread = thread::Builder::new().name("smc-minder".into()).stack_size(256 << 10);
        let is_over = |ward: &Ward| ward.inbox.over.load(Ordering::Acquire);
        thread.spawn(move || while !is_over(&ward) && ward.turn().is_ok() {})?;
        Ok(Self(inbox))
    }

    /// Has the thread look after a connection.
    pub(crate) fn add(&self, file: &Arc<File>, now: bool) {
        let is_server = matches!(&**file, File::Sock(sock) if sock.is_server());
        let grace = match (now, is_server) {
            (true, _) => Duration::ZERO,
            (false, true) => SERVER_GRACE,
            (false, false) => GRACE,
        };
        let due = Instant::now() + grace;
        lock(&self.0.new).push((Arc::downgrade(file), due));
        let due = self.0.time(due);
        if now || due < self.0.due.fetch_min(due, Ordering::AcqRel) {
            self.0.wake();
        }
    }
}

/// Whether a handshake goes on, or what may be a part of its last word is there.
fn is_open(file: &File) -> bool {
    matches!(file, File::Sock(sock) if sock.stage() < Stage::Late || sock.late_in_part())
}

/// Whether a connection that the program has closed is still needed.
fn is_kept(file: &File) -> bool {
    is_open(file) || matches!(file, File::Sock(sock) if sock.is_kept_for_word())
}

/// Ends the thread.
impl Drop for Minder {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        self.0.wake();
    }
}

impl Inbox {
    fn time(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn wake(&self) {
        // Full means that it is readable.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Minder {
    /// Has the thread look what there is.
    pub(crate) fn wake(&self) {
        self.0.wake();
    }

    /// A thread of the program waits for a handshake whose other end may be in this process.
    pub(crate) fn hurry(&self) {
        self.0.hurry.store(true, Ordering::Release);
        self.0.wake();
    }

    /// Whether one more can be kept after the program has closed it.
    pub(crate) fn has_room(&self) -> bool {
        lock(&self.0.closed).len() < KEPT
    }

    /// Has the thread finish the handshake of what the program has closed.
    pub(crate) fn keep(&self, file: &Arc<File>) {
        lock(&self.0.closed).push(Arc::clone(file));
        self.add(file, true);
    }
}

impl Ward {
    /// One sleep and what it brought.
    fn turn(&mut self) -> io::Result<()> {
        self.hear();
        let timeout = self.timeout().and_then(|timeout| timeout.try_into().ok());
        let mut events = [MaybeUninit::uninit(); 64];
        let stack = self.stack.clone().filter(|_| self.hears);
        if !stack.as_ref().is_none_or(Stack::prepare_sleep) {
            return Ok(());
        }
        let slept = epoll::wait(&self.epoll, &mut events, timeout.as_ref());
        let found = slept.map(|(found, _)| &*found);
        let has = |data| found.iter().copied().flatten().any(|it| it.data.u64() == data);
        if let Some(stack) = &stack {
            stack.wake_up(has(DEVICE));
        }
        if let Some(stack) = self.stack.as_ref().filter(|_| has(CHILDREN)) {
            stack.serve_children();
        }
        let found = match found {
            Ok(found) => found,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in found {
            match event.data.u64() {
                // It is read to be unreadable again.
                WAKE => drop(rustix::io::read(&self.inbox.wake, &mut [0u8; 8])),
                DEVICE | CHILDREN => {}
                data => self.event(data, event.flags),
            }
        }
        self.take_new();
        self.go_on();
        Ok(())
    }

    /// Goes on with handshakes, also of what the program has closed, and with what is due.
    fn go_on(&mut self) {
        self.handshakes.retain(|file| {
            file.upgrade().is_some_and(|file| match &*file {
                File::Sock(sock) => {
                    sock.go_on(&file);
                    is_open(&file)
                }
                File::Epoll(_) => false,
            })
        });
        // Dropped without the lock: that closes them.
        let closed: Vec<_> = lock(&self.inbox.closed).clone();
        for file in &closed {
            if let File::Sock(sock) = &**file {
                sock.go_on(file);
            }
        }
        let over: Vec<_> = lock(&self.inbox.closed).extract_if(.., |file| !is_kept(file)).collect();
        drop(closed);
        drop(over);
        if let Some(stack) = &self.stack
            && stack.next_timeout().is_some_and(|left| left.is_zero())
        {
            stack.dispatch();
        }
    }

    /// Begins or ends to hear the device: for children, to which signals are passed on, and for connections that look
    /// for their other ends on the board.
    fn hear(&mut self) {
        let Some(stack) = &self.stack else { return };
        let is_gone = stack.is_gone();
        if let Some(children) = stack.children_fd().filter(|_| !is_gone && !self.serves) {
            let data = EventData::new_u64(CHILDREN);
            // It is in there for ever: it says nothing more until there is another child.
            self.serves = match epoll::add(&self.epoll, children, data, EventFlags::IN) {
                Ok(()) | Err(Errno::EXIST) => true,
                Err(_) => false,
            };
        }
        let is_meeting = |file: &Weak<File>| {
            let file = file.upgrade();
            file.is_some_and(|it| matches!(&*it, File::Sock(sock) if sock.meeting().is_some()))
        };
        let wanted = stack.has_children() || self.handshakes.iter().any(is_meeting);
        match (wanted && !is_gone, self.hears) {
            (true, false) => {
                let data = EventData::new_u64(DEVICE);
                let added = epoll::add(&self.epoll, stack.wake_fd(), data, EventFlags::IN);
                self.hears = added.is_ok();
            }
            (false, true) => {
                self.hears = false;
                let _ = epoll::delete(&self.epoll, stack.wake_fd());
            }
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        // Many at once, rather than a wake-up for each: a server has one here for every connection of the
        // last moments, and most are over by then.
        let due = self.waiting.iter().map(|(_, due)| due.saturating_duration_since(now)).min();
        let due = due.map(|due| due.max(GRACE));
        let closed = lock(&self.inbox.closed);
        let restless = !self.handshakes.is_empty() || closed.iter().any(|file| is_open(file));
        let late = (!closed.is_empty()).then_some(LATE);
        drop(closed);
        let tick = if restless { Some(TICK) } else { late };
        let timer = self.stack.as_ref().and_then(Stack::next_timeout);
        let calls = process::existing().and_then(|process| process.meetings()?.hang_up());
        [due, tick, timer, calls].into_iter().flatten().min()
    }

    fn event(&mut self, data: u64, flags: EventFlags) {
        let Some(file) = self.known.get(&data).and_then(Weak::upgrade) else {
            self.known.remove(&data);
            return;
        };
        if let File::Sock(sock) = &*file {
            let bits = u16::try_from(flags.bits() & 0xffff).unwrap_or(0);
            let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            sock.tcp_says(&file, PollFlags::from_bits_retain(bits) & ends);
            if sock.late_in_part() {
                self.handshakes.push(Arc::downgrade(&file));
            }
        }
    }

    fn take_new(&mut self) {
        let now = Instant::now();
        self.waiting.append(&mut lock(&self.inbox.new));
        let hurry = self.inbox.hurry.swap(false, Ordering::AcqRel);
        let due = self.waiting.extract_if(.., |(_, due)| hurry || *due <= now).collect::<Vec<_>>();
        for (file, _) in due {
            if let Some(file) = file.upgrade()
                && let File::Sock(sock) = &*file
            {
                self.look_at(&file, sock);
            }
        }
        let due = self.waiting.iter().map(|(_, due)| *due).min();
        let due = due.map_or(u64::MAX, |due| self.inbox.time(due));
        self.inbox.due.store(due, Ordering::Release);
        // What was added meanwhile may not have woken this thread.
        if lock(&self.inbox.new).iter().any(|(_, it)| self.inbox.time(*it) < due) {
            self.inbox.wake();
        }
    }

    fn look_at(&mut self, file: &Arc<File>, sock: &Sock) {
        let stage = sock.stage();
        if stage == Stage::Fresh
            && !sock.is_closed()
            && sock.is_server()
            && FORKS.load(Ordering::Relaxed)
            && !sock.meeting().is_some_and(Meeting::is_begun)
        {
            return;
        }
        if stage < Stage::Smc {
            sock.go_on(file);
        }
        match sock.stage() {
            Stage::Tcp | Stage::Ended | Stage::Broken => return,
            Stage::Smc if !sock.is_attended() => return,
            Stage::Smc => {}
            Stage::Late if !sock.late_in_part() => {}
            _ => self.handshakes.push(Arc::downgrade(file)),
        }
        self.register(file, sock);
    }

    fn register(&mut self, file: &Arc<File>, sock: &Sock) {
        if self.known.len() > 64 && self.known.len().is_power_of_two() {
            self.known.retain(|_, file| file.strong_count() > 0);
        }
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let tcp = descriptor::borrow(sock.number());
        let data = EventData::new_u64(self.next);
        let known = match epoll::add(&self.epoll, tcp, data, flags) {
            Err(Errno::EXIST) => epoll::modify(&self.epoll, tcp, data, flags),
            other => other,
        };
        if known.is_ok() {
            self.known.insert(self.next, Arc::downgrade(file));
            self.next += 1;
        }
    }
}
