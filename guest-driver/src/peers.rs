// SPDX-License-Identifier: GPL-2.0

//! What is known of peers: in which mode each is reached, who is gone but not yet forgotten, and
//! who let others wait.
//!
//! Invariant: only the device's own "yes" is remembered, and not longer than until the peer is
//! gone.

use core::fmt;
use kernel::prelude::*;

use crate::{
    abi::{command, mode, Gid, QueryReply, QueryRequest},
    control::Failure,
    device::Device,
};

/// More are asked for each time.
const REMEMBERED: usize = 1024;
/// How long a peer is let be that let us wait. net/smc makes one handshake at a time
/// (smc_server_lgr_pending), so a peer that takes no events would hold up all others'.
const SHUN_NS: u64 = 5_000_000_000;
/// ISM_RESERVED_VLANID of net/smc: "any"; a device without VLANs must accept it.
pub(crate) const RESERVED_VLAN: u32 = 0x1fff;

/// A peer of a PEER_GONE event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) gid: Gid,
    pub(crate) instance: u64,
}

pub(crate) struct Peers {
    modes: KVec<(Gid, u8)>,
    gone: KVec<Gone>,
    /// Peers that let a request wait, and until when they are not asked again.
    slow: KVec<(Gid, u64)>,
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self {
            modes: KVec::new(),
            gone: KVec::new(),
            slow: KVec::new(),
        }
    }

    fn mode(&self, gid: &Gid) -> Option<u8> {
        let mut known = self.modes.iter();
        known.find(|(known, _)| known == gid).map(|(_, mode)| *mode)
    }

    fn remember(&mut self, gid: &Gid, mode: u8) {
        if self.mode(gid).is_none() && self.modes.len() < REMEMBERED {
            // A failure costs only another question.
            let _ = self.modes.push((*gid, mode), GFP_ATOMIC);
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// What was known may be wrong.
    pub(crate) fn doubt(&mut self, gid: &Gid) {
        self.modes.retain(|(known, _)| known != gid);
    }

    /// `gid` did not take part in a request, at `now` in nanoseconds.
    pub(crate) fn shun(&mut self, gid: &Gid, now: u64) {
        self.slow
            .retain(|(known, until)| known != gid && *until > now);
        if self.slow.len() < REMEMBERED {
            // A failure costs only another wait.
            let until = now.saturating_add(SHUN_NS);
            let _ = self.slow.push((*gid, until), GFP_ATOMIC);
        }
    }

    pub(crate) fn is_shunned(&self, gid: &Gid, now: u64) -> bool {
        let mut slow = self.slow.iter();
        slow.any(|(known, until)| known == gid && *until > now)
    }

    /// FORGET_PEER is due. Without memory for that the device keeps its part until the reset.
    pub(crate) fn note_gone(&mut self, gone: Gone) -> Result {
        self.doubt(&gone.gid);
        if !self.gone.contains(&gone) {
            self.gone.push(gone, GFP_ATOMIC)?;
        }
        Ok(())
    }

    pub(crate) fn gone(&self, number: usize) -> Option<Gone> {
        self.gone.get(number).copied()
    }

    pub(crate) fn forgotten(&mut self, gone: &Gone) {
        self.gone.retain(|other| other != gone);
    }
}

impl Device {
    /// The mode in which `gid` is reached; asks the device if it is not known. Sleeps.
    pub(crate) fn mode_of(&self, gid: &Gid, vlan: Option<u16>) -> Result<u8> {
        if vlan.is_none() {
            if let Some(mode) = self.peers.lock().mode(gid) {
                return Ok(mode);
            }
        }
        let request = QueryRequest {
            gid: *gid,
            vlan_id: vlan.unwrap_or(0),
            vlan_valid: u8::from(vlan.is_some()),
            reserved: [0; 5],
        };
        let mut reply = [0; QueryReply::SIZE];
        self.call(command::QUERY_RGID, &request.to_bytes(), &mut reply)
            .map_err(|failure| match failure {
                // To dibs, every "no" means that the peer cannot be reached.
                Failure::Status(_) => ENETUNREACH,
                other => other.into(),
            })?;
        let mode = QueryReply::from_bytes(&reply).ok_or(EIO)?.mode;
        if mode != mode::MAPPED && mode != mode::COPIED {
            return Err(EIO);
        }
        if vlan.is_none() {
            self.peers.lock().remember(gid, mode);
        }
        Ok(mode)
    }
}

/// A GID as logs and /sys/class/dibs show it.
pub(crate) struct Uuid<'a>(pub(crate) &'a Gid);

impl fmt::Display for Uuid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = matches!(at, 4 | 6 | 8 | 10);
            write!(f, "{}{byte:02x}", if dash { "-" } else { "" })?;
        }
        Ok(())
    }
}

/// A VLAN as dibs gives it; `None` for none.
pub(crate) fn vlan(valid: u32, id: u32) -> Option<u16> {
    let id = u16::try_from(id).ok()?;
    (valid != 0 && id != 0 && u32::from(id) != RESERVED_VLAN).then_some(id)
}
