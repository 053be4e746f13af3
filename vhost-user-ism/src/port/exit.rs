// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The event that ends a worker, and its descriptor's end.
//!
//! Invariant: the descriptor is closed once, after the library's last use of it.
#![expect(unsafe_code, reason = "takes back the descriptor that vhost-user-backend leaks")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// The exit event of one worker. Dropped after the worker has ended.
pub struct ExitEvent {
    pair: Mutex<Option<(EventConsumer, EventNotifier)>>,
    /// The consumer's descriptor, once it was handed to the library.
    leaked: Mutex<Option<RawFd>>,
}

impl ExitEvent {
    /// A new event.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let pair = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        Ok(Self { pair: Mutex::new(Some(pair)), leaked: Mutex::new(None) })
    }

    /// The two ends, for the library; once.
    pub fn take(&self) -> Option<(EventConsumer, EventNotifier)> {
        let pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        *leaked = Some(pair.0.as_raw_fd());
        Some(pair)
    }
}

impl Drop for ExitEvent {
    fn drop(&mut self) {
        let leaked = self.leaked.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fd) = leaked {
            // SAFETY: `take` gave this descriptor's owner to vhost-user-backend 0.24, whose
            // VringEpollHandler::new gives up ownership with `into_raw_fd` and only adds the
            // number to its epoll set. The device that holds `self` is dropped with the handler,
            // after that worker was joined, so this is the one owner.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}
