// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A peer that ends while a DMB is registered for it.
//!
//! Invariant tested: nothing of it is left when the DMB is not, and the fabric is told so after that.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ism_abi::Gid;
use ism_client::board::Post;
use ism_client::port::{Identity, Port, PortEvent, Registered, Wanted};
use ism_client::{Device, Error, Event, Result};
use smc_ring::{Mapping, View};

const PEER: Gid = [8; 16];
const INSTANCE: u64 = 7;
const LEN: u32 = 16 << 10;

/// The peer's end is the first event behind the reply.
#[derive(Default)]
struct Ending {
    has_ended: AtomicBool,
    said: Arc<Mutex<Vec<&'static str>>>,
}

impl Ending {
    fn hear(&self, what: &'static str) -> Result<()> {
        self.said.lock().unwrap().push(what);
        Ok(())
    }
}

fn memory() -> View {
    View::new(Arc::new(Mapping::anonymous(LEN as usize).unwrap()))
}

impl Port for Ending {
    fn identity(&self) -> Identity {
        Identity { gid: [7; 16], fabric_id: 0xff01, max_dmbs: 16, max_dmb_len: 1 << 20 }
    }

    fn poll(&self) -> Result<Option<PortEvent>> {
        let ends = self.has_ended.swap(false, Ordering::Relaxed);
        Ok(ends.then_some(PortEvent::PeerGone { gid: PEER, instance: INSTANCE }))
    }

    fn arm(&self) -> Result<bool> {
        Ok(true)
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn drain(&self) {}

    fn query(&self, _: Gid, _: Option<u16>) -> Result<()> {
        Err(Error::Gone)
    }

    fn register(&self, _: &Wanted) -> Result<Registered> {
        self.has_ended.store(true, Ordering::Relaxed);
        Ok(Registered { token: 1, instance: INSTANCE, memory: memory(), page: memory() })
    }

    fn unregister(&self, _: u64) -> Result<()> {
        self.hear("unregister")
    }

    fn attach(&self, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn detach(&self, _: u64) -> Result<()> {
        Err(Error::Gone)
    }

    fn forget(&self, gid: Gid, instance: u64) -> Result<()> {
        assert_eq!((gid, instance), (PEER, INSTANCE));
        self.hear("forget")
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
        self.hear("bell")?;
        Ok(None)
    }
}

#[test]
fn a_peer_that_ends_before_the_reply_is_read_leaves_nothing() {
    let port = Ending::default();
    let said = Arc::clone(&port.said);
    let device = Device::new(Box::new(port)).unwrap();
    let dmb = device.register(PEER, LEN).unwrap();
    let mut events = Vec::new();
    device.poll(&mut events).unwrap();
    assert_eq!(events, [Event::PeerGone { gid: PEER }]);
    drop(dmb);
    device.poll(&mut events).unwrap();
    assert_eq!(device.counts(), (0, 0, 0));
    assert_eq!(*said.lock().unwrap(), ["unregister", "forget"]);
}
