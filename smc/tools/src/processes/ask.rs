// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Asking many at once.
//!
//! Invariant: whoever answers, late or never, all is over by [`Limits::all`]; a process is asked once, and
//! the memory that its answer may take is bounded by the sockets it has.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use smc_snapshot::{Decoder, Snapshot};
use unix_peer::Peer;

use super::find::{self, Place};
use super::{Holder, Limits, Processes, Told};
use crate::text::printable;

/// Questions that are open at the same time.
const AT_ONCE: usize = 256;
/// How soon one is asked again whose queue of askers was full.
const AGAIN: Duration = Duration::from_millis(20);
/// Records beyond those of the sockets that a process has: link groups, reasons, and sockets that come
/// while it is asked.
const MORE_RECORDS: usize = 4096;

/// A look at the descriptors of one process takes this part of [`Limits::each`] at most.
const LOOKS: u32 = 8;
/// Problems that are told of.
const PROBLEMS: usize = 32;

/// A name at which somebody may answer.
struct Question<'a> {
    place: &'a Place,
    name: String,
    /// Until when it is tried.
    end: Instant,
}

/// Somebody who is answering.
struct Answer {
    holder: Holder,
    socket: OwnedFd,
    decoder: Decoder,
    silent: bool,
    end: Instant,
}

/// Asks at all names of all places.
pub(super) fn all(places: &[Place], limits: Limits) -> Processes {
    let begin = Instant::now();
    let mut asker = Asker { limits, end: begin + limits.all, ..Asker::new(begin) };
    for place in places {
        let names = place.names.iter().cloned();
        asker.waiting.extend(names.map(|name| Question { place, name, end: begin + limits.each }));
    }
    asker.run();
    let mut found = asker.found;
    found.told.sort_by_key(|told| told.holder.pid);
    let more = found.problems.len().saturating_sub(PROBLEMS);
    if more > 0 {
        found.problems.truncate(PROBLEMS);
        found.problems.push(format!("and {more} more like these"));
    }
    found
}

struct Asker<'a> {
    limits: Limits,
    end: Instant,
    waiting: VecDeque<Question<'a>>,
    open: Vec<Answer>,
    asked: HashSet<u32>,
    buffer: Vec<u8>,
    found: Processes,
}

impl<'a> Asker<'a> {
    fn new(now: Instant) -> Self {
        Self {
            limits: Limits::default(),
            end: now,
            waiting: VecDeque::new(),
            open: Vec::new(),
            asked: HashSet::new(),
            buffer: vec![0; 64 << 10],
            found: Processes::default(),
        }
    }

    fn run(&mut self) {
        loop {
            self.ask();
            if self.waiting.is_empty() && self.open.is_empty() {
                return;
            }
            self.wait();
            self.listen();
            if Instant::now() >= self.end {
                return match self.waiting.len() + self.open.len() {
                    0 => {}
                    n => {
                        let text = format!("{n} more did not answer in time, or were not asked");
                        self.found.problems.push(text);
                    }
                };
            }
        }
    }

    /// Asks as many as may be asked at once.
    fn ask(&mut self) {
        let mut busy = VecDeque::new();
        while self.open.len() < AT_ONCE
            && Instant::now() < self.end
            && let Some(question) = self.waiting.pop_front()
        {
            match question.ask() {
                Ok(socket) => self.answered(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() < question.end {
                        busy.push_back(question);
                    } else {
                        self.problem(&question.name, &"it does not answer (stopped, or busy?)");
                    }
                }
                // It has ended meanwhile, or there is nobody by this name.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => self.problem(&question.name, &error),
            }
        }
        self.waiting.append(&mut busy);
    }

