// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One command of a session, in the guest.
//!
//! Invariant: a command is unlisted before it is reaped, and signalled only while it is listed
//! (under the list's lock), so a signal never meets a stranger that inherited its process id.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::guest::Outlet;
use crate::message::{Exit, MAX_PIECE, Request, Stream, ToHost};
use crate::port::Port;

/// The most a pipe holds in bytes unless root enlarged it (/proc/sys/fs/pipe-max-size).
const PIPE_CAPACITY: usize = 1 << 20;

/// The list of a session's commands, by number.
pub type List = Arc<Mutex<HashMap<u32, Running>>>;

/// A listed command.
#[derive(Debug)]
pub struct Running {
    /// The leader of a process group of its own.
    group: Pid,
    stdin: Option<Sender<Vec<u8>>>,
}

impl Running {
    /// Queues the next bytes of its standard input; what it no longer reads is dropped.
    pub fn stdin(&self, data: Vec<u8>) {
        if let Some(stdin) = &self.stdin {
            // The receiver is gone only when its thread failed to start.
            let _ = stdin.send(data);
        }
    }

    /// Closes its standard input after what is queued.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Signals its process group. An unknown signal number is ignored, as is a group that is
    /// already gone.
    pub fn kill(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = kill_process_group(self.group, signal);
        }
    }
}

/// A command's way to speak for itself: its session, number and listing.
pub struct Reporter<P: Port> {
    outlet: Arc<Outlet<P>>,
    session: u64,
    id: u32,
    list: List,
}

impl<P: Port> Clone for Reporter<P> {
    fn clone(&self) -> Self {
        Reporter {
            outlet: Arc::clone(&self.outlet),
            session: self.session,
            id: self.id,
            list: Arc::clone(&self.list),
        }
    }
}

impl<P: Port> Reporter<P> {
    /// For the command `id` of `session`, listed in `list`.
    pub fn new(outlet: Arc<Outlet<P>>, session: u64, id: u32, list: List) -> Self {
        Reporter { outlet, session, id, list }
    }

    /// A port that fails here fails in the reading thread too, which ends the agent.
    fn say(&self, message: &ToHost) {
        if let Err(error) = self.outlet.send(self.session, message) {
            eprintln!("ism-agent: to the host: {error}");
        }
    }

    fn unlist(&self) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Starts a command and the threads that serve it. `None` for a detached one, about which
/// everything has been said.
pub fn start<P: Port>(request: &Request, reporter: Reporter<P>) -> io::Result<Option<Running>> {
    let Some((program, arguments)) = request.argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
    };
    let mut command = Command::new(OsString::from_vec(program.clone()));
    command.args(arguments.iter().cloned().map(OsString::from_vec));
    for (name, value) in &request.env {
        command.env(OsString::from_vec(name.clone()), OsString::from_vec(value.clone()));
    }
    command.process_group(0);
    let piped = || {
        if request.detach { Stdio::null() } else { Stdio::piped() }
    };
    command.stdout(piped()).stderr(piped());
    let has_stdin = request.stdin && !request.detach;
    command.stdin(if has_stdin { Stdio::piped() } else { Stdio::null() });

    let mut child = command.spawn()?;
    let group = Pid::from_child(&child);
    reporter.say(&ToHost::Started { id: reporter.id, pid: child.id() });
    let stdin = child.stdin.take();
    let served = if request.detach {
        reporter.say(&ToHost::Exited { id: reporter.id, exit: Exit::Code(0) });
        thread::Builder::new().spawn(move || drop(child.wait())).map(|_| None)
    } else {
        serve(child, stdin, reporter).map(|stdin| Some(Running { group, stdin }))
    };
    if served.is_err() {
        // Nobody will tell the host about it; it is not reaped either, so the group is still its.
        let _ = kill_process_group(group, Signal::KILL);
    }
    served
}

/// Starts the threads that attend to a command; returns the way to its input.
fn serve<P: Port>(
    child: Child,
    stdin: Option<ChildStdin>,
    reporter: Reporter<P>,
) -> io::Result<Option<Sender<Vec<u8>>>> {
    let mut input = None;
    if let Some(pipe) = stdin {
        let (sender, receiver) = mpsc::channel();
        let reporter = reporter.clone();
        thread::Builder::new().spawn(move || feed(pipe, &receiver, &reporter))?;
        input = Some(sender);
    }
    thread::Builder::new().spawn(move || attend(child, &reporter))?;
    Ok(input)
}

/// Writes queued input to the command. After it stopped reading, the rest is taken and dropped,
/// so that the host is not left waiting for room.
fn feed<P: Port>(mut pipe: ChildStdin, queue: &Receiver<Vec<u8>>, reporter: &Reporter<P>) {
    let mut reads = true;
    for data in queue {
        reads = reads && pipe.write_all(&data).is_ok();
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        reporter.say(&ToHost::StdinTaken { id: reporter.id, bytes });
    }
}

/// Passes a command's output on until it ends, and reports how it ended.
fn attend<P: Port>(mut child: Child, reporter: &Reporter<P>) {
    if let Err(error) = pass_output(&mut child, reporter) {
        eprintln!("ism-agent: output of command {}: {error}", reporter.id);
    }
    reporter.unlist();
    let exit = match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        },
        Err(error) => {
            let reason = format!("waiting for the command failed: {error}");
            return reporter.say(&ToHost::Refused { id: reporter.id, reason });
        }
    };
    reporter.say(&ToHost::Exited { id: reporter.id, exit });
}

/// Returns when the command has ended and its output is passed on. A process it leaves behind
/// may hold the pipes open for ever: what *it* writes later is not waited for.
fn pass_output<P: Port>(child: &mut Child, reporter: &Reporter<P>) -> io::Result<()> {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut stdout = Outflow::<ChildStdout>::new(child.stdout.take(), Stream::Stdout)?;
    let mut stderr = Outflow::<ChildStderr>::new(child.stderr.take(), Stream::Stderr)?;
    loop {
        let ended = {
            let mut fds = vec![PollFd::new(&end, PollFlags::IN)];
            fds.extend(stdout.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            fds.extend(stderr.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            fds.first().is_some_and(|fd| !fd.revents().is_empty())
        };
        stdout.drain(reporter)?;
        stderr.drain(reporter)?;
        if ended {
            return Ok(());
        }
    }
}

/// One output pipe of a command; closed when it has ended.
struct Outflow<R> {
    pipe: Option<R>,
    stream: Stream,
}

impl<R: Read + std::os::fd::AsFd> Outflow<R> {
    fn new(pipe: Option<R>, stream: Stream) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Outflow { pipe, stream })
    }

    /// Passes on what is in the pipe now, without waiting for more, and without following a
    /// writer that never pauses: no more than a pipe can hold.
    fn drain<P: Port>(&mut self, reporter: &Reporter<P>) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PIECE];
        let mut passed = 0;
        while let (Some(pipe), true) = (&mut self.pipe, passed < PIPE_CAPACITY) {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    passed += length;
                    let data = buffer.get(..length).unwrap_or_default().to_vec();
                    let stream = self.stream;
                    reporter.say(&ToHost::Output { id: reporter.id, stream, data });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
