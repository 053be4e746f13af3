// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process's own limits.
//!
//! Invariant: no core file is ever written, because it would hold guests' memory.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Forbids core files, and allows as many descriptors as the system lets this process have.
///
/// # Errors
/// What setrlimit reports.
pub fn set() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    Ok(())
}
