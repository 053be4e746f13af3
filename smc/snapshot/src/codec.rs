// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Records as lines, and lines as a snapshot.
//!
//! Invariant: what the decoder holds is at most [`MAX_LINE`] bytes of a line that is not whole, and
//! [`MAX_RECORDS`], or as many as it was made for, however few bytes each takes.

use std::fmt;

use smc_proto::stats::Stats;

use crate::VERSION;
use crate::record::{Connection, Device, Fallback, Group, Process, Record};

/// Bytes of the longest line.
pub const MAX_LINE: usize = 8 << 10;
/// Bytes of the longest snapshot: 65 536 connections, with all that can be said of each.
pub const MAX_BYTES: usize = 64 << 20;
/// Records of the longest snapshot: these connections, link groups, and reasons.
pub const MAX_RECORDS: usize = 80_000;

/// What a process has told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Who.
    pub process: Process,
    /// Its device, if it has one.
    pub device: Option<Device>,
    /// Its link groups.
    pub groups: Vec<Group>,
    /// Its connections.
    pub connections: Vec<Connection>,
    /// Its counters.
    pub stats: Stats,
    /// Why connections fell back.
    pub fallbacks: Vec<Fallback>,
}

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// The line of this number is longer than [`MAX_LINE`].
    Line(usize),
    /// It is longer than [`MAX_BYTES`].
    Bytes,
    /// There are more records than this.
    Records(usize),
    /// The line of this number is no record.
    Record(usize, String),
    /// The first line is not [`Record::Process`], or a later one is.
    Order,
    /// It is of this version, which means something else.
    Version(u32),
    /// The end is missing.
    Cut,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number} has more than {MAX_LINE} bytes"),
            Self::Bytes => write!(f, "it is longer than {MAX_BYTES} bytes"),
            Self::Records(most) => write!(f, "it has more than {most} records"),
            Self::Record(number, why) => write!(f, "line {number} is no record: {why}"),
            Self::Order => write!(f, "it does not begin with one record of the process"),
            Self::Version(version) => {
                write!(f, "it is of version {version}, and this program knows {VERSION}")
            }
            Self::Cut => write!(f, "its end is missing"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Makes lines of records.
#[derive(Debug, Default)]
pub struct Encoder {
    text: Vec<u8>,
    total: usize,
    records: usize,
}

impl Encoder {
    /// Appends a record; false, and nothing is appended, if it is one too many.
    pub fn push(&mut self, record: &Record) -> bool {
        // A line for the end has to fit too.
        const END: usize = 64;
        let ends = matches!(record, Record::End);
        if self.records >= if ends { MAX_RECORDS } else { MAX_RECORDS - 1 } {
            return false;
        }
        let before = self.text.len();
        let written = serde_json::to_writer(&mut self.text, record).is_ok();
        self.text.push(b'\n');
        let len = self.text.len() - before;
        let room = if ends { MAX_BYTES } else { MAX_BYTES - END };
        if !written || len > MAX_LINE || self.total + len > room {
            self.text.truncate(before);
            return false;
        }
        self.total += len;
        self.records += 1;
        true
    }

    /// Bytes that wait to be taken.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes what was appended so far.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }
}

/// Makes a snapshot of bytes as they come.
#[derive(Debug)]
pub struct Decoder {
    room: usize,
    line: Vec<u8>,
    lines: usize,
    total: usize,
    began: bool,
    ended: bool,
    snapshot: Snapshot,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_room_for(MAX_RECORDS)
    }
}

impl Decoder {
    /// For a snapshot of at most so many records, and of [`MAX_RECORDS`] in any case.
    pub fn with_room_for(records: usize) -> Self {
        Self {
            room: records.min(MAX_RECORDS),
            line: Vec::new(),
            lines: 0,
            total: 0,
            began: false,
            ended: false,
            snapshot: Snapshot::default(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are not those of a snapshot.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.total = self.total.saturating_add(bytes.len());
        if self.total > MAX_BYTES {
            return Err(Malformed::Bytes);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if self.line.len() + text.len() >= MAX_LINE {
                return Err(Malformed::Line(self.lines + 1));
            }
            self.line.extend_from_slice(text);
            if whole {
                self.lines += 1;
                if self.lines > self.room {
                    return Err(Malformed::Records(self.room));
                }
                let line = std::mem::take(&mut self.line);
                self.take(&line)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let wrong = |error: serde_json::Error| Malformed::Record(self.lines, error.to_string());
        let record: Record = serde_json::from_slice(line).map_err(wrong)?;
        if matches!(record, Record::Process(_)) == self.began || self.ended {
            return Err(Malformed::Order);
        }
        self.began = true;
        match record {
            Record::Process(process) if process.version != VERSION => {
                return Err(Malformed::Version(process.version));
            }
            Record::Process(process) => self.snapshot.process = process,
            Record::Device(device) => self.snapshot.device = Some(device),
            Record::Group(group) => self.snapshot.groups.push(group),
            Record::Connection(connection) => self.snapshot.connections.push(*connection),
            Record::Stats(stats) => self.snapshot.stats = *stats,
            Record::Fallback(fallback) => self.snapshot.fallbacks.push(fallback),
            Record::End => self.ended = true,
            Record::Unknown => {}
        }
        Ok(())
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// Not where it should.
    pub fn finish(self) -> Result<Snapshot, Malformed> {
        if self.ended && self.line.is_empty() { Ok(self.snapshot) } else { Err(Malformed::Cut) }
    }
}
