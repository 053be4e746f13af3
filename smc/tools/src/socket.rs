// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC sockets, as sock_diag lists them (include/uapi/linux/smc_diag.h).
//!
//! Invariant: the structures are read field by field at their C offsets, never cast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use smc_snapshot::Cursors;

use crate::fallback::Side;
use crate::linkgroup::Gid;
use crate::netlink::{Attributes, Malformed, array_at, u16_at, u32_at, u64_at};
use crate::processes::Holder;

/// `AF_SMC` (include/linux/socket.h).
const AF_SMC: u8 = 43;

/// `struct smc_diag_msg`: family, state, mode, shutdown, then `inet_diag_sockid`, uid, inode.
mod message {
    pub(super) const STATE: usize = 1;
    pub(super) const MODE: usize = 2;
    pub(super) const SPORT: usize = 4;
    pub(super) const DPORT: usize = 6;
    pub(super) const SRC: usize = 8;
    pub(super) const DST: usize = 24;
    pub(super) const INTERFACE: usize = 40;
    pub(super) const UID: usize = 52;
    pub(super) const INODE: usize = 56;
    pub(super) const SIZE: usize = 64;
}

/// States without a connection (net/smc/smc.h).
const INIT: u8 = 2;
const CLOSED: u8 = 7;
const LISTEN: u8 = 10;

/// Extensions: attribute numbers, and bits (number minus one) in the request.
const CONNINFO: u16 = 1;
const LGRINFO: u16 = 2;
const SHUTDOWN: u16 = 3;
const DMBINFO: u16 = 4;
const FALLBACK: u16 = 5;

/// `struct smc_diag_req`: family, padding, extensions, `inet_diag_sockid` of 48 bytes.
const REQUEST_SIZE: usize = 4 + 48;

/// What carries a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Carrier {
    /// Nothing: it is not connected.
    None,
    /// SMC-R.
    Smcr,
    /// SMC-D.
    Smcd {
        /// Its memory, until the link group goes.
        dmbs: Option<Dmbs>,
    },
    /// TCP, after a fallback.
    Tcp {
        /// Why, see [`crate::fallback`].
        reason: u32,
        /// What the peer said in its decline; 0 if it did not.
        peer_diagnosis: u32,
    },
}

/// The memory of an SMC-D connection: `struct smcd_diag_dmbinfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dmbs {
    /// The link group's number.
    pub link_group: u32,
    /// Our device.
    pub gid: Gid,
    /// The peer's device.
    pub peer_gid: Gid,
    /// Our DMB's token.
    #[serde(with = "hexadecimal")]
    pub token: u64,
    /// The peer's DMB's token.
    #[serde(with = "hexadecimal")]
    pub peer_token: u64,
}

/// 64 bits in JSON, whose numbers many programs read with 53: a string "0x…".
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("0x{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        digits.ok_or_else(|| D::Error::custom("not 0x and up to 16 hexadecimal digits"))
    }
}

/// Sizes of a connection: from the head of `struct smc_diag_conninfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffers {
    /// The send buffer in bytes, 0 if the peer's DMB is written in place.
    pub send: u32,
    /// Our receive buffer in bytes.
    pub receive: u32,
    /// The peer's receive buffer in bytes.
    pub peer_receive: u32,
}

/// The rest of `struct smc_diag_conninfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conninfo {
    /// What names the connection to its peer in SMC-R.
    pub token: u32,
    /// Where both sides are.
    pub cursors: Cursors,
}

