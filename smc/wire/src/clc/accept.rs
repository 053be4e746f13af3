// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accept and Confirm: where the sender's receive buffer is, and how to reach it.
//!
//! Invariant: the eyecatcher, the mode and the body belong together, and the extension is there
//! exactly if version 2 makes a first contact.

use arrayvec::ArrayVec;

use super::FirstContact;
use crate::id::{
    AlertToken, Chid, DmbToken, Eid, IsmGid, LinkGroupId, Mac, PeerId, Psn, Qpn, Rkey, RoceGid,
};
use crate::size::{BufferSize, PathMtu};

/// GIDs in a Confirm, at most; Linux sends 1 or 2.
pub const MAX_GIDS: usize = 8;

/// What Accept and Confirm have in common (`struct smc_clc_msg_accept_confirm`); an Accept is that
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptConfirm {
    /// The version, and whether a link group begins.
    pub contact: Contact,
    /// The mode and the buffer.
    pub body: Body,
}

/// Whether a link group begins with this connection, said in the version that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// Version 1.
    V1 {
        /// A link group begins.
        first: bool,
    },
    /// Version 2.
    V2 {
        /// The enterprise id that was chosen; zeros if none was needed.
        eid: Eid,
        /// `Some` if a link group begins.
        first: Option<FirstContact>,
    },
}

/// The buffer in one of the two modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// SMC-R.
    Smcr(Smcr),
    /// SMC-D.
    Smcd(Smcd),
}

/// An RMBE, and the queue pair that leads to it (`struct smcr_clc_msg_accept_confirm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smcr {
    /// The sender's host.
    pub peer: PeerId,
    /// The sender's RoCE port.
    pub gid: RoceGid,
    /// Its MAC.
    pub mac: Mac,
    /// The sender's queue pair.
    pub qpn: Qpn,
    /// The RMB's key.
    pub rkey: Rkey,
    /// The RMBE's number in its RMB, from 1; Linux has one and sends 1.
    pub rmbe_idx: u8,
    /// What the peer's CDC messages for the sender carry.
    pub alert_token: AlertToken,
    /// The RMBE's size.
    pub size: BufferSize,
    /// The largest packet of the sender's port; in a Confirm the smaller one of both.
    pub mtu: PathMtu,
    /// The RMB's address, as RDMA writes name it.
    pub rmb_addr: u64,
    /// The queue pair's first packet number.
    pub psn: Psn,
}

/// A DMB (`struct smcd_clc_msg_accept_confirm_common`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smcd {
    /// The sender's ISM device. Its `ext` is 0 unless `chid` is emulated.
    pub gid: IsmGid,
    /// The sender's fabric; 0 in version 1, which does not say it.
    pub chid: Chid,
    /// The DMB.
    pub token: DmbToken,
    /// The element's number in the DMB, from 0; Linux has one and sends 0.
    pub dmbe_idx: u8,
    /// The element's size; in Linux the DMB's.
    pub size: BufferSize,
    /// The sender's name for the link group.
    pub link_id: LinkGroupId,
}

/// A Confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// What an Accept has too.
    pub common: AcceptConfirm,
    /// The ports that the client has for more links: in SMC-R version 2's first contact only, where
    /// Linux always sends it and never reads it.
    pub gids: Option<ArrayVec<RoceGid, MAX_GIDS>>,
}

impl Contact {
    /// Whether a link group begins.
    pub fn is_first(&self) -> bool {
        match self {
            Self::V1 { first } => *first,
            Self::V2 { first, .. } => first.is_some(),
        }
    }
}
