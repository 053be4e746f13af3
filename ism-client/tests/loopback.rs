// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The conformance suite on the fabric within the process.
//!
//! Invariant: what the suite leaves over would be found by the next case: the fabric is a new one each time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU8, Ordering};

use ism_client::conformance::World;
use ism_client::loopback::Loopback;
use ism_client::{Device, conformance};

struct Local {
    fabric: Loopback,
    members: AtomicU8,
}

impl Local {
    fn new() -> Self {
        Self { fabric: Loopback::new(0xff01).unwrap(), members: AtomicU8::new(1) }
    }
}

impl World for Local {
    fn member(&self) -> Device {
        let n = self.members.fetch_add(1, Ordering::Relaxed);
        self.fabric.join([n; 16]).unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.fabric.totals(), (0, 0, 0), "pairs, memory files, DMBs");
        }
    }
}

conformance!(Local::new());
