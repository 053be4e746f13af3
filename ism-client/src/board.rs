// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fabric's board: entries about connections of which a member knows one end.
//!
//! Invariant: an entry of a kind that is not known is nobody's.
//!
//! What a key is, and how two ends meet, is `smc-discovery`'s affair; the fabric compares keys.

use ism_abi::{BoardEntry, BoardPostRequest, Gid, board};

/// What entries are about: the connection, or where it is to go.
pub type Key = [u8; 60];

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// An end of a connection is here.
    Announce {
        /// Which of the two, 0 or 1.
        side: u8,
    },
    /// An end agrees to meet another.
    Accept {
        /// The other's number.
        other: u64,
    },
    /// An end, a listener or a caller is not here any more.
    Leave,
    /// A listener wants to know who is about to connect.
    Listen,
    /// A caller is about to connect.
    Call,
}

/// An entry to be posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post {
    /// What it is about.
    pub key: Key,
    /// Whom: a number of the poster's choice, which none of its others has.
    pub id: u64,
    /// What it says.
    pub note: Note,
}

/// An entry, as one who is on the board is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The own end or listener that reads it.
    pub reader: u64,
    /// Its number among the entries about its key's ends.
    pub number: u64,
    /// Who posted it, as the fabric knows it.
    pub from: Gid,
    /// Whom it is about.
    pub id: u64,
    /// What it says.
    pub note: Note,
}

impl Post {
    pub(crate) fn to_request(self) -> BoardPostRequest {
        let (kind, side, other) = match self.note {
            Note::Announce { side } => (board::ANNOUNCE, side, 0),
            Note::Accept { other } => (board::ACCEPT, 0, other),
            Note::Leave => (board::LEAVE, 0, 0),
            Note::Listen => (board::LISTEN, 0, 0),
            Note::Call => (board::CALL, 0, 0),
        };
        BoardPostRequest { key: self.key, kind, side, reserved: [0; 2], id: self.id, other }
    }
}

impl Told {
    pub(crate) fn from_entry(entry: &BoardEntry) -> Option<Self> {
        let note = match (entry.kind, entry.side) {
            (board::ANNOUNCE, side @ (0 | 1)) => Note::Announce { side },
            (board::ACCEPT, _) => Note::Accept { other: entry.other },
            (board::LEAVE, _) => Note::Leave,
            (board::CALL, _) => Note::Call,
            _ => return None,
        };
        let BoardEntry { reader, number, gid: from, id, .. } = *entry;
        Some(Self { reader, number, from, id, note })
    }
}
