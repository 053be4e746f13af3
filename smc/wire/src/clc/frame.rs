// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a CLC message ends in a TCP stream.
//!
//! Invariant: never asks for more bytes than one message has, so payload that follows the last
//! message stays in the socket (`smc_clc_wait_msg` peeks for the same reason).

use super::header::{Eyecatcher, HEADER, Header, Kind};
use crate::Error;
use crate::bytes::Reader;

/// Bytes of the longest message: a proposal with everything.
pub const MAX_MESSAGE: usize = 652;

/// What the bytes peeked so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// The beginning of a message: peek again when there are `need` bytes or more.
    More {
        /// Bytes from the message's first, the ones already there included.
        need: usize,
    },
    /// A whole message: take `len` bytes out of the stream and parse them.
    Message {
        /// Bytes of the message.
        len: usize,
    },
}

/// Says what the bytes peeked so far are.
///
/// A stream that does not begin with an eyecatcher is told from its first wrong byte, without waiting
/// for the header.
///
/// # Errors
/// [`Error::Field`] as soon as they cannot be a CLC message; then nothing is to be taken out of the
/// stream.
pub fn frame(peeked: &[u8]) -> Result<Frame, Error> {
    let Some(header) = peeked.get(..HEADER) else {
        return begins(peeked).map(|()| Frame::More { need: HEADER });
    };
    let (header, len) = Header::parse(&mut Reader::new("clc", header))?;
    let (min, max, allowed) = lengths(header.kind);
    if len < min || len > max {
        return Err(Error::Field { field: "clc.length", value: len as u64, allowed });
    }
    Ok(if peeked.len() < len { Frame::More { need: len } } else { Frame::Message { len } })
}

/// Checks fewer bytes than the header has.
fn begins(peeked: &[u8]) -> Result<(), Error> {
    let matching = |e: Eyecatcher| e.bytes().iter().zip(peeked).take_while(|(a, b)| a == b).count();
    let matched = matching(Eyecatcher::Smcr).max(matching(Eyecatcher::Smcd));
    match peeked.get(matched) {
        Some(&byte) if matched < 4 => {
            let allowed = "an eyecatcher: E2 D4 C3, then D9 or C4";
            Err(Error::Field { field: "clc.eyecatcher", value: byte.into(), allowed })
        }
        _ => Ok(()),
    }
}

/// A message's shortest and longest length, and both in words.
fn lengths(kind: Kind) -> (usize, usize, &'static str) {
    match kind {
        Kind::Proposal => (52, MAX_MESSAGE, "52 to 652 in a proposal"),
        Kind::Accept => (48, 160, "48 to 160 in an accept"),
        Kind::Confirm => (48, 292, "48 to 292 in a confirm"),
        Kind::Decline => (28, 44, "28 to 44 in a decline"),
    }
}
