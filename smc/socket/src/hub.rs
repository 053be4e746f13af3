// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the process that made a stack and its children tell each other where to look.
//!
//! Invariant: a child is told of every signal for a connection that it has, as long as this process serves
//! the hub; a child that has ended is found out by the end of its link.
//!
//! The device wakes the process that joined it, and nobody else. So that process passes signals on: it sets the
//! connection's bit in the child's page and writes to the child's link, a socket pair, if the child sleeps.
//! Children write to one eventfd, which raises no SIGPIPE.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ism_client::own as fd;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use smc_ring::SignalPage;
use smc_ring::signal_page::PageView;

use crate::family::{Family, Member, PROCESSES, ROOT};
use crate::links::{self, Held, Link};
use crate::own::Own;

/// The eventfd in the epoll set; links have their child's number.
const BELL: u64 = u64::MAX;

/// What a look at the hub brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// A child says: look at this connection.
    Look(u32),
    /// A child has ended, or was never born.
    Ended(u32),
}

/// The middle of a family.
#[derive(Debug)]
pub(crate) struct Hub {
    family: Arc<Family>,
    page: SignalPage<PageView>,
    bell: Arc<Own>,
    epoll: fd::Own,
    /// Changed by who holds the lock of all links.
    links: Mutex<BTreeMap<u32, Link>>,
    /// There is a child.
    busy: AtomicBool,
}

/// What a child needs of its family.
#[derive(Debug)]
pub(crate) struct Cradle {
    pub(crate) family: Arc<Family>,
    pub(crate) member: Member,
    /// The child's end of its link.
    pub(crate) link: Link,
    /// The first process's eventfd.
    pub(crate) bell: Arc<Own>,
}

impl Hub {
    /// The hub of a family without children.
    ///
    /// # Errors
    /// No descriptors.
    pub(crate) fn new(family: &Arc<Family>) -> io::Result<Self> {
        family.begin_life()?;
        let bell = Own::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        let epoll = fd::Own::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        epoll::add(&epoll, bell.number(), EventData::new_u64(BELL), EventFlags::IN)?;
        let page = family.page(ROOT).ok_or(io::ErrorKind::NotFound)?;
        let (links, busy) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { family: Arc::clone(family), page, bell: Arc::new(bell), epoll, links, busy })
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<u32, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are children.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Readable when [`Hub::take`] has something to do.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Makes [`Hub::fd`] readable.
    pub(crate) fn ring(&self) {
        // Full means that it is.
        let _ = self.bell.get().map(|bell| rustix::io::write(bell, &1_u64.to_ne_bytes()));
    }

    fn add(&self, process: u32, end: Link, held: &mut Held) -> bool {
        let mut links = self.links();
        let data = EventData::new_u64(process.into());
        let known = epoll::add(&self.epoll, end.number(), data, EventFlags::IN).is_ok();
        if known {
            // What was said before is looked for by who is rung.
            let _ = end.fd().map(|link| rustix::io::write(link, &[0]));
            links.insert(process, end);
            self.busy.store(true, Ordering::Release);
        } else {
            held.close(end);
        }
        known
    }

    /// A child has ended. Its link is taken out by name: a copy of it in another process would keep it in the set.
    fn remove(&self, process: u32, held: &mut Held) {
        let mut links = self.links();
        if let Some(end) = links.remove(&process) {
            // The program may have closed it.
            let _ = epoll::delete(&self.epoll, end.number());
            held.close(end);
        }
        self.busy.store(!links.is_empty(), Ordering::Release);
    }

    /// What a child that is about to be forked needs; `None`: it can have nothing.
    pub(crate) fn expect_child(&self, held: &mut Held) -> Option<Cradle> {
        let member = self.family.expect_child()?;
        let cradle = held.pair().ok().and_then(|(end, link)| {
            if !self.add(member.process(), end, held) {
                held.close(link);
                return None;
            }
            let (family, bell) = (Arc::clone(&self.family), Arc::clone(&self.bell));
            Some(Cradle { family, member, link, bell })
        });
        if cradle.is_none() {
            self.family.forget(member.process());
        }
        cradle
    }

