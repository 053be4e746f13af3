// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table of `smcss`, as smc-tools 1.8.5 prints it, without blanks at the ends of lines.
//!
//! Invariant: the columns of smc-tools come first, in its order and widths; ours come after them.

use std::fmt::Write;
use std::net::SocketAddr;

use smc_tools::cli::smcss::Cli;
use smc_tools::fallback::{Side, explain, explain_process};
use smc_tools::socket::{Carrier, Socket};
use smc_tools::text::printable;

use crate::{INIT, LISTEN};

const CLOSED: u8 = 7;
/// Characters of an address, if it is not to be shown whole.
const SHORT: usize = 23;

pub(super) fn table(cli: &Cli, sockets: &[Socket]) -> String {
    let mut text = String::new();
    let rows = sockets.iter().map(|socket| row(cli, socket));
    for line in std::iter::once(head(cli)).chain(rows) {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn head(cli: &Cli) -> String {
    let mut line = String::from(
        "State          UID   Inode   Local Address           Peer Address            Intf Mode ",
    );
    if cli.debug {
        line += "Shutd Token    Sndbuf   Rcvbuf   Peerbuf  rxprod-Cursor rxcons-Cursor rxFlags \
                 txprod-Cursor txcons-Cursor txFlags txprep-Cursor txsent-Cursor txfin-Cursor  ";
    }
    if cli.smcr {
        line += "Role IB-device       Port Linkid GID                                      \
                 Peer-GID ";
    }
    if cli.smcd {
        line += "GID              Token            Peer-GID         Peer-Token       Linkid   ";
    }
    line + if cli.process { "Process" } else { "" }
}

fn row(cli: &Cli, socket: &Socket) -> String {
    let mut line = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = write!(line, "{:<14} {:05} {:07} ", socket.state_name(), socket.uid, socket.inode);
    if socket.state != INIT {
        let _ = write!(line, "{:<SHORT$} ", address(socket.local, cli.wide));
        if socket.state != LISTEN {
            let _ = write!(line, "{:<SHORT$} ", address(socket.peer, cli.wide));
            let _ = write!(line, "{:04x} ", socket.interface);
            if socket.state != CLOSED {
                line += &mode(cli, socket);
            }
        }
    }
    if cli.process {
        line = format!("{} {}", line.trim_end(), whose(socket));
    }
    line
}

/// As smc-tools: the address is cut, the port never.
fn address(address: SocketAddr, wide: bool) -> String {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    if wide || ip.len() + 1 + port.len() <= SHORT {
        return format!("{ip}:{port}");
    }
    let room = SHORT - 1 - port.len() - 2;
    format!("{}..:{port}", ip.get(..room).unwrap_or(&ip))
}

fn mode(cli: &Cli, socket: &Socket) -> String {
    let mut text = match &socket.carrier {
        Carrier::Tcp { reason, peer_diagnosis } => {
            return tcp(cli, socket.side, *reason, *peer_diagnosis);
        }
        Carrier::Smcd { .. } => format!("SMCD {}", found(cli, socket.board)),
        Carrier::Smcr => "SMCR ".to_owned(),
        Carrier::None => return String::new(),
    };
    if cli.debug {
        text += &debug(socket);
    }
    if let Some(link) = socket.link.as_ref().filter(|_| cli.smcr) {
        let _ = write!(
            text,
            "{:>4} {:<15} {:02x}   {:02x}     {:<40} {} ",
            if link.server { "SERV" } else { "CLNT" },
            printable(&link.device),
            link.port,
            link.link,
            printable(&link.gid),
            printable(&link.peer_gid),
        );
    }
    if let Carrier::Smcd { dmbs: Some(dmbs) } = &socket.carrier
        && cli.smcd
    {
        let _ = write!(
            text,
            "{:016x} {:016x} {:016x} {:016x} {:08x} ",
            dmbs.gid.gid, dmbs.token, dmbs.peer_gid.gid, dmbs.peer_token, dmbs.link_group
        );
    }
    text
}

/// How it was found out that the other end speaks SMC.
fn found(cli: &Cli, board: Option<bool>) -> &'static str {
    match board.filter(|_| cli.reason) {
        Some(true) => "(the peer was met on the fabric's board) ",
        Some(false) => "(the peer's TCP handshake said so) ",
        None => "",
    }
}

fn tcp(cli: &Cli, side: Option<Side>, reason: u32, peer: u32) -> String {
    let codes = match peer {
        0 => format!("TCP 0x{reason:08x}"),
        peer => format!("TCP 0x{reason:08x}/0x{peer:08x}"),
    };
    match (cli.reason, side, peer) {
        (false, ..) => codes,
        (true, Some(side), peer) => format!("{codes} ({})", explain_process(side, reason, peer)),
        (true, None, 0) => format!("{codes} ({})", explain(reason)),
        (true, None, peer) => format!("{codes} ({}: {})", explain(reason), explain(peer)),
    }
}

fn debug(socket: &Socket) -> String {
    let mut text = String::new();
    if let Some(shut) = socket.shutdown {
        let reads = if shut & 1 != 0 { 'R' } else { '<' };
        let writes = if shut & 2 != 0 { 'W' } else { '>' };
        let _ = write!(text, " {reads}-{writes}  ");
    }
    if let (Some(conn), Some(buffers)) = (&socket.conninfo, &socket.buffers) {
        let at = |(wrap, count): (u16, u32)| format!("{wrap:04x}:{count:08x} ");
        let flags = |(producer, state): (u8, u8)| format!("{producer:02x}:{state:02x}   ");
        let cursors = &conn.cursors;
        let sizes = [conn.token, buffers.send, buffers.receive, buffers.peer_receive];
        sizes.iter().for_each(|size| text += &format!("{size:08x} "));
        text += &at(cursors.rx_prod);
        text += &at(cursors.rx_cons);
        text += &flags(cursors.rx_flags);
        text += &at(cursors.tx_prod);
        text += &at(cursors.tx_cons);
        text += &flags(cursors.tx_flags);
        [cursors.tx_prep, cursors.tx_sent, cursors.tx_fin].iter().for_each(|it| text += &at(*it));
    }
    text
}

fn whose(socket: &Socket) -> String {
    match &socket.process {
        Some(holder) => format!("{}/{}", holder.pid, printable(&holder.name)),
        None => "kernel".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use smc_tools::linkgroup::Gid;
    use smc_tools::processes::Holder;
    use smc_tools::socket::{Buffers, Conninfo, Dmbs};

    fn socket(state: u8, carrier: Carrier) -> Socket {
        Socket {
            state,
            uid: 1000,
            inode: 4711,
            interface: 0,
            local: "127.0.0.1:5201".parse().unwrap(),
            peer: "[2001:db8:1234:5678::1]:40000".parse().unwrap(),
            carrier,
            buffers: None,
            shutdown: None,
            conninfo: None,
            link: None,
            board: None,
            side: Some(Side::Client),
            process: Some(Holder { pid: 42, name: "a\u{1b}b".into() }),
        }
    }

    fn smcd() -> Socket {
        let dmbs = Dmbs {
            link_group: 0x100,
            gid: Gid { gid: 1, ext: 2 },
            peer_gid: Gid { gid: 3, ext: 4 },
            token: 5,
            peer_token: 6,
        };
        let mut socket = socket(1, Carrier::Smcd { dmbs: Some(dmbs) });
        socket.buffers = Some(Buffers { send: 0, receive: 65_504, peer_receive: 65_504 });
        socket.shutdown = Some(2);
        let cursors =
            smc_snapshot::Cursors { tx_fin: (1, 0xab), rx_flags: (0, 0x80), ..Default::default() };
        socket.conninfo = Some(Conninfo { token: 7, cursors });
        socket
    }

    fn lines(options: &str, sockets: &[Socket]) -> Vec<String> {
        let cli = Cli::try_parse_from(format!("smcss{options}").split(' ')).unwrap();
        table(&cli, sockets).lines().map(str::to_owned).collect()
    }

    #[test]
    fn rows_are_those_of_smc_tools() {
        let tcp = |peer_diagnosis| Carrier::Tcp { reason: 0x0301_0000, peer_diagnosis };
        let found = lines(
            " -a",
            &[smcd(), socket(1, tcp(0)), socket(10, Carrier::None), socket(2, Carrier::None)],
        );
        assert_eq!(
            found,
            [
                "State          UID   Inode   Local Address           Peer Address            Intf Mode",
                "ACTIVE         01000 0004711 127.0.0.1:5201          2001:db8:1234:5..:40000 0000 SMCD",
                "ACTIVE         01000 0004711 127.0.0.1:5201          2001:db8:1234:5..:40000 0000 \
                 TCP 0x03010000",
                "LISTEN         01000 0004711 127.0.0.1:5201",
                "INIT           01000 0004711",
            ]
        );
        let wide = lines(" -W", &[socket(1, tcp(0x0303_0007))]);
        assert!(
            wide[1].ends_with(" 2001:db8:1234:5678::1:40000 0000 TCP 0x03010000/0x03030007"),
            "{wide:?}"
        );
    }

    #[test]
    fn details_stand_under_their_heads() {
        let found = lines(" -D", &[smcd()]);
        let at = |name: &str| found[0].find(name).unwrap();
        assert!(found[1][at("GID")..].starts_with("0000000000000001 0000000000000005 "));
        assert!(
            found[1][at("Peer-GID")..].starts_with("0000000000000003 0000000000000006 00000100")
        );
        let found = lines(" -d", &[smcd()]);
        let at = |name: &str| found[0].find(name).unwrap();
        assert!(found[1][at("Shutd")..].starts_with(" <-W  00000007 00000000 0000ffe0 0000ffe0 "));
        assert!(found[1][at("rxFlags")..].starts_with("00:80 "));
        assert!(found[1][at("txfin-Cursor")..].starts_with("0001:000000ab"));
    }

    #[test]
    fn reasons_are_words_and_processes_are_named() {
        let tcp = |reason, peer_diagnosis| socket(1, Carrier::Tcp { reason, peer_diagnosis });
        let found = lines(" -rp", &[tcp(0x03ff_0001, 0), tcp(0x0500_0000, 0x0303_0007)]);
        assert!(found[0].ends_with(" Mode Process"), "{}", found[0]);
        let end = "TCP 0x03ff0001 (the policy file keeps this connection on TCP) 42/a?b";
        assert!(found[1].ends_with(end), "{}", found[1]);
        let end = "/0x03030007 (the peer declined; its own statistics say why: no common device for \
                   SMC-D v2) 42/a?b";
        assert!(found[2].ends_with(end), "{}", found[2]);
        // Connecting again helps who connects, and not by the kernel's SMC.
        for (side, is_told) in
            [(Some(Side::Client), true), (Some(Side::Server), false), (None, false)]
        {
            let found = lines(" -r", &[Socket { side, ..tcp(0x0301_0000, 0) }]);
            assert_eq!(found[1].ends_with(" connect again)"), is_told, "{}", found[1]);
            assert!(found[1].contains("0x03010000 (the peer does not speak SMC: "), "{}", found[1]);
        }
    }
}
