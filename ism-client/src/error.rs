// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong between a process and its fabric.
//!
//! Invariant: a refusal, after which all is as before, is never mixed up with a device that is gone.

use std::io;

use ism_abi::status;
use smc_ring::{MapError, OutOfBounds};

/// What is tried when a connection to the daemon's socket is made.
pub(crate) const DOOR: &str = "connecting to the daemon's door";

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device answered with a status other than OK (`ism_abi::status`).
    #[error("{what}: {}", words(*.status))]
    Refused {
        /// The request.
        what: &'static str,
        /// The status.
        status: u32,
    },
    /// The daemon does not let this process in.
    #[error("the daemon at {socket} refuses this process: {reason}")]
    NotAdmitted {
        /// The daemon's socket.
        socket: String,
        /// One of `ism_abi::door`'s codes.
        code: u8,
        /// Why, in the daemon's words.
        reason: String,
    },
    /// The token names no DMB that this member may write.
    #[error("token {0:#x} names no DMB that this member may write")]
    NoToken(u64),
    /// All DMB indices are in use.
    #[error("all {0} DMBs of this member are in use")]
    NoIndex(u32),
    /// The device is gone: the daemon died, or removed this member.
    #[error("the ISM device is gone")]
    Gone,
    /// The device did not answer in time.
    #[error("{0}: no answer from the ISM device in time")]
    Timeout(&'static str),
    /// The device did what its specification forbids.
    #[error("the ISM device broke its specification: {0}")]
    Device(String),
    /// Memory that the device gave cannot be used.
    #[error(transparent)]
    Memory(#[from] MapError),
    /// A place that the device named is not in the memory that it gave.
    #[error("the ISM device named a place outside of its memory: {0}")]
    Place(#[from] OutOfBounds),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the purpose of a system call.
    pub(crate) fn io<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, source: source.into() }
    }

    /// The device's status, if it answered with one.
    pub fn status(&self) -> Option<u32> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What a user can do about a daemon that could not be joined; empty if the message says it, or nothing can be
    /// said.
    pub fn next_step(&self) -> &'static str {
        let Self::Io { what: DOOR, source } = self else { return "" };
        match source.kind() {
            // Also where a folder above it is closed, which the kernel does not tell apart.
            io::ErrorKind::PermissionDenied => {
                "this user may not use that socket: uids= or gids= of the daemon's --processes say who may \
                 (without them only the daemon's own user), and each of them must be able to enter its folder"
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "nobody listens there: start vhost-user-ism --processes first, or name its socket (SMC_SOCKET)"
            }
            _ => "",
        }
    }
}

/// A status in words.
fn words(code: u32) -> String {
    let known = match code {
        status::INVALID => "the device finds the request invalid",
        status::UNSUPPORTED => "the device does not know the request",
        status::UNREACHABLE => "no such member, or none that this one may talk to",
        status::NO_TOKEN => "no such token for this member",
        status::NO_SPACE => "a quota is used up, or no memory is left",
        status::IN_USE => "in use",
        status::WRONG_MODE => "the pair's data is copied by the device, which processes cannot use",
        status::BUSY => "too many requests; try again later",
        status::IO_ERROR => "memory could not be mapped, or the peer did not answer in time",
        status::NOT_READY => "the device was reset",
        _ => return format!("the device answered with status {code}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_is_not_asked_whether_somebody_listens() {
        let step_of =
            |what, kind: io::ErrorKind| Error::io(what)(io::Error::from(kind)).next_step();
        let step = |kind| step_of(DOOR, kind);
        assert!(step(io::ErrorKind::PermissionDenied).contains("uids="));
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
            assert!(step(kind).starts_with("nobody listens there"), "{kind}");
        }
        assert_eq!(step(io::ErrorKind::TimedOut), "");
        assert_eq!(step_of("mapping memory", io::ErrorKind::PermissionDenied), "");
        // The daemon's own words have the next step.
        let reason = "user 7 (group 7) is not let in; add it to uids=".to_owned();
        let refused = Error::NotAdmitted { socket: "/s".to_owned(), code: 1, reason };
        assert_eq!(refused.next_step(), "");
    }
}
