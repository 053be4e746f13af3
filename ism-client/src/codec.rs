// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests, replies and events as bytes, for ports that carry the control and the event queue.
//!
//! Invariant: a request is built from `ism_abi` structures only, so every reserved byte is zero; a reply or
//! an event that is too short is the device's fault and changes nothing.

use std::os::fd::{BorrowedFd, OwnedFd};

use ism_abi::{
    BoardEntry, BoardPostReply, Config, DmbGranted, DmbUnregistered, EVENT_SIZE, EventHeader,
    ForgetPeerRequest, Gid, HelloReply, HelloRequest, MAGIC, MAX_DMB_LEN, MAX_DMBS, PeerGone,
    QueryReply, QueryRequest, RegisterReply, RegisterRequest, ReplyHeader, RequestHeader,
    SignalEventRequest, Signals, SoftwareEvent, TokenRequest, VERSION, command, event, mode,
    signal_page, status,
};
use smc_ring::View;

use crate::board::{Post, Told};
use crate::error::{Error, Result};
use crate::port::{Identity, Port, PortEvent, Registered, Wanted};

/// What carries the queues' bytes.
pub(crate) trait Carrier: Send + Sync {
    /// Carries out a control request; all bytes of its reply, which has room for `room`.
    fn request(&self, what: &'static str, request: &[u8], room: usize) -> Result<Vec<u8>>;
    /// `len` bytes of the window.
    fn window(&self, offset: u64, len: usize) -> Result<View>;
    /// The next event's bytes.
    fn event(&self) -> Result<Option<[u8; EVENT_SIZE]>>;
    /// See [`Port::ring`].
    fn ring(&self, token: u64) -> Result<()>;
    /// See [`Port::arm`].
    fn arm(&self) -> Result<bool>;
    /// See [`Port::fds`].
    fn fds(&self) -> Vec<BorrowedFd<'_>>;
    /// See [`Port::drain`].
    fn drain(&self);
    /// See [`Port::bell`].
    fn bell(&self, gid: Gid) -> Result<Option<OwnedFd>>;
}

/// A port over a carrier.
#[derive(Debug)]
pub(crate) struct Coded<C> {
    carrier: C,
    identity: Identity,
}

impl<C: Carrier> Coded<C> {
    /// Checks the configuration space and sends HELLO.
    pub(crate) fn new(carrier: C, config: &[u8]) -> Result<Self> {
        let config = Config::from_bytes(config)
            .ok_or_else(|| Error::Device("a short configuration space".into()))?;
        if config.magic != MAGIC || config.version != VERSION {
            return Err(Error::Device(format!(
                "magic {:#x}, version {}: no ISM device of version {VERSION}",
                config.magic, config.version
            )));
        }
        let body = HelloRequest { version: VERSION, reserved: [0; 6] }.to_bytes();
        let request = encode(command::HELLO, &body);
        let reply = call(&carrier, "HELLO", &request, HelloReply::SIZE)?;
        let limits = HelloReply::from_bytes(&reply).ok_or_else(short)?;
        let identity = Identity {
            gid: config.gid,
            fabric_id: config.fabric_id,
            // Not beyond the specification's limits, whatever the device says (ISM-DRV-6).
            max_dmbs: limits.max_dmbs.min(config.max_dmbs).min(MAX_DMBS),
            max_dmb_len: config.max_dmb_len.min(MAX_DMB_LEN),
        };
        Ok(Self { carrier, identity })
    }

    fn call(&self, what: &'static str, code: u16, body: &[u8], reply: usize) -> Result<Vec<u8>> {
        call(&self.carrier, what, &encode(code, body), reply)
    }

    fn token_call(&self, what: &'static str, code: u16, token: u64, reply: usize) -> Result<()> {
        self.call(what, code, &TokenRequest { token }.to_bytes(), reply).map(drop)
    }

    fn decode(&self, bytes: &[u8; EVENT_SIZE]) -> Result<Option<PortEvent>> {
        let short = || Error::Device("an event shorter than its structure".into());
        let header = EventHeader::from_bytes(bytes).ok_or_else(short)?;
        let body = bytes.get(EventHeader::SIZE..).unwrap_or_default();
        Ok(Some(match header.event {
            event::SIGNALS => {
                let Signals { base, mask, .. } = Signals::from_bytes(body).ok_or_else(short)?;
                PortEvent::Signals { base, mask }
            }
            event::DMB_GRANTED => {
                return self.granted(&DmbGranted::from_bytes(body).ok_or_else(short)?);
            }
            event::DMB_UNREGISTERED => {
                let gone = DmbUnregistered::from_bytes(body).ok_or_else(short)?;
                PortEvent::Unregistered { token: gone.token }
            }
            event::PEER_GONE => {
                let PeerGone { gid, instance } = PeerGone::from_bytes(body).ok_or_else(short)?;
                PortEvent::PeerGone { gid, instance }
            }
            event::SOFTWARE_EVENT => {
                let event = SoftwareEvent::from_bytes(body).ok_or_else(short)?;
                PortEvent::Software { gid: event.gid, code: event.code, info: event.info }
            }
            event::BOARD_ENTRY => {
                let entry = BoardEntry::from_bytes(body).ok_or_else(short)?;
                return Ok(Told::from_entry(&entry).map(PortEvent::Board));
            }
            _ => return Ok(None), // ISM-DRV-20
        }))
    }

