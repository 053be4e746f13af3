// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that find each other by the fabric's board, as in a container that may load no BPF programs.
//!
//! Invariant tested: both ends of a connection are SMC's, or TCP carries the program's bytes and no other. Only what
//! goes between network namespaces needs root.

mod faults;
mod host;

use std::fs;
use std::process::Command;

use anyhow::Result;
use host::{ABSENT, Host, Place, SMC, here, until_met};
use ism_programs::{Network, Running, programs, run, unused_port, wait_for_port, wait_until};

#[test]
fn two_programs_find_each_other() -> Result<()> {
    let host = Host::start()?;
    for (listen, connect) in [
        ("TCP4-LISTEN", "TCP4:127.0.0.1"),
        ("TCP6-LISTEN", "TCP6:[::1]"),
        ("TCP6-LISTEN", "TCP4:127.0.0.1"),
    ] {
        let met = host.meet(["one", "one"], &here(listen, connect)?)?;
        assert!(met, "{connect}\n{}{}", host.log("server"), host.log("client"));
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
    let met = until_met(|| {
        let said = host.python("client", script, &[&port.to_string()])?;
        assert_eq!(said, "True\n", "{}{}", host.log("server"), host.log("client"));
        Ok(host.log("client").contains(SMC))
    })?;
    assert!(met, "nobody met\n{}{}", host.log("server"), host.log("client"));
    Ok(())
}

#[test]
fn a_plain_peer_sees_its_own_bytes_only() -> Result<()> {
    let host = Host::start()?;
    let at = here("TCP4-LISTEN", "TCP4:127.0.0.1")?;
    let server = host.command("one", "server", "socat")?;
    host.send(server, Command::new("socat"), &at)?;
    // Nobody called, so it was not even looked at.
    assert!(host.knows_that_nobody_is_there("server"), "{}", host.log("server"));
    let at = here("TCP4-LISTEN", "TCP4:127.0.0.1")?;
    let client = host.command("one", "client", "socat")?;
    host.send(Command::new("socat"), client, &at)?;
    assert!(host.knows_that_nobody_is_there("client"), "{}", host.log("client"));
    Ok(())
}

#[test]
fn members_of_other_groups_are_strangers() -> Result<()> {
    let host = Host::start()?;
    let smc = host.send_between(["one", "two"], &here("TCP4-LISTEN", "TCP4:127.0.0.1")?)?;
    assert_eq!(smc, [false, false]);
    for log in ["server", "client"] {
        assert!(host.knows_that_nobody_is_there(log), "{}", host.log(log));
    }
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
    let met = until_met(|| {
        let said = host.python("client", script, &[])?;
        assert_eq!(said, "b'hello'\nb'hello'\n", "{}", host.log("client"));
        // Both ends of the first.
        let smc = host.log("client").matches(SMC).count();
        assert!(smc <= 2, "{}", host.log("client"));
        Ok(smc == 2)
    })?;
    assert!(met, "{}", host.log("client"));
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
    let met = host.meet(["one", "one"], &place())?;
    assert!(met, "{}{}", host.log("server"), host.log("client"));
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
        let met = until_met(|| {
            let said = host.python(mode, script, &[mode])?;
            assert_eq!(said, "b'hello'\nb'end'\n", "{mode}\n{}", host.log(mode));
            Ok(host.log(mode).matches(SMC).count() >= 2)
        })?;
        assert!(met, "{mode}\n{}", host.log(mode));
    }
    Ok(())
}

/// `smcss` says of a connection of SMC how its other end was found, and of one of TCP why it was not.
#[test]
fn smcss_says_who_was_met_and_who_was_not() -> Result<()> {
    let host = Host::start()?;
    let script = "
import os, socket, subprocess, sys
alone = {name: value for name, value in os.environ.items() if name != 'LD_PRELOAD'}
server = 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); print(s.getsockname()[1], flush=True); input()'
plain = subprocess.Popen([sys.executable, '-c', server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=alone)
port = int(plain.stdout.readline())
listener = socket.create_server(('127.0.0.1', 0))
if os.fork() == 0:
    s = socket.create_connection(listener.getsockname())
    s.sendall(b'x')
    s.recv(1)
    os._exit(0)
s, _ = listener.accept()
s.recv(1)
other = socket.create_connection(('127.0.0.1', port))
for line in subprocess.run([sys.argv[1], '--reason'], stdout=subprocess.PIPE, env=alone, text=True).stdout.splitlines():
    if f':{s.getsockname()[1]} ' in line and ' SMCD ' in line: print(line[line.index('SMCD'):].strip())
    if f':{port} ' in line: print(line[line.index('TCP'):].strip())
plain.stdin.close()
";
    let smcss = programs().join("smcss");
    let met = "SMCD (the peer was met on the fabric's board)";
    let absent = "TCP 0x03ff000c (the peer is not on the fabric's board, and nobody serves SMC's TCP option here)";
    let mut text = String::new();
    let all = until_met(|| {
        text = host.python("client", script, &[&smcss.to_string_lossy()])?;
        let mut said: Vec<&str> = text.lines().collect();
        said.sort_unstable();
        Ok(said == [met, met, absent])
    })?;
    assert!(all, "{text}");
    Ok(())
}