    /// Has some processes, a bit each, look at a connection.
    pub(crate) fn tell(&self, processes: u64, slot: u32) {
        for process in (ROOT + 1..PROCESSES).filter(|it| processes & (1 << it) != 0) {
            if self.family.page(process).is_some_and(|page| page.raise(slot))
                && let Some(link) = self.links().get(&process).and_then(Link::fd)
            {
                // Full means that it is readable; closed is found by `take`.
                let _ = rustix::io::write(link, &[0]);
            }
        }
    }

    /// Takes what children have to say.
    pub(crate) fn take(&self) -> Vec<News> {
        let mut news = Vec::new();
        let mut ready = [const { MaybeUninit::uninit() }; 16];
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok((ready, _)) = epoll::wait(&self.epoll, &mut ready[..], Some(&zero)) else {
            return news;
        };
        for event in ready {
            match event.data.u64() {
                BELL => {
                    // It is read to be unreadable again.
                    let _ = self.bell.get().map(|bell| rustix::io::read(bell, &mut [0; 8]));
                    self.page.take(|slot| news.push(News::Look(slot)));
                }
                process => news.extend(u32::try_from(process).ok().and_then(|it| self.hear(it))),
            }
        }
        news
    }

    /// A child's link is readable: a grandchild's is in it, or it has ended.
    fn hear(&self, process: u32) -> Option<News> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut number = [0; 4];
        let mut held = links::hold()?;
        let received = match self.links().get(&process).map(Link::fd) {
            Some(Some(link)) => {
                let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
                recvmsg(link, &mut [IoSliceMut::new(&mut number)], &mut control, flags)
            }
            Some(None) => Err(rustix::io::Errno::BADF),
            None => return None,
        };
        match received {
            Ok(received) if received.bytes == number.len() => {
                let end = control.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut ends) => ends.next(),
                    _ => None,
                });
                let number = u32::from_ne_bytes(number);
                // It is a number that a child of the family has, and that has no link yet.
                let is_new = self.family.is_taken(number) && !self.links().contains_key(&number);
                let known = match end.and_then(|end| held.adopt(end).ok()) {
                    Some(end) if is_new => self.add(number, end, &mut held),
                    end => {
                        end.into_iter().for_each(|end| held.close(end));
                        false
                    }
                };
                // This process has no descriptor left for it, and would never hear of its end.
                (is_new && !known).then_some(News::Ended(number))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            // It has ended without having read all that it was told. That is said once, and before what it has sent.
            Err(rustix::io::Errno::CONNRESET) => None,
            Ok(_) | Err(_) => {
                self.remove(process, &mut held);
                Some(News::Ended(process))
            }
        }
    }
}

/// As [`Hub::expect_child`], for a child of the child that has `own`, over which the end goes to the first process.
pub(crate) fn expect_grandchild(
    family: &Arc<Family>,
    own: &Link,
    bell: &Arc<Own>,
    held: &mut Held,
) -> Option<Cradle> {
    let member = family.expect_child()?;
    let cradle = held.pair().ok().and_then(|(end, link)| {
        let sent = send_end(own, member.process(), &end);
        held.close(end);
        if !sent {
            held.close(link);
            return None;
        }
        let (family, bell) = (Arc::clone(family), Arc::clone(bell));
        Some(Cradle { family, member, link, bell })
    });
    if cradle.is_none() {
        family.forget(member.process());
    }
    cradle
}

/// Hands a grandchild's link to the first process. False: it is there and has not got it.
fn send_end(own: &Link, process: u32, end: &Link) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let ends = [end.number()];
    control.push(SendAncillaryMessage::ScmRights(&ends));
    let number = process.to_ne_bytes();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let Some(own) = own.fd() else { return false };
    match sendmsg(own, &[IoSlice::new(&number)], &mut control, flags) {
        Ok(_) => true,
        // It has ended; the grandchild finds that out by its own link.
        Err(error) => matches!(error, rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET),
    }
}
