// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets of two processes through a daemon: data, sleep, and the sudden death of either or of the daemon.
//!
//! Invariant tested: as TCP has it, what a process had sent when it was killed can be read; then comes the
//! end, or a reset if it left bytes unread. Nothing is left over.
//!
//! The other process is this program again, running the test `child` alone with a script.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Result};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ism_client::vhost;
use ism_frontend::{Daemon, Fabric};
use ism_tests::fabric::eventually;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use smc_socket::{Config, Handshake, RecvFlags, Role, SendFlags, Socket, Stack};

const DOOR: &str = "SOCKETS_DOOR";
const PORT: &str = "SOCKETS_PORT";
const SCRIPT: &str = "SOCKETS_SCRIPT";
/// Longer than anything takes.
const LONG: Option<Duration> = Some(Duration::from_secs(20));

fn stack(door: &Path, spin: Duration) -> Stack {
    // A machine that is busy elsewhere is no server that does not accept.
    let config = Config { spin, patience: None, ..Config::default() };
    Stack::new(vhost::join(door).unwrap(), &config).unwrap()
}

fn begin(stack: &Stack, tcp: TcpStream, role: Role) -> Arc<Socket> {
    let socket = stack.begin(Box::new(tcp), role, true);
    assert_ne!(socket.finish_handshake(LONG).unwrap(), Handshake::Pending);
    socket
}

fn send(socket: &Socket, bytes: &[u8]) -> Result<usize> {
    socket.transmit(&[IoSlice::new(bytes)], SendFlags::default(), LONG)
}

