// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host processes that may not come in, that die, and whose daemon dies.
//!
//! Invariant tested: the others are told within a bounded time, and what the dead had is given back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ism_abi::door::REFUSED_USER;
use ism_client::conformance::{sleep, wait_for};
use ism_client::{Device, Error, Event, vhost};
use ism_frontend::daemon::Resources;
use ism_frontend::{Daemon, Fabric, Options, raw};
use ism_tests::fabric::eventually;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};
use smc_ring::{Area, Notice};

const LEN: u32 = 16 << 10;
/// The vhost-user request.
const GET_SHARED_OBJECT: u32 = 41;
/// Set in a child: the door it shall join.
const CHILD: &str = "ISM_TEST_DOOR";
/// Set in a child of another user: the same.
const STRANGER: &str = "ISM_TEST_STRANGER";

fn host() -> Daemon {
    Fabric::new().processes("apps", "").start().unwrap()
}

fn join(daemon: &Daemon) -> Device {
    vhost::join(&daemon.socket("apps")).unwrap()
}

/// The daemon's own words about its size.
fn stats(daemon: &Daemon) -> String {
    String::from_utf8_lossy(&daemon.ctl(&["stats"]).unwrap().stdout).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A member that is a process of its own: this program, running [`be_child`].
struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(daemon: &Daemon) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "be_child", "--nocapture", "--test-threads", "1"])
            .env(CHILD, daemon.socket("apps"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    fn tell(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
    }

    /// The next line that the child meant for us.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the child ended");
            // The test harness says its own things, on the same line too.
            if let Some((_, said)) = line.split_once("child: ") {
                return said.trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(id, signal).unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test but the other process of some: answers each message in its DMB, until it is killed.
#[test]
fn be_child() {
    let Some(door) = std::env::var_os(CHILD) else { return };
    let device = vhost::join(door.as_ref()).unwrap();
    println!("child: {}", hex(&device.gid()));
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    let gid = unhex(&lines.next().unwrap()).try_into().unwrap();
    let own = device.register(gid, LEN).unwrap();
    println!("child: {}", own.token());
    let other = device.remote(lines.next().unwrap().trim().parse().unwrap()).unwrap();
    let (inbox, outbox) = (Area::of(own.memory()).unwrap(), Area::of(other.memory()).unwrap());
    let mut seen = 0;
    let mut events = Vec::new();
    // Until it is killed, or its daemon is.
    while device.poll(&mut events).is_ok() {
        assert!(!events.drain(..).any(|event| matches!(event, Event::PeerGone { .. })));
        let (prod, _) = inbox.read();
        if prod == seen {
            sleep(&device);
            continue;
        }
        seen = prod;
        if outbox.publish(prod, prod) == Notice::Signal {
            other.signal().unwrap();
        }
    }
}

/// Not a test but a process of another user: says what the door said.
#[test]
fn be_stranger() {
    let Some(door) = std::env::var_os(STRANGER) else { return };
    let said = vhost::join(door.as_ref()).map_or_else(|error| error.to_string(), |_| "in".into());
    println!("child: {said}");
}

/// The user that stands for others.
const NOBODY: u32 = 65534;

#[test]
fn the_user_is_the_one_that_the_kernel_names() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can be somebody else.
    }
    for (list, expected) in
        [("uids = [65534]", "in"), ("gids = [65534]", "in"), ("uids = [0]", "user 65534")]
    {
        let daemon = Fabric::new().processes("apps", list).start().unwrap();
        let mut stranger = Command::new(std::env::current_exe().unwrap());
        stranger.args(["--exact", "be_stranger", "--nocapture"]);
        stranger.env(STRANGER, daemon.socket("apps")).uid(NOBODY).gid(NOBODY);
        let output = stranger.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(expected), "{list}: {said}");
        assert_eq!(vhost::join(&daemon.socket("apps")).is_ok(), list == "uids = [0]", "{list}");
    }
}

/// A pair with a child: the child, our DMB and its.
fn pair(daemon: &Daemon, device: &Device) -> (Peer, ism_client::Dmb, ism_client::Remote) {
    let mut peer = Peer::start(daemon);
    let gid = unhex(&peer.hear()).try_into().unwrap();
    peer.tell(&hex(&device.gid()));
    let other = device.remote(peer.hear().parse().unwrap()).unwrap();
    let own = device.register(gid, LEN).unwrap();
    peer.tell(&own.token().to_string());
    (peer, own, other)
}

