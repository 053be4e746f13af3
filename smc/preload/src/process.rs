// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What this process has: its stack, made when it is first needed, and who minds its handshakes.
//!
//! Invariant: a process that cannot have a stack has plain TCP, and finds that out every ten seconds at most.

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use ism_client::Device;
use ism_client::loopback::Loopback;
use rustix::time::{ClockId, clock_gettime};
use smc_discovery::policy::Policy;
use smc_discovery::sockopt::{mark, peer_speaks_smc as peer_is_marked, state};
use smc_snapshot::{Joined, reason};
use smc_socket::{Config, Stack, few};

use crate::alone;
use crate::meeting::{Call, Meetings};
use crate::minder::Minder;
use crate::report;
use crate::settings::SETTINGS;
use crate::signals;
use crate::table::File;

/// What this process has.
#[derive(Debug)]
pub(crate) struct Process {
    /// `None` if everything is to be TCP.
    pub(crate) stack: Option<Stack>,
    /// Its device is the daemon's. If not, peers that propose are declined in due form.
    is_member: AtomicBool,
    /// What it has on the fabric's board, if it is a member.
    meetings: OnceLock<Arc<Meetings>>,
    /// Not in a child that has nothing but what it inherited.
    minder: OnceLock<Minder>,
}

impl Process {
    /// Whether a new one has to be made.
    fn is_over(&self) -> bool {
        let is_gone = self.stack.as_ref().is_some_and(Stack::is_gone);
        is_gone || (!self.is_a_member() && !has_just_failed())
    }
}

static CURRENT: ArcSwapOption<Process> = ArcSwapOption::const_empty();
/// A thread makes it.
static MAKING: AtomicBool = AtomicBool::new(false);
/// When the last try failed, in ms of the monotonic clock.
static FAILED: AtomicU64 = AtomicU64::new(0);
/// A listener was marked, by this process or those that it was forked from.
static LISTENS: AtomicBool = AtomicBool::new(false);
/// Whose memory this is; a child of vfork has it as well.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// How long a try that failed stands.
const PAUSE: u64 = 10_000;
/// The fabric of a process that is a member of no other.
const NOBODYS: u16 = 0xfffe;

fn milliseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

fn has_just_failed() -> bool {
    let failed = FAILED.load(Ordering::Relaxed);
    failed != 0 && milliseconds().saturating_sub(failed) < PAUSE
}

/// The process, if it has a stack or can have one.
pub(crate) fn current() -> Option<Arc<Process>> {
    let known = || CURRENT.load_full().filter(|process| !process.is_over());
    if let Some(process) = known() {
        return Some(process);
    }
    while MAKING.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
    let is_tried = || CURRENT.load().is_none() && has_just_failed();
    let process = known().or_else(|| if is_tried() { None } else { make() });
    MAKING.store(false, Ordering::Release);
    process
}

/// The process, if it can reach others.
fn member() -> Option<Arc<Process>> {
    current().filter(|process| process.is_a_member())
}

/// What it has on the fabric's board.
pub(crate) fn meetings() -> Option<Arc<Meetings>> {
    member().and_then(|process| process.meetings.get().cloned())
}

/// The process, if it has a stack already.
pub(crate) fn existing() -> Option<Arc<Process>> {
    CURRENT.load_full()
}

/// The process, if it is not the one that is known.
#[inline]
pub(crate) fn other_than(known: &Arc<Process>) -> Option<Arc<Process>> {
    let now = CURRENT.load();
    now.as_ref().filter(|now| !Arc::ptr_eq(now, known)).cloned()
}

/// How this process stands to the daemon's fabric, and its stack if that is one of it.
pub(crate) fn standing() -> (Joined, Option<Stack>) {
    let Some(process) = existing() else {
        let failed = FAILED.load(Ordering::Relaxed) != 0;
        return (if failed { Joined::Failed } else { Joined::Untried }, None);
    };
    match &process.stack {
        Some(stack) if process.is_a_member() && stack.is_gone() => {
            (Joined::Gone, Some(stack.clone()))
        }
        Some(stack) if process.is_a_member() => (Joined::Member, Some(stack.clone())),
        Some(stack) if stack.is_connected() => (Joined::Failed, None),
        Some(_) => (Joined::Untried, None),
        None => (Joined::Untried, None),
    }
}