/// The link of an SMC-R connection: `struct smc_diag_lgrinfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Our side began as the server.
    pub server: bool,
    /// The RoCE device.
    pub device: String,
    /// Its port.
    pub port: u8,
    /// The link's number.
    pub link: u8,
    /// The port's GID.
    pub gid: String,
    /// The peer's.
    pub peer_gid: String,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The state's number (net/smc/smc.h).
    pub state: u8,
    /// The owner.
    pub uid: u32,
    /// The socket's inode.
    pub inode: u64,
    /// The interface it is bound to, 0 for none.
    pub interface: u32,
    /// Its own address.
    pub local: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// What carries it.
    #[serde(flatten)]
    pub carrier: Carrier,
    /// Its buffers, once it has some.
    pub buffers: Option<Buffers>,
    /// What was shut down: 1 receiving, 2 sending.
    pub shutdown: Option<u8>,
    /// Cursors and flags, once it has some.
    pub conninfo: Option<Conninfo>,
    /// The link of an SMC-R connection.
    pub link: Option<Link>,
    /// Of a process's connection of SMC-D: whether its other end was met on the fabric's board, or TCP's option said
    /// that it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<bool>,
    /// Which side a process's connection is, where something carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Whose it is; the kernel's without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Holder>,
}

impl Socket {
    /// The request that lists all sockets with what we show of them.
    pub fn request() -> [u8; REQUEST_SIZE] {
        let mut request = [0; REQUEST_SIZE];
        request[0] = AF_SMC;
        request[3] = 1 << (CONNINFO - 1) | 1 << (LGRINFO - 1) | 1 << (DMBINFO - 1);
        request
    }

    /// From the kernel's answer (`__smc_diag_dump`, net/smc/smc_diag.c).
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let (fixed, attributes) =
            payload.split_at_checked(message::SIZE).ok_or(Malformed::Structure("smc_diag_msg"))?;
        let attributes = Attributes::parse(attributes)?;
        let byte = |offset| array_at(fixed, offset).map(u8::from_ne_bytes);
        let (local, peer) = addresses(fixed)?;
        let state = byte(message::STATE)?;
        Ok(Socket {
            state,
            uid: u32_at(fixed, message::UID)?,
            inode: u64_at(fixed, message::INODE)?,
            interface: u32_at(fixed, message::INTERFACE)?,
            local,
            peer,
            carrier: carrier(state, byte(message::MODE)?, &attributes)?,
            buffers: attributes.bytes(CONNINFO).map(buffers).transpose()?,
            shutdown: attributes.bytes(SHUTDOWN).and_then(|bytes| bytes.first().copied()),
            conninfo: attributes.bytes(CONNINFO).map(conninfo).transpose()?,
            link: attributes.bytes(LGRINFO).map(link).transpose()?,
            board: None,
            side: None,
            process: None,
        })
    }

    /// The state's name, as smcss prints it.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            1 => "ACTIVE",
            INIT => "INIT",
            CLOSED => "CLOSED",
            LISTEN => "LISTEN",
            20 => "PEERCLOSEWAIT1",
            21 => "PEERCLOSEWAIT2",
            22 => "APPCLOSEWAIT1",
            23 => "APPCLOSEWAIT2",
            24 => "APPFINCLOSEWAIT1",
            25 => "PEERFINCLOSEWAIT",
            26 => "PEERABORTWAIT",
            27 => "PROCESSABORT",
            _ => "UNKNOWN",
        }
    }
}

/// The kernel does not say which family the addresses have: an IPv4 socket fills in one word of
/// four, so more words than the first make an IPv6 one (as smcss has it).
fn addresses(fixed: &[u8]) -> Result<(SocketAddr, SocketAddr), Malformed> {
    let source: [u8; 16] = array_at(fixed, message::SRC)?;
    let destination: [u8; 16] = array_at(fixed, message::DST)?;
    let v6 = [source, destination].iter().any(|address| address.iter().skip(4).any(|&b| b != 0));
    let address = |bytes: [u8; 16]| match bytes {
        [a, b, c, d, ..] if !v6 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        bytes => IpAddr::V6(Ipv6Addr::from(bytes)),
    };
    let port = |offset| u16_at(fixed, offset).map(u16::from_be);
    Ok((
        SocketAddr::new(address(source), port(message::SPORT)?),
        SocketAddr::new(address(destination), port(message::DPORT)?),
    ))
}

