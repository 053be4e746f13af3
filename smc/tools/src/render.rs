// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables for people, with the columns of smc-tools.
//!
//! Invariant: text that came from a peer or the user is shown without control characters.

pub(crate) mod linkgroup;

use std::fmt::Write;

use smc_tools::eid::Seid;
use smc_tools::fallback::{Fallbacks, Side, explain};
use smc_tools::linkgroup::Device;
use smc_tools::processes::Holder;
use smc_tools::socket::{Carrier, Socket};
use smc_tools::stats::{Direction, Histogram, SIZE_CLASSES, Stats};
use smc_tools::system::System;
use smc_tools::text::printable;
use smc_tools::told::{ProcessFallback, ProcessInfo, ProcessStats};

/// Lays rows out in columns as wide as their widest cell, two blanks apart.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text) }
}

fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// With the names of smc-tools.
pub(crate) fn system(system: &System) -> String {
    let features = |v2| if v2 { "v1 v2" } else { "v1" };
    format!(
        "Kernel Capabilities\nSMC Version:      {}.{}\nSMC Hostname:     {}\nSMC-D Features:   {}\n\
         SMC-R Features:   {}\n\nHardware Capabilities\nSEID:             {}\nISM:              {}\n",
        system.version,
        system.release,
        or_none(&system.host),
        features(system.version >= 2),
        features(system.smcr_v2),
        or_none(&system.seid),
        if system.smcd_v2 { "v1 v2" } else { "none for SMC-D v2" },
    )
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "n/a".to_owned() } else { printable(text) }
}

pub(crate) fn seid(seid: &Seid) -> String {
    let state = if seid.enabled { "enabled" } else { "disabled" };
    if seid.seid.is_empty() {
        "n/a (only s390 has a SEID)\n".to_owned()
    } else {
        format!("{} [{state}]\n", printable(&seid.seid))
    }
}

pub(crate) fn devices(devices: &[Device]) -> String {
    let head = ["FID", "Type", "PCI-ID", "PCHID", "InUse", "#LGs", "PNET-ID", "Of"];
    let row = |device: &Device| {
        // As smc-tools: a PNET-ID that the user set is marked.
        let mark = if device.pnetid_by_user { "*" } else { "" };
        [
            format!("{:04x}", device.fid),
            format!("{:04x}:{:04x}", device.vendor, device.device),
            or_dash(&device.pci_id),
            format!("{:04x}", device.pci_chid),
            yes(device.in_use).to_owned(),
            device.link_groups.to_string(),
            format!("{mark}{}", or_dash(&device.pnetid)),
            whose(device.process.as_ref()),
        ]
    };
    table(head, devices.iter().map(row))
}

/// Whose something is.
fn whose(process: Option<&Holder>) -> String {
    match process {
        Some(holder) => format!("{}/{}", holder.pid, printable(&holder.name)),
        None => "kernel".to_owned(),
    }
}

/// The processes under `smc-run`, if there are some.
pub(crate) fn processes(infos: &[ProcessInfo]) -> String {
    if infos.is_empty() {
        return "Processes under smc-run: none that this user may see\n".to_owned();
    }
    let row = |info: &ProcessInfo| {
        [
            whose(Some(&info.holder)),
            info.daemon.clone(),
            info.chid.map_or_else(|| "-".to_owned(), |chid| format!("0x{chid:04x}")),
            info.gid.map_or_else(|| "-".to_owned(), |gid| gid.to_string()),
            or_dash(&info.eid),
            or_dash(&info.socket),
        ]
    };
    table(["Process", "Daemon", "CHID", "GID", "EID", "Socket"], infos.iter().map(row))
}