/// Whether this process is no member, and declines what is proposed to it.
pub(crate) fn is_alone() -> bool {
    existing().is_some_and(|process| !process.is_a_member() && !process.is_heir())
}

fn make() -> Option<Arc<Process>> {
    OWNER.store(std::process::id(), Ordering::Relaxed);
    let heir = CURRENT.load_full().filter(|process| process.is_heir());
    let made = signals::blocked(|| match &heir {
        Some(heir) => heir.grow_up().map(|()| Arc::clone(heir)),
        None => Process::new().map(Arc::new),
    });
    let process = made.inspect_err(|error| {
        SETTINGS.say(format_args!("TCP: {error}"));
        FAILED.store(milliseconds().max(1), Ordering::Relaxed);
    });
    let process = process.ok()?;
    CURRENT.store(Some(Arc::clone(&process)));
    report::begin();
    Some(process)
}

impl Process {
    fn new() -> Result<Self, Box<dyn Error>> {
        let (stack, is_member) = match device() {
            None => (None, true),
            Some(Ok(device)) => (Some(Stack::new(device, &config())?), true),
            Some(Err(())) => (Some(Stack::new(nobodys_device()?, &config())?), false),
        };
        let minder = OnceLock::from(Minder::start(stack.clone())?);
        let meetings = stack.as_ref().filter(|_| is_member).map(Meetings::new);
        let meetings = meetings.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self { stack, is_member: AtomicBool::new(is_member), meetings, minder })
    }

    /// What it has on the fabric's board, if it is a member.
    pub(crate) fn meetings(&self) -> Option<&Arc<Meetings>> {
        self.meetings.get()
    }

    /// Whether its device is the daemon's.
    fn is_a_member(&self) -> bool {
        self.is_member.load(Ordering::Relaxed)
    }

    /// Whether it is a child that has nothing but what it inherited.
    fn is_heir(&self) -> bool {
        self.stack.as_ref().is_some_and(|stack| !stack.is_connected())
    }

    /// A child gets a device of its own.
    fn grow_up(&self) -> Result<(), Box<dyn Error>> {
        let Some(stack) = &self.stack else { return Ok(()) };
        let (device, is_member) = match device() {
            Some(Ok(device)) => (device, true),
            _ => (nobodys_device()?, false),
        };
        stack.connect(device, &config())?;
        let _ = self.minder.set(Minder::start(Some(stack.clone()))?);
        if is_member {
            let _ = self.meetings.set(Meetings::new(stack));
        }
        self.is_member.store(is_member, Ordering::Relaxed);
        Ok(())
    }
}

/// How this process's stacks are.
fn config() -> Config {
    Config { spin: SETTINGS.spin, ..Config::default() }
}

/// The daemon's device; `None`: everything is to be TCP.
fn device() -> Option<Result<Device, ()>> {
    if SETTINGS.forced_tcp {
        return None;
    }
    let joined = ism_client::vhost::join(&SETTINGS.socket).map_err(|error| {
        let socket = SETTINGS.socket.display();
        let step = error.next_step();
        let separator = if step.is_empty() { "" } else { "; " };
        SETTINGS.say(format_args!("no device at {socket}, so TCP: {error}{separator}{step}"));
        FAILED.store(milliseconds().max(1), Ordering::Relaxed);
    });
    Some(joined)
}

/// A device of this process's own, on whose fabric nobody else is: what peers propose is declined in due form.
fn nobodys_device() -> Result<Device, Box<dyn Error>> {
    Ok(Loopback::new(NOBODYS)?.join([0x5a; 16])?)
}

/// Calls the thread that minds handshakes and children.
fn minder(call: impl FnOnce(&Minder)) {
    if let Some(process) = existing() {
        let _ = process.minder.get().map(call);
    }
}

