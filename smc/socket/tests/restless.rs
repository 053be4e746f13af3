// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fabric that has something new to say whenever it is looked at.
//!
//! Invariant tested: who dispatches comes to an end nevertheless, and takes what was there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ism_abi::Gid;
use ism_client::board::Post;
use ism_client::port::{Identity, Port, PortEvent, Registered, Wanted};
use ism_client::{Device, Error, Result};
use smc_socket::{Config, Stack};

/// Whatever takes longer does not come to an end.
const LONG: Duration = Duration::from_secs(20);

/// One more event each time that somebody arms it.
#[derive(Default)]
struct Restless {
    waiting: AtomicU32,
    taken: Arc<AtomicU32>,
}

impl Port for Restless {
    fn identity(&self) -> Identity {
        let (gid, fabric_id) = ([7; 16], 0xff01);
        Identity { gid, fabric_id, max_dmbs: 16, max_dmb_len: 1 << 20 }
    }

    fn poll(&self) -> Result<Option<PortEvent>> {
        if self.waiting.swap(0, Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Some(PortEvent::Software { gid: [8; 16], code: 0, info: 0 }))
    }

    fn arm(&self) -> Result<bool> {
        self.waiting.store(1, Ordering::Relaxed);
        Ok(false)
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn drain(&self) {}

    fn query(&self, _: Gid, _: Option<u16>) -> Result<()> {
        Err(Error::Gone)
    }

    fn register(&self, _: &Wanted) -> Result<Registered> {
        Err(Error::Gone)
    }

    fn unregister(&self, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn attach(&self, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn detach(&self, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn forget(&self, _: Gid, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn send_event(&self, _: Gid, _: u32, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn post(&self, _: &Post) -> Result<u32> {
        Err(Error::Gone)
    }

    fn ring(&self, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn bell(&self, _: Gid) -> Result<Option<OwnedFd>> {
        Ok(None)
    }
}

#[test]
fn who_dispatches_for_a_sleeper_takes_what_was_there_and_comes_to_an_end() {
    let port = Restless::default();
    let taken = Arc::clone(&port.taken);
    let stack = Stack::new(Device::new(Box::new(port)).unwrap(), &Config::default()).unwrap();
    let (done, is_done) = channel();
    thread::spawn(move || {
        // Counts as one that sleeps.
        stack.never_silence();
        stack.dispatch();
        assert!(!stack.prepare_sleep());
        done.send(()).unwrap();
    });
    is_done.recv_timeout(LONG).unwrap();
    assert_eq!(taken.load(Ordering::Relaxed), 3, "what was there at each of the three");
}
