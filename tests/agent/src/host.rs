// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's side: one connection to an agent, many commands at once.
//!
//! Invariant: dropping a [`Command`] kills it, dropping the [`Client`] ends the session and with
//! it every command that is not detached.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::frame::{self, Decoder, MAX_CONTENT};
use crate::message::{Exit, MAX_PIECE, Request, STDIN_WINDOW, Stream, ToGuest, ToHost, VERSION};

/// Why the agent could not be used.
#[derive(Debug)]
pub enum Error {
    /// No agent answered before the deadline; the text says how far it got.
    NoAnswer(String),
    /// Waiting was called off for this reason.
    CalledOff(String),
    /// The connection ended; the text says how.
    Lost(String),
    /// The agent speaks another version of the protocol.
    Version(u32),
    /// The agent could not start the command.
    Refused(String),
    /// The request is larger than a frame.
    TooLarge,
    /// The deadline passed.
    TimedOut,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoAnswer(how) => write!(f, "the guest's agent did not answer: {how}"),
            Error::CalledOff(why) => write!(f, "waiting for the guest's agent ended: {why}"),
            Error::Lost(how) => write!(f, "the connection to the guest's agent was lost: {how}"),
            Error::Version(version) => write!(
                f,
                "the guest's agent speaks version {version} of the protocol, this program {VERSION}"
            ),
            Error::Refused(reason) => write!(f, "{reason}"),
            Error::TooLarge => {
                write!(f, "the command and its variables exceed {MAX_CONTENT} bytes")
            }
            Error::TimedOut => write!(f, "the command did not end in time"),
        }
    }
}

impl std::error::Error for Error {}

/// What happens to a command.
#[derive(Debug)]
pub enum Event {
    /// It runs, with this process id in the guest.
    Started(u32),
    /// It wrote.
    Output(Stream, Vec<u8>),
    /// It ended; nothing follows.
    Exited(Exit),
}

/// What the reading thread knows of a command.
#[derive(Debug)]
struct Listed {
    events: Sender<Result<Event, Error>>,
    /// Bytes of standard input that are under way.
    in_flight: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when input was taken, a command ended or the connection was lost.
    changed: Condvar,
    stream: UnixStream,
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    commands: HashMap<u32, Listed>,
    lost: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: &ToGuest) -> Result<(), Error> {
        let content = message.encode();
        if content.len() > MAX_CONTENT {
            return Err(Error::TooLarge);
        }
        let _whole = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream)
            .write_all(&frame::encode(&content))
            .map_err(|error| Error::Lost(error.to_string()))
    }

    /// Reads until the connection ends and gives each command its events.
    fn read(&self, mut decoder: Decoder, first: Vec<Vec<u8>>) {
        let mut contents = first;
        let mut buffer = vec![0; 64 * 1024];
        let lost = loop {
            for content in contents {
                match ToHost::decode(&content) {
                    Ok(message) => self.dispatch(message),
                    Err(error) => eprintln!("from the guest's agent: {error}"),
                }
            }
            contents = match (&self.stream).read(&mut buffer) {
                Ok(0) => break "the other side closed it (has QEMU ended?)".to_owned(),
                Ok(length) => decoder.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Vec::new(),
                Err(error) => break error.to_string(),
            };
        };
        let mut state = self.state();
        for (_, command) in state.commands.drain() {
            // Nobody listens to a command that was dropped.
            let _ = command.events.send(Err(Error::Lost(lost.clone())));
        }
        state.lost = Some(lost);
        self.changed.notify_all();
    }

    fn dispatch(&self, message: ToHost) {
        let mut state = self.state();
        let (id, event) = match message {
            ToHost::Welcome { .. } => return,
            ToHost::StdinTaken { id, bytes } => {
                if let Some(command) = state.commands.get_mut(&id) {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    command.in_flight = command.in_flight.saturating_sub(bytes);
                    self.changed.notify_all();
                }
                return;
            }
            ToHost::Started { id, pid } => (id, Ok(Event::Started(pid))),
            ToHost::Output { id, stream, data } => (id, Ok(Event::Output(stream, data))),
            ToHost::Exited { id, exit } => (id, Ok(Event::Exited(exit))),
            ToHost::Refused { id, reason } => (id, Err(Error::Refused(reason))),
        };
        let ended = matches!(event, Ok(Event::Exited(_)) | Err(_));
        if let Some(command) = state.commands.get(&id) {
            // Nobody listens to a command that was dropped.
            let _ = command.events.send(event);
        }
        if ended {
            state.commands.remove(&id);
            self.changed.notify_all();
        }
    }
}

/// A session with an agent.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    next_id: AtomicU32,
    reader: Option<thread::JoinHandle<()>>,
}

