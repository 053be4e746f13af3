// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who asks: whether it may, and getting the answer out to it.
//!
//! Invariant: it takes [`LONGEST`] at most, whatever the other end does.

use std::time::{Duration, Instant};

use ism_client::own::Own;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use smc_snapshot::{Encoder, Record};
use unix_peer::Peer;

use super::tell;

/// Longest time that one asker may take.
const LONGEST: Duration = Duration::from_secs(5);
/// Bytes that are made before they are written.
const PIECE: usize = 64 << 10;

/// Answers one asker.
pub(super) fn serve(client: &Own) {
    if !may_ask(client) {
        return;
    }
    let mut answer = Answer { client, encoder: Encoder::default(), end: Instant::now() + LONGEST };
    // Who does not read, or has left, gets no more.
    let _ = tell::all(&mut answer).and_then(|()| answer.write());
}

/// The process's own user, and root.
fn may_ask(client: &Own) -> bool {
    let own = rustix::process::geteuid().as_raw();
    Peer::of(client).is_ok_and(|who| who.uid == 0 || who.uid == own)
}

/// The asker left, or did not read in time.
#[derive(Debug)]
pub(super) struct Gone;

/// An answer on its way.
pub(super) struct Answer<'a> {
    client: &'a Own,
    encoder: Encoder,
    end: Instant,
}

impl Answer<'_> {
    /// Says one thing more; false if there is no room for it.
    ///
    /// # Errors
    /// The asker is gone.
    pub(super) fn say(&mut self, record: &Record) -> Result<bool, Gone> {
        let said = self.encoder.push(record);
        if self.encoder.len() >= PIECE {
            self.write()?;
        }
        Ok(said)
    }

    fn write(&mut self) -> Result<(), Gone> {
        let bytes = self.encoder.take();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match send(self.client, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait()?,
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), Gone> {
        let left = self.end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        let mut fds = [PollFd::new(self.client, PollFlags::OUT)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => Err(Gone),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(_) => Err(Gone),
        }
    }
}
