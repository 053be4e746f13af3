// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes that answer, and those that would rather that `smcss` showed something else.
//!
//! Each is this program again, told by its environment which part to play; it plays until its standard
//! input ends.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, thread};

use smc_tools::processes::{Limits, Processes, Told, Where, ask_within};

const PART: &str = "SMC_TEST_PART";
/// One test at a time, for each sees all players.
static STAGE: Mutex<()> = Mutex::new(());
const LIMITS: Limits = Limits { each: Duration::from_secs(20), all: Duration::from_secs(60) };

/// A process that plays a part.
struct Player(Child);

impl Player {
    fn start(part: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        let options = ["--exact", "a_part_is_played", "--nocapture"];
        let child = command.args(options).env(PART, part).stdin(Stdio::piped());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        let mut byte = [0];
        let stdout = child.stdout.as_mut().unwrap();
        while !said.ends_with(b"READY") {
            stdout.read_exact(&mut byte).expect("it is ready");
            said.extend(byte);
        }
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What `all` says of it.
    fn told<'a>(&self, all: &'a Processes) -> Option<&'a Told> {
        all.told.iter().find(|told| told.holder.pid == self.pid())
    }

    /// Problems that name it.
    fn problems(&self, all: &Processes) -> String {
        let name = format!("process {} ", self.pid());
        all.problems.iter().filter(|it| it.starts_with(&name)).cloned().collect()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn inodes(of: &str) -> HashSet<u64> {
    let all = fs::read_dir(format!("/proc/{of}/fd")).unwrap().flatten();
    let links = all.filter_map(|it| fs::read_link(it.path()).ok());
    let inode = |link: std::path::PathBuf| {
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    links.filter_map(inode).collect()
}

fn listen(name: &[u8]) -> UnixListener {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

fn snapshot(inodes: impl IntoIterator<Item = u64>) -> String {
    let mut text = String::from("{\"record\":\"process\",\"version\":1,\"name\":\"\\u001b[2J\"}\n");
    for inode in inodes {
        text += &format!("{{\"record\":\"connection\",\"inode\":{inode}}}\n");
    }
    text + "{\"record\":\"end\"}\n"
}

fn answer(listener: &UnixListener, text: &str) {
    while let Ok((mut client, _)) = listener.accept() {
        let _ = client.write_all(text.as_bytes());
    }
}

fn own_name() -> String {
    smc_snapshot::address(std::process::id(), 1)
}

#[test]
fn a_part_is_played() {
    let Ok(part) = env::var(PART) else { return };
    let listener = listen(own_name().as_bytes());
    let mut kept = Vec::new();
    let (part, of) = part.split_once(' ').unwrap_or((&part, ""));
    let text = match part {
        "honest" => Some(snapshot(inodes("self"))),
        // It says more of itself than it has sockets: another's, and any number.
        "liar" => Some(snapshot(inodes(of).into_iter().chain(inodes("self")).chain([1]))),
        "flood" => Some(snapshot(1..100_000)),
        "garbage" => Some("\u{1b}[2J{\"record\":\"\u{1b}]0;x\u{7}\"}\n".to_owned()),
        "mute" | "deaf" | "large" => None,
        _ => panic!("no such part: {part}"),
    };
    if part == "liar" {
        // Lines of the kernel's table that another process's listener seems to stand in.
        for inode in inodes(of) {
            let name = own_name();
            let head = "0: 00000002 00000000 00010000 0001 01";
            kept.push(listen(format!("x{inode}\n{head} {inode} @{name}").as_bytes()));
        }
        kept.push(listen(b"\xff\xfe"));
    }
    // More than can be looked at, and many names to have it done for each.
    let large = if part == "large" { 900 } else { 0 };
    let _open: Vec<_> = (0..large).map(|_| fs::File::open("/dev/null").unwrap()).collect();
    kept.extend((0..large / 9).map(|n| listen(format!("{}{n}", own_name()).as_bytes())));
    if part == "deaf" {
        // Its queue of askers is full.
        let address = SocketAddr::from_abstract_name(own_name()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _queued =
            thread::spawn(move || UnixStream::connect_addr(&address).map(std::mem::forget)).join();
    }
    if let Some(text) = text {
        thread::spawn(move || answer(&listener, &text));
    } else {
        kept.push(listener);
    }
    print!("READY");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

#[test]
fn a_process_is_believed_of_its_own_sockets_only() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let honest = Player::start("honest");
    let liar = Player::start(&format!("liar {}", honest.pid()));
    let all = ask_within(Where::Anywhere, LIMITS);
    for player in [&honest, &liar] {
        let told = player.told(&all).expect("it answered");
        let found: HashSet<_> = told.snapshot.connections.iter().map(|it| it.inode).collect();
        let own = inodes(&player.pid().to_string());
        assert!(!found.is_empty() && found.is_subset(&own), "{found:?} {own:?}");
        assert_eq!(told.snapshot.process.name, "?[2J", "nothing that a terminal obeys");
        assert_eq!(player.problems(&all), "");
    }
}

/// Not the last word on time: that it ends at all, although each might be waited for for an hour.
#[test]
fn those_who_do_not_answer_cost_a_bounded_time_together() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let mute: Vec<_> = ["mute", "deaf", "mute"].map(Player::start).into();
    let honest = Player::start("honest");
    let limits = Limits { each: Duration::from_secs(3600), all: Duration::from_secs(2) };
    let all = ask_within(Where::Here, limits);
    assert!(honest.told(&all).is_some(), "{:?}", all.problems);
    assert!(mute.iter().all(|player| player.told(&all).is_none()));
    let said = all.problems.last().unwrap();
    assert!(said.ends_with(" more did not answer in time, or were not asked"), "{said}");
}

#[test]
fn those_who_do_not_answer_or_answer_nonsense_are_named() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let [mute, deaf, flood, garbage] = ["mute", "deaf", "flood", "garbage"].map(Player::start);
    let limits = Limits { each: Duration::from_secs(2), ..LIMITS };
    let all = ask_within(Where::Here, limits);
    assert!(mute.problems(&all).ends_with("it does not answer (stopped?)"), "{all:?}");
    assert!(flood.problems(&all).contains("records"), "{all:?}");
    assert!(garbage.problems(&all).contains("no record"), "{all:?}");
    let name = smc_snapshot::address(deaf.pid(), 1);
    assert!(all.problems.contains(&format!("{name}: it does not answer (stopped, or busy?)")));
    assert!(!all.problems.iter().any(|it| it.contains(char::is_control)), "{all:?}");
}

#[test]
fn one_with_more_descriptors_than_can_be_looked_at_is_named_and_asked_once() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let large = Player::start("large");
    let all = ask_within(Where::Here, Limits { each: Duration::from_micros(8), ..LIMITS });
    let problems = all.problems.iter().filter(|it| it.contains("too many descriptors"));
    let of_it: Vec<_> = problems.filter(|it| it.contains(&large.pid().to_string())).collect();
    assert_eq!(of_it.len(), 1, "{all:?}");
}