/// One message there and one back.
fn round(device: &Device, own: &ism_client::Dmb, other: &ism_client::Remote, n: u64) {
    let (inbox, outbox) = (Area::of(own.memory()).unwrap(), Area::of(other.memory()).unwrap());
    if outbox.publish(n, 0) == Notice::Signal {
        other.signal().unwrap();
    }
    while inbox.read().0 != n {
        device.poll(&mut Vec::new()).unwrap();
        if inbox.read().0 != n {
            sleep(device);
        }
    }
}

#[test]
fn strangers_are_refused_with_the_reason() {
    let own = rustix::process::geteuid().as_raw();
    let lists = [format!("uids = [{}]", own + 1), format!("gids = [{}]", own + 4321)];
    for list in lists {
        let daemon = Fabric::new().processes("apps", &list).start().unwrap();
        let error = vhost::join(&daemon.socket("apps")).unwrap_err();
        assert!(matches!(&error, Error::NotAdmitted { code: REFUSED_USER, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("user {own}")) && text.contains("uids="), "{text}");
        daemon.wait_for_log("refused: user").unwrap();
    }
    let daemon = Fabric::new().processes("apps", &format!("uids = [7, {own}]")).start().unwrap();
    join(&daemon);
}

#[test]
fn a_full_door_is_open_again_when_somebody_goes() {
    let daemon = Fabric::new().processes("apps", "max = 2").start().unwrap();
    let (first, _second) = (join(&daemon), join(&daemon));
    let error = vhost::join(&daemon.socket("apps")).unwrap_err().to_string();
    assert!(error.contains("2 processes are in already"), "{error}");
    drop(first);
    eventually("a free place", || vhost::join(&daemon.socket("apps")).is_ok());
}

#[test]
fn two_doors_without_a_common_group_lead_to_different_rooms() {
    let fabric = Fabric::new().processes("red", "groups = [\"red\"]");
    let daemon = fabric.processes("blue", "groups = [\"blue\"]").start().unwrap();
    let [red, blue] = ["red", "blue"].map(|door| vhost::join(&daemon.socket(door)).unwrap());
    let status = red.query(blue.gid(), None).unwrap_err().status();
    assert_eq!(status, Some(ism_abi::status::UNREACHABLE));
}

#[test]
fn the_daemon_has_no_part_in_a_ping_pong() {
    let daemon = host();
    let device = join(&daemon);
    let (_peer, own, other) = pair(&daemon, &device);
    // The first may have to go through the daemon, until both hear their bell.
    for n in 1..=10 {
        round(&device, &own, &other, n);
    }
    let sent = signals_sent(&daemon);
    for n in 11..=2000 {
        round(&device, &own, &other, n);
    }
    assert_eq!(signals_sent(&daemon), sent, "rings went through the daemon");
}

/// What was there before may have been about to go.
fn no_more_than(now: &Resources, before: &Resources) -> bool {
    now.descriptors <= before.descriptors && now.threads <= before.threads
}

/// The column SIG-TX of all members.
fn signals_sent(daemon: &Daemon) -> u64 {
    let text = stats(daemon);
    let rows = text.lines().filter(|line| line.starts_with("apps."));
    rows.map(|line| line.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_process_that_is_killed_leaves_nothing() {
    let daemon = host();
    let device = join(&daemon);
    // Once before, so that what is made once is made; the next begins when that member is gone, too.
    for n in 0..4 {
        let before = (daemon.resources().unwrap(), stats(&daemon));
        let (mut peer, own, other) = pair(&daemon, &device);
        for n in 1..=50 {
            round(&device, &own, &other, n);
        }
        peer.process.kill().unwrap();
        let gid = other.owner();
        wait_for(&device, |event| (*event == Event::PeerGone { gid }).then_some(()));
        assert!(other.is_dead());
        assert_eq!(Area::of(own.memory()).unwrap().read().0, 50, "its last words");
        drop((own, other));
        device.poll(&mut Vec::new()).unwrap();
        assert_eq!(device.counts(), (0, 0, 0));
        eventually("the end of the dead process's member", || {
            let now = daemon.resources().unwrap();
            let size = stats(&daemon);
            let no_more = n == 0 || no_more_than(&now, &before.0);
            no_more && size.lines().next() == before.1.lines().next()
        });
    }
}

#[test]
fn a_stopped_process_costs_its_peers_a_bounded_time() {
    let daemon = host();
    let device = join(&daemon);
    let (peer, own, other) = pair(&daemon, &device);
    round(&device, &own, &other, 1);
    peer.signal(Signal::STOP);
    // Rings fill its bell and are not waited for.
    let outbox = Area::of(other.memory()).unwrap();
    for n in 0..5000 {
        if outbox.publish(n % 2, 0) == Notice::Signal {
            other.signal().unwrap();
        }
    }
    let another = join(&daemon);
    device.query(another.gid(), None).unwrap();
    drop(device.register(another.gid(), LEN).unwrap());
    peer.signal(Signal::CONT);
    round(&device, &own, &other, 2);
}

#[test]
fn a_daemon_that_is_killed_is_seen_at_once_and_memory_stays() {
    let daemon = host();
    let device = join(&daemon);
    let (_peer, own, other) = pair(&daemon, &device);
    round(&device, &own, &other, 1);
    device.poll(&mut Vec::new()).unwrap();
    assert!(device.arm().unwrap());
    drop(daemon);
    let error = loop {
        // Each wake-up tells of one thing: the child, which ends too, may come first.
        let mut fds = [PollFd::from_borrowed_fd(device.fd(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
        device.woken();
        if let Err(error) = device.poll(&mut Vec::new()) {
            break error;
        }
    };
    assert!(matches!(error, Error::Gone), "{error}");
    assert!(matches!(device.arm(), Err(Error::Gone)));
    assert!(device.is_gone() && other.is_dead());
    let start = Instant::now();
    assert!(matches!(device.register([1; 16], LEN), Err(Error::Gone)));
    assert!(matches!(device.query([1; 16], None), Err(Error::Gone)));
    // What was shared still is, and nothing done with it harms.
    assert_eq!(Area::of(own.memory()).unwrap().read().0, 1);
    other.memory().write(100, b"for nobody").unwrap();
    let _ = other.signal();
    drop((own, other, device));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn processes_that_come_and_go_leave_nothing_in_the_daemon() {
    let daemon = host();
    drop((join(&daemon), join(&daemon)));
    eventually("the first two's end", || stats(&daemon).contains(": 0 VMs"));
    let before = daemon.resources().unwrap();
    for _ in 0..20 {
        let (a, b) = (join(&daemon), join(&daemon));
        let own = a.register(b.gid(), LEN).unwrap();
        b.remote(own.token()).unwrap().signal().unwrap();
        wait_for(&a, |event| matches!(event, Event::Signal { .. }).then_some(()));
    }
    eventually("the end of all members", || {
        let now = daemon.resources().unwrap();
        no_more_than(&now, &before)
            && stats(&daemon).contains(": 0 VMs, 0 pairs, 0 memory files, 0 DMBs")
    });
}

/// GET_SHARED_OBJECT, as a process should not ask it: whether a descriptor came back.
fn ask_for_bell(socket: &UnixStream, name: &[u8; 16]) -> bool {
    let request = raw::message(GET_SHARED_OBJECT, raw::VERSION_1 | raw::NEED_REPLY, name);
    raw::send(socket, &request, &[]).unwrap();
    let (mut bytes, mut space) =
        ([0; 12], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [std::io::IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    assert_eq!(received.bytes, 12, "the daemon hung up");
    control.drain().count() > 0
}

#[test]
fn bells_are_given_once_and_only_for_pairs_of_processes() {
    let daemon = Fabric::new().processes("apps", "").vm("vm", &["default"]).start().unwrap();
    let connection = vhost::enter(&daemon.socket("apps")).unwrap();
    let socket = connection.try_clone().unwrap();
    let device = vhost::over(connection).unwrap();
    let (peer, vm) = (join(&daemon), daemon.join("vm", Options::default()).unwrap());
    let vm_gid = vm.config().gid;
    assert!(!ask_for_bell(&socket, &peer.gid()), "no pair yet");
    let _own = device.register(peer.gid(), LEN).unwrap();
    assert!(!ask_for_bell(&socket, &peer.gid()), "register has asked already");
    let _for_vm = device.register(vm_gid, LEN).unwrap();
    let _for_itself = device.register(device.gid(), LEN).unwrap();
    for name in [vm_gid, device.gid(), [3; 16]] {
        assert!(!ask_for_bell(&socket, &name), "{name:?}");
    }
    // The peer's own end is still there for it.
    drop(peer.register(device.gid(), LEN).unwrap());
    device.query(peer.gid(), None).unwrap();
}

#[test]
fn a_process_that_says_nothing_or_nonsense_at_the_door_costs_only_itself() {
    let daemon = host();
    let silent: Vec<_> = (0..20).map(|_| daemon.connect("apps").unwrap()).collect();
    let loud: Vec<_> = (0..20).map(|_| daemon.connect("apps").unwrap()).collect();
    for mut stream in &loud {
        // It may have been let in and closed already.
        let _ = stream.write_all(&[0xff; 4096]);
    }
    drop(loud);
    drop(join(&daemon));
    drop(silent);
    eventually("the end of all members", || stats(&daemon).contains(": 0 VMs"));
}
