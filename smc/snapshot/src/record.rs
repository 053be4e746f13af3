// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The records.
//!
//! Invariant: plain values. Each field that is not there is 0 or nothing, so that an older process can be
//! asked by a newer tool.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use smc_proto::stats::Stats;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub enum Record {
    /// Who tells; the first line.
    Process(Process),
    /// Its device.
    Device(Device),
    /// A link group.
    Group(Group),
    /// A connection or listener.
    Connection(Box<Connection>),
    /// What was counted since the process began.
    Stats(Box<Stats>),
    /// How often connections fell back for one reason.
    Fallback(Fallback),
    /// The last line: nothing is missing.
    End,
    /// What a newer process says.
    #[serde(other)]
    Unknown,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Its number, in its own PID namespace.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Where it looks for the daemon.
    pub socket: String,
    /// Whether it has found it.
    pub joined: Joined,
    /// Connections beyond those that are told of.
    pub omitted: u64,
}

/// How a process stands to the daemon's fabric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Joined {
    /// It has not tried, for nothing needed it.
    #[default]
    Untried,
    /// It is a member.
    Member,
    /// It could not become one.
    Failed,
    /// It was a member, and the daemon is gone.
    Gone,
}

/// A GID of 128 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Gid {
    /// The first 64 bits.
    pub gid: u64,
    /// The others.
    pub ext: u64,
}

/// The device of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its address.
    pub gid: Gid,
    /// Its fabric.
    pub chid: u16,
    /// Bytes of the longest DMB.
    pub max_dmb_bytes: u64,
    /// The enterprise id that peers must have.
    pub eid: String,
}

/// A link group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// Its number in this process.
    pub id: u32,
    /// The version of SMC: 1 or 2.
    pub version: u8,
    /// The peer.
    pub peer_gid: Gid,
    /// Connections.
    pub connections: u32,
    /// Bytes of receive buffers, in use or not.
    pub dmb_bytes: u64,
    /// Bytes of send buffers.
    pub send_buffer_bytes: u64,
    /// Nobody can join it any more.
    pub ending: bool,
}

/// The side of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It connected.
    #[default]
    Client,
    /// It was accepted.
    Server,
}

/// A connection or listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// The state, as net/smc/smc.h numbers them.
    pub state: u8,
    /// The owner of the socket.
    pub uid: u32,
    /// The socket's inode; 0 if the program has closed it.
    pub inode: u64,
    /// Its own address.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Which side it is.
    pub role: Role,
    /// What carries it.
    pub carrier: Carrier,
}

impl Default for Connection {
    fn default() -> Self {
        let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            state: 0,
            uid: 0,
            inode: 0,
            local: none,
            peer: none,
            role: Role::default(),
            carrier: Carrier::default(),
        }
    }
}

/// What carries a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// Nothing yet: a handshake, or a listener.
    #[default]
    None,
    /// SMC-D.
    Smcd(Smcd),
    /// TCP.
    Tcp {
        /// Why, see [`crate::reason`].
        reason: u32,
        /// What the peer said in its decline; 0 if it did not.
        peer: u32,
    },
}

/// A connection of SMC-D.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Smcd {
    /// The link group's number in this process.
    pub group: u32,
    /// The peer's device.
    pub peer_gid: Gid,
    /// Its other end was met on the fabric's board; else TCP's option said that it was there.
    pub board: bool,
    /// Our DMB.
    pub token: u64,
    /// The peer's.
    pub peer_token: u64,
    /// Bytes of our ring.
    pub ring: u32,
    /// Bytes of the peer's.
    pub peer_ring: u32,
    /// Bytes that came and were not read.
    pub unread: u32,
    /// Bytes that the peer has not read.
    pub unfinished: u32,
    /// What the program has shut down: 1 receiving, 2 sending.
    pub shutdown: u8,
    /// Bytes and calls in its life.
    pub sent: (u64, u64),
    /// The same of receiving.
    pub received: (u64, u64),
    /// Where both are.
    pub cursors: Cursors,
}

/// Cursors, each as wrap and count, and flags (`struct smc_diag_conninfo`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursors {
    /// The peer's as a writer.
    pub rx_prod: (u16, u32),
    /// The peer's as a reader.
    pub rx_cons: (u16, u32),
    /// The peer's flags and state.
    pub rx_flags: (u8, u8),
    /// Ours as a writer.
    pub tx_prod: (u16, u32),
    /// Ours as a reader.
    pub tx_cons: (u16, u32),
    /// Our flags and state.
    pub tx_flags: (u8, u8),
    /// The end of what was given to be sent.
    pub tx_prep: (u16, u32),
    /// The end of what was sent.
    pub tx_sent: (u16, u32),
    /// The end of what the peer has read.
    pub tx_fin: (u16, u32),
}

/// How often connections fell back for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fallback {
    /// Which side this was.
    pub role: Role,
    /// Why, see [`crate::reason`].
    pub reason: u32,
    /// What the peer said in its decline; 0 if it did not.
    pub peer: u32,
    /// How often.
    pub count: u64,
}
