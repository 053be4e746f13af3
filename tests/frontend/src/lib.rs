// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A member of the fabric without a VM: a vhost-user front-end with its own driver.
//!
//! Invariant: all that a guest or its VMM could do wrong can be done wrong here too, on purpose and
//! from safe code; only [`window`] maps memory.
//!
//! From the socket up: [`connection`] speaks vhost-user as QEMU does, [`channel`] answers the
//! daemon's map requests into the [`window`], [`memory`] is the guest's RAM with [`virtqueue`]s in
//! it, and [`driver`] is the device driver on top. [`daemon`] starts a daemon to talk to.

pub mod channel;
pub mod commands;
pub mod connection;
pub mod daemon;
pub mod driver;
pub mod error;
pub mod events;
pub mod memory;
pub mod raw;
pub mod signal_page;
pub mod virtqueue;
pub mod window;

pub use connection::{Connection, Options};
pub use daemon::{Daemon, Fabric};
pub use driver::{Driver, PATIENCE};
pub use error::{Error, Result};
pub use events::Event;
