// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What host and guest say to one another: the content of a frame.
//!
//! Invariant: decoding never panics and accepts exactly what encoding produces, nothing after it.
//!
//! A content is one byte for the kind and the fields in order; numbers are little-endian, byte
//! strings carry a u32 length, lists a u32 count. Commands are told apart by a number that the
//! host chooses, unique within its session.

use std::fmt;

/// The protocol's version; both sides must have the same.
pub const VERSION: u32 = 1;

/// Bytes of standard input the host may send ahead of the guest's [`ToHost::StdinTaken`].
pub const STDIN_WINDOW: usize = 256 * 1024;

/// The largest piece of input or output carried in one message, in bytes.
pub const MAX_PIECE: usize = 32 * 1024;

/// A command to run in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The program, looked up in `PATH`, and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Variables added to the agent's own environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Input will follow as [`ToGuest::Stdin`]; otherwise the command reads an empty input.
    pub stdin: bool,
    /// The command outlives the session, without input or output, and its end is not reported.
    pub detach: bool,
}

/// From the host to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGuest {
    /// Begins a session and ends the one before it with all its commands.
    Hello {
        /// The host's [`VERSION`].
        version: u32,
        /// Random: tells this session's [`ToHost::Welcome`] from an older one's.
        nonce: u64,
    },
    /// Runs a command under the number `id`.
    Run {
        /// The command's number, chosen by the host.
        id: u32,
        /// What to run.
        request: Request,
    },
    /// The next bytes of a command's standard input.
    Stdin {
        /// The command's number.
        id: u32,
        /// At most [`MAX_PIECE`] bytes, and no more in flight than [`STDIN_WINDOW`].
        data: Vec<u8>,
    },
    /// The end of a command's standard input.
    StdinEnd {
        /// The command's number.
        id: u32,
    },
    /// Sends a signal to a command and the processes of its group.
    Kill {
        /// The command's number.
        id: u32,
        /// The signal's number, for instance 9.
        signal: i32,
    },
}

/// Which of a command's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status (0 to 255).
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// True for exit status 0.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// The status a shell reports: 128 + n for signal n.
    pub fn shell_status(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128_i32.saturating_add(signal),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// From the guest to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHost {
    /// The session of this nonce has begun; everything before it belongs to an older one.
    Welcome {
        /// The guest's [`VERSION`].
        version: u32,
        /// The nonce of the [`ToGuest::Hello`] it answers.
        nonce: u64,
    },
    /// The command runs.
    Started {
        /// The command's number.
        id: u32,
        /// Its process id in the guest.
        pid: u32,
    },
    /// The next bytes of a command's output.
    Output {
        /// The command's number.
        id: u32,
        /// Which output.
        stream: Stream,
        /// At most [`MAX_PIECE`] bytes.
        data: Vec<u8>,
    },
    /// The command took (or its end discarded) this much of its input.
    StdinTaken {
        /// The command's number.
        id: u32,
        /// In bytes.
        bytes: u32,
    },
    /// The command ended; nothing follows under its number.
    Exited {
        /// The command's number.
        id: u32,
        /// How it ended.
        exit: Exit,
    },
    /// The command could not be started; nothing follows under its number.
    Refused {
        /// The command's number.
        id: u32,
        /// Why, for a person.
        reason: String,
    },
}

