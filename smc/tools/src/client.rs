// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests to the kernel's SMC: generic netlink family `SMC_GEN_NETLINK` and sock_diag.
//!
//! Invariant: one request is under way at a time, and only answers with its number are taken.

use std::fmt;
use std::io;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use crate::eid::{Eid, Seid};
use crate::fallback::Fallbacks;
use crate::linkgroup::{Device, LinkGroup};
use crate::netlink::{
    ACK, Attributes, DUMP, DUMP_INTERRUPTED, Malformed, Message, Messages, Request, TYPE_DONE,
    TYPE_ERROR, array_at,
};
use crate::socket::Socket;
use crate::stats::{self, Stats};
use crate::system::System;

const FAMILY_NAME: &[u8] = b"SMC_GEN_NETLINK\0";
const FAMILY_VERSION: u8 = 1;

/// `GENL_ID_CTRL` and what asks it for a family's number (include/uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// `SOCK_DIAG_BY_FAMILY` (include/uapi/linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// The family's commands (enum "SMC_GENL_FAMILY commands").
mod command {
    pub(super) const GET_SYS_INFO: u8 = 1;
    pub(super) const GET_LGR_SMCD: u8 = 4;
    pub(super) const GET_DEV_SMCD: u8 = 5;
    pub(super) const GET_STATS: u8 = 7;
    pub(super) const GET_FBACK_STATS: u8 = 8;
    pub(super) const DUMP_UEID: u8 = 9;
    pub(super) const ADD_UEID: u8 = 10;
    pub(super) const REMOVE_UEID: u8 = 11;
    pub(super) const FLUSH_UEID: u8 = 12;
    pub(super) const DUMP_SEID: u8 = 13;
    pub(super) const ENABLE_SEID: u8 = 14;
    pub(super) const DISABLE_SEID: u8 = 15;
}

/// The largest datagram of a dump; the kernel's own bound is 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// How often a dump is repeated when the table changed meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// Why the kernel could not be asked.
#[derive(Debug)]
pub enum Error {
    /// The kernel has no SMC.
    NoSmc,
    /// The kernel has SMC, but not its sock_diag module.
    NoDiag,
    /// A system call failed; the text says which.
    Io(&'static str, io::Error),
    /// The kernel refused the request with this error.
    Refused(io::Error),
    /// The kernel's answer could not be understood.
    Malformed(Malformed),
    /// The table changed during every dump.
    Busy,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSmc => write!(
                f,
                "this kernel has no SMC: it does not know the netlink family SMC_GEN_NETLINK. It \
                 needs CONFIG_SMC (and since Linux 6.18 CONFIG_DIBS); if SMC is a module, \
                 modprobe smc"
            ),
            Error::NoDiag => write!(
                f,
                "this kernel cannot list SMC sockets: it needs CONFIG_SMC_DIAG; if that is a \
                 module, modprobe smc_diag"
            ),
            Error::Io(call, error) => write!(f, "netlink: {call}: {error}"),
            Error::Refused(error) => match error.raw_os_error() {
                Some(EPERM) => write!(f, "not permitted: this needs CAP_NET_ADMIN (root)"),
                _ => write!(f, "the kernel refused: {error}"),
            },
            Error::Malformed(error) => error.fmt(f),
            Error::Busy => write!(f, "the kernel's table changed during every attempt to read it"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Error::Malformed(error)
    }
}

const EPERM: i32 = Errno::PERM.raw_os_error();

impl Error {
    /// The kernel's error number, if it refused.
    pub fn refusal(&self) -> Option<Errno> {
        match self {
            Error::Refused(error) => Errno::from_io_error(error),
            _ => None,
        }
    }
}

/// A netlink socket of one protocol.
#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    sequence: u32,
}

