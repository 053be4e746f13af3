// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What this process has on the fabric's board: ends, listeners, calls.
//!
//! Invariant: no lock of this file is held while something is posted, or while a connection is told something; but for
//! `turn`, which only who begins to listen waits for.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::c_int;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use ism_abi::{Gid, status};
use ism_client::board::{Key, Note, Post, Told};
use rustix::net::sockopt;
use smc_socket::Stack;

use super::place::{self, serves};
use super::random_id;
use crate::descriptor::borrow;
use crate::process;
use crate::sock::lock;
use crate::table::File;

/// How long nobody is asked about a place where nobody listened. So a connection to a plain server costs a
/// question at most this often.
const SILENCE: Duration = Duration::from_millis(100);
/// How long nobody calls where a listener did not come.
const VAIN: Duration = Duration::from_secs(1);
/// How long a call is left on the board after its last client has met somebody: another is likely to follow.
const LINGER: Duration = Duration::from_millis(3);
/// Places kept in mind; they are forgotten together.
const PLACES: usize = 1024;
/// Listeners of a process; the rest of its places on the board is for connections.
const MOST: usize = 1024;
/// The least number of listeners among which closed ones are looked for.
const LISTENERS: usize = 16;

/// All that this process has on the board.
#[derive(Debug)]
pub(crate) struct Meetings {
    stack: Stack,
    ends: Mutex<HashMap<u64, End>>,
    listeners: Mutex<HashMap<u64, Listener>>,
    /// Held while listeners are looked up and posted, so that none is posted twice. The others' locks are taken within.
    turn: Mutex<()>,
    /// How many of them there are when the closed ones are looked for; changed under their lock.
    sweep_at: AtomicUsize,
    calls: Mutex<HashMap<Key, Calling>>,
    /// The minder knows that some are to be taken back.
    is_due: AtomicBool,
    /// Where nobody listens or comes, until when.
    strangers: Mutex<HashMap<SocketAddr, Instant>>,
}

/// A connection that looks for its other end.
#[derive(Debug)]
struct End {
    file: Weak<File>,
    /// Of a server: its own address.
    at: Option<SocketAddr>,
}

#[derive(Debug)]
struct Listener {
    at: SocketAddr,
    key: Key,
    /// The socket, while its cookie is this.
    fd: c_int,
    cookie: Option<u64>,
    callers: HashSet<(Gid, u64)>,
    /// Whether it could be posted, once that was tried.
    is_heard: Option<bool>,
}

/// This process's word to listeners somewhere, for all of its clients that connect there.
#[derive(Debug)]
struct Calling {
    id: u64,
    users: usize,
    /// When it is taken back, if nobody needs it until then.
    until: Instant,
}

/// A client's part in it.
#[derive(Debug)]
pub(crate) struct Call {
    meetings: Arc<Meetings>,
    peer: SocketAddr,
    keys: Vec<Key>,
}

