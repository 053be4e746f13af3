// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! exec: the program may be one that this library will not be in.
//!
//! Invariant: nothing is changed for one that it will be in. posix_spawn, and execl and its kin, which have as many
//! arguments as one likes, are not seen.

use std::ffi::{CStr, c_char, c_int};

use super::quietly;
use crate::{passing, process, real};

type Strings = *const *const c_char;

unsafe extern "C" {
    static environ: Strings;
}

/// Before a program is executed with this environment.
///
/// # Safety
/// `environment` is null, or an array of strings that a null pointer ends.
unsafe fn executes(environment: Strings) {
    // Without a listener nobody proposes.
    // SAFETY: the caller's promise.
    if process::listens() && !unsafe { has_library(environment) } {
        quietly(passing::executes);
    }
}

/// Whether a program with this environment has this library, and may use it.
///
/// # Safety
/// As [`executes`].
unsafe fn has_library(environment: Strings) -> bool {
    let (mut is_loaded, mut next) = (false, environment);
    // SAFETY: the caller's promise.
    while let Some(string) = unsafe { next.as_ref() }.filter(|it| !it.is_null()) {
        // SAFETY: the caller's promise.
        let bytes = unsafe { CStr::from_ptr(*string) }.to_bytes();
        if let Some(libraries) = bytes.strip_prefix(b"LD_PRELOAD=") {
            is_loaded = libraries.windows(NAME.len()).any(|it| it == NAME);
        }
        if bytes == b"SMC_MODE=tcp" {
            return false;
        }
        // SAFETY: the array goes on until there is a null pointer.
        next = unsafe { next.add(1) };
    }
    is_loaded
}

/// What this library's file is called.
const NAME: &[u8] = b"libsmc_preload";

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: the caller's environment.
    unsafe { executes(envp) };
    // SAFETY: the caller's arguments.
    unsafe { real::execve(path, argv, envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the program does not change its environment now.
    let environment = unsafe { environ };
    // SAFETY: as above.
    unsafe { executes(environment) };
    // SAFETY: the caller's arguments.
    unsafe { real::execv(path, argv) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the program does not change its environment now.
    let environment = unsafe { environ };
    // SAFETY: as above.
    unsafe { executes(environment) };
    // SAFETY: the caller's arguments.
    unsafe { real::execvp(file, argv) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: the caller's environment.
    unsafe { executes(envp) };
    // SAFETY: the caller's arguments.
    unsafe { real::execvpe(file, argv, envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execveat(
    folder: c_int,
    path: *const c_char,
    argv: Strings,
    envp: Strings,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's environment.
    unsafe { executes(envp) };
    // SAFETY: the caller's arguments.
    unsafe { real::execveat(folder, path, argv, envp, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: the caller's environment.
    unsafe { executes(envp) };
    // SAFETY: the caller's arguments.
    unsafe { real::fexecve(fd, argv, envp) }
}
