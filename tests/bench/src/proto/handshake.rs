// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A handshake of both ends, from TCP's connect to two connections and on to their release.
//!
//! Invariant: wishes are carried out at once and for nothing, so that only the protocol is measured;
//! after a round both hosts are as before it but for names and numbers.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::config::Config;
use smc_proto::endpoint::{Endpoint, Wish};
use smc_proto::group::{self, BufferKind, Fate};
use smc_proto::handshake::inventory::{Address, Interface, InterfaceId, IsmDevice};
use smc_proto::handshake::route::Route;
use smc_proto::id::{ConnId, DeviceId};
use smc_proto::smcd::dmb::Dmb;
use smc_wire::id::{Chid, DmbToken, IsmGid, Ueid};

use super::Case;

/// What a handshake of both ends may take.
const TARGET_NS: u64 = 5000;
/// Longer than a link group without connections lives.
const IDLE: Duration = Duration::from_secs(700);
/// Between connections.
const SOON: Duration = Duration::from_millis(1);

/// A host, and its end of the one TCP connection that there is.
struct Host {
    endpoint: Endpoint,
    route: Route,
    conn: ConnId,
    /// Bytes that TCP brought.
    received: VecDeque<u8>,
    outcome: Option<Outcome>,
    dmbs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Established {
        first_contact: bool,
    },
    /// Plain TCP, or none.
    Other,
}

/// Two hosts with an emulated ISM device each, and the same UEID.
pub(super) struct Hosts {
    client: Host,
    server: Host,
    now: Instant,
}

/// The handshakes.
pub fn cases() -> Result<[Case; 2], String> {
    let next = "SMC-D handshake and release, known peer";
    let first = "SMC-D handshake and release, first contact, end of the group";
    Ok([case(next, SOON, false)?.within(TARGET_NS), case(first, IDLE, true)?.within(TARGET_NS)])
}

fn case(name: &str, pause: Duration, first_contact: bool) -> Result<Case, String> {
    let mut hosts = Hosts::new()?;
    hosts.round(pause);
    for _ in 0..10 {
        let outcomes = hosts.round(pause);
        if outcomes != [Some(Outcome::Established { first_contact }); 2] {
            return Err(format!("{name}: ends as {outcomes:?}"));
        }
    }
    Ok(Case::new(name, move || hosts.round(pause)))
}

impl Hosts {
    pub(super) fn new() -> Result<Self, String> {
        Ok(Self { client: Host::new(1)?, server: Host::new(2)?, now: Instant(1) })
    }

    /// One connection, from begin to end, and a pause.
    fn round(&mut self, pause: Duration) -> [Option<Outcome>; 2] {
        let outcomes = self.establish();
        let Self { client, server, now } = self;
        for host in [&mut *client, &mut *server] {
            host.endpoint.release(*now, host.conn, Fate::Reuse);
        }
        run(client, server, *now);
        *now = now.after(pause);
        for host in [&mut *client, &mut *server] {
            host.endpoint.handle_timeout(*now);
        }
        run(client, server, *now);
        outcomes
    }

    /// One connection, which stays.
    pub(super) fn establish(&mut self) -> [Option<Outcome>; 2] {
        let Self { client, server, now } = self;
        server.conn = server.endpoint.accept(*now, &server.route);
        client.conn = client.endpoint.connect(*now, &client.route);
        run(client, server, *now);
        [client.outcome.take(), server.outcome.take()]
    }
}

/// Carries out wishes and delivers bytes until nothing more happens.
fn run(client: &mut Host, server: &mut Host, now: Instant) {
    loop {
        client.carry_out(server, now);
        server.carry_out(client, now);
        if !(client.deliver(now) | server.deliver(now)) {
            return;
        }
    }
}

impl Host {
    fn new(n: u8) -> Result<Self, String> {
        let mut config = Config::default();
        let ueid = Ueid::new("BENCH").map_err(|error| error.to_string())?;
        config.eids.add(ueid).map_err(|error| error.to_string())?;
        let mut endpoint = Endpoint::new(config).map_err(|error| error.to_string())?;
        let local = Ipv4Addr::new(10, 0, 0, n).into();
        let id = InterfaceId(2);
        endpoint.set_interface(Interface {
            id,
            name: "eth0".into(),
            base: None,
            pnetid: None,
            up: true,
            vlan: 0,
            addresses: vec![Address { ip: local, prefix_len: 24 }],
        });
        endpoint.add_ism(ism(n));
        let route = Route {
            interface: Some(id),
            local,
            smc: true,
            ipsec: false,
            sndbuf: None,
            rcvbuf: None,
        };
        let received = VecDeque::new();
        Ok(Self { endpoint, route, conn: ConnId(0), received, outcome: None, dmbs: 0 })
    }

    /// Takes what TCP brought; whether there was something.
    fn deliver(&mut self, now: Instant) -> bool {
        let bytes = self.received.make_contiguous();
        let taken = self.endpoint.handle_clc(now, self.conn, bytes);
        self.received.drain(..taken);
        taken > 0
    }

    fn carry_out(&mut self, peer: &mut Self, now: Instant) {
        while let Some(wish) = self.endpoint.poll_wish() {
            match wish {
                Wish::SendClc { message, .. } => peer.received.extend(&message),
                Wish::QueryRemoteGid { conn, .. } => {
                    self.endpoint.handle_remote_gid(now, conn, true);
                }
                Wish::Established(established) => {
                    let first_contact = established.first_contact;
                    self.outcome = Some(Outcome::Established { first_contact });
                }
                Wish::Group(wish) => self.carry_out_group(&wish, now),
                _ => self.outcome = Some(Outcome::Other),
            }
        }
    }

    fn carry_out_group(&mut self, wish: &group::Wish, now: Instant) {
        match *wish {
            group::Wish::Register { buffer, kind, .. } => {
                let mut dmb = Dmb::default();
                if kind == BufferKind::Receive {
                    self.dmbs += 1;
                    dmb.token = DmbToken(self.dmbs);
                }
                self.endpoint.handle_registered(now, buffer, Ok(dmb));
            }
            group::Wish::Zero { buffer, .. } => self.endpoint.handle_zeroed(now, buffer, true),
            _ => {}
        }
    }
}

fn ism(n: u8) -> IsmDevice {
    IsmDevice {
        id: DeviceId(1),
        name: "ism".into(),
        parent: String::new(),
        gid: IsmGid { gid: n.into(), ext: n.into() },
        chid: Chid(0xFF01),
        pnetid: None,
        v2: true,
        vlans: true,
        mapped: false,
        max_dmb: 1 << 20,
    }
}
