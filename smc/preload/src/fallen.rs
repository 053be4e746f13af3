// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why connections are plain TCP: said, remembered for those that live, counted for all.
//!
//! Invariant: no lock and no memory that grows, so it is allowed wherever a connection may be decided,
//! and in a child of fork. What is remembered of a descriptor counts only while its inode is the same.
//! A connection is said here and nowhere else, once.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use smc_proto::handshake::reason::Reason;
use smc_snapshot::Role;
use smc_snapshot::reason::NODAEMON;
use smc_wire::clc::Diagnosis;

use crate::descriptor::borrow;
use crate::process;
use crate::report;
use crate::settings::SETTINGS;
use crate::table::LIMIT;

/// Why a connection is plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Why {
    /// A diagnosis code of SMC's, or one of [`smc_snapshot::reason`].
    pub(crate) code: u32,
    /// What the peer said in its decline; 0 if it did not.
    pub(crate) peer: u32,
}

impl From<u32> for Why {
    fn from(code: u32) -> Self {
        Self { code, peer: 0 }
    }
}

impl Why {
    /// Why a handshake ended so.
    pub(crate) fn of(reason: Reason) -> Self {
        // A process that is no member declines, and that is not the handshake's fault.
        let code = if process::is_alone() { NODAEMON } else { reason.diagnosis.0 };
        Self { code, peer: reason.peer.map_or(0, |peer| peer.0) }
    }
}

/// Says it in words.
impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((_, words)) = smc_snapshot::reason::words(self.code) {
            return f.write_str(words);
        }
        let diagnosis = Diagnosis(self.code);
        if let Some((_, words)) = smc_snapshot::reason::words(self.peer) {
            return write!(f, "{diagnosis}: {words}");
        }
        let peer = Some(Diagnosis(self.peer)).filter(|_| self.peer != 0);
        Reason { diagnosis, peer }.fmt(f)
    }
}

/// What a descriptor was when it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A connection.
    Connection(Role, Why),
    /// A listener; 0: its connections may be SMC's.
    Listener(u32),
}

/// [`What`] in 64 bits: the code, the peer's code, two flags.
const SERVER: u64 = 1 << 63;
const LISTENER: u64 = 1 << 62;
/// No code of Linux's has more bits.
const PEER: u64 = 0x3fff_ffff;

impl What {
    fn pack(self) -> u64 {
        match self {
            Self::Listener(code) => LISTENER | u64::from(code),
            Self::Connection(role, why) => {
                let side = if role == Role::Server { SERVER } else { 0 };
                side | (u64::from(why.peer) & PEER) << 32 | u64::from(why.code)
            }
        }
    }

    fn unpack(bits: u64) -> Self {
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
        if bits & LISTENER != 0 {
            return Self::Listener(low(bits));
        }
        let role = if bits & SERVER != 0 { Role::Server } else { Role::Client };
        Self::Connection(role, Why { code: low(bits), peer: low(bits >> 32 & PEER) })
    }
}

/// What is remembered of one descriptor.
struct Slot {
    /// 0: nothing.
    inode: AtomicU64,
    what: AtomicU64,
}

/// It takes memory only where it is used.
static SLOTS: [Slot; LIMIT] =
    [const { Slot { inode: AtomicU64::new(0), what: AtomicU64::new(0) } }; LIMIT];
/// Nothing was remembered of a descriptor above.
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

/// Reasons that are counted one by one; there are some forty.
const REASONS: usize = 64;

/// How often something came; 0 as what: not used yet.
struct Count {
    what: AtomicU64,
    count: AtomicU64,
}

static COUNTS: [Count; REASONS] =
    [const { Count { what: AtomicU64::new(0), count: AtomicU64::new(0) } }; REASONS];

fn slot(fd: c_int) -> Option<&'static Slot> {
    SLOTS.get(usize::try_from(fd).ok()?)
}

fn remember(fd: c_int, what: What) {
    let Some(slot) = slot(fd) else { return };
    let inode = rustix::fs::fstat(borrow(fd)).map_or(0, |stat| stat.st_ino);
    HIGHEST.fetch_max(fd, Ordering::Relaxed);
    // Who reads in between sees an inode of no file.
    slot.inode.store(0, Ordering::Release);
    slot.what.store(what.pack(), Ordering::Release);
    slot.inode.store(inode, Ordering::Release);
    report::begin();
}

/// Says with SMC_DEBUG that the connection at `fd` is plain TCP: of one that the program has closed, which nobody
/// can ask about. [`connection`] says it by itself.
pub(crate) fn say(fd: c_int, why: Why) {
    SETTINGS.say(format_args!("socket {fd}: TCP: {why}"));
}

/// The connection at `fd` is plain TCP.
pub(crate) fn connection(fd: c_int, role: smc_socket::Role, why: Why) {
    let role = match role {
        smc_socket::Role::Client => Role::Client,
        smc_socket::Role::Server => Role::Server,
    };
    let what = What::Connection(role, why);
    // A program may ask by a second connect(2) whether the first one is through.
    if is_remembered(fd, what) {
        return;
    }
    say(fd, why);
    remember(fd, what);
    count(what.pack());
}

