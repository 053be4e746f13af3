// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The back-end's channel: the daemon asks for mappings, a thread of this process answers.
//!
//! Invariant: requests are answered in order by one thread, also while the program is busy or asleep, because
//! a peer waits for them; the thread ends before the channel is dropped.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use ism_abi::SHM_WINDOW;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::connection::Connection;
use super::message::{self, Message, back};
use super::window::Window;
use crate::error::{Error, Result};
use crate::own::Own;

/// Bytes of the stack of the thread, which calls nothing deep.
const STACK: usize = 128 << 10;
/// Map flag: writable.
const WRITABLE: u64 = 1;

/// The channel, and the thread that answers.
#[derive(Debug)]
pub(super) struct Channel {
    stop: Arc<Own>,
    thread: Option<JoinHandle<()>>,
    /// The process that has the thread.
    process: u32,
}

impl Channel {
    /// Hands one end to the daemon and answers on the other.
    pub(super) fn open(connection: &mut Connection, window: &Arc<Window>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("making a channel"))?;
        connection.set_channel(theirs.as_fd())?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let ours = Own::new(ours.into());
        let stop = eventfd(0, flags).map_err(Error::io("eventfd"))?;
        let stop = Arc::new(Own::new(stop));
        let (stopped, window) = (Arc::clone(&stop), Arc::clone(window));
        // The program's signals are for its own threads, whose calls they may have to interrupt.
        let blocked = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let thread = std::thread::Builder::new()
            .name("ism-client".into())
            .stack_size(STACK)
            .spawn(move || serve(&ours, &stopped, &window));
        if let Ok(before) = blocked {
            // Fails for a wrong `how` only.
            let _ = before.thread_set_mask();
        }
        let thread = thread.map_err(Error::io("starting the channel's thread"))?;
        Ok(Self { stop, thread: Some(thread), process: std::process::id() })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if std::process::id() != self.process {
            // A child of fork has the handle and not the thread, and would wait for ever.
            std::mem::forget(thread);
            return;
        }
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = thread {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Answers until it is told to stop or the daemon hangs up.
fn serve(socket: &Own, stop: &Own, window: &Window) {
    loop {
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        // EINTR: look again.
        let _ = poll(&mut fds, None);
        let [stop, requests] = &fds;
        if !stop.revents().is_empty() {
            return;
        }
        if !requests.revents().is_empty() && answer(socket, window).is_err() {
            return;
        }
    }
}

fn answer(socket: &Own, window: &Window) -> io::Result<()> {
    let request = message::receive(socket)?;
    // The daemon learns that it was refused; why, it could not use.
    let refused = u64::from(carry_out(&request, window).is_none());
    if request.wants_reply {
        message::reply(socket, request.code, &refused.to_ne_bytes())?;
    }
    Ok(())
}

/// SHMEM_MAP and SHMEM_UNMAP: shmid and 7 bytes of padding, then four u64: offset in the file, offset in the
/// window, bytes, flags.
fn carry_out(request: &Message, window: &Window) -> Option<()> {
    let (words, rest) = request.body.as_chunks::<8>();
    let [[shmid, ..], numbers @ ..] = words else { return None };
    let mut numbers = numbers.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    let (from, offset, len) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let flags = numbers.next()?;
    if *shmid != SHM_WINDOW || !rest.is_empty() || numbers.next().is_some() {
        return None;
    }
    match request.code {
        back::SHMEM_MAP if flags & WRITABLE != 0 => {
            window.map(request.fd.as_ref()?, from, offset, len).ok()
        }
        back::SHMEM_UNMAP => window.unmap(offset, len).ok(),
        _ => None,
    }
}