/// `SMC_DIAG_MODE_*`; SMC-R is also what the kernel says where there is no connection.
fn carrier(state: u8, mode: u8, attributes: &Attributes<'_>) -> Result<Carrier, Malformed> {
    match mode {
        0 if matches!(state, INIT | CLOSED | LISTEN) => Ok(Carrier::None),
        1 => {
            let fallback = attributes
                .bytes(FALLBACK)
                .ok_or(Malformed::Missing("SMC_DIAG_FALLBACK", FALLBACK))?;
            Ok(Carrier::Tcp { reason: u32_at(fallback, 0)?, peer_diagnosis: u32_at(fallback, 4)? })
        }
        2 => Ok(Carrier::Smcd { dmbs: attributes.bytes(DMBINFO).map(dmbs).transpose()? }),
        _ => Ok(Carrier::Smcr),
    }
}

/// `struct smcd_diag_dmbinfo`: linkid, then from 8 on eight bytes each: peer GID, our GID, token,
/// peer token and, in newer kernels, the other halves of the GIDs.
fn dmbs(bytes: &[u8]) -> Result<Dmbs, Malformed> {
    let newer = |offset| u64_at(bytes, offset).unwrap_or_default();
    Ok(Dmbs {
        link_group: u32_at(bytes, 0)?,
        peer_gid: Gid { gid: u64_at(bytes, 8)?, ext: newer(40) },
        gid: Gid { gid: u64_at(bytes, 16)?, ext: newer(48) },
        token: u64_at(bytes, 24)?,
        peer_token: u64_at(bytes, 32)?,
    })
}

fn buffers(bytes: &[u8]) -> Result<Buffers, Malformed> {
    Ok(Buffers {
        send: u32_at(bytes, 4)?,
        receive: u32_at(bytes, 8)?,
        peer_receive: u32_at(bytes, 12)?,
    })
}

/// `struct smc_diag_conninfo`: token and three sizes, four cursors (two bytes of nothing, wrap, count), four
/// flags, three cursors.
fn conninfo(bytes: &[u8]) -> Result<Conninfo, Malformed> {
    let cursor = |at: usize| Ok::<_, Malformed>((u16_at(bytes, at + 2)?, u32_at(bytes, at + 4)?));
    let flags: [u8; 4] = array_at(bytes, 48)?;
    let [rx_prod_flags, rx_state, tx_prod_flags, tx_state] = flags;
    let cursors = Cursors {
        rx_prod: cursor(16)?,
        rx_cons: cursor(24)?,
        rx_flags: (rx_prod_flags, rx_state),
        tx_prod: cursor(32)?,
        tx_cons: cursor(40)?,
        tx_flags: (tx_prod_flags, tx_state),
        tx_prep: cursor(52)?,
        tx_sent: cursor(60)?,
        tx_fin: cursor(68)?,
    };
    Ok(Conninfo { token: u32_at(bytes, 0)?, cursors })
}

/// `struct smc_diag_lgrinfo`: one `smc_diag_linkinfo` (number, 64 bytes of name, port, two GIDs of 40 bytes
/// as text, padding, eight bytes of namespace), then the role.
fn link(bytes: &[u8]) -> Result<Link, Malformed> {
    let text = |at: usize, len: usize| {
        let field = bytes.get(at..at + len).unwrap_or_default();
        let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(field).into_owned()
    };
    let byte = |at| array_at(bytes, at).map(u8::from_ne_bytes);
    Ok(Link {
        link: byte(0)?,
        device: text(1, 64),
        port: byte(65)?,
        gid: text(66, 40),
        peer_gid: text(106, 40),
        // Older kernels have neither padding nor namespace.
        server: byte(if bytes.len() > 160 { 160 } else { 146 })? != 0,
    })
}
