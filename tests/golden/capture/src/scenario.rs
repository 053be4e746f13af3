// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is provoked, in which guests.
//!
//! Invariant: a scenario boots its own guests, so none depends on another's state.

mod declines;
mod roce;
mod smcd;
mod talk;

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use ism_harness::Vm;

use crate::area;
use crate::files::{Folder, Message, Role};
use crate::lab::{Lab, Recorded};
use crate::packet;
use crate::{roce as frames, stream};

/// Name, what it provokes, and how.
pub(crate) type Scenario = (&'static str, &'static str, fn(&str) -> Result<usize>);

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(smcd::SCENARIOS);
    all.extend(declines::SCENARIOS);
    all.extend(roce::SCENARIOS);
    all
}

/// Takes what was recorded apart and writes the scenario's folder, if the messages that the scenario
/// `proves` are there.
fn write(name: &str, lab: &Lab, recorded: &Recorded, proves: &[&str]) -> Result<usize> {
    let packets = packet::packets(&recorded.pcap)?;
    let told = lab.server().run("ip -o addr")?.stdout;
    let role = |from: IpAddr| match told.contains(&format!(" {from}/")) {
        true => Role::Server,
        false => Role::Client,
    };
    let mut found = stream::messages(&packets);
    let (carried, frames) = frames::messages(&packets, role);
    found.extend(carried);
    found.sort_by_key(|(number, _)| *number);
    let mut messages: Vec<Message> = found.into_iter().map(|(_, message)| message).collect();
    let writers = writers(&messages);
    let mut lists = vec![("inputs.txt", inputs(lab)?), ("frames.txt", frames)];
    let files = match recorded.traces.len() {
        1 => [("writes.txt", Role::Server), ("", Role::Client)],
        _ => [("writes-server.txt", Role::Server), ("writes-client.txt", Role::Client)],
    };
    for (trace, (file, role)) in recorded.traces.iter().zip(files) {
        let (areas, list) = area::messages(trace, &writers);
        messages.extend(areas);
        messages.extend(area::events(trace, role));
        lists.push((file, list));
    }
    let steps = lab.steps();
    messages.sort_by_key(|message| steps.iter().position(|step| *step == message.step));
    for wanted in proves {
        let found = messages.iter().any(|message| message.what == *wanted);
        let names: Vec<&str> = messages.iter().map(|message| message.what.as_str()).collect();
        ensure!(found, "no {wanted} in {}", names.join(", "));
    }
    Folder { messages, lists }.write(name)
}

/// Who writes into which DMB: Accept names the server's, Confirm the client's
/// (`smcd_clc_msg_accept_confirm_common.token`, offset 16).
fn writers(messages: &[Message]) -> HashMap<u64, Role> {
    let mut writers = HashMap::new();
    for message in messages {
        if message.what.starts_with("accept-d") || message.what.starts_with("confirm-d") {
            let token = message.bytes.get(16..).and_then(<[u8]>::first_chunk);
            let token = token.map_or(0, |bytes| u64::from_be_bytes(*bytes));
            writers.insert(token, message.role.other());
        }
    }
    writers
}

/// What both ends are configured with, as `ROLE.KEY = VALUE`.
fn inputs(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    let mut ends = vec![("server", lab.server())];
    if lab.guests().count() > 1 {
        ends.push(("client", lab.client()));
    }
    for (role, vm) in ends {
        let told = vm.run(INPUTS)?.stdout;
        text.extend(told.lines().map(|line| format!("{role}.{line}\n")));
    }
    Ok(text)
}

const INPUTS: &str = r#"
echo "kernel = $(uname -r)"; echo "hostname = $(hostname)"
smcd ueid show | { n=0; while read -r ueid; do echo "ueid.$n = $ueid"; n=$((n + 1)); done; }
cd /sys/class/net; for d in *; do
    [ "$d" = bonding_masters ] && continue
    echo "net.$d.mac = $(cat $d/address)"; echo "net.$d.mtu = $(cat $d/mtu)"
    ip -o addr show dev $d | { n=0; while read -r _ _ _ address _; do echo "net.$d.address.$n = $address"; n=$((n + 1)); done; }
done
cd /sys/class/dibs && for d in *; do
    [ -e $d/gid ] || continue
    echo "dibs.$d.gid = $(cat $d/gid)"; echo "dibs.$d.fabric_id = $(cat $d/fabric_id)"
done
cd /sys/class/infiniband 2>/dev/null && for d in *; do
    [ -e $d ] || continue
    echo "roce.$d.netdev = $(cat $d/ports/1/gid_attrs/ndevs/0)"
    for g in 0 1 2 3 4 5 6 7; do
        gid=$(cat $d/ports/1/gids/$g); [ "$gid" = 0000:0000:0000:0000:0000:0000:0000:0000 ] && continue
        echo "roce.$d.gid.$g = $gid"
        echo "roce.$d.gid_type.$g = $(cat $d/ports/1/gid_attrs/types/$g 2>/dev/null)"
    done
done
cd /proc/sys/net/smc; for s in *; do echo "sysctl.net.smc.$s = $(cat $s)"; done
exit 0
"#;

/// Runs a command in both guests.
fn everywhere(lab: &Lab, command: &str) -> Result<()> {
    lab.guests().try_for_each(|vm: &Vm| vm.run(command).map(drop))
}