/// Counters of processes: of all together, or of each.
pub(crate) fn process_stats(processes: &[ProcessStats], each: bool) -> String {
    let mut text = String::new();
    if each {
        for process in processes {
            text += &format!("\nProcess {}\n", whose(Some(&process.holder)));
            text += &counters(&process.stats, total(&process.fallbacks));
        }
    } else if !processes.is_empty() {
        let mut sum = Stats::default();
        processes.iter().for_each(|process| sum.add(&process.stats));
        let fallbacks = processes.iter().map(|process| total(&process.fallbacks));
        let [client, server] =
            fallbacks.fold([0_u64; 2], |[a, b], [c, d]| [a.saturating_add(c), b.saturating_add(d)]);
        text += &format!("\nProcesses under smc-run: {} together\n", processes.len());
        text += &counters(&sum, [client, server]);
    }
    text + &process_fallbacks(processes)
}

/// What processes tell, after what the kernel does, if that has SMC: there a blank line parts them.
pub(crate) fn after(kernel: Option<String>, processes: &str) -> String {
    match kernel {
        Some(kernel) => kernel + processes,
        None => processes.trim_start_matches('\n').to_owned(),
    }
}

/// As a client, and as a server.
fn total(fallbacks: &[ProcessFallback]) -> [u64; 2] {
    [Side::Client, Side::Server].map(|side| {
        let counts = fallbacks.iter().filter(|it| it.side == side).map(|it| it.count);
        counts.fold(0, u64::saturating_add)
    })
}

/// Why connections of processes fell back.
pub(crate) fn process_fallbacks(processes: &[ProcessStats]) -> String {
    let all = processes
        .iter()
        .flat_map(|process| process.fallbacks.iter().map(|fallback| (&process.holder, fallback)));
    let rows: Vec<_> = all
        .map(|(holder, fallback)| {
            [
                fallback.count.to_string(),
                side(fallback.side).to_owned(),
                format!("0x{:08x}", fallback.code),
                fallback.name.clone(),
                whose(Some(holder)),
                fallback.text.clone(),
            ]
        })
        .collect();
    if processes.is_empty() {
        return String::new();
    }
    if rows.is_empty() {
        return "\nFallbacks to TCP of processes under smc-run: none\n".to_owned();
    }
    let head = ["Count", "Side", "Code", "Name", "Process", "Reason"];
    format!("\nFallbacks to TCP of processes under smc-run\n{}", table(head, rows))
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

pub(crate) fn fallbacks(fallbacks: &Fallbacks) -> String {
    let mut text =
        format!("Fallbacks to TCP: server {}, client {}\n", fallbacks.server, fallbacks.client);
    if fallbacks.reasons.is_empty() {
        return text;
    }
    let rows = fallbacks.reasons.iter().map(|reason| {
        [
            reason.count.to_string(),
            side(reason.side).to_owned(),
            format!("0x{:08x}", reason.code),
            reason.name.clone(),
            reason.text.clone(),
        ]
    });
    text += &table(["Count", "Side", "Code", "Name", "Reason"], rows);
    text
}

pub(crate) fn sockets(sockets: &[Socket], details: bool) -> String {
    let plain = ["State", "UID", "Inode", "Local Address", "Peer Address", "Intf", "Mode"];
    let row = |socket: &Socket| {
        let listens = socket.state_name() == "LISTEN";
        [
            socket.state_name().to_owned(),
            format!("{:05}", socket.uid),
            format!("{:07}", socket.inode),
            socket.local.to_string(),
            if listens { String::new() } else { socket.peer.to_string() },
            format!("{:04x}", socket.interface),
            mode(&socket.carrier),
        ]
    };
    if !details {
        return table(plain, sockets.iter().map(row));
    }
    let [a, b, c, d, e, f, g] = plain;
    let head = [a, b, c, d, e, f, g, "GID", "Token", "Peer-GID", "Peer-Token", "Linkid"];
    let detailed = |socket: &Socket| {
        let [a, b, c, d, e, f, g] = row(socket);
        let [h, i, j, k, l] = match &socket.carrier {
            Carrier::Smcd { dmbs: Some(dmbs) } => [
                dmbs.gid.to_string(),
                format!("{:016x}", dmbs.token),
                dmbs.peer_gid.to_string(),
                format!("{:016x}", dmbs.peer_token),
                format!("{:08x}", dmbs.link_group),
            ],
            _ => Default::default(),
        };
        [a, b, c, d, e, f, g, h, i, j, k, l]
    };
    table(head, sockets.iter().map(detailed))
}

fn mode(carrier: &Carrier) -> String {
    match carrier {
        Carrier::None => String::new(),
        Carrier::Smcr => "SMCR".to_owned(),
        Carrier::Smcd { .. } => "SMCD".to_owned(),
        Carrier::Tcp { reason, peer_diagnosis: 0 } => {
            format!("TCP 0x{reason:08x} ({})", explain(*reason))
        }
        Carrier::Tcp { reason, peer_diagnosis } => {
            format!("TCP 0x{reason:08x}/0x{peer_diagnosis:08x} ({})", explain(*peer_diagnosis))
        }
    }
}

pub(crate) fn stats(stats: &Stats, fallbacks: &Fallbacks) -> String {
    counters(stats, [fallbacks.client, fallbacks.server])
}

fn counters(stats: &Stats, [client, server]: [u64; 2]) -> String {
    let smcd = &stats.smcd;
    let smc = smcd.connections();
    let fallen = client.saturating_add(server);
    let mut text = String::from("SMC-D connections\n");
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<36}{value}");
    };
    line("Total connections handled", smc.saturating_add(fallen).to_string());
    line("SMC connections", smc.to_string());
    line("  v1 (client, server)", format!("{}, {}", smcd.client_v1, smcd.server_v1));
    line("  v2 (client, server)", format!("{}, {}", smcd.client_v2, smcd.server_v2));
    line(
        "Handshake errors (client, server)",
        format!("{}, {}", stats.client_handshake_errors, stats.server_handshake_errors),
    );
    line("TCP fallbacks (client, server)", format!("{client}, {server} (smcd fallback show)"));
    line("splice and sendfile", smcd.splice.to_string());
    line("TCP_CORK, TCP_NODELAY", format!("{}, {}", smcd.cork, smcd.nodelay));
    line("Urgent data", smcd.urgent.to_string());
    text += &direction("\nReceived", &smcd.rx);
    text += &direction("\nSent", &smcd.tx);
    text
}

