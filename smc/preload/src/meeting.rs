// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a connection finds its other end by the fabric's board, where no TCP option can be used.
//!
//! Invariant: no byte is sent as SMC's before the board says that both ends have agreed; nothing here waits but
//! [`Meeting::wait`], and the state's lock is held around a post, never around a call of the stack.
//!
//! A listener says on the board that it listens, and a client that is about to connect calls it there. Without a
//! listener, or without a caller, nobody waits for anything: the connection is TCP. Else each end announces itself
//! under the connection's addresses (`smc-discovery`'s rendezvous) when it is begun, and what the board then says
//! decides. An end that is sent bytes before it has met anybody talks to plain TCP, and leaves.

mod board;
mod place;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ism_client::board::{Key, Note, Post, Told};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smc_discovery::rendezvous::{Entry, Member, Outcome, Refusal, Rendezvous, Side, Wish};
use smc_snapshot::reason;
use smc_socket::{Role, has_come};

use crate::bell::Bell;
use crate::process;
use crate::sock::{Sock, Stage, end_of, lock};
use crate::table::File;

pub(crate) use board::{Call, Meetings};

/// How long a client waits for a server that listens on the board: as for the answer to a proposal, some more than
/// what is accepted is left to a server that may fork.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a server waits for a client that has called: it is connected, and has nothing else to do.
const SERVER_PATIENCE: Duration = Duration::from_millis(200);
/// When a post is tried again that was refused because there were too many.
const AGAIN: Duration = Duration::from_millis(10);

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The board has not decided.
    Pending,
    /// The other end expects SMC's handshake.
    Met,
    /// TCP, because of this (`smc_snapshot::reason`).
    Tcp(u32),
}

/// One end of a connection, which looks for the other.
#[derive(Debug)]
pub(crate) struct Meeting {
    role: Role,
    /// What the client has told the listener.
    call: Mutex<Option<Call>>,
    begun: AtomicBool,
    /// Threads in [`Meeting::wait`].
    waiters: AtomicU32,
    state: Mutex<State>,
    bell: OnceLock<Bell>,
}

#[derive(Debug)]
enum State {
    /// Nobody has begun it.
    New,
    Going(Box<Going>),
    Over(Progress),
}

#[derive(Debug)]
struct Going {
    meetings: Arc<Meetings>,
    id: u64,
    key: Key,
    rendezvous: Rendezvous,
    /// Not yet posted.
    posts: VecDeque<Entry>,
    has_announced: bool,
    has_left: bool,
}

impl Meeting {
    /// A client's, which has called.
    pub(crate) fn of_client(call: Call) -> Self {
        Self::new(Role::Client, Some(call))
    }

    /// That of a connection which was accepted while clients were calling.
    pub(crate) fn of_server() -> Self {
        Self::new(Role::Server, None)
    }

    fn new(role: Role, call: Option<Call>) -> Self {
        let (begun, waiters) = (AtomicBool::new(false), AtomicU32::new(0));
        let (call, state) = (Mutex::new(call), Mutex::new(State::New));
        Self { role, call, begun, waiters, state, bell: OnceLock::new() }
    }

    /// What a child of fork has of it: one that nobody has begun. No lock is taken.
    pub(crate) fn after_fork(&self) -> Option<Self> {
        let is_new = self.role == Role::Server && !self.is_begun();
        is_new.then(Self::of_server)
    }

    /// Begins, and goes on without waiting.
    pub(crate) fn advance(&self, file: &Arc<File>, tcp: BorrowedFd<'_>) -> Progress {
        let mut state = lock(&self.state);
        if matches!(*state, State::New) {
            self.begun.store(true, Ordering::Release);
            *state = match self.begin(file, tcp) {
                Ok(going) => State::Going(Box::new(going)),
                Err(why) => State::Over(Progress::Tcp(why)),
            };
        }
        if let State::Going(going) = &mut *state {
            if going.meetings.is_gone() {
                going.rendezvous.handle_lost();
            } else if has_come(tcp) {
                going.rendezvous.lose_patience();
            }
            going.rendezvous.handle_timeout(Instant::now());
        }
        self.go_on(&mut state)
    }

