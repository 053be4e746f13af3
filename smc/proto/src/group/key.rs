// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What tells one link group from another, and which of them fits a connection.
//!
//! Invariant: two groups with the same peer are told apart only by what both sides can see, so that
//! both sides choose the same one.

use arrayvec::ArrayVec;
use smc_wire::id::{IsmGid, Mac, PeerId, Qpn, RoceGid};

use crate::id::DeviceId;

/// Links that an SMC-R group can have at a time (`SMC_LINKS_PER_LGR_MAX`): two, and one that is asymmetric.
pub const LINKS: usize = 3;

/// The side of a handshake, and for SMC-R also of the link group (`enum smc_lgr_role`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It connects.
    Client,
    /// It listens.
    Server,
}

/// The CLC version that both sides chose. The releases of version 2 make no difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Version 1: a group belongs to one VLAN.
    V1,
    /// Version 2: VLANs make no difference.
    V2,
}

/// The other end of an SMC-D link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmcdPeer {
    /// Our ISM device.
    pub device: DeviceId,
    /// Whether the device is emulated, see [`smc_wire::id::Chid::is_emulated`]: only then
    /// [`IsmGid::ext`] counts.
    pub emulated: bool,
    /// The peer's device.
    pub gid: IsmGid,
}

impl SmcdPeer {
    /// Whether `gid` on `device` is this peer: all 128 bits if the device is emulated, else 64.
    pub fn is(&self, device: DeviceId, gid: IsmGid) -> bool {
        self.device == device
            && self.gid.gid == gid.gid
            && (!self.emulated || self.gid.ext == gid.ext)
    }
}

/// The other end of an SMC-R link group, as the handshake's messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmcrPeer {
    /// The peer's id.
    pub id: PeerId,
    /// The port and queue pair it names. A server does not know the client's queue pair while it
    /// chooses a group; it is ignored then.
    pub link: LinkPeer,
    /// Connections that a new group shall hold, 16 to 255, as negotiated in version 2.1; 255 before.
    pub max_conns: u8,
}

/// The other end of an SMC-R link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LinkPeer {
    /// The GID of the peer's port.
    pub gid: RoceGid,
    /// The MAC of the peer's port.
    pub mac: Mac,
    /// The peer's queue pair.
    pub qpn: Qpn,
}

/// The other end of a link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over ISM devices.
    Smcd(SmcdPeer),
    /// Over RoCE ports.
    Smcr(SmcrPeer),
}

impl Peer {
    /// Whether it is SMC-D.
    pub const fn is_smcd(&self) -> bool {
        matches!(self, Self::Smcd(_))
    }
}

/// What a connection needs of a link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The other end.
    pub peer: Peer,
    /// Our side of the handshake.
    pub role: Role,
    /// The version chosen.
    pub version: Version,
    /// The VLAN of the TCP connection, 0 for none.
    pub vlan: u16,
}

/// The part of an [`Ask`] that is the same for a connection and every group that fits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ends {
    /// Our device and the first half of the peer's GID.
    Smcd(DeviceId, u64),
    /// Our role and the peer's id.
    Smcr(Role, [u8; 8]),
}

impl Ask {
    pub(super) fn ends(&self) -> Ends {
        match &self.peer {
            Peer::Smcd(peer) => Ends::Smcd(peer.device, peer.gid.gid),
            Peer::Smcr(peer) => Ends::Smcr(self.role, peer.id.0),
        }
    }
}

/// What a group remembers of the [`Ask`] it was made for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// As first asked.
    pub(super) ask: Ask,
    /// SMC-R: the ends of the links that are active now.
    pub(super) links: ArrayVec<(u32, LinkPeer), LINKS>,
}

impl Key {
    pub(super) fn new(ask: Ask) -> Self {
        Self { ask, links: ArrayVec::new() }
    }

    /// Whether the group is one with the peer of `ask` (`smcd_lgr_match`, `smcr_lgr_match`).
    ///
    /// Version 1 of a group and of a connection are not compared, as in Linux: what both can see of
    /// an SMC-D group is its GIDs, and for version 1 its VLAN.
    pub(super) fn fits(&self, ask: &Ask) -> bool {
        let vlan = ask.version == Version::V2 || self.ask.vlan == ask.vlan;
        vlan && match (&self.ask.peer, &ask.peer) {
            (Peer::Smcd(ours), Peer::Smcd(theirs)) => ours.is(theirs.device, theirs.gid),
            (Peer::Smcr(ours), Peer::Smcr(theirs)) => {
                let link = |(_, link): &(u32, LinkPeer)| link_fits(link, &theirs.link, ask);
                ours.id == theirs.id && self.ask.role == ask.role && self.links.iter().any(link)
            }
            _ => false,
        }
    }

    /// Whether the group was made for the same peer and role, whatever its links do.
    pub(super) fn begun_for(&self, ask: &Ask) -> bool {
        match (&self.ask.peer, &ask.peer) {
            (Peer::Smcr(ours), Peer::Smcr(theirs)) => {
                ours.id == theirs.id
                    && self.ask.role == ask.role
                    && link_fits(&ours.link, &theirs.link, ask)
            }
            _ => self.fits(ask),
        }
    }
}

/// The link's part of `smcr_lgr_match`: GID, in version 1 the MAC, on a client the queue pair.
fn link_fits(ours: &LinkPeer, theirs: &LinkPeer, ask: &Ask) -> bool {
    ours.gid == theirs.gid
        && (ask.version == Version::V2 || ours.mac == theirs.mac)
        && (ask.role == Role::Server || ours.qpn == theirs.qpn)
}
