// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes that are killed in the middle of a handshake, at every step of it.
//!
//! Invariant tested: the other end comes to an end too, and nothing is left of either, in its process or
//! in the daemon.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ism_client::{Device, vhost};
use ism_frontend::{Daemon, Fabric};
use ism_tests::fabric::eventually;
use rustix::io::Errno;
use smc_proto::handshake::reason::Failure;
use smc_socket::{Config, Handshake, Ready, RecvFlags, Role, Socket, Stack};

/// Set in a child: the door it shall join, the port it shall connect to (or `listen`).
const DOOR: &str = "FAULTS_DOOR";
const PORT: &str = "FAULTS_PORT";
const LONG: Option<Duration> = Some(Duration::from_secs(20));

fn stack(device: Device) -> Stack {
    // Nobody is late here but by being held.
    Stack::new(device, &Config { patience: None, ..Config::default() }).unwrap()
}

/// Not a test but the process that is killed: one end of a handshake.
#[test]
fn be_child() {
    let (Ok(door), Ok(port)) = (std::env::var(DOOR), std::env::var(PORT)) else { return };
    let stack = stack(vhost::join(Path::new(&door)).unwrap());
    let (tcp, role) = if port == "listen" {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        println!("\nPORT {}", listener.local_addr().unwrap().port());
        (listener.accept().unwrap().0, Role::Server)
    } else {
        let address = ("127.0.0.1", port.parse().unwrap());
        (TcpStream::connect(address).unwrap(), Role::Client)
    };
    let socket = stack.begin(Box::new(tcp), role, true);
    let _ = socket.finish_handshake(LONG);
    // What it does next is to be killed.
    thread::sleep(LONG.unwrap());
}

/// A child with the role that the test's own process has not.
fn child(daemon: &Daemon, port: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "be_child", "--nocapture"])
        .env(DOOR, daemon.socket("apps"))
        .env(PORT, port)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A TCP connection that is held up: between the child and this process.
struct Gate {
    /// The child's, and this process's.
    ends: [TcpStream; 2],
    /// From the child, and to it.
    passed: [usize; 2],
}

