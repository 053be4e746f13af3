// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors of this process that are not its program's.
//!
//! Invariant: each is known by its number as long as it is open, and looking one up takes no lock, so it is allowed in
//! a signal handler and in a child of fork. It is forgotten after it is closed, unless it was given out again by then:
//! the program never gets at one that is about to be closed, by whose number something of its own would be closed.
//!
//! Programs close what they do not know: daemons all that there is. Who stands between a program and the system
//! ([`is_own`], [`is_kept`], [`around`]) can keep the program off these; who does not must see to it that it closes none.
//! Between the system's call that makes one and [`Own::new`] it is as any other.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit};

/// Numbers above are not known: the kernel's default limit of a process.
const NUMBERS: u32 = 1 << 20;
/// A larger limit puts descriptors no higher than this one: the kernel's table of them grows with the highest number,
/// and is copied by each fork.
const LIMIT: u64 = 1024;

/// Numbers in a word.
const IN_WORD: u32 = u64::BITS / 2;
/// Of the two bits of a number: it is ours.
const OURS: u64 = 1;
/// It is not about to be closed.
const LASTS: u64 = 2;
/// The first of all numbers of a word.
const ALL_OURS: u64 = u64::MAX / 3;

/// A thread closes one descriptor, and one more in each signal handler that interrupts that.
const DEPTH: usize = 4;

/// Two bits for each number; takes memory only where there are some.
static KNOWN: [AtomicU64; (NUMBERS / IN_WORD) as usize] =
    [const { AtomicU64::new(0) }; (NUMBERS / IN_WORD) as usize];
/// No number from here on was ever known.
static END: AtomicU32 = AtomicU32::new(0);
static APART: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What this thread is closing, of ours: the last of them in a signal handler that has interrupted the ones before.
    static CLOSING: [Cell<RawFd>; DEPTH] = const { [const { Cell::new(-1) }; DEPTH] };
}

/// From now on descriptors are made at high numbers, in the upper quarter of what this process may have: programs choose
/// numbers themselves (shells, dup2), and those are low.
pub fn keep_apart() {
    APART.store(true, Ordering::Relaxed);
}

/// The lowest number for a descriptor.
fn lowest() -> RawFd {
    if !APART.load(Ordering::Relaxed) {
        return 0;
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(LIMIT).min(LIMIT);
    RawFd::try_from(limit - limit / 4).unwrap_or(0)
}

/// A number's word, and where its bits are in it.
fn place(number: u32) -> Option<(&'static AtomicU64, u32)> {
    let word = KNOWN.get((number / IN_WORD) as usize)?;
    Some((word, 2 * (number % IN_WORD)))
}

fn place_of(fd: RawFd) -> Option<(&'static AtomicU64, u32)> {
    u32::try_from(fd).ok().and_then(place)
}

/// Whether a number is a descriptor of ours.
#[inline]
pub fn is_own(fd: RawFd) -> bool {
    place_of(fd).is_some_and(|(word, at)| word.load(Ordering::Relaxed) >> at & OURS != 0)
}

/// Whether the program may not close a number. This library closes by the same function of C's as the program does, and
/// who stands in between has to let that through.
#[inline]
pub fn is_kept(fd: RawFd) -> bool {
    is_own(fd) && CLOSING.with(|all| all.iter().all(|it| it.get() != fd))
}

/// Puts `to` where `from` is the last that this thread is closing. A handler in between leaves all as it was.
fn closing(from: RawFd, to: RawFd) {
    CLOSING.with(|all| {
        let last = match from {
            -1 => all.iter().find(|it| it.get() == from),
            _ => all.iter().rfind(|it| it.get() == from),
        };
        if let Some(last) = last {
            last.set(to);
        }
    });
}

fn know(fd: RawFd) {
    if let Some((word, at)) = place_of(fd) {
        word.fetch_or((OURS | LASTS) << at, Ordering::AcqRel);
        END.fetch_max(fd.unsigned_abs() + 1, Ordering::Relaxed);
    }
}

/// The first number from `from` on that is ours.
fn next(from: u32) -> Option<u32> {
    let end = END.load(Ordering::Relaxed);
    let mut at = from;
    while at < end {
        let (word, first) = place(at)?;
        // Those from `at` on.
        let known = word.load(Ordering::Relaxed) & ALL_OURS & (u64::MAX << first);
        let begin = at - at % IN_WORD;
        if known != 0 {
            return Some(begin + known.trailing_zeros() / 2);
        }
        at = begin + IN_WORD;
    }
    None
}

/// Closes a descriptor that is ours, when it is not in an [`Own`].
pub fn close(fd: OwnedFd) {
    let (lasting, mark) = (Lasting(fd.as_raw_fd()), Mark(fd.as_raw_fd()));
    drop(lasting);
    drop(fd);
    drop(mark);
}

/// The numbers from `first` to `last` in parts, first and last of each, without those that are ours.
pub fn around(first: u32, last: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut rest = Some(first);
    std::iter::from_fn(move || {
        loop {
            let from = rest.filter(|from| *from <= last)?;
            let own = next(from).filter(|own| *own <= last);
            rest = own.and_then(|own| own.checked_add(1));
            match own {
                None => return Some((from, last)),
                Some(own) if own > from => return Some((from, own - 1)),
                Some(_) => {}
            }
        }
    })
}

/// A number that is known.
#[derive(Debug)]
struct Mark(RawFd);

impl Drop for Mark {
    fn drop(&mut self) {
        closing(self.0, -1);
        if let Some((word, at)) = place_of(self.0) {
            // The system may have given it out again, to us.
            let ends = |bits: u64| (bits >> at & LASTS == 0).then_some(bits & !(OURS << at));
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, ends);
        }
    }
}