/// A content that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends before its fields do.
    Short,
    /// Bytes follow its last field.
    Trailing,
    /// No message has this kind.
    Kind(u8),
    /// A field has a value outside its range.
    Value,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Short => write!(f, "the message ends before its fields do"),
            DecodeError::Trailing => write!(f, "bytes follow the message's last field"),
            DecodeError::Kind(kind) => write!(f, "no message has the kind {kind}"),
            DecodeError::Value => write!(f, "a field's value is outside its range"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl ToGuest {
    /// The content to put into a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToGuest::Hello { version, nonce } => Writer::new(1).u32(*version).u64(*nonce),
            ToGuest::Run { id, request } => Writer::new(2).u32(*id).request(request),
            ToGuest::Stdin { id, data } => Writer::new(3).u32(*id).bytes(data),
            ToGuest::StdinEnd { id } => Writer::new(4).u32(*id),
            ToGuest::Kill { id, signal } => Writer::new(5).u32(*id).i32(*signal),
        }
        .content
    }

    /// The message in a frame's content.
    pub fn decode(content: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader { rest: content };
        let message = match reader.u8()? {
            1 => ToGuest::Hello { version: reader.u32()?, nonce: reader.u64()? },
            2 => ToGuest::Run { id: reader.u32()?, request: reader.request()? },
            3 => ToGuest::Stdin { id: reader.u32()?, data: reader.bytes()? },
            4 => ToGuest::StdinEnd { id: reader.u32()? },
            5 => ToGuest::Kill { id: reader.u32()?, signal: reader.i32()? },
            kind => return Err(DecodeError::Kind(kind)),
        };
        reader.end(message)
    }
}

impl ToHost {
    /// The content to put into a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToHost::Welcome { version, nonce } => Writer::new(1).u32(*version).u64(*nonce),
            ToHost::Started { id, pid } => Writer::new(2).u32(*id).u32(*pid),
            ToHost::Output { id, stream, data } => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                Writer::new(3).u32(*id).u8(stream).bytes(data)
            }
            ToHost::StdinTaken { id, bytes } => Writer::new(4).u32(*id).u32(*bytes),
            ToHost::Exited { id, exit } => {
                let (kind, number) = match exit {
                    Exit::Code(code) => (0, *code),
                    Exit::Signal(signal) => (1, *signal),
                };
                Writer::new(5).u32(*id).u8(kind).i32(number)
            }
            ToHost::Refused { id, reason } => Writer::new(6).u32(*id).bytes(reason.as_bytes()),
        }
        .content
    }

    /// The message in a frame's content.
    pub fn decode(content: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader { rest: content };
        let message = match reader.u8()? {
            1 => ToHost::Welcome { version: reader.u32()?, nonce: reader.u64()? },
            2 => ToHost::Started { id: reader.u32()?, pid: reader.u32()? },
            3 => ToHost::Output {
                id: reader.u32()?,
                stream: match reader.u8()? {
                    1 => Stream::Stdout,
                    2 => Stream::Stderr,
                    _ => return Err(DecodeError::Value),
                },
                data: reader.bytes()?,
            },
            4 => ToHost::StdinTaken { id: reader.u32()?, bytes: reader.u32()? },
            5 => ToHost::Exited {
                id: reader.u32()?,
                exit: match reader.u8()? {
                    0 => Exit::Code(reader.i32()?),
                    1 => Exit::Signal(reader.i32()?),
                    _ => return Err(DecodeError::Value),
                },
            },
            6 => ToHost::Refused {
                id: reader.u32()?,
                reason: String::from_utf8(reader.bytes()?).map_err(|_| DecodeError::Value)?,
            },
            kind => return Err(DecodeError::Kind(kind)),
        };
        reader.end(message)
    }
}

struct Writer {
    content: Vec<u8>,
}

impl Writer {
    fn new(kind: u8) -> Self {
        Writer { content: vec![kind] }
    }

