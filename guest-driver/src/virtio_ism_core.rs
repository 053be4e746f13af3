// SPDX-License-Identifier: GPL-2.0

//! The decisions of the virtio-ism driver: what to ask the device, where data and signals go,
//! when to look and when to sleep. Kernel objects and tables are in the C half (shim.h).
//!
//! Invariant: nothing read from the device, the window or a peer is used before it was copied
//! into a local value and checked, and no input leads to a panic. `unsafe` is confined to `ffi`,
//! `native`, `sync`, `memory` and `exports`.

#![deny(unsafe_code)]

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("signal pages are used in place, as 64-bit little-endian words");

/// Shared with the daemon, so not every item is used here.
#[allow(dead_code, unreachable_pub)]
#[path = "../../spec/abi/src/layout.rs"]
mod abi;

mod control;
mod copied;
mod counters;
mod device;
mod dmb;
mod early;
mod events;
#[allow(unsafe_code)] // The entry points that C calls.
mod exports;
#[allow(unsafe_code)] // The C half's prototypes.
mod ffi;
mod grants;
mod local;
#[allow(unsafe_code)] // Buffers for the device, and the window: raw memory behind bounds checks.
mod memory;
#[allow(unsafe_code)] // Safe methods over the C half's functions.
mod native;
mod peers;
mod poll;
mod reap;
mod send;
mod signal;
#[allow(unsafe_code)] // Data guarded by the C half's locks.
mod sync;
mod watchdog;
