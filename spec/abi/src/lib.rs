// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0

//! The virtio-ism device's layouts and numbers, as spec/virtio-ism.md states them.
//!
//! Invariant: this crate is data only. Every structure is a fixed run of little-endian fields
//! without padding, converted from and to bytes field by field, so no bytes from a guest or a
//! device are ever reinterpreted. The daemon and the kernel module compile these same files.

#![no_std]
#![forbid(unsafe_code)]

pub mod door;
pub mod layout;
pub use layout::*;
