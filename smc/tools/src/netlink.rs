// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Netlink messages and attributes (RFC 3549; include/uapi/linux/netlink.h), without I/O.
//!
//! Invariant: a length read from a message is checked against the bytes that are there before it
//! is used; numbers are in host byte order, as netlink has them.

use std::fmt;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP`: root and match.
pub const DUMP: u16 = 0x300;

/// `NLMSG_ERROR`: an error number, 0 for success.
pub const TYPE_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const TYPE_DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the table changed while it was dumped.
pub const DUMP_INTERRUPTED: u16 = 0x10;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_TYPE_MASK`: without the flags for nesting and byte order.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// Bytes that are no netlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A message or attribute says it is longer than what is there, or shorter than its header.
    Length,
    /// The attribute of this name and number is not there.
    Missing(&'static str, u16),
    /// The attribute of this number has a length its kind cannot have.
    Size(u16, usize),
    /// A fixed structure is shorter than it must be.
    Structure(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel's answer is malformed: ")?;
        match self {
            Malformed::Length => write!(f, "a length does not fit its message"),
            Malformed::Missing(name, number) => write!(f, "no {name} (attribute {number})"),
            Malformed::Size(number, size) => write!(f, "attribute {number} has {size} bytes"),
            Malformed::Structure(name) => write!(f, "{name} is too short"),
        }
    }
}

impl std::error::Error for Malformed {}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The message's type: a family's number, or one of `TYPE_*`.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the request it answers.
    pub sequence: u32,
    /// What follows its header.
    pub payload: &'a [u8],
}

/// The messages of a datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Of these bytes.
    pub fn new(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }

    fn take(&mut self) -> Result<Message<'a>, Malformed> {
        let rest = std::mem::take(&mut self.rest);
        let length = usize::try_from(u32_at(rest, 0)?).map_err(|_| Malformed::Length)?;
        let payload = rest.get(HEADER..length).ok_or(Malformed::Length)?;
        self.rest = rest.get(align(length)..).unwrap_or_default();
        Ok(Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            payload,
        })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() { None } else { Some(self.take()) }
    }
}

/// A list of attributes, checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    list: Vec<(u16, &'a [u8])>,
}

impl<'a> Attributes<'a> {
    /// Parses attributes one after another, each padded to four bytes.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut list = Vec::new();
        while !bytes.is_empty() {
            let length = usize::from(u16_at(bytes, 0)?);
            let kind = u16_at(bytes, 2)? & ATTRIBUTE_TYPE;
            list.push((kind, bytes.get(ATTRIBUTE_HEADER..length).ok_or(Malformed::Length)?));
            bytes = bytes.get(align(length)..).unwrap_or_default();
        }
        Ok(Attributes { list })
    }

    /// The attribute's content, if it is there.
    pub fn bytes(&self, number: u16) -> Option<&'a [u8]> {
        self.list.iter().find(|(kind, _)| *kind == number).map(|(_, content)| *content)
    }

    /// All contents under this number.
    pub fn all(&self, number: u16) -> impl Iterator<Item = &'a [u8]> {
        self.list.iter().filter(move |(kind, _)| *kind == number).map(|(_, content)| *content)
    }

    /// The unsigned number in an attribute, whatever its width: the kernel's comments say u8 or
    /// u16 where it puts u32, and `nla_put_uint` takes the width that the value needs.
    pub fn number(&self, number: u16) -> Result<Option<u64>, Malformed> {
        let Some(content) = self.bytes(number) else { return Ok(None) };
        let wrong = || Malformed::Size(number, content.len());
        let value = match content.len() {
            1 => content.first().map(|&byte| u64::from(byte)),
            2 => content.first_chunk().map(|bytes| u64::from(u16::from_ne_bytes(*bytes))),
            4 => content.first_chunk().map(|bytes| u64::from(u32::from_ne_bytes(*bytes))),
            8 => content.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)),
            _ => None,
        };
        value.map(Some).ok_or_else(wrong)
    }

    /// As [`Attributes::number`], for a number that must be there and fit `T`.
    pub fn require<T: TryFrom<u64>>(&self, name: &'static str, id: u16) -> Result<T, Malformed> {
        let value = self.number(id)?.ok_or(Malformed::Missing(name, id))?;
        T::try_from(value).map_err(|_| Malformed::Size(id, 8))
    }

    /// As [`Attributes::number`], 0 where an older kernel has no such counter.
    pub fn count(&self, number: u16) -> Result<u64, Malformed> {
        Ok(self.number(number)?.unwrap_or_default())
    }

    /// A string without the NUL and blanks at its end; empty if it is not there. Bytes that are
    /// no UTF-8 are replaced: they may come from a peer.
    pub fn text(&self, number: u16) -> String {
        let content = self.bytes(number).unwrap_or_default();
        let content = content.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(content).trim_end().to_owned()
    }

    /// The attributes in an attribute, none if it is not there.
    pub fn nested(&self, number: u16) -> Result<Attributes<'a>, Malformed> {
        Attributes::parse(self.bytes(number).unwrap_or_default())
    }

    /// As [`Attributes::nested`], for one that must be there.
    pub fn require_nested(
        &self,
        name: &'static str,
        number: u16,
    ) -> Result<Attributes<'a>, Malformed> {
        Attributes::parse(self.bytes(number).ok_or(Malformed::Missing(name, number))?)
    }
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message of this type and with these flags besides [`REQUEST`].
    pub fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]); // The kernel knows our port.
        Request { bytes }
    }

    /// Appends a family's own header, padded to four bytes.
    pub fn header(mut self, header: &[u8]) -> Self {
        self.append(header);
        self
    }

    /// Appends an attribute of at most 65 531 bytes; the rest of a longer one is cut off.
    pub fn attribute(mut self, number: u16, content: &[u8]) -> Self {
        let content = content.get(..usize::from(u16::MAX) - ATTRIBUTE_HEADER).unwrap_or(content);
        let length = u16::try_from(content.len() + ATTRIBUTE_HEADER).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&number.to_ne_bytes());
        self.append(content);
        self
    }

    fn append(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    /// The message's bytes with its length filled in.
    pub fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.first_chunk_mut() {
            *field = length.to_ne_bytes();
        }
        self.bytes
    }
}

