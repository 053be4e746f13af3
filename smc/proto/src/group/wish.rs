// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the link groups want done.
//!
//! Invariant: carried out in the order they come, and each thing is taken and given back once.

use smc_wire::id::IsmGid;
use smc_wire::size::BufferSize;

use crate::id::{BufferId, ConnId, DeviceId, GroupId};
use crate::smcd::event::EventCode;

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Get the memory of a buffer, zeroed, and for a receive buffer make it the peer's to write
    /// (SMC-D: register a DMB for the group's peer; SMC-R: allocate, the group's machine registers
    /// it on its links). Tell [`Groups::handle_registered`](super::Groups::handle_registered).
    Register {
        /// The group; [`Groups::peer`](super::Groups::peer) names who may write.
        group: GroupId,
        /// The buffer's name from here on.
        buffer: BufferId,
        /// What it is for.
        kind: BufferKind,
        /// Its size.
        size: BufferSize,
    },
    /// Take the buffer from the connection that left and zero it whole, the CDC area too; SMC-R: the
    /// peer must be told before (DELETE RKEY). Then [`Groups::handle_zeroed`](super::Groups::handle_zeroed),
    /// or [`Groups::handle_lost`](super::Groups::handle_lost) if it must not be used again.
    Zero {
        /// The group.
        group: GroupId,
        /// The buffer.
        buffer: BufferId,
    },
    /// Give the buffer's memory back: nobody may write it any more. The name may come again with
    /// the next [`Wish::Register`].
    Free {
        /// The group.
        group: GroupId,
        /// The buffer.
        buffer: BufferId,
    },
    /// Abort this connection with `ECONNABORTED` (`smc_conn_kill`); it stays a member, with its
    /// buffers, until [`Groups::leave`](super::Groups::leave).
    Kill {
        /// The connection.
        conn: ConnId,
        /// Whether the peer is there to be told by a CDC message with the abort flag: not if it has
        /// gone, or no link is left. Where our own ISM device goes it is tried, as in Linux.
        tell_peer: bool,
    },
    /// Send a software event to a peer's ISM device (`signal_event` with an interrupt).
    Signal {
        /// Our device.
        device: DeviceId,
        /// The peer's.
        gid: IsmGid,
        /// The event.
        code: EventCode,
        /// Its data, see [`crate::smcd::event::EventInfo`].
        info: u64,
    },
    /// SMC-R: send DELETE LINK ALL and take all links down, then
    /// [`Groups::handle_links_gone`](super::Groups::handle_links_gone).
    EndLinks {
        /// The group.
        group: GroupId,
        /// Why; it says which reason DELETE LINK carries and whether it is orderly.
        cause: Cause,
    },
    /// Make the device take part in a VLAN, then [`Groups::handle_vlan`](super::Groups::handle_vlan).
    AddVlan {
        /// Our device.
        device: DeviceId,
        /// The VLAN, not 0.
        vlan: u16,
    },
    /// The device need not take part in the VLAN any more.
    RemoveVlan {
        /// Our device.
        device: DeviceId,
        /// The VLAN, not 0.
        vlan: u16,
    },
    /// Nothing of the group is left; its id may come again much later.
    Gone {
        /// The group.
        group: GroupId,
    },
}

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BufferKind {
    /// The peer writes it: a DMB or an RMB.
    Receive,
    /// A copied sender's own memory.
    Send,
}

/// Why a link group ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Nobody used it for ten minutes (`smc_lgr_free_work`).
    Idle,
    /// The first contact failed (`smc_lgr_cleanup_early`).
    Early,
    /// A peer declined with the out-of-sync bit: it does not know this group.
    OutOfSync,
    /// SMC-D: the peer shut its side down, or its device went. It is not told anything more.
    PeerGone,
    /// Our own device goes.
    DeviceGone,
    /// SMC-R: no active link is left, or the peer deleted all links.
    NoLink,
    /// An operator or the program's end wants it.
    Operator,
    /// SMC-R: the peer broke the protocol of LLC messages.
    Violation,
}
