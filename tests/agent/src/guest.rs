// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The agent in the guest: turns messages into running commands.
//!
//! Invariant: at most one session is current; what belongs to an earlier one writes nothing to
//! the port any more.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::command::{self, Running};
use crate::frame::{self, Decoder};
use crate::message::{ToGuest, ToHost, VERSION};
use crate::port::Port;

/// The way back to the host, shared by all commands.
pub struct Outlet<P: ?Sized> {
    /// The current session's number.
    current: AtomicU64,
    /// Held while a frame is written, so that frames stay whole.
    writing: Mutex<()>,
    port: P,
}

impl<P: Port> Outlet<P> {
    /// Writes a message of `session`, or drops it if that session is over.
    pub fn send(&self, session: u64, message: &ToHost) -> io::Result<()> {
        let _whole = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.current.load(Ordering::SeqCst) == session {
            self.port.write_all(&frame::encode(&message.encode()))?;
        }
        Ok(())
    }

    /// Makes everything of earlier sessions silent and returns the new session's number. Waits
    /// for no writer: one may be stuck until a host connects, whom only the caller can notice.
    fn begin(&self) -> u64 {
        self.current.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// One host connection and the commands it started. Dropping it kills them.
struct Session<P: Port> {
    number: u64,
    outlet: Arc<Outlet<P>>,
    commands: Arc<Mutex<HashMap<u32, Running>>>,
}

impl<P: Port> Session<P> {
    fn begin(outlet: &Arc<Outlet<P>>) -> Self {
        Session { number: outlet.begin(), outlet: Arc::clone(outlet), commands: Arc::default() }
    }

    fn handle(&self, message: ToGuest) -> io::Result<()> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            ToGuest::Hello { nonce, .. } => {
                drop(commands);
                self.outlet.send(self.number, &ToHost::Welcome { version: VERSION, nonce })?;
            }
            ToGuest::Run { id, request } => {
                if commands.contains_key(&id) {
                    let reason = format!("a command with the number {id} is running");
                    drop(commands);
                    return self.outlet.send(self.number, &ToHost::Refused { id, reason });
                }
                // The lock is held until the command is listed: its own thread unlists it.
                let reporter = command::Reporter::new(
                    Arc::clone(&self.outlet),
                    self.number,
                    id,
                    Arc::clone(&self.commands),
                );
                match command::start(&request, reporter) {
                    Ok(Some(running)) => drop(commands.insert(id, running)),
                    Ok(None) => {}
                    Err(error) => {
                        let program = request.argv.first().map(Vec::as_slice).unwrap_or_default();
                        let program = String::from_utf8_lossy(program);
                        let reason = format!("cannot run {program:?} in the guest: {error}");
                        drop(commands);
                        self.outlet.send(self.number, &ToHost::Refused { id, reason })?;
                    }
                }
            }
            // A command that has just ended is not an error: its end is on its way to the host.
            ToGuest::Stdin { id, data } => {
                if let Some(command) = commands.get(&id) {
                    command.stdin(data);
                }
            }
            ToGuest::StdinEnd { id } => {
                if let Some(command) = commands.get_mut(&id) {
                    command.end_stdin();
                }
            }
            ToGuest::Kill { id, signal } => {
                if let Some(command) = commands.get(&id) {
                    command.kill(signal);
                }
            }
        }
        Ok(())
    }
}

impl<P: Port> Drop for Session<P> {
    fn drop(&mut self) {
        self.outlet.begin();
        for command in self.commands.lock().unwrap_or_else(PoisonError::into_inner).values() {
            command.kill(9);
        }
    }
}

/// Serves hosts one after another on `port` until none can come any more.
///
/// # Errors
/// Those of the port; a host's mistakes are reported on standard error and survived.
pub fn serve<P: Port>(port: P) -> io::Result<()> {
    let outlet = Arc::new(Outlet { current: AtomicU64::new(0), writing: Mutex::new(()), port });
    let mut decoder = Decoder::default();
    let mut session: Option<Session<P>> = None;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match outlet.port.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if length == 0 {
            session = None;
            decoder.reset();
            if !outlet.port.wait_for_host()? {
                return Ok(());
            }
            continue;
        }
        for content in decoder.push(buffer.get(..length).unwrap_or_default()) {
            match ToGuest::decode(&content) {
                Ok(message) => {
                    if matches!(message, ToGuest::Hello { .. }) {
                        // The old one first: its commands are killed before the new one's start.
                        drop(session.take());
                        session = Some(Session::begin(&outlet));
                    }
                    match &session {
                        Some(session) => session.handle(message)?,
                        None => eprintln!("ism-agent: a message came before any session"),
                    }
                }
                Err(error) => eprintln!("ism-agent: from the host: {error}"),
            }
        }
    }
}