impl Meetings {
    /// Those of the process with this stack.
    pub(crate) fn new(stack: &Stack) -> Arc<Self> {
        let meetings = Arc::new(Self {
            stack: stack.clone(),
            ends: Mutex::default(),
            listeners: Mutex::default(),
            turn: Mutex::default(),
            sweep_at: AtomicUsize::new(LISTENERS),
            calls: Mutex::default(),
            is_due: AtomicBool::new(false),
            strangers: Mutex::default(),
        });
        let reader = Arc::downgrade(&meetings);
        stack.read_board(move |told| {
            if let Some(meetings) = reader.upgrade() {
                meetings.told(told);
            }
        });
        meetings
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    pub(super) fn is_gone(&self) -> bool {
        self.stack.is_gone()
    }

    /// Posts; the error says whether there were too many, so that it can be tried again.
    pub(super) fn post(&self, post: &Post) -> Result<(), bool> {
        let device = self.stack.device().ok_or(false)?;
        device.post(post).map(drop).map_err(|error| error.status() == Some(status::BUSY))
    }

    /// Has `file` told what end `id` reads.
    pub(super) fn expect(&self, id: u64, file: &Arc<File>, at: Option<SocketAddr>) {
        lock(&self.ends).insert(id, End { file: Arc::downgrade(file), at });
    }

    pub(super) fn forget(&self, id: u64) {
        lock(&self.ends).remove(&id);
    }

    fn told(&self, told: &Told) {
        let end = lock(&self.ends).get(&told.reader).and_then(|end| end.file.upgrade());
        if let Some(file) = end {
            if let File::Sock(sock) = &*file
                && sock.meeting().is_some_and(|meeting| meeting.told(told))
            {
                sock.go_on(&file);
            }
            return;
        }
        let (closed, deserted) = {
            let mut listeners = lock(&self.listeners);
            let Some(listener) = listeners.get_mut(&told.reader) else { return };
            match told.note {
                Note::Call => drop(listener.callers.insert((told.from, told.id))),
                _ => drop(listener.callers.remove(&(told.from, told.id))),
            }
            let deserted = listener.callers.is_empty().then_some(listener.at);
            let is_open = listener.is_open();
            let closed = if is_open { None } else { listeners.remove_entry(&told.reader) };
            (closed, deserted)
        };
        if let Some((id, listener)) = closed {
            self.leave(id, listener.key);
        }
        if let Some(at) = deserted {
            self.nobody_calls(at);
        }
    }

    /// Who has called has found its other end, or has left: the rest of what was accepted there is of plain clients.
    fn nobody_calls(&self, at: SocketAddr) {
        let files: Vec<_> = {
            let ends = lock(&self.ends);
            let local = |end: &End| end.at.filter(|local| serves(at, *local));
            let there = ends.values().filter_map(|end| Some((local(end)?, end.file.upgrade()?)));
            there.collect()
        };
        for (local, file) in files {
            if !self.has_caller(local)
                && let File::Sock(sock) = &*file
                && let Some(meeting) = sock.meeting()
            {
                meeting.lose_patience();
                sock.go_on(&file);
            }
        }
    }

    fn leave(&self, id: u64, key: Key) {
        // What is not there any more cannot leave.
        let _ = self.post(&Post { key, id, note: Note::Leave });
    }

    // Servers

    /// Whether a client calls that an end at this address may be connected to.
    fn has_caller(&self, local: SocketAddr) -> bool {
        lock(&self.listeners).values().any(|it| serves(it.at, local) && !it.callers.is_empty())
    }

    /// `fd` is about to listen, perhaps once more, or does. Whether anybody can know. What could not be posted before is
    /// tried again.
    pub(crate) fn listen(&self, fd: c_int, local: SocketAddr) -> bool {
        let _turn = lock(&self.turn);
        self.sweep();
        let (mut heard, unposted) = self.to_post(fd, local);
        for (id, key) in unposted {
            let is_heard = self.post(&Post { key, id, note: Note::Listen }).is_ok();
            if let Some(listener) = lock(&self.listeners).get_mut(&id) {
                listener.is_heard = Some(is_heard);
            }
            heard |= is_heard;
        }
        heard
    }

    /// Whether some of a listener is posted, and what is to be.
    fn to_post(&self, fd: c_int, local: SocketAddr) -> (bool, Vec<(u64, Key)>) {
        let cookie = sockopt::socket_cookie(borrow(fd)).ok();
        let places = place::of_listener(borrow(fd), local);
        let (mut heard, mut unposted) = (false, Vec::new());
        let mut listeners = lock(&self.listeners);
        for (at, key) in places {
            // Programs call listen again for a longer queue.
            let known = listeners.iter().find(|(_, it)| it.is_of(fd, cookie) && it.key == key);
            match known.map(|(id, it)| (*id, it.is_heard == Some(true))) {
                Some((_, true)) => heard = true,
                Some((id, false)) => unposted.push((id, key)),
                None if listeners.len() >= MOST => {}
                None => {
                    let Some(id) = random_id() else { continue };
                    let (callers, is_heard) = (HashSet::new(), None);
                    // Before it is posted: callers may be there. And kept if it cannot be, so as not to be tried for
                    // each connection.
                    listeners.insert(id, Listener { at, key, fd, cookie, callers, is_heard });
                    unposted.push((id, key));
                }
            }
        }
        (heard, unposted)
    }

    /// Whether somebody can know of a listener.
    pub(crate) fn is_posted(&self, listener: c_int) -> bool {
        let cookie = sockopt::socket_cookie(borrow(listener)).ok();
        let is_heard = |it: &Listener| it.is_of(listener, cookie) && it.is_heard == Some(true);
        lock(&self.listeners).values().any(is_heard)
    }

    /// Whether a client calls that this end may be connected to. `listener` is where it was accepted.
    pub(crate) fn is_called(&self, listener: c_int, local: SocketAddr) -> bool {
        let cookie = sockopt::socket_cookie(borrow(listener)).ok();
        let was_tried = |it: &Listener| it.is_of(listener, cookie) && it.is_heard.is_some();
        if !lock(&self.listeners).values().any(was_tried) {
            // A child of fork: the listener is its parent's.
            self.listen(listener, place::local(borrow(listener)).unwrap_or(local));
        }
        // The caller was posted before it connected.
        self.stack.dispatch();
        self.has_caller(local)
    }

    /// Takes back listeners whose sockets are closed, if there are many.
    fn sweep(&self) {
        let closed: Vec<_> = {
            let mut listeners = lock(&self.listeners);
            // Not each time: each is asked of the kernel.
            if listeners.len() < self.sweep_at.load(Ordering::Relaxed) {
                return;
            }
            let closed = listeners.extract_if(|_, listener| !listener.is_open()).collect();
            let next = (2 * listeners.len()).clamp(LISTENERS, MOST);
            self.sweep_at.store(next, Ordering::Relaxed);
            closed
        };
        closed.into_iter().for_each(|(id, listener)| self.leave(id, listener.key));
    }

    // Clients

    /// Before a client connects: it may meet somebody there.
    ///
    /// # Errors
    /// Nobody listens there; whether that was asked now.
    pub(crate) fn call(
        self: &Arc<Self>,
        fd: BorrowedFd<'_>,
        peer: SocketAddr,
    ) -> Result<Call, bool> {
        if self.is_kept_away(peer, Instant::now()) {
            return Err(false);
        }
        let keys = place::to_call(fd, peer);
        let there: Vec<_> = keys.iter().copied().filter(|key| self.joins(key)).collect();
        // Everywhere: who listens at one place may be another than who has the socket.
        let hears = |key: &Key| self.call_at(*key).unwrap_or(false);
        let keys = if there.is_empty() { keys.into_iter().filter(hears).collect() } else { there };
        (!keys.is_empty()).then(|| Call { meetings: Arc::clone(self), peer, keys }).ok_or(true)
    }

    /// Whether this process calls there already; then one more needs it.
    fn joins(&self, key: &Key) -> bool {
        lock(&self.calls).get_mut(key).map(|calling| calling.users += 1).is_some()
    }

    /// Calls at one place; whether somebody listens there.
    fn call_at(&self, key: Key) -> Option<bool> {
        let id = random_id()?;
        let called = self.stack.device()?.post(&Post { key, id, note: Note::Call });
        let is_heard = called.is_ok_and(|listeners| listeners > 0);
        if is_heard {
            let now = Instant::now();
            // Of two threads both have called, and one is enough.
            let other = match lock(&self.calls).entry(key) {
                Entry::Occupied(mut there) => {
                    there.get_mut().users += 1;
                    Some(id)
                }
                Entry::Vacant(place) => {
                    place.insert(Calling { id, users: 1, until: now });
                    None
                }
            };
            other.into_iter().for_each(|id| self.leave(id, key));
        }
        Some(is_heard)
    }

    /// Takes back calls that nobody needs any more; when the next is due.
    pub(crate) fn hang_up(&self) -> Option<Duration> {
        if !self.is_due.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        let (over, next) = {
            let mut calls = lock(&self.calls);
            let is_over = |calling: &Calling| calling.users == 0 && calling.until <= now;
            let over: Vec<_> = calls.extract_if(|_, calling| is_over(calling)).collect();
            let next = calls.values().filter(|it| it.users == 0).map(|it| it.until).min();
            self.is_due.store(next.is_some(), Ordering::Release);
            (over, next)
        };
        over.into_iter().for_each(|(key, calling)| self.leave(calling.id, key));
        next.map(|next| next.saturating_duration_since(now))
    }

    /// Nobody listened on the board at this address when that was asked, and yet the client was connected.
    pub(crate) fn is_stranger(&self, peer: SocketAddr) {
        self.keep_away(peer, SILENCE);
    }

    fn is_kept_away(&self, peer: SocketAddr, now: Instant) -> bool {
        lock(&self.strangers).get(&peer).is_some_and(|until| *until > now)
    }

    pub(super) fn in_vain(&self, call: &Call) {
        self.keep_away(call.peer, VAIN);
    }

    fn keep_away(&self, peer: SocketAddr, time: Duration) {
        let mut strangers = lock(&self.strangers);
        let until = Instant::now() + time;
        let known = strangers.get(&peer).is_some_and(|there| *there > until);
        if strangers.len() >= PLACES {
            strangers.clear();
        }
        if !known {
            strangers.insert(peer, until);
        }
    }
}

impl Listener {
    /// Whether it is the socket with this number and this cookie.
    fn is_of(&self, fd: c_int, cookie: Option<u64>) -> bool {
        self.fd == fd && self.cookie == cookie
    }

    /// Whether the program has not closed it.
    fn is_open(&self) -> bool {
        sockopt::socket_cookie(borrow(self.fd)).ok() == self.cookie
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let meetings = &self.meetings;
        let mut calls = lock(&meetings.calls);
        let mut is_over = false;
        for key in &self.keys {
            let Some(calling) = calls.get_mut(key) else { continue };
            calling.users = calling.users.saturating_sub(1);
            calling.until = Instant::now() + LINGER;
            is_over |= calling.users == 0;
        }
        let is_news = is_over && !meetings.is_due.swap(true, Ordering::AcqRel);
        drop(calls);
        if is_news {
            process::wake_minder();
        }
    }
}

#[cfg(test)]
mod tests;
