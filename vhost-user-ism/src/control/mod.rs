// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: one JSON object a line, each answered with one.
//!
//! Invariant: who can connect may do everything (the socket has mode 0600); a client that sends
//! nonsense or nothing costs one thread for a bounded time.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

use crate::config::Name;
use crate::config::file::Vm;

/// What a client asks: `{"command":"list"}` and so on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Serve one more VM.
    AddVm {
        /// As a `[[vm]]` table of the configuration file.
        vm: Vm,
    },
    /// Stop serving a VM.
    RemoveVm {
        /// Its name.
        name: Name,
    },
    /// List the VMs.
    List,
    /// Counters.
    Stats,
    /// End the daemon.
    Shutdown,
}

/// The answer: `{"ok":true,…}` or `{"ok":false,"error":"…"}`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Response {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The fabric in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<FabricStatus>,
    /// The VMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<Vec<VmStatus>>,
}

impl Response {
    /// It was done.
    pub fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    /// It was not done.
    pub fn failed(why: impl ToString) -> Self {
        Self { error: Some(why.to_string()), ..Self::default() }
    }
}

/// The fabric in numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct FabricStatus {
    /// SMC's CHID.
    pub id: u16,
    /// VMs, connected or not.
    pub vms: usize,
    /// Pairs of VMs that share an arena or copy.
    pub pairs: usize,
    /// Memory files of all arenas.
    pub extents: usize,
    /// Registered DMBs.
    pub dmbs: usize,
}

/// One VM.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmStatus {
    /// Its name.
    pub name: Name,
    /// Its address.
    pub gid: String,
    /// Its groups.
    pub groups: Vec<Name>,
    /// Where its front-end connects; empty for an inherited socket.
    pub socket: String,
    /// `waiting` for a front-end, `connected`, or `ready` (its driver has said HELLO).
    pub state: State,
    /// Bytes of its window; 0: copied mode only.
    pub window: u64,
    /// Counters since HELLO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<VmStats>,
}

/// How far a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No front-end is connected.
    Waiting,
    /// A front-end is connected.
    Connected,
    /// Its driver has said HELLO.
    Ready,
}

/// A VM's counters since HELLO.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct VmStats {
    /// DMBs it owns.
    pub dmbs: u32,
    /// Bytes of them.
    pub dmb_bytes: u64,
    /// Bytes charged to its quota.
    pub charged_bytes: u64,
    /// Peers' DMBs it may write.
    pub grants: u32,
    /// Pairs it is in.
    pub peers: u32,
    /// Signals it sent through the device.
    pub signals_sent: u64,
    /// Signals it was delivered.
    pub signals_received: u64,
    /// Move requests carried out for it.
    pub moves: u64,
    /// Bytes of them.
    pub move_bytes: u64,
    /// Its requests that were refused.
    pub errors: u64,
}
