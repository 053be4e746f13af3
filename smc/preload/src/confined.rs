// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process that shuts itself in by seccomp, as OpenSSH's servers do before anybody has logged in.
//!
//! Invariant: from there on connections that are established need nothing of the kernel but read, write, poll
//! (of one descriptor, if need be), futex and the time.
//!
//! What a filter lets through is not known here, and a handshake needs more than that: so those that go on are
//! finished before.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use smc_socket::few;

use crate::table::{self, File};

/// How long handshakes may take altogether to end before.
const PATIENCE: Duration = Duration::from_millis(250);

/// The process is about to be shut in; whether it was before. (A filter is a thread's, but what a process with
/// threads may do is what the least of them may.)
pub(crate) fn begins() -> bool {
    let end = Instant::now() + PATIENCE;
    for file in table::known(0, c_int::MAX).filter_map(table::get) {
        if let File::Sock(sock) = &*file {
            // It may not end in time; then the filter decides.
            let _ = sock.finish(&file, Some(end.saturating_duration_since(Instant::now())));
        }
    }
    few::confine(true)
}

/// It was not, but as it was `before`.
pub(crate) fn failed(before: bool) {
    few::confine(before);
}
