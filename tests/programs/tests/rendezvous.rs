// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that find each other by the fabric's board, as in a container that may load no BPF programs.
//!
//! Invariant tested: both ends of a connection are SMC's, or TCP carries the program's bytes and no other. Only what
//! goes between network namespaces needs root.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ism_programs::{Network, Running, need, programs, run, unused_port, wait_for_port};
use tempfile::TempDir;

/// A daemon with two doors, each to a group of its own.
struct Host {
    folder: TempDir,
    _daemon: Running,
}

/// Who may find whom.
const DOORS: [&str; 2] = ["one", "two"];
/// What the preload says of an end of SMC.
const SMC: &str = ": SMC-D\n";
/// More than fits into TCP's buffers.
const SIZE: usize = 5_000_000;

impl Host {
    fn start() -> Result<Self> {
        need("socat", "socat");
        need("python3", "python3");
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let doors = DOORS.map(|name| {
            let socket = path(name);
            let place = format!("name = {name:?}\nsocket = {socket:?}\ngroups = [{name:?}]\n");
            format!("[group.{name}]\n[[processes]]\n{place}")
        });
        fs::write(path("config"), doors.concat())?;
        let mut daemon = Command::new(programs().join("vhost-user-ism"));
        let daemon = Running::start(daemon.arg("--config").arg(path("config")))?;
        let host = Self { _daemon: daemon, folder };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while DOORS.iter().any(|name| !host.path(name).exists()) {
            ensure!(std::time::Instant::now() < end, "the daemon does not listen");
            std::thread::sleep(std::time::Duration::from_millis(10)); // the pace of looking
        }
        Ok(host)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts `program` with the preload, whose words go to the file `log`.
    fn command(&self, door: &str, log: &str, program: &str) -> Result<Command> {
        let mut command = Command::new(programs().join("smc-run"));
        command.arg("-ds").arg(self.path(door)).arg(program);
        command.env("SMC_POLICY", self.policy()?).stderr(File::create(self.path(log))?);
        Ok(command)
    }

    /// The file of rules: without one of the test, everything may be SMC.
    fn policy(&self) -> Result<PathBuf> {
        let policy = self.path("policy");
        if !policy.exists() {
            fs::write(&policy, "")?;
        }
        Ok(policy)
    }

    fn log(&self, log: &str) -> String {
        fs::read_to_string(self.path(log)).unwrap_or_default()
    }

    /// Sends a file by socat from the client to the server; whether each end was SMC's.
    fn send(&self, server: Command, client: Command, at: &Place<'_>) -> Result<[bool; 2]> {
        let (mut server, mut client) = (server, client);
        let number = |n: usize| u8::try_from(((n / 251) ^ (n % 251)) % 256).unwrap_or(0);
        let bytes: Vec<u8> = (0..SIZE).map(number).collect();
        let (from, to) = (self.path("from"), self.path("to"));
        fs::write(&from, &bytes)?;
        let Place { listen, connect, port, networks } = at;
        server.args(["-u", &format!("{listen}:{port},reuseaddr")]);
        server.arg(format!("OPEN:{},creat,trunc", to.display()));
        client.args(["-u", &format!("OPEN:{}", from.display()), &format!("{connect}:{port}")]);
        let mut start = || {
            let server = Running::start(&mut server)?;
            wait_for_port(*port).map(|()| server)
        };
        let server = match networks {
            Some([there, _]) => there.inside(start)?,
            None => start(),
        }?;
        match networks {
            Some([_, here]) => here.inside(|| run(&mut client))?,
            None => run(&mut client),
        }?;
        server.finish()?;
        ensure!(fs::read(&to)? == bytes, "the file arrived changed");
        Ok(["server", "client"].map(|log| self.log(log).contains(SMC)))
    }

    /// The same, with the preload at both ends, of members that come in by these doors.
    fn send_between(&self, doors: [&str; 2], at: &Place<'_>) -> Result<[bool; 2]> {
        let server = self.command(doors[0], "server", "socat")?;
        let client = self.command(doors[1], "client", "socat")?;
        self.send(server, client, at)
    }

    /// Runs a script of Python's; what it writes.
    fn python(&self, log: &str, script: &str, arguments: &[&str]) -> Result<String> {
        let out = self.path("out");
        let mut python = self.command("one", log, "python3")?;
        python.args(["-c", script]).args(arguments).stdout(File::create(&out)?);
        run(&mut python).with_context(|| self.log(log))?;
        Ok(fs::read_to_string(&out)?)
    }
}

/// Where socat listens and connects to.
struct Place<'a> {
    listen: &'a str,
    connect: &'a str,
    port: u16,
    /// The server's and the client's.
    networks: Option<[&'a Network; 2]>,
}

fn here(listen: &'static str, connect: &'static str) -> Result<Place<'static>> {
    Ok(Place { listen, connect, port: unused_port()?, networks: None })
}