fn is_remembered(fd: c_int, what: What) -> bool {
    let of_inode = |inode| rustix::fs::fstat(borrow(fd)).is_ok_and(|it| it.st_ino == inode);
    slot(fd).is_some_and(|slot| {
        let inode = slot.inode.load(Ordering::Acquire);
        inode != 0 && slot.what.load(Ordering::Acquire) == what.pack() && of_inode(inode)
    })
}

fn count(what: u64) {
    let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
    for it in &COUNTS {
        let held = match it.what.compare_exchange(0, what, success, failure) {
            Ok(_) => what,
            Err(held) => held,
        };
        if held == what {
            it.count.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

/// The socket at `fd` listens; `code`: why its connections are plain TCP, 0 if they need not be.
pub(crate) fn listener(fd: c_int, code: u32) {
    remember(fd, What::Listener(code));
}

/// What [`listener`] was told of what this descriptor is.
pub(crate) fn listener_at(fd: c_int) -> Option<u32> {
    let slot = slot(fd)?;
    let inode = slot.inode.load(Ordering::Acquire);
    // Another one may have the number by now.
    let is_same = inode != 0 && rustix::fs::fstat(borrow(fd)).is_ok_and(|it| it.st_ino == inode);
    if !is_same {
        return None;
    }
    match What::unpack(slot.what.load(Ordering::Acquire)) {
        What::Listener(code) => Some(code),
        What::Connection(..) => None,
    }
}

/// All that is remembered, by inode; the descriptors may be closed by now.
pub(crate) fn remembered() -> impl Iterator<Item = (u64, What)> {
    let highest = usize::try_from(HIGHEST.load(Ordering::Relaxed)).map_or(0, |fd| fd + 1);
    SLOTS.iter().take(highest).filter_map(|slot| {
        let inode = slot.inode.load(Ordering::Acquire);
        let what = slot.what.load(Ordering::Acquire);
        let same = inode != 0 && slot.inode.load(Ordering::Acquire) == inode;
        same.then(|| (inode, What::unpack(what)))
    })
}

/// How often connections of this process fell back, by side and reason.
pub(crate) fn counts() -> impl Iterator<Item = (Role, Why, u64)> {
    COUNTS.iter().filter_map(|it| {
        let (what, count) = (it.what.load(Ordering::Relaxed), it.count.load(Ordering::Relaxed));
        match What::unpack(what) {
            What::Connection(role, why) if what != 0 && count > 0 => Some((role, why, count)),
            _ => None,
        }
    })
}

/// In a child of fork: it has its parent's descriptors, and its own count.
pub(crate) fn after_fork() {
    COUNTS.iter().for_each(|it| it.count.store(0, Ordering::Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_fits_its_bits() {
        for what in [
            What::Listener(0),
            What::Listener(u32::MAX),
            What::Connection(Role::Client, Why { code: 0x0301_0000, peer: 0 }),
            What::Connection(Role::Server, Why { code: 0x0500_0000, peer: 0x0999_0003 }),
            What::Connection(Role::Server, Why { code: u32::MAX, peer: 0x3fff_ffff }),
        ] {
            assert_eq!(What::unpack(what.pack()), what);
        }
    }

    #[test]
    fn reasons_are_counted_by_side_and_connection_and_those_without_a_place_are_left_out() {
        let of = |what| counts().find(|(role, why, _)| What::Connection(*role, *why) == what);
        let one = What::Connection(Role::Client, Why { code: 1, peer: 2 });
        let other = What::Connection(Role::Server, Why { code: 1, peer: 2 });
        for what in [one, other, one] {
            count(what.pack());
        }
        // However often it is told of a connection.
        let why = Why { code: 3, peer: 0 };
        for socket in [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()) {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
            for _ in 0..3 {
                connection(fd, smc_socket::Role::Client, why);
            }
        }
        assert_eq!(of(What::Connection(Role::Client, why)).map(|it| it.2), Some(2));
        assert_eq!(of(one).map(|it| it.2), Some(2));
        assert_eq!(of(other).map(|it| it.2), Some(1));
        for code in 0..100 {
            count(What::Connection(Role::Server, Why { code: 1000 + code, peer: 0 }).pack());
        }
        count(one.pack());
        assert_eq!((counts().count(), of(one).map(|it| it.2)), (REASONS, Some(3)));
        after_fork();
        assert_eq!(counts().count(), 0);
    }

    #[test]
    fn words_are_ours_or_linuxs() {
        assert_eq!(Why::from(0x0301_0000).to_string(), "the peer does not speak SMC");
        let declined = Why { code: 0x0500_0000, peer: 0x0303_0007 };
        assert!(declined.to_string().contains("no common device for SMC-D v2"), "{declined}");
        let passed = Why { code: 0x0500_0000, peer: smc_snapshot::reason::PASSED };
        assert!(passed.to_string().ends_with("passed the connection on before its handshake"));
    }
}
