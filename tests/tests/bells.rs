// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process without descriptors, and the bell that the daemon has for it.
//!
//! Invariant: one test, as limits are the process's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ism_client::vhost;
use ism_frontend::Fabric;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LEN: u32 = 16 << 10;

/// The daemon gives an end once.
#[test]
fn a_bell_that_could_not_be_received_is_had_later() {
    let daemon = Fabric::new().processes("apps", "").start().unwrap();
    let [owner, writer] = [(); 2].map(|()| vhost::join(&daemon.socket("apps")).unwrap());
    let first = owner.register(writer.gid(), LEN).unwrap();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limits }).unwrap();
    let without = writer.remote(first.token()).map(|remote| remote.has_bell());
    setrlimit(Resource::Nofile, limits).unwrap();
    assert!(!without.unwrap(), "there was a descriptor");
    let second = owner.register(writer.gid(), LEN).unwrap();
    assert!(writer.remote(second.token()).unwrap().has_bell());
}
