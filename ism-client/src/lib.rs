// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A host process as a member of an ISM fabric.
//!
//! Invariant: what a peer or the device does wrong is an error or a dead DMB here, never a panic; no
//! unsafe code: memory is [`smc_ring`]'s.
//!
//! | Module | What |
//! |---|---|
//! | [`driver`] | [`Device`]: what programs use. DMBs, signals, events, sleep |
//! | [`port`] | the trait below it: a member's way to its fabric |
//! | [`vhost`] | a port through the daemon: a vhost-user front-end within the process |
//! | [`loopback`] | a port within the process: a fabric of its own, for tests and for itself |
//! | [`board`] | entries about connections, for members that look for one another |
//! | [`bell`] | how a process wakes another without the daemon |
//! | [`own`] | descriptors that are not the program's |
//!
//! # Sleep
//! ```text
//! loop {
//!     device.poll(&mut events)?;              // memory only, no system call
//!     if !events.is_empty() { … }
//!     else if device.arm()? {                 // from here on somebody rings
//!         poll(device.fd(), …);               // or the application's own epoll
//!         device.woken();
//!     }
//! }
//! ```

//!
//! # Fork
//! A child has its parent's memory and descriptors, but is no member. What it can go on doing is in shared
//! memory: read own DMBs, write remote ones and ring the bells of other processes. Everything that asks the
//! fabric is [`Error::Gone`] there; a child that wants DMBs of its own joins as itself. Bells and signal pages
//! are one for both: who of the two is woken takes what is for the other, and has to pass it on. The
//! member lives until the last of them has let go of the daemon's socket (it is closed on exec).

#![forbid(unsafe_code)]

pub mod bell;
pub mod board;
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod driver;
pub mod error;
pub mod loopback;
pub mod own;
pub mod port;
pub mod vhost;

pub use driver::{Device, Dmb, Event, Remote};
pub use error::{Error, Result};
pub use port::Port;
