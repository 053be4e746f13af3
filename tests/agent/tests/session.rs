// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The agent and its client over a stand-in for QEMU's virtio-serial port: a relay that serves
//! one host at a time and, like the real one, does not tell the guest where one host's bytes end
//! and the next one's begin.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command as Process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ism_agent::frame;
use ism_agent::guest;
use ism_agent::host::{Client, Command, Error, Event};
use ism_agent::message::{Exit, Request, Stream, ToGuest, VERSION};

const PATIENCE: Duration = Duration::from_secs(20);

/// A guest's agent behind a unix socket.
struct Guest {
    directory: PathBuf,
}

impl Guest {
    fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ism-agent-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let guest = Guest { directory };
        let listener = UnixListener::bind(guest.socket()).unwrap();
        let (agent, port) = UnixStream::pair().unwrap();
        thread::spawn(move || guest::serve(agent));
        thread::spawn(move || relay(&listener, &port));
        guest
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    fn connect(&self) -> Client {
        Client::connect(&self.socket(), Instant::now() + PATIENCE, || None).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Serves hosts one after another; what the guest says to nobody is lost.
fn relay(listener: &UnixListener, mut port: &UnixStream) {
    for mut host in listener.incoming().map(Result::unwrap) {
        let (mut from_guest, mut to_host) = (port.try_clone().unwrap(), host.try_clone().unwrap());
        thread::scope(|scope| {
            let back = scope.spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from_guest.read(&mut buffer) {
                    if to_host.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = host.read(&mut buffer) {
                port.write_all(&buffer[..length]).unwrap();
            }
            // Unblocks the way back by one message that nobody hears: this host's farewell.
            let _ = host.shutdown(std::net::Shutdown::Both);
            port.write_all(&hello(0)).unwrap();
            back.join().unwrap();
        });
    }
}

fn hello(nonce: u64) -> Vec<u8> {
    frame::encode(&ToGuest::Hello { version: VERSION, nonce }.encode())
}

fn shell(script: &str) -> Request {
    let argv = ["sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec();
    Request { argv, ..Request::default() }
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<Exit>,
}

fn finish(command: &Command) -> Outcome {
    let mut outcome = Outcome::default();
    while outcome.exit.is_none() {
        match command.next(Some(Instant::now() + PATIENCE)).unwrap() {
            Event::Started(_) => {}
            Event::Output(Stream::Stdout, data) => outcome.stdout.extend(data),
            Event::Output(Stream::Stderr, data) => outcome.stderr.extend(data),
            Event::Exited(exit) => outcome.exit = Some(exit),
        }
    }
    outcome
}

fn run(client: &Client, script: &str) -> Outcome {
    finish(&client.start(shell(script)).unwrap())
}

/// The process id that a command wrote as its first output.
fn announced_pid(command: &Command) -> u32 {
    loop {
        let event = command.next(Some(Instant::now() + PATIENCE)).unwrap();
        if let Event::Output(Stream::Stdout, data) = event {
            return String::from_utf8(data).unwrap().trim().parse().unwrap();
        }
    }
}

/// True once the process is gone or a zombie; it must come to that.
fn ends(pid: u32) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Err(_) => return true,
            Ok(stat) if stat.contains(") Z ") => return true,
            // The kernel offers a stranger no event for the end of a process that it can name
            // only by its number.
            Ok(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    false
}

#[test]
fn outputs_and_status_arrive() {
    let guest = Guest::start();
    let outcome = run(&guest.connect(), "echo out; echo err >&2; exit 3");
    let expected =
        Outcome { stdout: b"out\n".to_vec(), stderr: b"err\n".to_vec(), exit: Some(Exit::Code(3)) };
    assert_eq!(outcome, expected);
}

#[test]
fn a_signal_is_reported_as_one() {
    let guest = Guest::start();
    assert_eq!(run(&guest.connect(), "kill -15 $$").exit, Some(Exit::Signal(15)));
}

#[test]
fn a_missing_program_is_refused_with_its_name() {
    let guest = Guest::start();
    let request = Request { argv: vec![b"no-such-program".to_vec()], ..Request::default() };
    let client = guest.connect();
    let command = client.start(request).unwrap();
    let error = command.next(Some(Instant::now() + PATIENCE)).unwrap_err();
    assert!(matches!(&error, Error::Refused(why) if why.contains("no-such-program")), "{error}");
}

#[test]
fn large_outputs_arrive_whole() {
    let guest = Guest::start();
    let script = "seq 1 400000; seq 1 1000 >&2";
    let expected = Process::new("seq").args(["1", "400000"]).output().unwrap().stdout;
    let outcome = run(&guest.connect(), script);
    assert!(outcome.stdout == expected, "{} bytes of {}", outcome.stdout.len(), expected.len());
    assert_eq!(outcome.stderr.len(), 3893);
}

#[test]
fn input_larger_than_every_buffer_passes_through() {
    let guest = Guest::start();
    let client = guest.connect();
    let request = Request { stdin: true, ..shell("cat") };
    let command = client.start(request).unwrap();
    let data: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let outcome = thread::scope(|scope| {
        let stdin = command.stdin();
        let data = &data;
        scope.spawn(move || {
            stdin.write(data).unwrap();
            stdin.end().unwrap();
        });
        finish(&command)
    });
    assert!(outcome.stdout == data, "{} bytes", outcome.stdout.len());
}

#[test]
fn input_for_a_command_that_does_not_read_it_blocks_nobody() {
    let guest = Guest::start();
    let client = guest.connect();
    let command = client.start(Request { stdin: true, ..shell("exec true") }).unwrap();
    command.stdin().write(&vec![1; 3_000_000]).unwrap();
    assert_eq!(finish(&command).exit, Some(Exit::Code(0)));
}

#[test]
fn the_environment_is_extended() {
    let guest = Guest::start();
    let env = vec![(b"GREETING".to_vec(), b"a=b c".to_vec())];
    let request = Request { env, ..shell("printf %s \"$GREETING\"; test -n \"$PATH\"") };
    let outcome = finish(&guest.connect().start(request).unwrap());
    assert_eq!((outcome.stdout, outcome.exit), (b"a=b c".to_vec(), Some(Exit::Code(0))));
}

#[test]
fn commands_run_side_by_side() {
    let guest = Guest::start();
    let client = guest.connect();
    let fifo = guest.directory.join("fifo");
    assert!(Process::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Each of the pair waits for the other.
    let reader = client.start(shell(&format!("cat {}", fifo.display()))).unwrap();
    let writer = client.start(shell(&format!("echo met > {}", fifo.display()))).unwrap();
    assert_eq!(finish(&writer).exit, Some(Exit::Code(0)));
    assert_eq!(finish(&reader).stdout, b"met\n");
}

#[test]
fn killing_reaches_the_whole_group() {
    let guest = Guest::start();
    let client = guest.connect();
    let command = client.start(shell("sleep 1000 & echo $!; wait")).unwrap();
    let pid = announced_pid(&command);
    command.kill(9).unwrap();
    assert_eq!(finish(&command).exit, Some(Exit::Signal(9)));
    assert!(ends(pid));
}

#[test]
fn dropping_a_command_kills_it() {
    let guest = Guest::start();
    let client = guest.connect();
    let command = client.start(shell("echo $$; sleep 1000")).unwrap();
    let pid = announced_pid(&command);
    drop(command);
    assert!(ends(pid));
}

#[test]
fn a_process_left_behind_does_not_hold_the_command_up() {
    let guest = Guest::start();
    let client = guest.connect();
    for writer in ["sleep 1000", "yes"] {
        let outcome = run(&client, &format!("{writer} & echo $!"));
        assert_eq!(outcome.exit, Some(Exit::Code(0)));
        let first = outcome.stdout.split(|&byte| byte == b'\n').find(|line| *line != b"y");
        let pid = String::from_utf8(first.unwrap().to_vec()).unwrap();
        assert!(run(&client, &format!("kill -9 {pid}; true")).exit.unwrap().success());
    }
}

#[test]
fn the_end_of_a_session_kills_its_commands_but_not_detached_ones() {
    let guest = Guest::start();
    let client = guest.connect();
    let attached = client.start(shell("echo $$; sleep 1000")).unwrap();
    let attached_pid = announced_pid(&attached);
    let detached = client.start(Request { detach: true, ..shell("sleep 1000") }).unwrap();
    let detached_pid = match detached.next(None).unwrap() {
        Event::Started(pid) => pid,
        other => panic!("{other:?}"),
    };
    assert_eq!(finish(&detached).exit, Some(Exit::Code(0)));
    drop(client);
    assert!(ends(attached_pid));
    let outcome = run(&guest.connect(), &format!("kill -9 {detached_pid}"));
    assert_eq!(outcome.exit, Some(Exit::Code(0)), "it was still there to be killed");
}

#[test]
fn a_host_killed_in_mid_frame_does_not_disturb_the_next() {
    let guest = Guest::start();
    let request = ToGuest::Run { id: 1, request: shell("echo $$; seq 1 100000; sleep 1000") };
    let run_frame = frame::encode(&request.encode());
    for cut in [1, 5, run_frame.len() / 2, run_frame.len() - 1, run_frame.len()] {
        let mut rude = UnixStream::connect(guest.socket()).unwrap();
        rude.write_all(&hello(1)).unwrap();
        rude.write_all(&run_frame[..cut]).unwrap();
        drop(rude);
        let outcome = run(&guest.connect(), "echo clean");
        assert_eq!((outcome.stdout, outcome.exit), (b"clean\n".to_vec(), Some(Exit::Code(0))));
    }
}

#[test]
fn nonsense_from_the_host_is_survived() {
    let guest = Guest::start();
    let mut rude = UnixStream::connect(guest.socket()).unwrap();
    rude.write_all(&hello(1)).unwrap();
    for length in 0..600_usize {
        let nonsense: Vec<u8> =
            (0..=u8::MAX).cycle().skip(length * 13).step_by(7).take(length).collect();
        rude.write_all(&nonsense).unwrap();
        rude.write_all(&frame::encode(&nonsense)).unwrap();
    }
    drop(rude);
    assert_eq!(run(&guest.connect(), "echo well").stdout, b"well\n");
}

#[test]
fn waiting_for_a_guest_can_be_called_off_and_has_a_deadline() {
    let nowhere = std::env::temp_dir().join("no-such-socket");
    let late = Instant::now() + PATIENCE;
    let error = Client::connect(&nowhere, late, || Some("QEMU ended".into())).unwrap_err();
    assert!(matches!(error, Error::CalledOff(why) if why == "QEMU ended"));
    let error = Client::connect(&nowhere, Instant::now(), || None).unwrap_err();
    assert!(matches!(&error, Error::NoAnswer(how) if how.contains("no-such-socket")), "{error}");
}

/// The program on the host, with its exit statuses.
#[test]
fn the_command_line_passes_everything_on() {
    let guest = Guest::start();
    let exec = |options: &[&str], script: &str| {
        let output = Process::new(env!("CARGO_BIN_EXE_ism-agent"))
            .arg("exec")
            .arg(guest.socket())
            .args(options)
            .args(["--", "sh", "-c", script])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let done = exec(&["--env", "A=b"], "echo $A; echo no >&2; exit 7");
    assert_eq!(done, (Some(7), "b\n".into(), "no\n".into()));
    assert_eq!(exec(&[], "kill -9 $$").0, Some(137));
    let (status, _, stderr) = exec(&["--timeout", "0.2"], "sleep 1000");
    assert_eq!(status, Some(124));
    assert!(stderr.contains("in time"), "{stderr}");
    assert_eq!(exec(&["--detach"], "sleep 0.1; exit 3").0, Some(0));
}