impl Channel {
    fn open(protocol: rustix::net::Protocol) -> Result<Self, Error> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )
        .map_err(|error| Error::Io("socket", error.into()))?;
        Ok(Channel { socket, sequence: 0 })
    }

    /// Sends a request and gives each answer's payload to `take`. A dump ends with "done", any
    /// other request with its acknowledgement.
    ///
    /// `start` begins the request with the given sequence number and flags.
    fn ask(
        &mut self,
        flags: u16,
        start: impl Fn(u16, u32) -> Request,
        mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<Complete, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = start(flags, self.sequence).finish();
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &request, SendFlags::empty(), &kernel)
            .map_err(|error| Error::Io("sendto", error.into()))?;
        let mut buffer = vec![0; DATAGRAM];
        let mut complete = Complete::Yes;
        loop {
            for message in Messages::new(self.receive(&mut buffer)?) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue; // The rest of an earlier dump that was given up.
                }
                if message.flags & DUMP_INTERRUPTED != 0 {
                    complete = Complete::Interrupted;
                }
                match message.kind {
                    TYPE_ERROR | TYPE_DONE => return outcome(&message).map(|()| complete),
                    _ => take(message.payload)?,
                }
            }
        }
    }

    /// Receives one whole datagram.
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Error> {
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::TRUNC) {
                Ok((length, whole)) if whole <= length => {
                    return Ok(buffer.get(..length).unwrap_or_default());
                }
                Ok(_) => return Err(Error::Malformed(Malformed::Length)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Io("recv", error.into())),
            }
        }
    }

    /// Repeats a dump until it is of one piece.
    fn dump<T>(
        &mut self,
        start: impl Fn(u16, u32) -> Request,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let take = |payload: &[u8]| {
                found.push(parse(payload)?);
                Ok(())
            };
            if self.ask(DUMP, &start, take)? == Complete::Yes {
                return Ok(found);
            }
        }
        Err(Error::Busy)
    }
}