    /// The board has told this end something. Whether it is decided by that.
    fn told(&self, told: &Told) -> bool {
        let mut state = lock(&self.state);
        let State::Going(going) = &mut *state else { return false };
        if let Some(entry) = entry(told) {
            let from = Member(u128::from_be_bytes(told.from));
            going.rendezvous.handle_entry(told.number, from, entry);
        }
        let decided = self.go_on(&mut state) != Progress::Pending;
        if decided && let Some(bell) = self.bell.get() {
            bell.ring();
        }
        decided
    }

    /// Posts what is to be posted, and sees what has become of it.
    fn go_on(&self, state: &mut State) -> Progress {
        let going = match state {
            State::New => return Progress::Pending,
            State::Over(progress) => return *progress,
            State::Going(going) => going,
        };
        going.post();
        let progress = match going.rendezvous.outcome() {
            None => return Progress::Pending,
            Some(Outcome::Met(_)) => Progress::Met,
            // The client may have met this end: its first bytes will show.
            Some(Outcome::Refused(Refusal::Lost))
                if self.role == Role::Server && going.has_announced =>
            {
                Progress::Met
            }
            Some(Outcome::Refused(refusal)) => {
                going.refused(lock(&self.call).as_ref(), refusal);
                Progress::Tcp(number(refusal))
            }
        };
        // The place on the board is given back with it.
        *state = State::Over(progress);
        lock(&self.call).take();
        progress
    }

    fn begin(&self, file: &Arc<File>, tcp: BorrowedFd<'_>) -> Result<Going, u32> {
        let meetings = process::meetings().ok_or(reason::NODAEMON)?;
        let (key, side) = place::of_connection(tcp)?;
        let id = random_id().ok_or(reason::UNASKED)?;
        let patience = if self.role == Role::Client { PATIENCE } else { SERVER_PATIENCE };
        let rendezvous = Rendezvous::new(id, side, Instant::now(), patience);
        let at = (self.role == Role::Server).then(|| place::local(tcp)).flatten();
        meetings.expect(id, file, at);
        // Who calls may wait for TCP only, and a child of fork had nobody to mind it. A client is minded from the
        // beginning.
        if self.role == Role::Server && self.waiters.load(Ordering::Relaxed) == 0 {
            process::mind(file, true);
        }
        let (posts, has_announced, has_left) = (VecDeque::new(), false, false);
        Ok(Going { meetings, id, key, rendezvous, posts, has_announced, has_left })
    }

    /// Whether somebody has begun it.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether the handshake may begin.
    pub(crate) fn has_met(&self) -> bool {
        matches!(&*lock(&self.state), State::Over(Progress::Met))
    }

    /// Nobody is going to come.
    pub(crate) fn lose_patience(&self) {
        if let State::Going(going) = &mut *lock(&self.state) {
            going.rendezvous.lose_patience();
        }
    }

    /// Waits until it is decided and the connection knows it, or for a time.
    ///
    /// # Errors
    /// EINTR; no descriptors.
    pub(crate) fn wait(
        &self,
        sock: &Sock,
        file: &Arc<File>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let waited = self.wait_attended(sock, file, timeout);
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        if sock.stage() == Stage::Fresh {
            process::mind(file, true);
        }
        waited
    }

    fn wait_attended(
        &self,
        sock: &Sock,
        file: &Arc<File>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let until = end_of(timeout);
        let Some(meetings) = process::meetings() else {
            sock.go_on(file);
            return Ok(());
        };
        loop {
            let bell = self.bell.get();
            bell.inspect(|bell| bell.clear());
            meetings.stack().dispatch();
            sock.go_on(file);
            let now = Instant::now();
            if sock.stage() != Stage::Fresh || until.is_some_and(|until| until <= now) {
                return Ok(());
            }
            let Some(bell) = bell else {
                // Another thread may have made it.
                let _ = self.bell.set(Bell::new()?);
                continue;
            };
            let next = [until, self.next_look(now)].into_iter().flatten().min();
            let left = next.map(|next| next.saturating_duration_since(now));
            if bell.prepare_sleep() {
                let slept = self.sleep(&meetings, bell, sock, left);
                bell.wake_up();
                slept?;
            }
        }
    }

