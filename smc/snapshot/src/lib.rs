// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a process under `smc-run` tells of itself, for `smcss` and `smcd`: records, and their text.
//!
//! Invariant: no I/O. Whatever bytes come, [`Decoder`] gives records or an error, in bounded memory.
//!
//! # The protocol
//! The process listens on the abstract socket of [`address`]; who connects gets one [`Record`] of JSON a
//! line, first [`Record::Process`], last [`Record::End`], and then the end of the stream. Nothing is read
//! from who asks. A reader skips records and fields that it does not know, and takes 0 or nothing for
//! fields that are not there; a change of what a field means raises [`VERSION`].

#![forbid(unsafe_code)]

mod codec;
pub mod reason;
mod record;

pub use codec::{Decoder, Encoder, MAX_BYTES, MAX_LINE, MAX_RECORDS, Malformed, Snapshot};
pub use record::{
    Carrier, Connection, Cursors, Device, Fallback, Gid, Group, Joined, Process, Record, Role, Smcd,
};
pub use smc_proto::stats::Stats;

/// The version of the records' meaning.
pub const VERSION: u32 = 1;

/// What all abstract addresses begin with; there is a NUL before it.
pub const PREFIX: &str = "smc-user/";

/// The abstract address of the process `pid`, without the NUL before it. `distinct` is what tells it from
/// another with the same number in another PID namespace.
pub fn address(pid: u32, distinct: u64) -> String {
    format!("{PREFIX}{pid}.{distinct:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_begins_with_the_prefix_and_fits_a_sockaddr() {
        let longest = address(u32::MAX, u64::MAX);
        assert!(longest.starts_with(PREFIX) && longest.len() < 107, "{longest}");
    }
}