#[test]
fn two_programs_find_each_other() -> Result<()> {
    let host = Host::start()?;
    for (listen, connect) in [
        ("TCP4-LISTEN", "TCP4:127.0.0.1"),
        ("TCP6-LISTEN", "TCP6:[::1]"),
        ("TCP6-LISTEN", "TCP4:127.0.0.1"),
    ] {
        let smc = host.send_between(["one", "one"], &here(listen, connect)?)?;
        assert_eq!(smc, [true, true], "{connect}\n{}{}", host.log("server"), host.log("client"));
    }
    Ok(())
}

/// A server that has a process for each connection, and clients one after the other and at once.
#[test]
fn a_child_that_was_accepted_for_finds_its_client() -> Result<()> {
    let host = Host::start()?;
    let port = unused_port()?;
    let mut server = host.command("one", "server", "socat")?;
    server.args([&format!("TCP4-LISTEN:{port},reuseaddr,fork"), "EXEC:cat"]);
    let _server = Running::start(&mut server)?;
    wait_for_port(port)?;
    let script = "
import socket, sys, threading
def talk(n, out):
    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as s:
        s.sendall(b'%d' % n * 1000)
        s.shutdown(socket.SHUT_WR)
        got = b''
        while piece := s.recv(65536): got += piece
        out.append(got == b'%d' % n * 1000)
out = []
for n in range(3): talk(n, out)
threads = [threading.Thread(target=talk, args=(n, out)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(out == [True] * 11)
";
    let said = host.python("client", script, &[&port.to_string()])?;
    assert_eq!(said, "True\n", "{}{}", host.log("server"), host.log("client"));
    let smc = host.log("client").matches(SMC).count();
    assert!(smc > 0, "nobody met\n{}{}", host.log("server"), host.log("client"));
    Ok(())
}

#[test]
fn a_plain_peer_sees_its_own_bytes_only() -> Result<()> {
    let host = Host::start()?;
    let at = here("TCP4-LISTEN", "TCP4:127.0.0.1")?;
    let server = host.command("one", "server", "socat")?;
    host.send(server, Command::new("socat"), &at)?;
    // Nobody called, so it was not even looked at.
    assert_eq!(host.log("server"), "");
    let at = here("TCP4-LISTEN", "TCP4:127.0.0.1")?;
    let client = host.command("one", "client", "socat")?;
    host.send(Command::new("socat"), client, &at)?;
    assert_eq!(host.log("client"), "");
    Ok(())
}

#[test]
fn members_of_other_groups_are_strangers() -> Result<()> {
    let host = Host::start()?;
    let smc = host.send_between(["one", "two"], &here("TCP4-LISTEN", "TCP4:127.0.0.1")?)?;
    assert_eq!(smc, [false, false]);
    assert_eq!(host.log("server") + &host.log("client"), "");
    Ok(())
}

/// It listens on the board and does not come; and when it comes, nobody calls.
#[test]
fn a_server_that_accepts_late_has_the_bytes_by_tcp() -> Result<()> {
    let host = Host::start()?;
    let script = "
import os, signal, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
client, server = os.pipe(), os.pipe()
if os.fork() == 0:
    s = socket.create_connection(listener.getsockname())
    s.sendall(b'hello')
    os.write(client[1], b'x')
    print(s.recv(5), flush=True)
    os._exit(0)
os.read(client[0], 1)
s, _ = listener.accept()
print(s.recv(5), flush=True)
s.sendall(b'world')
os.wait()
";
    let said = host.python("server", script, &[])?;
    assert_eq!(said, "b'hello'\nb'world'\n");
    assert!(!host.log("server").contains(SMC), "{}", host.log("server"));
    Ok(())
}

/// It has announced its listener, or the connection as well, and is killed: what the client sent is lost as with TCP,
/// and the client goes on.
#[test]
fn a_server_that_dies_leaves_the_board() -> Result<()> {
    let host = Host::start()?;
    let script = "
import os, signal, socket
address = None
for _ in range(5):
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        listener = socket.create_server(('127.0.0.1', 0))
        os.write(w, str(listener.getsockname()[1]).encode())
        s, _ = listener.accept()
        os.write(w, b'accepted')
        signal.pause()
    address = ('127.0.0.1', int(os.read(r, 100)))
    s = socket.create_connection(address)
    os.read(r, 100)
    os.kill(child, signal.SIGKILL)
    os.wait()
    s.settimeout(20)
    try:
        s.sendall(b'x')
        print(s.recv(1))
    except ConnectionError:
        print(b'')
    s.close()
";
    let said = host.python("client", script, &[])?;
    assert_eq!(said, "b''\n".repeat(5), "{}", host.log("client"));
    Ok(())
}

/// More listeners than a process puts on the board: those beyond are TCP's, and the first can still be met.
#[test]
fn a_process_with_too_many_listeners_leaves_the_last_to_tcp() -> Result<()> {
    let host = Host::start()?;
    let script = "
import os, resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
listeners = [socket.create_server(('127.0.0.1', 0)) for _ in range(1100)]
ends = listeners[0], listeners[-1]
if os.fork() == 0:
    for listener in ends:
        with socket.create_connection(listener.getsockname()) as s:
            s.sendall(b'hello')
            print(s.recv(5), flush=True)
    os._exit(0)
for listener in ends:
    s, _ = listener.accept()
    s.sendall(s.recv(5))
    s.recv(1)
    s.close()
os.wait()
";
    let said = host.python("client", script, &[])?;
    assert_eq!(said, "b'hello'\nb'hello'\n", "{}", host.log("client"));
    // Both ends of the first.
    assert_eq!(host.log("client").matches(SMC).count(), 2, "{}", host.log("client"));
    Ok(())
}

/// Two containers: the policy has to say that their addresses are no one else's.
#[test]
fn namespaces_meet_only_where_addresses_are_unique() -> Result<()> {
    let host = Host::start()?;
    let networks = [Network::new()?, Network::new()?];
    let [one, two] = [0, 1].map(|n| networks[n].owner().to_string());
    let link = ["link", "add", "veth0", "netns", &one, "type", "veth", "peer", "name", "veth0"];
    run(Command::new("ip").args(link).args(["netns", &two]))?;
    for (network, address) in networks.iter().zip(["192.0.2.1/24", "192.0.2.2/24"]) {
        let change = format!("ip address add {address} dev veth0 && ip link set veth0 up");
        network.inside(|| run(Command::new("sh").args(["-c", &change])))??;
    }
    let [there, here] = &networks;
    let place = || Place {
        listen: "TCP4-LISTEN",
        connect: "TCP4:192.0.2.1",
        port: 4000,
        networks: Some([there, here]),
    };
    assert_eq!(host.send_between(["one", "one"], &place())?, [false, false]);
    fs::write(host.path("policy"), "[rendezvous]\nunique = [\"192.0.2.0/24\"]\n")?;
    let smc = host.send_between(["one", "one"], &place())?;
    assert_eq!(smc, [true, true], "{}{}", host.log("server"), host.log("client"));
    fs::write(host.path("policy"), "[rendezvous]\nunique = [\"192.0.2.1/32\"]\n")?;
    assert_eq!(host.send_between(["one", "one"], &place())?, [false, false]);
    Ok(())
}

/// Forks with what the board is asked about, which is decided before the child is there; and with what was accepted and
/// nobody has begun, which is the child's. Afterwards both have one connection, as with TCP.
#[test]
fn a_fork_keeps_what_the_board_is_asked_about() -> Result<()> {
    let host = Host::start()?;
    let script = "
import os, socket, sys
def server(address, listener):
    s, _ = listener.accept()
    if mode == 'used': s.sendall(s.recv(1))
    if mode == 'used' and os.fork() > 0:
        os.wait()
        return s.sendall(s.recv(3, socket.MSG_WAITALL))
    if mode != 'used' and os.fork() > 0: # begun by nobody: it is the child's
        s.close()
        return os.wait()
    s.sendall(s.recv(5, socket.MSG_WAITALL))
    if mode == 'used': os._exit(0)
    s.sendall(s.recv(3, socket.MSG_WAITALL))
mode = sys.argv[1]
listener = socket.create_server(('127.0.0.1', 0))
address = listener.getsockname()
if os.fork() == 0:
    server(address, listener)
    os._exit(0)
listener.close()
s = socket.socket()
if mode == 'nonblocking': s.setblocking(False)
s.connect_ex(address)
if mode == 'used':
    s.sendall(b'x')
    s.recv(1)
child = os.fork()
s.setblocking(True)
if child == 0:
    s.sendall(b'hello')
    print(s.recv(5, socket.MSG_WAITALL), flush=True)
    os._exit(0)
os.waitpid(child, 0)
s.sendall(b'end')
print(s.recv(3, socket.MSG_WAITALL), flush=True)
s.close()
os.wait()
";
    for mode in ["fresh", "nonblocking", "used"] {
        let said = host.python(mode, script, &[mode])?;
        assert_eq!(said, "b'hello'\nb'end'\n", "{mode}\n{}", host.log(mode));
        assert!(host.log(mode).matches(SMC).count() >= 2, "{mode}\n{}", host.log(mode));
    }
    Ok(())
}
