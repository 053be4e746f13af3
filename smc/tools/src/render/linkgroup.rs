// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Link groups, as a table or each as a block.
//!
//! Invariant: the columns and lines of smc-tools come first, in its order; ours come after them.

use std::fmt::Write;

use smc_tools::linkgroup::LinkGroup;

use super::{or_dash, printable, whose};

pub(crate) fn table(groups: &[LinkGroup]) -> String {
    let head = [
        "LG-ID",
        "VLAN",
        "#Conns",
        "PNET-ID",
        "Ver",
        "CHID",
        "GID",
        "Peer-GID",
        "EID",
        "Peer-Host",
        "Of",
    ];
    let row = |group: &LinkGroup| {
        [
            format!("{:08x}", group.id),
            group.vlan.to_string(),
            group.connections.to_string(),
            or_dash(&group.pnetid),
            format!("{}.{}", group.version, group.release),
            format!("0x{:04x}", group.chid),
            group.gid.to_string(),
            group.peer_gid.to_string(),
            or_dash(&group.eid),
            or_dash(&group.peer_host),
            whose(group.process.as_ref()),
        ]
    };
    super::table(head, groups.iter().map(row))
}

pub(crate) fn details(groups: &[LinkGroup]) -> String {
    let blocks: Vec<_> = groups.iter().map(block).collect();
    blocks.join("\n")
}

fn block(group: &LinkGroup) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<9}: {value}");
    };
    line("LG-ID", &format_args!("{:08x}", group.id));
    line("VLAN", &format_args!("{:x}", group.vlan));
    line("PNET-ID", &printable(&group.pnetid));
    line("Version", &group.version);
    if group.version > 1 {
        line("Peer-Rel", &group.release);
        line("Peer-Host", &printable(&group.peer_host));
        line("Peer-OS", &system(group.peer_os));
        line("EID", &printable(&group.eid));
    }
    line("#Conns", &group.connections);
    line("Sndbuf", &format_args!("{} B", group.send_buffer_bytes));
    line("DMB", &format_args!("{} B", group.dmb_bytes));
    line("CHID", &format_args!("0x{:04x}", group.chid));
    line("GID", &group.gid);
    line("Peer-GID", &group.peer_gid);
    line("Of", &whose(group.process.as_ref()));
    text
}

fn system(number: u8) -> String {
    match number {
        1 => "z/OS".to_owned(),
        2 => "Linux".to_owned(),
        3 => "AIX".to_owned(),
        other => format!("{other:#x}?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smc_tools::linkgroup::Gid;

    fn group(version: u8) -> LinkGroup {
        LinkGroup {
            id: 0x100,
            version,
            release: 1,
            gid: Gid { gid: 1, ext: 2 },
            peer_gid: Gid { gid: 3, ext: 0 },
            chid: 0xff01,
            vlan: 10,
            connections: 7,
            pnetid: "NET1".into(),
            eid: "VHOST-USER-ISM".into(),
            peer_host: "a\u{1b}b".into(),
            peer_os: 2,
            send_buffer_bytes: 0,
            dmb_bytes: 65_536,
            process: None,
        }
    }

    #[test]
    fn columns_of_smc_tools_come_first() {
        let text = table(&[group(2)]);
        let lines: Vec<_> =
            text.lines().map(|it| it.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[0][..4], ["LG-ID", "VLAN", "#Conns", "PNET-ID"]);
        assert_eq!(lines[1][..4], ["00000100", "10", "7", "NET1"]);
        assert!(text.ends_with(" a?b        kernel\n"), "{text}");
    }

    #[test]
    fn a_block_has_the_lines_of_smc_tools() {
        let text = details(&[group(2), group(1)]);
        let expected = "\
LG-ID    : 00000100
VLAN     : a
PNET-ID  : NET1
Version  : 2
Peer-Rel : 1
Peer-Host: a?b
Peer-OS  : Linux
EID      : VHOST-USER-ISM
#Conns   : 7
Sndbuf   : 0 B
DMB      : 65536 B
CHID     : 0xff01
GID      : 0x0000000000000001:0000000000000002
Peer-GID : 0x0000000000000003
Of       : kernel

LG-ID    : 00000100
VLAN     : a
PNET-ID  : NET1
Version  : 1
#Conns   : 7
";
        assert!(text.starts_with(expected), "{text}");
    }
}
