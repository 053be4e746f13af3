// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What processes have told, in the terms of the kernel's answers, for `smcd`.
//!
//! Invariant: each value says whose it is; nothing of different processes is added up but where that is
//! said.

use serde::{Deserialize, Serialize};
use smc_snapshot as snapshot;

use crate::fallback::{Side, explain_process, name};
use crate::linkgroup::{Device, Gid, LinkGroup};
use crate::processes::{Holder, Processes, Told};
use crate::stats::Stats;
use crate::view::gid;

/// The kernel's answer, if it has SMC, and the processes'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Both<T, P> {
    /// The kernel's.
    #[serde(flatten)]
    pub kernel: Option<T>,
    /// Those of processes under `smc-run`.
    pub processes: Vec<P>,
}

impl<T, P> Both<T, P> {
    /// Whether neither has answered.
    pub fn is_empty(&self) -> bool {
        self.kernel.is_none() && self.processes.is_empty()
    }
}

/// A process and its place on a fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Which.
    #[serde(flatten)]
    pub holder: Holder,
    /// How it stands to the daemon, in words.
    pub daemon: String,
    /// Where it looks for the daemon.
    pub socket: String,
    /// Its address.
    pub gid: Option<Gid>,
    /// Its fabric.
    pub chid: Option<u16>,
    /// The enterprise id that peers must have.
    pub eid: String,
}

/// A process's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStats {
    /// Which.
    #[serde(flatten)]
    pub holder: Holder,
    /// What it counted since it began.
    pub stats: Stats,
    /// Why its connections fell back.
    pub fallbacks: Vec<ProcessFallback>,
}

/// How often connections of a process fell back for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFallback {
    /// Its side.
    pub side: Side,
    /// The reason.
    pub code: u32,
    /// What the peer said in its decline; 0 if it did not.
    pub peer_code: u32,
    /// The reason's name, empty if unknown.
    pub name: String,
    /// Its words.
    pub text: String,
    /// How often.
    pub count: u64,
}

/// The processes and their fabrics.
pub fn infos(processes: &Processes) -> Vec<ProcessInfo> {
    let info = |told: &Told| {
        let process = &told.snapshot.process;
        let device = told.snapshot.device.as_ref();
        ProcessInfo {
            holder: told.holder.clone(),
            daemon: match process.joined {
                snapshot::Joined::Untried => "not needed yet",
                snapshot::Joined::Member => "member",
                snapshot::Joined::Failed => "not there, or not let in",
                snapshot::Joined::Gone => "gone",
            }
            .to_owned(),
            socket: process.socket.clone(),
            gid: device.map(|device| gid(device.gid)),
            chid: device.map(|device| device.chid),
            eid: device.map(|device| device.eid.clone()).unwrap_or_default(),
        }
    };
    processes.told.iter().map(info).collect()
}

/// The processes' link groups.
pub fn link_groups(processes: &Processes) -> impl Iterator<Item = LinkGroup> + '_ {
    processes.told.iter().flat_map(|told| {
        let device = told.snapshot.device.clone().unwrap_or_default();
        told.snapshot.groups.iter().map(move |group| LinkGroup {
            id: group.id,
            version: group.version,
            release: 0,
            gid: gid(device.gid),
            peer_gid: gid(group.peer_gid),
            chid: device.chid,
            vlan: 0,
            connections: group.connections,
            pnetid: String::new(),
            eid: device.eid.clone(),
            peer_host: String::new(),
            peer_os: 2,
            send_buffer_bytes: group.send_buffer_bytes,
            dmb_bytes: group.dmb_bytes,
            process: Some(told.holder.clone()),
        })
    })
}

/// The processes' devices.
pub fn devices(processes: &Processes) -> impl Iterator<Item = Device> + '_ {
    processes.told.iter().filter_map(|told| {
        told.snapshot.device.as_ref()?;
        let groups = told.snapshot.groups.len();
        Some(Device {
            fid: 0,
            pci_id: String::new(),
            pci_chid: 0,
            vendor: 0,
            device: 0,
            link_groups: u32::try_from(groups).unwrap_or(u32::MAX),
            in_use: groups > 0,
            pnetid: String::new(),
            pnetid_by_user: false,
            process: Some(told.holder.clone()),
        })
    })
}

/// The processes' counters.
pub fn stats(processes: &Processes) -> Vec<ProcessStats> {
    let of = |told: &Told| ProcessStats {
        holder: told.holder.clone(),
        stats: told.snapshot.stats.clone(),
        fallbacks: told.snapshot.fallbacks.iter().map(fallback).collect(),
    };
    processes.told.iter().map(of).collect()
}

/// Which side it is.
pub(crate) fn side(role: snapshot::Role) -> Side {
    match role {
        snapshot::Role::Client => Side::Client,
        snapshot::Role::Server => Side::Server,
    }
}

fn fallback(fallback: &snapshot::Fallback) -> ProcessFallback {
    let (side, code, peer_code) = (side(fallback.role), fallback.reason, fallback.peer);
    ProcessFallback {
        side,
        code,
        peer_code,
        name: name(code).to_owned(),
        text: explain_process(side, code, peer_code),
        count: fallback.count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_a_process_has_the_words_of_both_ends() {
        let of = |reason, peer| {
            let told = snapshot::Fallback { reason, peer, count: 70_000, ..Default::default() };
            fallback(&told)
        };
        let policy = of(snapshot::reason::POLICY, 0);
        assert_eq!((policy.name.as_str(), policy.count), ("POLICY", 70_000));
        assert_eq!(policy.text, "the policy file keeps this connection on TCP");
        let declined = of(0x0500_0000, 0x0101_0000);
        assert_eq!(declined.name, "PEERDECL");
        assert!(declined.text.ends_with(": not enough memory"), "{}", declined.text);
    }

    #[test]
    fn the_kernels_answer_keeps_its_place_in_json() {
        let both = Both { kernel: Some(Stats::default()), processes: Vec::<ProcessStats>::new() };
        let json = serde_json::to_value(&both).unwrap();
        assert_eq!(json.pointer("/smcd/rx/bytes").and_then(|it| it.as_u64()), Some(0));
        let none = Both::<Stats, ProcessStats> { kernel: None, processes: Vec::new() };
        assert_eq!(serde_json::to_string(&none).unwrap(), r#"{"processes":[]}"#);
    }
}