    fn sleep(
        &self,
        meetings: &Meetings,
        bell: &Bell,
        sock: &Sock,
        left: Option<Duration>,
    ) -> io::Result<()> {
        let stack = meetings.stack();
        if meetings.is_gone() || !stack.prepare_sleep() {
            return Ok(());
        }
        let number = sock.number();
        let tcp = crate::descriptor::borrow(number);
        // Once it has left, bytes say nothing new.
        let wanted = if self.is_patient() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::from_borrowed_fd(stack.wake_fd(), PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
            PollFd::from_borrowed_fd(tcp, wanted),
        ];
        let fds_used = if self.is_patient() { 3 } else { 2 };
        let fds = fds.get_mut(..fds_used).unwrap_or_default();
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let slept = poll(fds, timeout.as_ref());
        let rung = fds.first().is_some_and(|wake| !wake.revents().is_empty());
        stack.wake_up(rung);
        slept.map(drop).map_err(Into::into)
    }

    /// Whether it has not lost patience.
    fn is_patient(&self) -> bool {
        matches!(&*lock(&self.state), State::Going(it) if it.rendezvous.poll_timeout().is_some())
    }

    fn next_look(&self, now: Instant) -> Option<Instant> {
        match &*lock(&self.state) {
            State::Going(going) if going.posts.is_empty() => going.rendezvous.poll_timeout(),
            State::Going(_) => Some(now + AGAIN),
            State::New | State::Over(_) => None,
        }
    }
}

impl Going {
    /// Posts what the rendezvous wishes.
    fn post(&mut self) {
        while let Some(Wish::Post(entry)) = self.rendezvous.poll_wish() {
            self.posts.push_back(entry);
        }
        while let Some(entry) = self.posts.front().copied() {
            let note = match entry {
                Entry::Announce { side, .. } => {
                    Note::Announce { side: (side == Side::High).into() }
                }
                Entry::Accept { other, .. } => Note::Accept { other },
                Entry::Leave { .. } => Note::Leave,
            };
            let posted = self.meetings.post(&Post { key: self.key, id: self.id, note });
            match (posted, entry) {
                (Ok(()), Entry::Announce { .. }) => self.has_announced = true,
                (Ok(()), Entry::Leave { .. }) => self.has_left = true,
                (Ok(()), Entry::Accept { .. }) => {}
                // Only who is not on the board at all may forget about it.
                (Err(busy), Entry::Accept { .. } | Entry::Leave { .. }) if busy => return,
                (Err(_), _) => {
                    self.posts.clear();
                    return self.rendezvous.handle_lost();
                }
            }
            self.posts.pop_front();
        }
    }

    /// A server that listens and does not come is not waited for again soon.
    fn refused(&self, call: Option<&Call>, refusal: Refusal) {
        if let Some(call) = call
            && refusal == Refusal::Nobody
        {
            self.meetings.in_vain(call);
        }
    }
}

/// Gives back its place on the board.
impl Drop for Going {
    fn drop(&mut self) {
        self.meetings.forget(self.id);
        if !self.has_left {
            // What was refused is not there.
            let _ = self.meetings.post(&Post { key: self.key, id: self.id, note: Note::Leave });
        }
    }
}

fn number(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::Nobody | Refusal::Left => reason::UNMET,
        Refusal::Ambiguous => reason::AMBIGUOUS,
        Refusal::Lost => reason::NOBOARD,
    }
}

/// What an end is told, as the rendezvous has it.
fn entry(told: &Told) -> Option<Entry> {
    let id = told.id;
    match told.note {
        Note::Announce { side: 0 } => Some(Entry::Announce { id, side: Side::Low }),
        Note::Announce { .. } => Some(Entry::Announce { id, side: Side::High }),
        Note::Accept { other } => Some(Entry::Accept { id, other }),
        Note::Leave => Some(Entry::Leave { id }),
        Note::Listen | Note::Call => None,
    }
}

/// A number that nobody guesses.
fn random_id() -> Option<u64> {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    (got == bytes.len()).then_some(u64::from_ne_bytes(bytes))
}
