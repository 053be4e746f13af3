// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! prctl, by which a process shuts itself in.
//!
//! Invariant: what this library needs of the kernel is asked for before.

use std::ffi::{c_int, c_ulong};

use super::quietly;
use crate::{confined, real};

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn prctl(
    what: c_int,
    second: c_ulong,
    third: c_ulong,
    fourth: c_ulong,
    fifth: c_ulong,
) -> c_int {
    let before = (what == libc::PR_SET_SECCOMP).then(|| quietly(confined::begins)).flatten();
    // SAFETY: the caller's arguments; those that were not given are not looked at.
    let result = unsafe { real::prctl(what, second, third, fourth, fifth) };
    if let Some(before) = before.filter(|_| result != 0) {
        quietly(|| confined::failed(before));
    }
    result
}
