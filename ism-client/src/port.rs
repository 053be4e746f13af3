// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The trait: a member's way to its fabric, whatever carries the requests.
//!
//! Invariant: an event that [`Port::poll`] handed out is not handed out again; one that it did not makes
//! [`Port::fds`] readable after [`Port::arm`], or `arm` says so.

use std::os::fd::{BorrowedFd, OwnedFd};

use ism_abi::Gid;
use smc_ring::View;

use crate::board::{Post, Told};
use crate::error::Result;

/// Who this member is, and what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its address; bytes 0–7 are SMC's GID, bytes 8–15 the extension.
    pub gid: Gid,
    /// SMC's CHID.
    pub fabric_id: u16,
    /// DMBs it may own; indices are below.
    pub max_dmbs: u32,
    /// Bytes of the longest DMB.
    pub max_dmb_len: u32,
}

/// A DMB to be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The only member that may write it.
    pub writer: Gid,
    /// The owner's number for it.
    pub index: u32,
    /// Bytes: 16 KiB to the longest, a multiple of 4096.
    pub len: u32,
    /// The VLAN that both must have joined, if any.
    pub vlan: Option<u16>,
}

/// A DMB that was registered.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Its name on the fabric.
    pub token: u64,
    /// Names the life of the pair that it belongs to.
    pub instance: u64,
    /// Its bytes, all zero.
    pub memory: View,
    /// The signal page that the writer sets bits in.
    pub page: View,
}

/// What a fabric tells a member.
#[derive(Debug, Clone)]
pub enum PortEvent {
    /// Own DMBs `base + n` were written, for each bit n of `mask`.
    Signals {
        /// The first index, a multiple of 64.
        base: u32,
        /// One bit each.
        mask: u64,
    },
    /// A peer lets this member write a DMB.
    Granted {
        /// Its owner.
        owner: Gid,
        /// Its name.
        token: u64,
        /// The owner's number for it.
        index: u32,
        /// Its bytes.
        memory: View,
        /// The signal page to set the owner's bits in.
        page: View,
    },
    /// A granted DMB is no more.
    Unregistered {
        /// Its name.
        token: u64,
    },
    /// A peer is gone with all it had.
    PeerGone {
        /// The peer.
        gid: Gid,
        /// The life of the pair that is over.
        instance: u64,
    },
    /// A peer sent a software event.
    Software {
        /// The sender.
        gid: Gid,
        /// dibs' `subtype`.
        code: u32,
        /// dibs' `data`.
        info: u64,
    },
    /// Somebody posted an entry on the board.
    Board(Told),
}

/// A member's way to its fabric. All methods may be called from any thread.
pub trait Port: Send + Sync {
    /// Who this member is.
    fn identity(&self) -> Identity;

    /// Whether memory can be shared with a member.
    ///
    /// # Errors
    /// `UNREACHABLE`; `WRONG_MODE` if the pair's data is copied.
    fn query(&self, gid: Gid, vlan: Option<u16>) -> Result<()>;

    /// Makes a DMB; its writer has been told when this returns.
    ///
    /// # Errors
    /// REGISTER's statuses (spec/virtio-ism.md).
    fn register(&self, wanted: &Wanted) -> Result<Registered>;

    /// Ends a DMB.
    ///
    /// # Errors
    /// `NO_TOKEN`.
    fn unregister(&self, token: u64) -> Result<()>;

    /// Keeps a granted DMB's memory from being used again before the detach.
    ///
    /// # Errors
    /// `NO_TOKEN`.
    fn attach(&self, token: u64) -> Result<()>;

    /// Undoes an attach.
    ///
    /// # Errors
    /// `NO_TOKEN`.
    fn detach(&self, token: u64) -> Result<()>;

    /// Lets go of a pair whose other member is gone.
    ///
    /// # Errors
    /// `IN_USE` as long as own DMBs of it are registered.
    fn forget(&self, gid: Gid, instance: u64) -> Result<()>;

    /// Sends a software event.
    ///
    /// # Errors
    /// `UNREACHABLE`, `BUSY`.
    fn send_event(&self, gid: Gid, code: u32, info: u64) -> Result<()>;

    /// Posts an entry on the board, if the fabric has one; how many listen to a caller, else 0. Who is told has been
    /// told when this returns.
    ///
    /// # Errors
    /// BOARD_POST's statuses; `UNSUPPORTED` if there is no board.
    fn post(&self, post: &Post) -> Result<u32>;

    /// Rings for a granted DMB by way of the fabric. Wrong tokens have no effect.
    ///
    /// # Errors
    /// The device is gone.
    fn ring(&self, token: u64) -> Result<()>;

    /// The next event, if there is one.
    ///
    /// # Errors
    /// The device is gone; nothing else ever comes.
    fn poll(&self) -> Result<Option<PortEvent>>;

    /// Makes [`Port::fds`] tell of the next event. False: there is one already; if there are more than a few hundred,
    /// [`Port::fds`] is readable.
    ///
    /// # Errors
    /// The device is gone.
    fn arm(&self) -> Result<bool>;

    /// What becomes readable (or hangs up) when there is an event.
    fn fds(&self) -> Vec<BorrowedFd<'_>>;

    /// Makes [`Port::fds`] unreadable again, until the next event.
    fn drain(&self);

    /// This member's end of the bell that it shares with a peer ([`crate::bell`]), once in the life of a
    /// pair; `None` if there is none, as with a VM.
    ///
    /// # Errors
    /// The device is gone.
    fn bell(&self, gid: Gid) -> Result<Option<OwnedFd>>;
}
