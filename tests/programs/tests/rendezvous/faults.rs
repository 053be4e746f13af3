// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon's death in the middle of a meeting, a member that posts without end, and connections whose addresses
//! exist twice.
//!
//! Invariant tested: TCP carries what the board cannot, and nobody is taken for another.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use ism_client::board::{Note, Post};
use ism_programs::{Network, Running, output, wait_for_port};
use smc_discovery::rendezvous::{Key, Scope};
use smc_discovery::sockopt::namespace;

use crate::host::{Host, SMC, here};

/// A client that has connected looks for its other end when the daemon is killed; and a server that has accepted does,
/// whose client is stopped.
#[test]
fn a_meeting_whose_daemon_dies_is_tcp() -> Result<()> {
    let script = "
import os, signal, socket, sys
daemon, who = int(sys.argv[1]), sys.argv[2]
listener = socket.create_server(('127.0.0.1', 0))
connected, killed = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    s = socket.create_connection(listener.getsockname())
    os.write(connected[1], b'x')
    if who == 'client': os.kill(daemon, signal.SIGKILL)
    else: os.kill(os.getpid(), signal.SIGSTOP)
    s.settimeout(60)
    s.sendall(b'hello')
    os.write(killed[1], b'x')
    print(s.recv(5, socket.MSG_WAITALL), flush=True)
    os._exit(0)
os.read(connected[0], 1)
if who == 'client':
    os.read(killed[0], 1)
    s, _ = listener.accept()
else:
    os.waitpid(child, os.WUNTRACED)
    s, _ = listener.accept()
    s.setblocking(False)
    try: print(s.recv(1))
    except BlockingIOError: pass
    os.kill(daemon, signal.SIGKILL)
    os.kill(child, signal.SIGCONT)
    s.setblocking(True)
s.settimeout(60)
print(s.recv(5, socket.MSG_WAITALL), flush=True)
s.sendall(b'world')
os.waitpid(child, 0)
";
    for who in ["client", "server"] {
        let host = Host::start()?;
        let said = host.python(who, script, &[&host.daemon.id().to_string(), who])?;
        assert_eq!(said, "b'hello'\nb'world'\n", "{who}\n{}", host.log(who));
        assert!(!host.log(who).contains(SMC), "{who}\n{}", host.log(who));
    }
    Ok(())
}

/// It calls, listens and announces where others meet, as fast as it can, and stays there; they meet nevertheless.
#[test]
fn who_posts_without_end_keeps_nobody_from_meeting() -> Result<()> {
    let host = Host::start()?;
    let at = here("TCP4-LISTEN", "TCP4:127.0.0.1")?;
    let hostile = ism_client::vhost::join(&host.path("one"))?;
    let scope = namespace(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?)?;
    let keys = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST]
        .map(|ip| *Key::of_listener((ip, at.port).into(), Scope::Namespace(scope)).as_bytes());
    // This one stays, at the very address.
    hostile.post(&Post { key: keys[1], id: u64::MAX, note: Note::Listen })?;
    let is_over = AtomicBool::new(false);
    let met = std::thread::scope(|threads| {
        threads.spawn(|| {
            let notes = [Note::Call, Note::Listen, Note::Announce { side: 0 }];
            let mut last = 0;
            while !is_over.load(Ordering::Relaxed) {
                let everywhere = keys.into_iter().flat_map(|key| notes.map(|note| (key, note)));
                for ((key, note), id) in everywhere.zip(last..) {
                    // It takes no events, so it is refused after a while; and goes on.
                    let _ = hostile.post(&Post { key, id, note });
                    let _ = hostile.post(&Post { key, id: id.wrapping_sub(30), note: Note::Leave });
                }
                last += 6;
            }
        });
        let met = host.meet(["one", "one"], &at);
        is_over.store(true, Ordering::Relaxed);
        met
    })?;
    assert!(met, "{}{}", host.log("server"), host.log("client"));
    Ok(())
}

/// Accepts one connection at its address and port, and answers what it is sent.
const ANSWER: &str = "
import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
s, _ = listener.accept()
s.sendall(s.recv(5, socket.MSG_WAITALL))
s.recv(1)
";
/// Connects from one port, and says what it is answered.
const ASK: &str = "
import socket, sys
port = int(sys.argv[1])
s = socket.create_connection(('127.0.0.1', port), source_address=('127.0.0.1', port + 1))
s.sendall(sys.argv[2].encode())
print(s.recv(5, socket.MSG_WAITALL))
";

/// The same four numbers in two network namespaces: a plain server in one is not taken for that under `smc-run` in the
/// other, and of two pairs each is with its own.
#[test]
fn the_same_addresses_in_two_namespaces_are_two_connections() -> Result<()> {
    let host = Host::start()?;
    let networks = [Network::new()?, Network::new()?];
    let [there, here] = &networks;
    let server = |network: &Network, command: &mut Command, port: u16| -> Result<Running> {
        network.inside(|| {
            let server = Running::start(command.args(["-c", ANSWER, &port.to_string()]))?;
            wait_for_port(port)?;
            Ok(server)
        })?
    };
    let client = |network: &Network, log: &str, port: u16| -> Result<String> {
        let mut command = host.command("one", log, "python3")?;
        let said =
            network.inside(|| output(command.args(["-c", ASK, &port.to_string(), log])))??;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    {
        let _there = server(there, &mut host.command("one", "there", "python3")?, 4000)?;
        let _here = server(here, &mut Command::new("python3"), 4000)?;
        assert_eq!(client(here, "plain", 4000)?, "b'plain'\n");
        assert!(host.knows_that_nobody_is_there("plain"), "{}", host.log("plain"));
        assert_eq!(host.log("there"), "");
    }
    let _servers = [
        server(there, &mut host.command("one", "there", "python3")?, 4010)?,
        server(here, &mut host.command("one", "here", "python3")?, 4010)?,
    ];
    let said = std::thread::scope(|threads| {
        let other = threads.spawn(|| client(there, "other", 4010));
        [client(here, "these", 4010), other.join().unwrap_or_else(|_| Ok("panicked".into()))]
    });
    for (said, log) in said.into_iter().zip(["these", "other"]) {
        assert_eq!(said?, format!("b'{log}'\n"));
        assert!(host.log(log).contains(SMC), "{log}: {}", host.log(log));
    }
    Ok(())
}