/// Whether there is such a thread: not in a child that has nothing but what it inherited.
pub(crate) fn is_minded() -> bool {
    existing().is_some_and(|process| process.minder.get().is_some())
}

/// There is something for the minder to do: a child, which may have connections of this process's; a call on the
/// board that nobody needs.
pub(crate) fn wake_minder() {
    minder(Minder::wake);
}

/// Has somebody go on with a handshake that the program does not ask about, and look after a
/// connection that it waits for among others; `now`, or only if it is still not asked about soon.
pub(crate) fn mind(file: &Arc<File>, now: bool) {
    minder(|minder| minder.add(file, now));
}

/// A thread of the program waits for a handshake whose other end may be in this process.
pub(crate) fn hurry() {
    minder(Minder::hurry);
}

/// Whether one more connection that the program closes can be kept until its handshake has ended.
pub(crate) fn has_room() -> bool {
    let mut room = false;
    minder(|minder| room = minder.has_room());
    room
}

/// Has somebody finish the handshake of a connection that the program has closed.
pub(crate) fn mind_closed(file: &Arc<File>) {
    minder(|minder| minder.keep(file));
}

// Discovery

/// Why nothing was offered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    /// The reason (`smc_snapshot::reason`).
    pub(crate) why: u32,
    /// The board was asked just now, and nobody listens there.
    pub(crate) asked: bool,
}

impl From<u32> for Refused {
    fn from(why: u32) -> Self {
        Self { why, asked: false }
    }
}

/// Before connect: says that this end speaks SMC, so that the peer's answer will be known: by the TCP option, or by the
/// board, where somebody has been called.
///
/// # Errors
/// It cannot, or may not.
pub(crate) fn offer(
    fd: impl AsFd,
    local: Option<SocketAddr>,
    peer: SocketAddr,
) -> Result<Option<Call>, Refused> {
    if SETTINGS.forced_tcp {
        return current().map(|_| None).ok_or(reason::FORCED.into());
    }
    let policy = SETTINGS.policy.as_ref().ok_or(reason::BADPOLICY)?;
    match say(&fd, policy.may_offer(local, peer)) {
        Err(reason::NOTSERVED) => {
            let meetings = meetings().ok_or(reason::NOTSERVED)?;
            let refused = |asked| Refused { why: reason::ABSENT, asked };
            meetings.call(fd.as_fd(), peer).map(Some).map_err(refused)
        }
        said => said.map(|()| None).map_err(Into::into),
    }
}

/// Whether it depends on a connection's addresses what is offered.
pub(crate) fn has_rules() -> bool {
    SETTINGS.policy.as_ref().is_some_and(Policy::has_rules)
}

/// Before listen: says that this end speaks SMC.
///
/// # Errors
/// As [`offer`].
pub(crate) fn answer(fd: impl AsFd, local: SocketAddr) -> Result<(), u32> {
    if !SETTINGS.forced_tcp {
        let policy = SETTINGS.policy.as_ref().ok_or(reason::BADPOLICY)?;
        match say(&fd, policy.may_answer(local)) {
            Err(reason::NOTSERVED) if listen_on_board(&fd, local) => {}
            said => said?,
        }
    }
    alone::listens(local);
    LISTENS.store(true, Ordering::Relaxed);
    Ok(())
}

fn listen_on_board(fd: impl AsFd, local: SocketAddr) -> bool {
    meetings().is_some_and(|meetings| meetings.listen(fd.as_fd().as_raw_fd(), local))
}

fn is_on_board(listener: RawFd) -> bool {
    meetings().is_some_and(|meetings| meetings.is_posted(listener))
}

fn say(fd: impl AsFd, may: bool) -> Result<(), u32> {
    if !may {
        return Err(reason::POLICY);
    }
    member().ok_or(reason::NODAEMON)?;
    match mark(fd) {
        Ok(true) => Ok(()),
        Ok(false) => Err(reason::NOTSERVED),
        Err(_) => Err(reason::UNASKED),
    }
}

