// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a peer says of a handshake after this side has gone on as TCP.
//!
//! Invariant: takes at most one CLC message out of the stream, and only from its begin.

use smc_wire::clc::{Frame, Message, frame};

/// What may lie before the data of a connection that goes on as plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Nothing: all there is is the application's.
    Nothing,
    /// This side has declined, and the peer may have done so at the same time.
    Decline,
    /// This client has withdrawn its Proposal, and the server may have answered it meanwhile.
    Answer,
}

impl Late {
    /// Bytes to take out of the stream before the data: those of the message, or 0. `peeked` begins with
    /// the stream's next bytes and is not empty.
    ///
    /// `None` if they are the begin of what may be the message: look again when there are more. The peer
    /// sends it in one piece, so what is not whole after [`CLC_WAIT_SHORT`](super::CLC_WAIT_SHORT) is data.
    pub fn len_in(self, peeked: &[u8]) -> Option<usize> {
        if self == Self::Nothing {
            return Some(0);
        }
        let len = match frame(peeked) {
            Ok(Frame::More { .. }) => return None,
            Ok(Frame::Message { len }) => len,
            Err(_) => return Some(0),
        };
        let message = peeked.get(..len).map(Message::parse);
        let is_late = match message {
            Some(Ok(Message::Decline(_))) => true,
            Some(Ok(Message::Accept(_))) => self == Self::Answer,
            _ => false,
        };
        Some(if is_late { len } else { 0 })
    }
}