impl Client {
    /// Connects to the unix socket of a virtio-serial port's chardev and waits for the agent.
    ///
    /// The socket may not exist yet and the guest may not have booted: both are waited for until
    /// `deadline`. `called_off` is asked a few times a second whether waiting has become
    /// pointless, for instance because QEMU has ended; its text becomes the error.
    pub fn connect(
        socket: &Path,
        deadline: Instant,
        called_off: impl Fn() -> Option<String>,
    ) -> Result<Self, Error> {
        let nonce = nonce();
        let hello = frame::encode(&ToGuest::Hello { version: VERSION, nonce }.encode());
        loop {
            let how_far = match UnixStream::connect(socket) {
                Ok(stream) => match greet(&stream, &hello, nonce, deadline, &called_off)? {
                    Greeting::Welcome(decoder, rest) => {
                        return Ok(Self::new(stream, decoder, rest));
                    }
                    Greeting::None(how_far) => how_far,
                },
                Err(error) => format!("{}: {error}", socket.display()),
            };
            if let Some(why) = called_off() {
                return Err(Error::CalledOff(why));
            }
            if Instant::now() >= deadline {
                return Err(Error::NoAnswer(how_far));
            }
            // A socket that is being bound makes no event that a client could wait for.
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn new(stream: UnixStream, decoder: Decoder, rest: Vec<Vec<u8>>) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            stream,
            writing: Mutex::new(()),
        });
        let reading = Arc::clone(&shared);
        let reader = thread::spawn(move || reading.read(decoder, rest));
        Client { shared, next_id: AtomicU32::new(1), reader: Some(reader) }
    }

    /// Starts a command; [`Command::next`] then tells what becomes of it.
    pub fn start(&self, request: Request) -> Result<Command, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel();
        {
            let mut state = self.shared.state();
            if let Some(lost) = &state.lost {
                return Err(Error::Lost(lost.clone()));
            }
            state.commands.insert(id, Listed { events: sender, in_flight: 0 });
        }
        let command = Command { id, shared: Arc::clone(&self.shared), events };
        self.shared.send(&ToGuest::Run { id, request })?;
        Ok(command)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Ends the reading thread; an error means that the connection is gone already.
        let _ = self.shared.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

enum Greeting {
    /// The agent answered; some of what follows may have come with the answer.
    Welcome(Decoder, Vec<Vec<u8>>),
    /// The connection came to nothing, as the text says: worth another try.
    None(String),
}

/// Begins a session on a fresh connection. Everything before the answer to our own nonce is from
/// an earlier session and skipped.
fn greet(
    stream: &UnixStream,
    hello: &[u8],
    nonce: u64,
    deadline: Instant,
    called_off: &impl Fn() -> Option<String>,
) -> Result<Greeting, Error> {
    // A socket that cannot be set up is one that fails on first use.
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    if let Err(error) = Write::write_all(&mut &*stream, hello) {
        return Ok(Greeting::None(error.to_string()));
    }
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match Read::read(&mut &*stream, &mut buffer) {
            Ok(0) => return Ok(Greeting::None("QEMU closed the connection".into())),
            Ok(length) => {
                let mut contents =
                    decoder.push(buffer.get(..length).unwrap_or_default()).into_iter();
                let ours = contents.find_map(|content| match ToHost::decode(&content) {
                    Ok(ToHost::Welcome { version, nonce: n }) if n == nonce => Some(version),
                    _ => None,
                });
                match ours {
                    Some(VERSION) => {
                        let _ = stream.set_read_timeout(None);
                        return Ok(Greeting::Welcome(decoder, contents.collect()));
                    }
                    Some(version) => return Err(Error::Version(version)),
                    None => {}
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Ok(Greeting::None(error.to_string())),
        }
        if let Some(why) = called_off() {
            return Err(Error::CalledOff(why));
        }
        if Instant::now() >= deadline {
            return Err(Error::NoAnswer(
                "QEMU's socket is there, but the guest is silent (it has not booted, runs no \
                 agent, or another program holds the socket)"
                    .into(),
            ));
        }
    }
}

/// Random, so that an old session's answer is not taken for ours.
fn nonce() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        // No entropy yet: good enough among the programs of one host.
        _ => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.unwrap_or_default();
            (u64::from(std::process::id()) << 32 | u64::from(now.subsec_nanos()))
                ^ now.as_secs().rotate_left(40)
        }
    }
}

/// A command in the guest.
#[derive(Debug)]
pub struct Command {
    id: u32,
    shared: Arc<Shared>,
    events: Receiver<Result<Event, Error>>,
}

impl Command {
    /// Waits for what happens next. After [`Event::Exited`] or an error other than
    /// [`Error::TimedOut`] nothing does.
    pub fn next(&self, deadline: Option<Instant>) -> Result<Event, Error> {
        let over = || Error::Lost("the command has ended before".into());
        match deadline {
            None => self.events.recv().unwrap_or_else(|_| Err(over())),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.events.recv_timeout(left) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout) => Err(Error::TimedOut),
                    Err(RecvTimeoutError::Disconnected) => Err(over()),
                }
            }
        }
    }

    /// Signals the command's process group.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        self.shared.send(&ToGuest::Kill { id: self.id, signal })
    }

    /// The command's standard input; it has one if its [`Request`] says so.
    pub fn stdin(&self) -> Stdin {
        Stdin { id: self.id, shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.shared.state().commands.remove(&self.id).is_some() {
            // It still runs. A lost connection has ended it by itself.
            let _ = self.kill(9);
        }
    }
}

/// A command's standard input. Dropping it does not end the input: [`Stdin::end`] does.
#[derive(Clone, Debug)]
pub struct Stdin {
    id: u32,
    shared: Arc<Shared>,
}

impl Stdin {
    /// Sends input, waiting for the command to read it. What a command that has ended did not
    /// read is dropped without an error, as a pipe's buffer would be.
    pub fn write(&self, data: &[u8]) -> Result<(), Error> {
        for piece in data.chunks(MAX_PIECE) {
            if !self.wait_for_room(piece.len())? {
                return Ok(());
            }
            self.shared.send(&ToGuest::Stdin { id: self.id, data: piece.to_vec() })?;
        }
        Ok(())
    }

    /// False if the command has ended.
    fn wait_for_room(&self, length: usize) -> Result<bool, Error> {
        let mut state = self.shared.state();
        loop {
            if let Some(lost) = &state.lost {
                return Err(Error::Lost(lost.clone()));
            }
            let Some(command) = state.commands.get_mut(&self.id) else {
                return Ok(false);
            };
            if command.in_flight + length <= STDIN_WINDOW {
                command.in_flight += length;
                return Ok(true);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the input.
    pub fn end(&self) -> Result<(), Error> {
        self.shared.send(&ToGuest::StdinEnd { id: self.id })
    }
}