fn recv(socket: &Socket, most: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let mut buffers = [IoSliceMut::new(&mut buffer)];
    let n = socket.receive(&mut buffers, RecvFlags::default(), true, LONG)?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Leaves this process no descriptor.
fn starve() {
    let used = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = Rlimit { current: Some(used.saturating_sub(1)), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// The child: `send=N`, `recv=N`, `echo` until the end, `ready`, `park`; `another`: a second connection;
/// `again=N`: its handshake, which ends with SMC or TCP, N bytes if SMC, and its close; `starve`: has no
/// descriptors from here on.
#[test]
fn child() {
    let Ok(door) = std::env::var(DOOR) else { return };
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let stack = stack(Path::new(&door), Config::default().spin);
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let socket = begin(&stack, tcp, Role::Client);
    let mut another = None;
    for word in std::env::var(SCRIPT).unwrap().split(' ') {
        match word.split_once('=').map_or((word, 0), |(word, n)| (word, n.parse().unwrap())) {
            ("send", n) => assert_eq!(send(&socket, &vec![b'c'; n]).unwrap(), n),
            ("recv", n) => assert_eq!(recv(&socket, n).unwrap().len(), n),
            ("another", _) => another = Some(TcpStream::connect(("127.0.0.1", port)).unwrap()),
            ("starve", _) => starve(),
            ("again", n) => {
                let socket = begin(&stack, another.take().unwrap(), Role::Client);
                assert!(!matches!(socket.handshake(), Handshake::Failed(_)));
                if socket.handshake() == Handshake::Smc {
                    assert_eq!(send(&socket, &vec![b'c'; n]).unwrap(), n);
                }
            }
            ("ready", _) => println!("\nREADY"),
            ("park", _) => thread::sleep(Duration::from_secs(60)),
            ("echo", _) => loop {
                let mut buffer = [0; 4096];
                let mut buffers = [IoSliceMut::new(&mut buffer)];
                let flags = RecvFlags::default();
                match socket.receive(&mut buffers, flags, false, LONG).unwrap() {
                    0 => break,
                    n => assert_eq!(send(&socket, buffer.get(..n).unwrap()).unwrap(), n),
                }
            },
            other => panic!("{other:?}"),
        }
    }
}

/// This process with a stack, a daemon, and a child that is connected.
struct World {
    daemon: Daemon,
    stack: Stack,
    child: Child,
    listener: TcpListener,
    socket: Arc<Socket>,
}

impl World {
    fn new(script: &str, spin: Duration) -> Self {
        let daemon = Fabric::new().processes("apps", "").start().unwrap();
        let stack = stack(&daemon.socket("apps"), spin);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DOOR, daemon.socket("apps"))
            .env(PORT, listener.local_addr().unwrap().port().to_string())
            .env(SCRIPT, script)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let socket = begin(&stack, listener.accept().unwrap().0, Role::Server);
        assert_eq!(socket.handshake(), Handshake::Smc);
        Self { daemon, stack, child, listener, socket }
    }

    /// Waits for the script's `ready`.
    fn ready(&mut self) {
        let lines = BufReader::new(self.child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "READY"));
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until nothing is left of the connection, here and in the daemon.
    fn nothing_is_left(&self) {
        eventually("the end of the connection", || {
            self.stack.dispatch();
            self.stack.sockets() == 0
        });
        eventually("the end of its DMBs", || {
            thread::sleep(Duration::from_millis(50));
            self.stack.dispatch();
            let output = self.daemon.ctl(&["stats"]).unwrap();
            let stats = String::from_utf8_lossy(&output.stdout).into_owned();
            println!("{stats}");
            stats.contains(": 1 VMs, 0 pairs, 0 memory files, 0 DMBs")
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Most are dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_reset<T: std::fmt::Debug>(result: Result<T>) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::CONNRESET.raw_os_error()));
}

const SPINS: [Duration; 2] = [Duration::ZERO, Duration::from_micros(50)];

#[test]
fn two_processes_talk_asleep_and_awake() {
    for spin in SPINS {
        let mut world = World::new("echo", spin);
        for n in 0..300usize {
            let bytes = vec![n.to_le_bytes()[0]; 1 + n * 37];
            send(&world.socket, &bytes).unwrap();
            assert!(recv(&world.socket, bytes.len()).unwrap() == bytes);
        }
        world.socket.close(None);
        assert!(world.child.wait().unwrap().success());
        world.nothing_is_left();
    }
}

#[test]
fn what_a_killed_process_sent_is_read_to_its_end() {
    for spin in SPINS {
        let mut world = World::new("recv=5 send=10 ready park", spin);
        send(&world.socket, b"12345").unwrap();
        world.ready();
        world.kill();
        assert_eq!(recv(&world.socket, 100).unwrap(), [b'c'; 10]);
        assert_eq!(recv(&world.socket, 1).unwrap(), b"");
    }
}

#[test]
fn a_process_killed_with_bytes_unread_resets() {
    let mut world = World::new("send=10 ready park", Duration::ZERO);
    world.ready();
    send(&world.socket, b"unread").unwrap();
    world.kill();
    assert_eq!(recv(&world.socket, 10).unwrap(), [b'c'; 10]);
    is_reset(recv(&world.socket, 1));
}

#[test]
fn a_process_killed_while_it_waits_has_read_all() {
    let mut world = World::new("recv=5 ready recv=1", Duration::ZERO);
    send(&world.socket, b"12345").unwrap();
    world.ready();
    // It may begin to wait; if it does not it has read all nevertheless.
    thread::sleep(Duration::from_millis(100));
    world.kill();
    assert_eq!(recv(&world.socket, 1).unwrap(), b"");
}

#[test]
fn a_death_wakes_who_waits_for_bytes_and_who_waits_for_room() {
    for unread in [false, true] {
        let world = World::new("park", Duration::ZERO);
        let pid = Pid::from_raw(i32::try_from(world.child.id()).unwrap()).unwrap();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            kill_process(pid, Signal::KILL).unwrap();
        });
        if unread {
            let sent = send(&world.socket, &vec![0; 4 << 20]).unwrap();
            assert!(sent < 2 << 20, "{sent} bytes into a ring");
            is_reset(send(&world.socket, b"more"));
        } else {
            assert_eq!(recv(&world.socket, 1).unwrap(), b"");
        }
        killer.join().unwrap();
    }
}

#[test]
fn a_death_leaves_nothing_over() {
    let mut world = World::new("recv=5 send=10 ready park", Duration::ZERO);
    send(&world.socket, b"12345").unwrap();
    world.ready();
    world.kill();
    recv(&world.socket, 11).unwrap();
    world.socket.close(None);
    world.nothing_is_left();
}

#[test]
fn without_the_daemon_there_is_a_reset_and_then_tcp() {
    let mut world = World::new("ready park", Duration::ZERO);
    world.ready();
    let pid = Pid::from_raw(i32::try_from(world.daemon.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    is_reset(recv(&world.socket, 1));
    assert!(world.stack.is_gone());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let client = world.stack.begin(Box::new(client), Role::Client, true);
    let server = world.stack.begin(Box::new(listener.accept().unwrap().0), Role::Server, true);
    for socket in [client, server] {
        let stand = socket.finish_handshake(LONG).unwrap();
        assert!(matches!(stand, Handshake::Tcp(_) | Handshake::Late(_)), "{stand:?}");
    }
}

/// Nanoseconds that this thread has run.
fn run_time() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn who_waits_needs_no_cpu() {
    let world = World::new("park", Config::default().spin);
    let before = run_time();
    let mut buffer = [0; 1];
    let wait = Some(Duration::from_millis(500));
    let none = world.socket.receive(
        &mut [IoSliceMut::new(&mut buffer)],
        RecvFlags::default(),
        false,
        wait,
    );
    none.unwrap_err();
    let run = Duration::from_nanos(run_time() - before);
    assert!(run < Duration::from_millis(5), "{run:?} of CPU in 500 ms of waiting");
}

#[test]
fn a_client_may_be_gone_before_the_server_knows_of_it() {
    let mut world = World::new("another again=9", Duration::ZERO);
    let tcp = world.listener.accept().unwrap().0;
    let another = world.stack.begin(Box::new(tcp), Role::Server, true);
    // The proposal is answered, and the confirm lies there while the client sends, closes and ends.
    while another.advance() == Handshake::Pending && world.child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(20));
    }
    eventually("the end of the handshake", || another.advance() != Handshake::Pending);
    assert_eq!(another.handshake(), Handshake::Smc);
    assert_eq!(recv(&another, 100).unwrap(), [b'c'; 9]);
    assert_eq!(recv(&another, 1).unwrap(), b"");
}

#[test]
fn without_descriptors_connections_live_and_new_ones_are_tcps() {
    let mut world = World::new("another starve ready recv=5 send=5 again send=7", Duration::ZERO);
    world.ready();
    thread::sleep(Duration::from_millis(50));
    send(&world.socket, b"12345").unwrap();
    assert_eq!(recv(&world.socket, 5).unwrap(), b"ccccc");
    let another = begin(&world.stack, world.listener.accept().unwrap().0, Role::Server);
    assert!(!matches!(another.handshake(), Handshake::Failed(_)), "{:?}", another.handshake());
    assert_eq!(recv(&world.socket, 7).unwrap(), [b'c'; 7]);
    assert!(world.child.wait().unwrap().success());
}