fn direction(name: &str, direction: &Direction) -> String {
    let mut text = format!("{name}\n");
    for (name, value) in [
        ("Bytes", direction.bytes),
        ("Requests", direction.requests),
        ("Buffer bytes in use", direction.buffer_bytes),
        ("Buffers allocated", direction.buffers_allocated),
        ("Buffers reused", direction.buffers_reused),
        ("Buffers downgraded", direction.buffers_downgraded),
        ("Buffer full", direction.buffer_full),
        ("Peer's buffer full", direction.peer_buffer_full),
        ("Request larger than buffer", direction.buffer_too_small),
        ("Request larger than peer's", direction.peer_buffer_too_small),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<36}{value}");
    }
    let row = |name: &str, counts: Histogram| {
        let [a, b, c, d, e, f, g, h, i] = counts.0.map(|count| count.to_string());
        [format!("  {name}"), a, b, c, d, e, f, g, h, i]
    };
    let [a, b, c, d, e, f, g, h, i] = SIZE_CLASSES;
    text += &table(
        ["", a, b, c, d, e, f, g, h, i],
        [row("Buffers", direction.buffer_sizes), row("Requests", direction.request_sizes)],
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["1".to_owned(), "2".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(["A", "B"], rows), "A     B\n1     2\nlong\n");
    }

    #[test]
    fn nothing_begins_with_a_blank_line() {
        assert_eq!(after(None, "\nProcesses\n"), "Processes\n");
        assert_eq!(after(Some("Kernel\n".to_owned()), "\nProcesses\n"), "Kernel\n\nProcesses\n");
    }

    #[test]
    fn a_peers_name_cannot_draw_on_the_terminal() {
        assert_eq!(or_dash("a\u{1b}[2J\n"), "a?[2J?");
    }
}