impl Gate {
    /// Passes what has come from one side, up to `most` bytes in all.
    fn pass(&mut self, from: usize, most: usize) {
        let [child, own] = &mut self.ends;
        let (source, sink) = if from == 0 { (child, own) } else { (own, child) };
        let passed = &mut self.passed[from];
        let mut buffer = [0; 1024];
        let room = buffer.len().min(most.saturating_sub(*passed));
        match source.read(&mut buffer[..room]) {
            Ok(n) => {
                sink.write_all(&buffer[..n]).unwrap();
                *passed += n;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
}

/// One handshake between a child and this process, over a gate.
struct Scene<'a> {
    stack: &'a Stack,
    child: Child,
    gate: Gate,
    socket: Arc<Socket>,
    /// The same connection, for where it becomes TCP.
    tcp: TcpStream,
}

impl<'a> Scene<'a> {
    fn new(daemon: &Daemon, stack: &'a Stack, own: Role) -> Self {
        let (listener, mut process, to_child, role) = if own == Role::Server {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let process = child(daemon, &port.to_string());
            let to_child = listener.accept().unwrap().0;
            (listener, process, Some(to_child), Role::Server)
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (listener, child(daemon, "listen"), None, Role::Client)
        };
        let to_child = to_child.unwrap_or_else(|| {
            let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
            let port = lines.map_while(Result::ok).find_map(|line| {
                line.strip_prefix("PORT ").map(|port| port.parse::<u16>().unwrap())
            });
            TcpStream::connect(("127.0.0.1", port.unwrap())).unwrap()
        });
        let own_end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (gate_end, _) = listener.accept().unwrap();
        for end in [&to_child, &gate_end] {
            end.set_nonblocking(true).unwrap();
        }
        let gate = Gate { ends: [to_child, gate_end], passed: [0; 2] };
        let socket = stack.begin(Box::new(own_end.try_clone().unwrap()), role, true);
        Self { stack, child: process, gate, socket, tcp: own_end }
    }

    /// Lets it go on until so many bytes have passed from the child (0) or to it (1), or it is over.
    fn go_on_until(&mut self, side: usize, bytes: usize) {
        eventually("the bytes of this step", || {
            self.socket.advance();
            for from in [0, 1] {
                let most = if from == side { bytes } else { usize::MAX };
                if self.gate.passed[side] < bytes {
                    self.gate.pass(from, most);
                }
            }
            self.gate.passed[side] >= bytes
        });
    }

    /// Kills the child, and what it leads to here.
    fn kill(mut self) -> Handshake {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        drop(self.gate);
        let socket = self.socket;
        let mut stands = Handshake::Pending;
        eventually("an end", || {
            self.stack.dispatch();
            stands = socket.advance();
            stands != Handshake::Pending
        });
        if stands == Handshake::Smc {
            let mut buffer = [0; 10];
            let mut buffers = [IoSliceMut::new(&mut buffer)];
            match socket.receive(&mut buffers, RecvFlags::default(), false, LONG) {
                Ok(n) => assert_eq!(n, 0, "nobody has sent"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(Errno::CONNRESET.raw_os_error()));
                }
            }
        }
        if matches!(stands, Handshake::Tcp(_) | Handshake::Late(_)) {
            let end = self.tcp.read(&mut [0; 10]);
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }
        socket.close(None);
        stands
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// All of the steps at which the process with the role that is not `own` is killed.
fn killed_at_each_step(own: Role) {
    let daemon = Fabric::new().processes("apps", "").start().unwrap();
    let device = vhost::join(&daemon.socket("apps")).unwrap();
    let stack = stack(device.clone());
    // One that is not held up says how much there is; what is made once is made then.
    let mut scene = Scene::new(&daemon, &stack, own);
    eventually("a handshake", || {
        scene.gate.pass(0, usize::MAX);
        scene.gate.pass(1, usize::MAX);
        scene.socket.advance() == Handshake::Smc
    });
    // The client's last word may still be under way to the child.
    let (client, server) = if own == Role::Server { (0, 1) } else { (1, 0) };
    eventually("the Confirm", || {
        scene.gate.pass(client, usize::MAX);
        scene.gate.passed[client] > scene.gate.passed[server]
    });
    let all = scene.gate.passed;
    // A thread that has slept has a descriptor to be woken by, from then on.
    scene.socket.wait(Ready::READABLE, Some(Duration::from_millis(1))).unwrap();
    assert_eq!(scene.kill(), Handshake::Smc);
    nothing_is_left(&daemon, &device, &stack);
    let before = (daemon.resources().unwrap(), descriptors());
    // The Proposal is what the client has sent beyond a Confirm, which is as long as an Accept.
    let (accept, proposal) = (all[server], all[client] - all[server]);
    let steps = [
        (client, 0),
        (client, 1),
        (client, proposal - 1),
        (client, proposal),
        (server, 1),
        (server, accept - 1),
        (server, accept),
        (client, proposal + 1),
        (client, all[client] - 1),
        (client, all[client]),
    ];
    for (side, bytes) in steps {
        let mut scene = Scene::new(&daemon, &stack, own);
        scene.go_on_until(side, bytes);
        let stands = scene.kill();
        println!("{own:?}, killed after {bytes} bytes of {}: {stands:?}", all[side]);
        let through = (side, bytes) == (client, all[client]);
        // A client is through when it has sent its Confirm, a server when it has that.
        let may_be_smc = through || (own == Role::Client && (side, bytes) >= (server, accept));
        // Who next asks for memory to share with the dead gets none, and declines.
        let asks = if own == Role::Server { (client, proposal) } else { (server, accept) };
        let may_be_tcp = (side, bytes) == asks;
        let expected = match stands {
            Handshake::Failed(failure) => failure == Failure::Reset,
            Handshake::Tcp(_) | Handshake::Late(_) => may_be_tcp,
            _ => may_be_smc,
        };
        assert!(expected, "{stands:?}");
        nothing_is_left(&daemon, &device, &stack);
        eventually("what there was before", || {
            let now = daemon.resources().unwrap();
            now.descriptors <= before.0.descriptors
                && now.threads <= before.0.threads
                && descriptors() <= before.1
        });
    }
    let after = daemon.resources().unwrap().anonymous_kib;
    assert!(after < before.0.anonymous_kib + 1024, "the daemon grew to {after} KiB");
}

fn nothing_is_left(daemon: &Daemon, device: &Device, stack: &Stack) {
    eventually("the end of the connection and its DMBs", || {
        stack.dispatch();
        let output = daemon.ctl(&["stats"]).unwrap();
        let stats = String::from_utf8_lossy(&output.stdout).into_owned();
        stack.sockets() == 0
            && device.counts() == (0, 0, 0)
            && stats.contains(": 1 VMs, 0 pairs, 0 memory files, 0 DMBs")
    });
}

/// Both roles, one after the other: descriptors are counted.
#[test]
fn a_process_killed_at_any_step_of_a_handshake_leaves_nothing() {
    killed_at_each_step(Role::Server);
    killed_at_each_step(Role::Client);
}
