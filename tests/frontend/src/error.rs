// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong between a driver and its device.
//!
//! Invariant: a device's refusal ([`Error::Status`]) is never mixed up with a broken connection.

use std::fmt;
use std::io;

/// A failed operation of this crate.
#[derive(Debug)]
pub enum Error {
    /// The device answered with a status other than OK (`ism_abi::status`).
    Status(u32),
    /// A system call failed.
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The vhost-user connection failed or the daemon refused a message.
    Protocol {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: vhost::Error,
    },
    /// An access reaches past the end of the memory.
    OutOfBounds {
        /// First byte.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes there are.
        size: u64,
    },
    /// Nothing is mapped at this place of the window.
    NotMapped {
        /// Place in the window, in bytes.
        offset: u64,
        /// Bytes asked for.
        len: u64,
    },
    /// The guest's RAM has no free block of this many bytes.
    NoRam(u64),
    /// All descriptors of a queue are in flight.
    RingFull,
    /// The device broke a rule of the specification.
    Device(String),
    /// Nothing came until the deadline.
    Timeout(&'static str),
}

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the system call's purpose.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// Names a `rustix` call's purpose.
    pub(crate) fn os(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::Io { what, source: source.into() }
    }

    /// Names the vhost-user message.
    pub(crate) fn message(what: &'static str) -> impl FnOnce(vhost::Error) -> Self {
        move |source| Self::Protocol { what, source }
    }

    /// The device's status, if that is what this is.
    pub fn status(&self) -> Option<u32> {
        match self {
            Self::Status(status) => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the device answered with status {status}"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Protocol { what, source } => write!(f, "vhost-user {what}: {source}"),
            Self::OutOfBounds { offset, len, size } => {
                write!(f, "{len} bytes at {offset:#x} are not inside {size:#x} bytes of memory")
            }
            Self::NotMapped { offset, len } => {
                write!(f, "no mapping holds {len} bytes at {offset:#x} of the window")
            }
            Self::NoRam(len) => write!(f, "no free block of {len} bytes in the guest's RAM"),
            Self::RingFull => write!(f, "all descriptors of the queue are in flight"),
            Self::Device(what) => write!(f, "the device broke the specification: {what}"),
            Self::Timeout(what) => write!(f, "no {what} until the deadline"),
        }
    }
}

impl std::error::Error for Error {}
