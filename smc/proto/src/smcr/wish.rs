// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a link group wants done.
//!
//! Invariant: wishes are carried out in the order in which they were taken; none names a link after
//! that link's [`Wish::DestroyQp`].

use smc_wire::clc::Diagnosis;
use smc_wire::llc::DeleteReason;

use super::link::{LinkId, WorkId};
use super::qp::{Port, Rtr, Rts};
use crate::id::{BufferId, ConnId};

/// What the owner of the devices and connections shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Create a protection domain and an RC queue pair on `port`; tell `handle_qp_created`.
    CreateQp {
        /// The link that it is for.
        link: LinkId,
        /// Where.
        port: Port,
    },
    /// Make the queue pair ready to receive, with receive buffers posted; tell `handle_qp_failed` if
    /// it does not work.
    ModifyRtr {
        /// Whose queue pair.
        link: LinkId,
        /// With what.
        attributes: Rtr,
    },
    /// Make the queue pair ready to send; tell `handle_qp_failed` if it does not work.
    ModifyRts {
        /// Whose queue pair.
        link: LinkId,
        /// With what.
        attributes: Rts,
    },
    /// Let a buffer be reached over a link; tell `handle_mr_registered`.
    RegisterMr {
        /// In whose protection domain.
        link: LinkId,
        /// Which buffer.
        buffer: BufferId,
    },
    /// Undo [`Wish::RegisterMr`], also if its answer is still to come.
    DeregisterMr {
        /// In whose protection domain.
        link: LinkId,
        /// Which buffer.
        buffer: BufferId,
    },
    /// Post a signalled send on the link's queue pair; tell `handle_sent`.
    PostSend {
        /// Whose queue pair.
        link: LinkId,
        /// The name under which to tell its end.
        work: WorkId,
        /// The LLC message.
        message: Vec<u8>,
    },
    /// Tell `handle_drained` when all that was posted on the link's queue pair has completed; post
    /// nothing more there.
    Drain {
        /// Whose queue pair.
        link: LinkId,
    },
    /// Destroy the queue pair with all its memory regions and its protection domain. Completions that
    /// come later are not to be told. What a connection had posted there and has no completion is
    /// [flushed](crate::conn::Connection::handle_flushed), and so is a post that fails at once: the
    /// connection counts the sends that are under way, and holds little ones back for them.
    DestroyQp {
        /// Whose queue pair.
        link: LinkId,
    },
    /// The first link is confirmed and a second one was tried: connections may send.
    FirstContactDone,
    /// The first link could not be confirmed; decline with this. The group ends by itself.
    FirstContactFailed(Diagnosis),
    /// A link carries connections from now on.
    LinkUp {
        /// Which one.
        link: LinkId,
    },
    /// The connection's link is gone, use the other one: rewind to what was completed, send a
    /// validation there first (RFC 7609, 4.6.1), then write and send again. One that sends nothing
    /// any more only takes the new link, and so does one whose handshake is not over. If `route` has
    /// none for it, because the peer told no key for the new link, it must be aborted. If links are lost
    /// together a further such wish may follow, and `route` says where the last one leads.
    MoveConnection {
        /// Which connection.
        conn: ConnId,
        /// Where it was.
        from: LinkId,
        /// Where it is.
        to: LinkId,
    },
    /// `share_rmb` or `register_sndbuf` came to its end.
    BufferReady {
        /// Which buffer.
        buffer: BufferId,
        /// Whether the buffer can be used over each link.
        result: Result<(), BufferError>,
    },
    /// `unshare_rmb` came to its end: the buffer may be cleared and used again.
    BufferFree {
        /// Which buffer.
        buffer: BufferId,
    },
    /// The group ends: abort this connection (`smc_conn_kill`).
    KillConnection {
        /// Which connection.
        conn: ConnId,
    },
    /// The group is over; all its queue pairs are destroyed.
    GroupGone {
        /// Why.
        reason: DeleteReason,
    },
}

/// Why a buffer cannot be used in a link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BufferError {
    /// The group has as many buffers as it can have: 255 RMBs in use, 1024 send buffers.
    #[error("link group full: 255 RMBs in use, or 1024 send buffers")]
    Full,
    /// The buffer is not known, or known already, or a command for it is still under way.
    #[error("buffer is not in the state for this command")]
    State,
    /// A device could not register the buffer (`SMC_CLC_DECL_ERR_REGBUF`).
    #[error("memory region could not be registered on a link")]
    Register,
    /// The peer refused its keys.
    #[error("peer refused CONFIRM_RKEY")]
    Refused,
    /// The peer did not answer within 2 s, or other flows took 20 s.
    #[error("no answer to CONFIRM_RKEY in time")]
    Timeout,
    /// The link or the whole group ended meanwhile.
    #[error("link group is gone")]
    Gone,
}