    fn u8(mut self, value: u8) -> Self {
        self.content.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.content.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn i32(mut self, value: i32) -> Self {
        self.content.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.content.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A count or length. Contents are far below 4 GiB ([`crate::frame::MAX_CONTENT`]); a larger
    /// one would be refused by the decoder.
    fn count(self, count: usize) -> Self {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let mut writer = self.count(bytes.len());
        writer.content.extend_from_slice(bytes);
        writer
    }

    fn request(self, request: &Request) -> Self {
        let mut writer = self.u8(u8::from(request.stdin)).u8(u8::from(request.detach));
        writer = writer.count(request.argv.len());
        for argument in &request.argv {
            writer = writer.bytes(argument);
        }
        writer = writer.count(request.env.len());
        for (name, value) in &request.env {
            writer = writer.bytes(name).bytes(value);
        }
        writer
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Value),
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = usize::try_from(self.u32()?).map_err(|_| DecodeError::Value)?;
        self.take(length).map(<[u8]>::to_vec)
    }

    fn request(&mut self) -> Result<Request, DecodeError> {
        let mut request =
            Request { stdin: self.bool()?, detach: self.bool()?, ..Request::default() };
        // Nothing is reserved by a count: each element must be there to be pushed.
        for _ in 0..self.u32()? {
            request.argv.push(self.bytes()?);
        }
        for _ in 0..self.u32()? {
            request.env.push((self.bytes()?, self.bytes()?));
        }
        Ok(request)
    }

    fn end<M>(self, message: M) -> Result<M, DecodeError> {
        if self.rest.is_empty() { Ok(message) } else { Err(DecodeError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_guest() -> Vec<ToGuest> {
        let request = Request {
            argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"\0\xff".to_vec(), vec![]],
            env: vec![(b"A".to_vec(), b"b=c".to_vec())],
            stdin: true,
            detach: false,
        };
        vec![
            ToGuest::Hello { version: VERSION, nonce: u64::MAX - 1 },
            ToGuest::Run { id: 7, request },
            ToGuest::Run { id: 8, request: Request { detach: true, ..Request::default() } },
            ToGuest::Stdin { id: 1, data: vec![0; MAX_PIECE] },
            ToGuest::StdinEnd { id: 2 },
            ToGuest::Kill { id: 3, signal: -9 },
        ]
    }

    fn to_host() -> Vec<ToHost> {
        vec![
            ToHost::Welcome { version: VERSION, nonce: 1 << 63 },
            ToHost::Started { id: 1, pid: 4_000_000_000 },
            ToHost::Output { id: 1, stream: Stream::Stdout, data: b"out".to_vec() },
            ToHost::Output { id: 1, stream: Stream::Stderr, data: vec![] },
            ToHost::StdinTaken { id: 1, bytes: 3 },
            ToHost::Exited { id: 1, exit: Exit::Code(255) },
            ToHost::Exited { id: 1, exit: Exit::Signal(9) },
            ToHost::Refused { id: 1, reason: "no such file – sorry".into() },
        ]
    }

    #[test]
    fn messages_come_back_as_they_went() {
        for message in to_guest() {
            assert_eq!(ToGuest::decode(&message.encode()), Ok(message));
        }
        for message in to_host() {
            assert_eq!(ToHost::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn every_shortening_and_lengthening_is_refused() {
        for content in to_guest().iter().map(ToGuest::encode) {
            for cut in 0..content.len() {
                assert!(ToGuest::decode(&content[..cut]).is_err());
            }
            let longer = [&content[..], &[0]].concat();
            assert_eq!(ToGuest::decode(&longer), Err(DecodeError::Trailing));
        }
        for content in to_host().iter().map(ToHost::encode) {
            for cut in 0..content.len() {
                assert!(ToHost::decode(&content[..cut]).is_err());
            }
            let longer = [&content[..], &[0]].concat();
            assert_eq!(ToHost::decode(&longer), Err(DecodeError::Trailing));
        }
    }

    #[test]
    fn a_huge_count_costs_nothing() {
        let content = [&[2, 0, 0, 0, 0, 0, 0][..], &[0xff; 4]].concat();
        assert_eq!(ToGuest::decode(&content), Err(DecodeError::Short));
    }

    #[test]
    fn signals_are_reported_as_shells_do() {
        assert_eq!(Exit::Code(3).shell_status(), 3);
        assert_eq!(Exit::Signal(9).shell_status(), 137);
    }
}