/// Why a connection of a marked socket is not proposed: the peer is not marked, or nobody can tell.
pub(crate) fn why_not(fd: impl AsFd) -> u32 {
    match peer_is_marked(fd) {
        Ok(Some(_)) => reason::PEERNOSMC,
        Ok(None) if existing().is_some_and(|it| it.meetings().is_some()) => reason::ABSENT,
        Ok(None) => reason::NOTSERVED,
        Err(_) => reason::UNASKED,
    }
}

/// The program has a listener that was marked by the one that executed it, or passed it on, or what one has accepted.
pub(crate) fn has_listener() {
    LISTENS.store(true, Ordering::Relaxed);
}

/// Whether a client may be at the other end of what was accepted at `listener` that has called. Only where the TCP
/// option is not served.
pub(crate) fn is_called(fd: impl AsFd, listener: RawFd, local: SocketAddr) -> bool {
    !SETTINGS.forced_tcp
        && matches!(peer_is_marked(fd), Ok(None))
        && meetings().is_some_and(|meetings| meetings.is_called(listener, local))
}

/// Whether the listener of an accepted connection that is TCP's may be one of SMC's now, though it was not: the daemon or
/// `smc-discovery` has begun to serve since. `why`: what [`answer`] said when it listened, 0 for nothing.
pub(crate) fn is_served_by_now(fd: impl AsFd, listener: RawFd, why: u32) -> bool {
    // Who has shut itself in may do neither what joins nor what marks.
    if SETTINGS.forced_tcp || is_borrowed() || few::is_confined() {
        return false;
    }
    match why {
        reason::NODAEMON => !has_just_failed(),
        // What a marked listener has accepted is marked.
        0 | reason::NOTSERVED => match state(fd) {
            // One that was marked in an earlier run of `smc-discovery` stays TCP's: another listener at its address that
            // that run knew would answer for both, and not know what it has answered.
            Ok(Some(state)) => !state.is_marked() && (why != 0 || is_on_board(listener)),
            // It may have been on the board of a daemon that is gone.
            Ok(None) => existing().is_some_and(|it| it.is_over()),
            Err(_) => false,
        },
        _ => false,
    }
}

/// Whether what is accepted may speak SMC.
pub(crate) fn listens() -> bool {
    LISTENS.load(Ordering::Relaxed)
}

/// Whether the peer of a connection speaks SMC, as this end does.
pub(crate) fn peer_speaks_smc(fd: impl AsFd) -> bool {
    SETTINGS.forced_tcp || peer_is_marked(fd).is_ok_and(|speaks| speaks == Some(true))
}

// Fork

/// Whether this is a child of vfork, which must not change what its parent knows.
pub(crate) fn is_borrowed() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != std::process::id()
}

/// In a child of fork: it has what it inherited. What the parent had is not given back: it is the parent's.
pub(crate) fn after_fork(inherited: Option<Stack>) {
    OWNER.store(std::process::id(), Ordering::Relaxed);
    MAKING.store(false, Ordering::Relaxed);
    FAILED.store(0, Ordering::Relaxed);
    let heir = inherited.map(|stack| {
        let (is_member, meetings, minder) =
            (AtomicBool::new(false), OnceLock::new(), OnceLock::new());
        Arc::new(Process { stack: Some(stack), is_member, meetings, minder })
    });
    std::mem::forget(CURRENT.swap(heir));
}

/// Hears of the daemon's end, of which nobody is woken who sleeps in no call of this library's. The caller holds no lock.
pub(crate) fn look_for_daemon() {
    /// Milliseconds for which a look is good enough.
    const RECENT: u64 = 10;
    static LOOKED: AtomicU64 = AtomicU64::new(0);
    let now = milliseconds();
    if now.saturating_sub(LOOKED.load(Ordering::Relaxed)) < RECENT
        || is_borrowed()
        || few::is_confined()
    {
        return;
    }
    LOOKED.store(now, Ordering::Relaxed);
    if let Some(process) = existing()
        && let Some(stack) = &process.stack
    {
        stack.look_for_end();
    }
}

/// At the start of the program.
pub(crate) fn start() {
    ism_client::own::keep_apart();
    OWNER.store(std::process::id(), Ordering::Relaxed);
}