    /// Somebody listened; who it is, and whether it may be asked, is for the kernel to say.
    fn answered(&mut self, socket: OwnedFd) {
        let Ok(Peer { pid: Some(pid), uid, .. }) = Peer::of(&socket) else { return };
        // Before it is looked at, which takes long if it has many descriptors: it may listen at many names.
        if self.asked.contains(&pid) {
            return;
        }
        let holder = Holder { pid, name: printable(&find::name(pid)) };
        let sockets = match find::sockets_of(pid, self.end_of_look()) {
            Ok(sockets) => sockets,
            // Of one that has ended, or that this user may not look at, no row could be believed.
            Err(error) if error.raw_os_error().is_some() => return,
            Err(error) => {
                self.asked.insert(pid);
                return self.problem(&named(&holder), &error);
            }
        };
        // The number may be another process's by now.
        if uid != 0 && !find::is_of(pid, uid) {
            return self.problem(&named(&holder), &"who answers for it is of another user");
        }
        self.asked.insert(pid);
        let decoder = Decoder::with_room_for(MORE_RECORDS + 2 * sockets.len());
        let end = Instant::now() + self.limits.each;
        self.open.push(Answer { holder, socket, decoder, silent: true, end });
    }

    /// Until when one process's descriptors are looked at: the others wait meanwhile.
    fn end_of_look(&self) -> Instant {
        self.end.min(Instant::now() + self.limits.each / LOOKS)
    }

    fn wait(&self) {
        let nearest = self.open.iter().map(|answer| answer.end).min().unwrap_or(self.end);
        let mut left = nearest.min(self.end).saturating_duration_since(Instant::now());
        if !self.waiting.is_empty() && self.open.len() < AT_ONCE {
            left = left.min(AGAIN);
        }
        let mut fds: Vec<_> =
            self.open.iter().map(|answer| PollFd::new(&answer.socket, PollFlags::IN)).collect();
        // If it fails, no answer is ready, and the deadlines hold.
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    }

    /// Hears those who say something, and gives up on those who have been silent for too long.
    fn listen(&mut self) {
        for mut answer in std::mem::take(&mut self.open) {
            match answer.hear(&mut self.buffer) {
                Ok(None) if Instant::now() < answer.end => self.open.push(answer),
                Ok(None) if answer.silent => {
                    self.problem(&named(&answer.holder), &"it does not answer (stopped?)");
                }
                Ok(None) => self.problem(&named(&answer.holder), &"it takes too long"),
                Ok(Some(snapshot)) => self.told(answer.holder, snapshot),
                Err(error) => self.problem(&named(&answer.holder), &error),
            }
        }
    }

    /// It is believed of its own sockets.
    fn told(&mut self, holder: Holder, mut snapshot: Snapshot) {
        match find::sockets_of(holder.pid, self.end_of_look()) {
            Ok(own) => snapshot.connections.retain(|it| own.contains(&it.inode)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.problem(&named(&holder), &error),
        }
        for text in [&mut snapshot.process.name, &mut snapshot.process.socket] {
            *text = printable(text);
        }
        snapshot.device.iter_mut().for_each(|device| device.eid = printable(&device.eid));
        self.found.told.push(Told { holder, snapshot });
    }

    fn problem(&mut self, who: &str, why: &dyn std::fmt::Display) {
        self.found.problems.push(printable(&format!("{who}: {why}")));
    }
}

fn named(holder: &Holder) -> String {
    format!("process {} ({})", holder.pid, holder.name)
}

impl Question<'_> {
    /// Connects, without waiting, in the network namespace of the name.
    fn ask(&self) -> io::Result<OwnedFd> {
        if self.place.here {
            return self.ask_here();
        }
        let there = File::open(format!("/proc/{}/ns/net", self.place.pid))?;
        let asked = thread::scope(|scope| {
            let ask = || {
                move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
                self.ask_here()
            };
            // A thread of its own, which then ends: the namespace is a thread's.
            scope.spawn(ask).join()
        });
        asked.unwrap_or_else(|_| Err(io::Error::other("it could not be asked")))
    }

    fn ask_here(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(self.name.as_bytes())?)?;
        Ok(socket)
    }
}

impl Answer {
    /// Takes what is there; the snapshot if that was all.
    fn hear(&mut self, buffer: &mut [u8]) -> io::Result<Option<Snapshot>> {
        match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) if self.silent => Err(io::Error::other("it does not answer this user")),
            Ok((0, _)) => {
                let decoder = std::mem::take(&mut self.decoder);
                decoder.finish().map(Some).map_err(io::Error::other)
            }
            Ok((n, _)) => {
                self.silent = false;
                let bytes = buffer.get(..n).unwrap_or_default();
                self.decoder.feed(bytes).map(|()| None).map_err(io::Error::other)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