/// What the message that ends an answer says: it begins with 0 or a negative error number. An old
/// kernel's "done" is bare.
fn outcome(message: &Message<'_>) -> Result<(), Error> {
    match array_at(message.payload, 0).map(i32::from_ne_bytes) {
        Ok(number @ ..0) => {
            Err(Error::Refused(io::Error::from_raw_os_error(number.saturating_neg())))
        }
        Err(error) if message.kind == TYPE_ERROR => Err(error.into()),
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Complete {
    Yes,
    Interrupted,
}

/// A connection to the kernel's SMC.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    family: u16,
}

impl Client {
    /// Finds the kernel's SMC; [`Error::NoSmc`] if there is none.
    pub fn open() -> Result<Self, Error> {
        let mut channel = Channel::open(netlink::GENERIC)?;
        let start = |flags, sequence| {
            Request::new(CONTROLLER, flags, sequence)
                .header(&[CTRL_CMD_GETFAMILY, 1, 0, 0])
                .attribute(CTRL_ATTR_FAMILY_NAME, FAMILY_NAME)
        };
        let mut family = None;
        let take = |payload: &[u8]| {
            let attributes = generic(payload)?;
            family = Some(attributes.require("CTRL_ATTR_FAMILY_ID", CTRL_ATTR_FAMILY_ID)?);
            Ok(())
        };
        match channel.ask(ACK, start, take) {
            Ok(_) => {}
            Err(error) if error.refusal() == Some(Errno::NOENT) => return Err(Error::NoSmc),
            Err(error) => return Err(error),
        }
        Ok(Client { channel, family: family.ok_or(Error::NoSmc)? })
    }

    fn dump<T>(
        &mut self,
        command: u8,
        parse: impl Fn(&Attributes<'_>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Error> {
        let family = self.family;
        let start = |flags, sequence| {
            Request::new(family, flags, sequence).header(&[command, FAMILY_VERSION, 0, 0])
        };
        self.channel.dump(start, |payload| parse(&generic(payload)?))
    }

    fn change(&mut self, command: u8, attribute: Option<(u16, &[u8])>) -> Result<(), Error> {
        let family = self.family;
        let start = |flags, sequence| {
            let request =
                Request::new(family, flags, sequence).header(&[command, FAMILY_VERSION, 0, 0]);
            match attribute {
                Some((number, content)) => request.attribute(number, content),
                None => request,
            }
        };
        self.channel.ask(ACK, start, |_| Ok(()))?;
        Ok(())
    }

    /// The kernel's SMC: version, host name, SEID.
    pub fn system(&mut self) -> Result<System, Error> {
        let found = self.dump(command::GET_SYS_INFO, System::parse)?.pop();
        found.ok_or(Error::Malformed(Malformed::Structure("SMC_GEN_SYS_INFO")))
    }

    /// The SMC-D link groups.
    pub fn link_groups(&mut self) -> Result<Vec<LinkGroup>, Error> {
        self.dump(command::GET_LGR_SMCD, LinkGroup::parse)
    }

    /// The SMC-D devices; the kernel does not list its own loopback device.
    pub fn devices(&mut self) -> Result<Vec<Device>, Error> {
        self.dump(command::GET_DEV_SMCD, Device::parse)
    }

    /// The counters of this network namespace.
    pub fn stats(&mut self) -> Result<Stats, Error> {
        let found = self.dump(command::GET_STATS, stats::parse)?.pop();
        found.ok_or(Error::Malformed(Malformed::Structure("SMC_GEN_STATS")))
    }

    /// Why connections of this network namespace fell back to TCP.
    pub fn fallbacks(&mut self) -> Result<Fallbacks, Error> {
        Ok(Fallbacks::collect(self.dump(command::GET_FBACK_STATS, Fallbacks::parse)?))
    }

    /// The user-defined enterprise ids.
    pub fn ueids(&mut self) -> Result<Vec<String>, Error> {
        self.dump(command::DUMP_UEID, Eid::parse)
    }

    /// Adds a user-defined enterprise id; false if it was there already.
    pub fn add_ueid(&mut self, eid: &Eid) -> Result<bool, Error> {
        match self.change(command::ADD_UEID, Some(eid.attribute())) {
            Ok(()) => Ok(true),
            Err(error) if error.refusal() == Some(Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a user-defined enterprise id; false if there was none.
    pub fn remove_ueid(&mut self, eid: &Eid) -> Result<bool, Error> {
        match self.change(command::REMOVE_UEID, Some(eid.attribute())) {
            // s390: it was the last one, and the SEID was switched on in its place.
            Err(error) if error.refusal() == Some(Errno::AGAIN) => Ok(true),
            Err(error) if error.refusal() == Some(Errno::NOENT) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Removes all user-defined enterprise ids.
    pub fn flush_ueids(&mut self) -> Result<(), Error> {
        self.change(command::FLUSH_UEID, None)
    }

    /// The system's enterprise id (s390 only).
    pub fn seid(&mut self) -> Result<Seid, Error> {
        let found = self.dump(command::DUMP_SEID, Seid::parse)?.pop();
        Ok(found.unwrap_or_default())
    }

    /// Switches the system's enterprise id on or off.
    pub fn set_seid(&mut self, enabled: bool) -> Result<(), Error> {
        let command = if enabled { command::ENABLE_SEID } else { command::DISABLE_SEID };
        self.change(command, None)
    }
}

/// The attributes of a generic netlink message, whose own header has four bytes.
fn generic(payload: &[u8]) -> Result<Attributes<'_>, Malformed> {
    Attributes::parse(payload.get(4..).ok_or(Malformed::Length)?)
}

/// Lists the SMC sockets of this network namespace.
pub fn sockets() -> Result<Vec<Socket>, Error> {
    let mut channel = Channel::open(netlink::SOCK_DIAG)?;
    let start = |flags, sequence| {
        Request::new(SOCK_DIAG_BY_FAMILY, flags, sequence).header(&Socket::request())
    };
    match channel.dump(start, Socket::parse) {
        Err(error) if error.refusal() == Some(Errno::NOENT) => Err(Error::NoDiag),
        result => result,
    }
}
