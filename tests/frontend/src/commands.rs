// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control queue's commands, one method each (spec/virtio-ism.md, control queue).
//!
//! Invariant: a request is built from `ism_abi` structures only, so every reserved byte is zero.

use ism_abi::{
    AttachReply, DmbGranted, ForgetPeerRequest, Gid, HelloReply, HelloRequest, Ping, QueryReply,
    QueryRequest, RegisterReply, RegisterRequest, RequestHeader, SignalEventRequest, StatsReply,
    TokenRequest, VERSION, VlanRequest, command, mode,
};

use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::memory::SharedBytes;

/// A DMB this member owns.
#[derive(Clone, Debug)]
pub struct Dmb {
    /// What it was registered with.
    pub request: RegisterRequest,
    /// What the device answered.
    pub reply: RegisterReply,
    /// Its bytes.
    pub bytes: SharedBytes,
}

impl Dmb {
    /// The name the writer uses.
    pub fn token(&self) -> u64 {
        self.reply.token
    }
}

/// The bytes of a request: header and body.
pub fn encode(command: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = RequestHeader { command, reserved: [0; 6] }.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A DMB_GRANTED or REGISTER with no VLAN.
pub fn register_request(rgid: Gid, index: u32, len: u32, mode: u8) -> RegisterRequest {
    RegisterRequest {
        rgid,
        index,
        len,
        ram_addr: 0,
        vlan_id: 0,
        vlan_valid: 0,
        mode,
        reserved: [0; 4],
    }
}

impl Driver {
    /// HELLO: forgets all this member had.
    pub fn hello(&mut self) -> Result<HelloReply> {
        let body = HelloRequest { version: VERSION, reserved: [0; 6] }.to_bytes();
        let reply = self.command(&encode(command::HELLO, &body), HelloReply::SIZE)?;
        decoded(HelloReply::from_bytes(&reply))
    }

    /// PING; the cookie that came back.
    pub fn ping(&mut self, cookie: u64) -> Result<u64> {
        let body = Ping { cookie }.to_bytes();
        let reply = self.command(&encode(command::PING, &body), Ping::SIZE)?;
        decoded(Ping::from_bytes(&reply)).map(|ping| ping.cookie)
    }

    /// STATS.
    pub fn stats(&mut self) -> Result<StatsReply> {
        let reply = self.command(&encode(command::STATS, &[]), StatsReply::SIZE)?;
        decoded(StatsReply::from_bytes(&reply))
    }

    /// QUERY_RGID, with a VLAN id if there is one; the pair's mode.
    pub fn query(&mut self, gid: Gid, vlan: Option<u16>) -> Result<u8> {
        let body = QueryRequest {
            gid,
            vlan_id: vlan.unwrap_or(0),
            vlan_valid: u8::from(vlan.is_some()),
            reserved: [0; 5],
        };
        let request = encode(command::QUERY_RGID, &body.to_bytes());
        let reply = self.command(&request, QueryReply::SIZE)?;
        decoded(QueryReply::from_bytes(&reply)).map(|reply| reply.mode)
    }

    /// FORGET_PEER.
    pub fn forget_peer(&mut self, gid: Gid, instance: u64) -> Result<()> {
        let body = ForgetPeerRequest { gid, instance }.to_bytes();
        self.command(&encode(command::FORGET_PEER, &body), 0).map(drop)
    }

    /// REGISTER as it is.
    pub fn register_raw(&mut self, request: &RegisterRequest) -> Result<RegisterReply> {
        let request = encode(command::REGISTER, &request.to_bytes());
        let reply = self.command(&request, RegisterReply::SIZE)?;
        decoded(RegisterReply::from_bytes(&reply))
    }

    /// REGISTER of `len` bytes for `rgid`; in copied mode in fresh RAM.
    pub fn register(&mut self, rgid: Gid, index: u32, len: u32, mode: u8) -> Result<Dmb> {
        let mut request = register_request(rgid, index, len, mode);
        if mode == mode::COPIED {
            request.ram_addr = self.connection().ram().allocate(len.into())?;
        }
        let answer = self.register_raw(&request);
        let reply = answer.inspect_err(|_| self.release(&request))?;
        let bytes = match mode {
            mode::COPIED => self.connection().ram().bytes(request.ram_addr, len.into())?,
            _ => self.window(reply.window_offset, len.into())?,
        };
        Ok(Dmb { request, reply, bytes })
    }

    /// UNREGISTER.
    pub fn unregister(&mut self, dmb: Dmb) -> Result<()> {
        let request = dmb.request;
        let token = dmb.token();
        drop(dmb); // Its bytes must not keep the window's extent mapped.
        self.unregister_token(token)?;
        self.release(&request);
        Ok(())
    }

    /// UNREGISTER as it is.
    pub fn unregister_token(&mut self, token: u64) -> Result<()> {
        self.token_command(command::UNREGISTER, token, 0).map(drop)
    }

    /// ATTACH.
    pub fn attach(&mut self, token: u64) -> Result<AttachReply> {
        let reply = self.token_command(command::ATTACH, token, AttachReply::SIZE)?;
        decoded(AttachReply::from_bytes(&reply))
    }

    /// DETACH.
    pub fn detach(&mut self, token: u64) -> Result<()> {
        self.token_command(command::DETACH, token, 0).map(drop)
    }

    /// ADD_VLAN.
    pub fn add_vlan(&mut self, vlan_id: u16) -> Result<()> {
        let body = VlanRequest { vlan_id, reserved: [0; 6] }.to_bytes();
        self.command(&encode(command::ADD_VLAN, &body), 0).map(drop)
    }

    /// DEL_VLAN.
    pub fn del_vlan(&mut self, vlan_id: u16) -> Result<()> {
        let body = VlanRequest { vlan_id, reserved: [0; 6] }.to_bytes();
        self.command(&encode(command::DEL_VLAN, &body), 0).map(drop)
    }

    /// SIGNAL_EVENT.
    pub fn signal_event(&mut self, gid: Gid, code: u32, info: u64) -> Result<()> {
        let body = SignalEventRequest { gid, code, reserved: 0, info }.to_bytes();
        self.command(&encode(command::SIGNAL_EVENT, &body), 0).map(drop)
    }

    /// The bytes of a DMB granted in mapped mode.
    pub fn granted_bytes(&self, grant: &DmbGranted) -> Result<SharedBytes> {
        self.window(grant.window_offset, grant.len.into())
    }

    fn token_command(&mut self, command: u16, token: u64, body: usize) -> Result<Vec<u8>> {
        self.command(&encode(command, &TokenRequest { token }.to_bytes()), body)
    }

    fn release(&mut self, request: &RegisterRequest) {
        if request.mode == mode::COPIED {
            self.connection().ram().free(request.ram_addr, request.len.into());
        }
    }
}

fn decoded<T>(body: Option<T>) -> Result<T> {
    body.ok_or_else(|| Error::Device("a control reply shorter than its structure".into()))
}