/// A client that connects all the time: to a plain server, and then to one under `smc-run` at the same address.
#[test]
fn a_server_that_comes_later_is_met_by_who_connects_all_the_time() -> Result<()> {
    let host = Host::start()?;
    let script = "
import os, socket, subprocess, sys, time
alone = {name: value for name, value in os.environ.items() if name != 'LD_PRELOAD'}
server = '''
import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print(listener.getsockname()[1], flush=True)
while True:
    s, _ = listener.accept()
    s.sendall(s.recv(1))
'''
def start(port, env):
    started = subprocess.Popen([sys.executable, '-c', server, str(port)], stdout=subprocess.PIPE, env=env)
    return started, int(started.stdout.readline())
def ask():
    with socket.create_connection(('127.0.0.1', port)) as s:
        s.sendall(b'x')
        assert s.recv(1) == b'x'
    time.sleep(0.001)
running, port = start(0, alone)
for _ in range(20): ask()
running.kill()
running.wait()
running, port = start(port, os.environ)
end = time.monotonic() + 30
while ': SMC-D' not in open(sys.argv[1]).read() and time.monotonic() < end: ask()
running.kill()
";
    let log = host.path("client");
    host.python("client", script, &[&log.to_string_lossy()])?;
    assert!(host.log("client").contains(SMC), "{}", host.log("client"));
    Ok(())
}

/// A server that listens on the board at another address of the same port keeps nobody waiting, and is met itself.
#[test]
fn a_plain_server_beside_one_of_another_address_costs_a_client_no_time() -> Result<()> {
    let host = Host::start()?;
    let script = "
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
listener = socket.create_server((address, port), family=family)
print('listens', flush=True)
while True:
    s, _ = listener.accept()
    s.sendall(s.recv(1))
";
    let serve = |mut python: Command, address: &str, port: u16, log: &str| -> Result<Running> {
        let out = fs::File::create(host.path(log))?;
        python.args(["-c", script, address, &port.to_string()]).stdout(out);
        let server = Running::start(&mut python)?;
        wait_until("it listens", || host.log(log).ends_with('\n'))?;
        Ok(server)
    };
    for (ours, plains) in
        [("127.0.0.2", "127.0.0.1"), ("127.0.0.1", "127.0.0.2"), ("0.0.0.0", "::1")]
    {
        let port = unused_port()?;
        let _ours = serve(host.command("one", "server", "python3")?, ours, port, "ours")?;
        let _plain = serve(Command::new("python3"), plains, port, "plain")?;
        let ask = "
import socket, sys
for address in sys.argv[2:]:
    with socket.create_connection((address, int(sys.argv[1]))) as s:
        s.sendall(b'x')
        print(s.recv(1))
";
        let port = port.to_string();
        let met = if ours == "0.0.0.0" { "127.0.0.1" } else { ours };
        let met = until_met(|| {
            host.python("client", ask, &[&port, plains, met])?;
            let log = host.log("client");
            let lines: Vec<_> = log.lines().collect();
            let well = lines.len() == 2 && lines[0].ends_with(ABSENT);
            assert!(well, "{ours}, {plains}: {log}");
            Ok(log.contains(SMC))
        })?;
        assert!(met, "{ours}, {plains}: {}", host.log("client"));
    }
    Ok(())
}

/// What the operator keeps on TCP does not become a member, and has no thread that minds handshakes: it may be what a
/// sandbox forbids. There is only what answers `smcss`.
#[test]
fn a_program_that_policy_keeps_on_tcp_does_not_join() -> Result<()> {
    let host = Host::start()?;
    fs::write(host.path("policy"), "default = \"tcp\"\n")?;
    let script = "
import os, socket, time
def names():
    all = [open(f'/proc/self/task/{task}/comm').read().strip() for task in os.listdir('/proc/self/task')]
    return [name for name in all if name.startswith('smc')]
def descriptors(): return len(os.listdir('/proc/self/fd'))
before = descriptors()
listener = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
client.sendall(b'x')
server.recv(1)
# A thread gives itself its name.
end = time.monotonic() + 30
while not names() and time.monotonic() < end: pass
print(descriptors() - before, names())
";
    assert_eq!(host.python("client", script, &[])?, "4 ['smc-report']\n", "{}", host.log("client"));
    Ok(())
}