/// One that is not about to be closed.
#[derive(Debug)]
struct Lasting(RawFd);

impl Drop for Lasting {
    fn drop(&mut self) {
        if let Some((word, at)) = place_of(self.0) {
            word.fetch_and(!(LASTS << at), Ordering::AcqRel);
        }
        closing(-1, self.0);
    }
}

/// A descriptor that is not the program's.
#[derive(Debug)]
pub struct Own {
    // They are dropped in this order.
    lasting: Lasting,
    fd: OwnedFd,
    mark: Mark,
}

impl Own {
    /// Takes one that was just made.
    pub fn new(fd: OwnedFd) -> Self {
        if !APART.load(Ordering::Relaxed) {
            return Self::at(fd);
        }
        // There it is as good as here, only more in the program's way.
        Self::copy(&fd).unwrap_or_else(|_| Self::at(fd))
    }

    /// Another descriptor of what `fd` is.
    ///
    /// # Errors
    /// No descriptors.
    pub fn copy(fd: impl AsFd) -> std::io::Result<Self> {
        let lowest = lowest();
        let copy = match rustix::io::fcntl_dupfd_cloexec(&fd, lowest) {
            Err(_) if lowest > 0 => rustix::io::fcntl_dupfd_cloexec(&fd, 0),
            other => other,
        };
        Ok(Self::at(copy?))
    }

    fn at(fd: OwnedFd) -> Self {
        know(fd.as_raw_fd());
        Self { lasting: Lasting(fd.as_raw_fd()), mark: Mark(fd.as_raw_fd()), fd }
    }
}

/// It is ours no more.
impl From<Own> for OwnedFd {
    fn from(own: Own) -> Self {
        let Own { lasting, fd, mark } = own;
        drop(lasting);
        drop(mark);
        fd
    }
}

impl AsFd for Own {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Own {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn one_that_a_signal_handler_closes_in_the_middle_of_a_close_ends_none_but_itself() {
        let [outer, inner] = [(); 2].map(|()| Own::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()));
        let number = outer.as_raw_fd();
        assert!(is_kept(number));
        let Own { lasting, fd, mark } = outer;
        drop(lasting);
        assert!(!is_kept(number) && is_kept(inner.as_raw_fd()));
        let handlers = inner.as_raw_fd();
        let Own { lasting, fd: closed, mark: ends } = inner;
        drop(lasting);
        assert!(is_own(handlers) && !is_kept(handlers));
        drop((closed, ends));
        assert!(is_own(number) && !is_kept(number));
        drop((fd, mark));
        CLOSING.with(|all| assert!(all.iter().all(|it| it.get() == -1)));
    }
}