    fn granted(&self, grant: &DmbGranted) -> Result<Option<PortEvent>> {
        if grant.mode != mode::MAPPED {
            return Ok(None);
        }
        let len = usize::try_from(grant.len).map_err(|_| short())?;
        Ok(Some(PortEvent::Granted {
            owner: grant.gid,
            token: grant.token,
            index: grant.index,
            memory: self.carrier.window(grant.window_offset, len)?,
            page: self.carrier.window(grant.signal_offset, signal_page::SIZE)?,
        }))
    }
}

impl<C: Carrier> Port for Coded<C> {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn query(&self, gid: Gid, vlan: Option<u16>) -> Result<()> {
        let request = QueryRequest {
            gid,
            vlan_id: vlan.unwrap_or(0),
            vlan_valid: u8::from(vlan.is_some()),
            reserved: [0; 5],
        };
        let what = "QUERY_RGID";
        let reply = self.call(what, command::QUERY_RGID, &request.to_bytes(), QueryReply::SIZE)?;
        match QueryReply::from_bytes(&reply).ok_or_else(short)?.mode {
            mode::MAPPED => Ok(()),
            _ => Err(Error::Refused { what, status: status::WRONG_MODE }),
        }
    }

    fn register(&self, wanted: &Wanted) -> Result<Registered> {
        let request = RegisterRequest {
            rgid: wanted.writer,
            index: wanted.index,
            len: wanted.len,
            ram_addr: 0,
            vlan_id: wanted.vlan.unwrap_or(0),
            vlan_valid: u8::from(wanted.vlan.is_some()),
            mode: mode::MAPPED,
            reserved: [0; 4],
        };
        let body = request.to_bytes();
        let reply = self.call("REGISTER", command::REGISTER, &body, RegisterReply::SIZE)?;
        let reply = RegisterReply::from_bytes(&reply).ok_or_else(short)?;
        let len = usize::try_from(wanted.len).map_err(|_| short())?;
        let views = (|| {
            let memory = self.carrier.window(reply.window_offset, len)?;
            Ok((memory, self.carrier.window(reply.signal_offset, signal_page::SIZE)?))
        })();
        match views {
            Ok((memory, page)) => {
                Ok(Registered { token: reply.token, instance: reply.instance, memory, page })
            }
            Err(error) => {
                // The first error is the one that is told.
                let _ = self.unregister(reply.token);
                Err(error)
            }
        }
    }

    fn unregister(&self, token: u64) -> Result<()> {
        self.token_call("UNREGISTER", command::UNREGISTER, token, 0)
    }

    fn attach(&self, token: u64) -> Result<()> {
        self.token_call("ATTACH", command::ATTACH, token, ism_abi::AttachReply::SIZE)
    }

    fn detach(&self, token: u64) -> Result<()> {
        self.token_call("DETACH", command::DETACH, token, 0)
    }

    fn forget(&self, gid: Gid, instance: u64) -> Result<()> {
        let body = ForgetPeerRequest { gid, instance }.to_bytes();
        self.call("FORGET_PEER", command::FORGET_PEER, &body, 0).map(drop)
    }

    fn send_event(&self, gid: Gid, code: u32, info: u64) -> Result<()> {
        let body = SignalEventRequest { gid, code, reserved: 0, info }.to_bytes();
        self.call("SIGNAL_EVENT", command::SIGNAL_EVENT, &body, 0).map(drop)
    }

    fn post(&self, post: &Post) -> Result<u32> {
        let body = post.to_request().to_bytes();
        let reply = self.call("BOARD_POST", command::BOARD_POST, &body, BoardPostReply::SIZE)?;
        Ok(BoardPostReply::from_bytes(&reply).ok_or_else(short)?.listeners)
    }

    fn ring(&self, token: u64) -> Result<()> {
        self.carrier.ring(token)
    }

    fn poll(&self) -> Result<Option<PortEvent>> {
        while let Some(bytes) = self.carrier.event()? {
            if let Some(event) = self.decode(&bytes)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn arm(&self) -> Result<bool> {
        self.carrier.arm()
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.carrier.fds()
    }

    fn drain(&self) {
        self.carrier.drain();
    }

    fn bell(&self, gid: Gid) -> Result<Option<OwnedFd>> {
        self.carrier.bell(gid)
    }
}

/// The bytes of a request: header and body.
fn encode(code: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = RequestHeader { command: code, reserved: [0; 6] }.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Carries out a request; the body of its reply, at least `body` bytes.
fn call(
    carrier: &impl Carrier,
    what: &'static str,
    request: &[u8],
    body: usize,
) -> Result<Vec<u8>> {
    let reply = carrier.request(what, request, ReplyHeader::SIZE + body)?;
    let header = ReplyHeader::from_bytes(&reply).ok_or_else(short)?;
    if header.status != status::OK {
        return Err(Error::Refused { what, status: header.status });
    }
    let rest = reply.get(ReplyHeader::SIZE..).filter(|rest| rest.len() >= body);
    rest.map(<[u8]>::to_vec).ok_or_else(short)
}

fn short() -> Error {
    Error::Device("a control reply shorter than its structure".into())
}
