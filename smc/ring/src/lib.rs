// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that is shared with a peer: the only unsafe code of the SMC stack that touches it.
//!
//! Invariant: whatever the peer writes, and whenever, costs wrong *values* and nothing else. No
//! reference to shared bytes exists; they are copied, or are atomic words.
//!
//! | Module | What |
//! |---|---|
//! | [`mapping`] | memory files: made sealed, or refused if they could shrink; mapped |
//! | [`view`] | a part of a mapping: copies in and out, zeroing, atomic words |
//! | `ahead` | a copy of what another core has just written |
//! | `past` | a copy past the caches, for cores that have none in common |
//! | [`ring`] | a DMB's ring: copies that go on at its start |
//! | [`area`] | the CDC area before the ring: both cursors, and who looks |
//! | [`lock`] | a lock between processes, which outlives its holders |
//! | [`kept`] | a value that a process and its children change under that lock |
//! | [`signal_page`] | one direction of a pair's signals: who was written, and must the bell be rung |
//! | [`turn`] | work that one thread of this process does for all |
//!
//! # A message from one process to another
//! The sender copies the bytes into the peer's [`Ring`], then [`Area::publish`]es the cursor. If that
//! says so it [`raise`](SignalPage::raise)s the DMB's bit in the pair's signal page, and if that says
//! so it rings; or it wakes an owner that sleeps on the area itself. Between two that look by themselves a message is a copy, two stores, one barrier and
//! one load of the same cache line.
//!
//! # Rust's memory model
//! It says nothing about a second process. Bytes are moved by raw-pointer copies followed by a compiler
//! barrier, as memcpy in C would: what was copied is not read again from where the peer can
//! change it. Two threads of *one* process that use the same bytes are ordered by the cursors.

#[cfg(not(loom))]
mod ahead;
pub mod area;
#[cfg(not(loom))]
pub mod kept;
#[cfg(not(loom))]
pub mod lock;
#[cfg(not(loom))]
pub mod mapping;
#[cfg(not(loom))]
mod past;
#[cfg(not(loom))]
pub mod ring;
pub mod signal_page;
pub mod sync;
pub mod turn;
#[cfg(not(loom))]
pub mod view;

pub use area::{Area, AreaWords, Notice};
#[cfg(not(loom))]
pub use kept::{Kept, Place, Places, Plain};
#[cfg(not(loom))]
pub use mapping::{MapError, Mapping, memory_file};
#[cfg(not(loom))]
pub use ring::Ring;
pub use signal_page::{PageWords, SignalPage};
pub use turn::Turn;
#[cfg(not(loom))]
pub use view::{Memory, OutOfBounds, View};