/// Rounds up to netlink's alignment of four bytes.
fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, Malformed> {
    array_at(bytes, offset).map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, Malformed> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, Malformed> {
    array_at(bytes, offset).map(u64::from_ne_bytes)
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Malformed> {
    bytes.get(offset..).and_then(<[u8]>::first_chunk).copied().ok_or(Malformed::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_of_the_header_file() {
        let bytes = Request::new(0x10, ACK, 7).header(&[3, 1, 0, 0]).attribute(2, b"ab\0").finish();
        #[rustfmt::skip]
        let expected = [
            28, 0, 0, 0, 0x10, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            3, 1, 0, 0, // genlmsghdr
            7, 0, 2, 0, b'a', b'b', 0, 0, // nlattr, padded
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn messages_and_attributes_come_back() {
        let one = Request::new(1, 0, 5).attribute(1, &[1]).attribute(2, &[2, 0]).finish();
        let two = Request::new(3, 0, 6).finish();
        let datagram = [one, two].concat();
        let messages: Vec<_> = Messages::new(&datagram).collect::<Result<_, _>>().unwrap();
        assert_eq!(
            messages.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(),
            [(1, 5), (3, 6)]
        );
        let attributes = Attributes::parse(messages[0].payload).unwrap();
        assert_eq!(attributes.number(1), Ok(Some(1)));
        assert_eq!(attributes.number(2), Ok(Some(2)));
        assert_eq!(attributes.number(3), Ok(None));
    }

    #[test]
    fn numbers_have_any_width_but_no_other() {
        for (content, value) in [
            (&[9][..], Some(9)),
            (&[9, 1], Some(0x109)),
            (&[9, 0, 0, 1], Some(0x0100_0009)),
            (&[9, 0, 0, 0, 0, 0, 0, 1], Some(0x0100_0000_0000_0009)),
            (&[], None),
            (&[1, 2, 3], None),
            (&[0; 16], None),
        ] {
            let bytes = Request::new(0, 0, 0).attribute(5, content).finish();
            let found = Attributes::parse(&bytes[HEADER..]).unwrap().number(5);
            match value {
                Some(value) => assert_eq!(found, Ok(Some(value))),
                None => assert_eq!(found, Err(Malformed::Size(5, content.len()))),
            }
        }
    }

    #[test]
    fn texts_end_at_their_nul_and_lose_their_blanks() {
        let attribute = |content: &[u8]| {
            let bytes = Request::new(0, 0, 0).attribute(1, content).finish();
            Attributes::parse(&bytes[HEADER..]).unwrap().text(1)
        };
        assert_eq!(attribute(b"EID.1      \0"), "EID.1");
        assert_eq!(attribute(b"no end"), "no end");
        assert_eq!(attribute(b"a\0b"), "a");
        assert_eq!(attribute(b""), "");
        assert_eq!(attribute(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = Request::new(1, 0, 5).attribute(1, &[1, 2, 3, 4]).finish();
        for cut in 1..good.len() {
            assert_eq!(Messages::new(&good[..cut]).next(), Some(Err(Malformed::Length)), "{cut}");
        }
        for length in [0_u32, 1, 15, 25, u32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages::new(&bad).next(), Some(Err(Malformed::Length)), "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bad = good[HEADER..].to_vec();
            bad[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Attributes::parse(&bad), Err(Malformed::Length), "{length}");
        }
        for tail in 1..4 {
            assert_eq!(Attributes::parse(&good[HEADER..HEADER + tail]), Err(Malformed::Length));
        }
    }
}
