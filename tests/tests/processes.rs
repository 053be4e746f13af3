// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host processes as members: the conformance suite through a daemon.
//!
//! Invariant tested: what the loopback does, the daemon does too, and nothing is left over in it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ism_client::conformance::World;
use ism_client::{Device, conformance, vhost};
use ism_frontend::{Daemon, Fabric};
use ism_tests::fabric::eventually;

struct Host(Daemon);

impl Host {
    fn new() -> Self {
        Self(Fabric::new().processes("apps", "").start().unwrap())
    }
}

impl World for Host {
    fn member(&self) -> Device {
        vhost::join(&self.0.socket("apps")).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let stats = || {
                let output = self.0.ctl(&["stats"]).unwrap();
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            eventually("the end of all members", || {
                stats().contains(": 0 VMs, 0 pairs, 0 memory files, 0 DMBs")
            });
        }
    }
}

conformance!(Host::new());
