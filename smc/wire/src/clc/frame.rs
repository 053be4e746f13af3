// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a CLC message ends in a TCP stream.
//!
//! Invariant: never asks for more bytes than one message has, so payload that follows the last
//! message stays in the socket (`smc_clc_wait_msg` peeks for the same reason).

use crate::Error;

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
/// # Errors
/// [`Error::Field`] as soon as they cannot be a CLC message; then nothing is to be taken out of the
/// stream.
pub fn frame(peeked: &[u8]) -> Result<Frame, Error> {
    let _ = peeked;
    Ok(Frame::More { need: 8 })
}
