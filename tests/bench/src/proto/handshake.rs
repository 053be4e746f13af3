// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A handshake of both ends, from TCP's connect to two connections.
//!
//! Invariant: wishes are carried out at once and for nothing, so that only the protocol is measured.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::config::Config;
use smc_proto::endpoint::{Endpoint, Wish};
use smc_proto::group::{self, BufferKind, Fate};
use smc_proto::handshake::inventory::{Address, Interface, InterfaceId, IsmDevice};
use smc_proto::handshake::route::{NextHop, Route};
use smc_proto::id::{ConnId, DeviceId};
use smc_proto::smcd::dmb::Dmb;
use smc_wire::clc::MAX_MESSAGE;
use smc_wire::id::{Chid, DmbToken, IsmGid, Mac, Ueid};

use super::Case;
use super::roce::{self, Adapter};

/// What a handshake of both ends may take.
const TARGET_NS: u64 = 5000;
/// Between connections.
const PAUSE: Duration = Duration::from_millis(1);

/// A host, and its end of the one TCP connection that there is.
struct Host {
    endpoint: Endpoint,
    route: Route,
    conn: ConnId,
    /// Bytes that TCP brought.
    received: VecDeque<u8>,
    adapter: Adapter,
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

/// What both hosts have one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// An emulated ISM device.
    Ism,
    /// A RoCE port.
    Roce,
}

/// Two hosts of one subnet, with the same UEID.
pub(super) struct Hosts {
    client: Host,
    server: Host,
    now: Instant,
}

/// The handshakes.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (device, what) in [(Device::Ism, "SMC-D"), (Device::Roce, "SMC-R")] {
        let first = format!("{what} handshake v2.1, first contact");
        cases.push(first_contact(first, device)?.within(TARGET_NS));
        let known = format!("{what} handshake v2.1, known peer, and release");
        cases.push(known_peer(known, device)?.within(TARGET_NS));
    }
    Ok(cases)
}

fn first_contact(name: String, device: Device) -> Result<Case, String> {
    Hosts::new(device)?.check(&name, true, Hosts::establish)?;
    let operation = |hosts: &mut Option<Hosts>| hosts.as_mut().map(Hosts::establish);
    Ok(Case::on_new(name, move || Hosts::new(device).ok(), operation))
}

/// A connection from begin to end; the group stays, with its buffers.
fn known_peer(name: String, device: Device) -> Result<Case, String> {
    let mut hosts = Hosts::new(device)?;
    hosts.round();
    for _ in 0..10 {
        hosts.check(&name, false, Hosts::round)?;
    }
    Ok(Case::new(name, move || hosts.round()))
}

impl Hosts {
    pub(super) fn new(device: Device) -> Result<Self, String> {
        let (client, server) = (Host::new(1, device)?, Host::new(2, device)?);
        Ok(Self { client, server, now: Instant(1) })
    }

    /// Does `work` and sees that it gave SMC connections.
    fn check(
        &mut self,
        name: &str,
        first_contact: bool,
        work: impl Fn(&mut Self) -> [Option<Outcome>; 2],
    ) -> Result<(), String> {
        let outcomes = work(self);
        if outcomes == [Some(Outcome::Established { first_contact }); 2] {
            return Ok(());
        }
        Err(format!("{name}: ends as {outcomes:?}"))
    }

    /// One connection, from begin to end.
    fn round(&mut self) -> [Option<Outcome>; 2] {
        let outcomes = self.establish();
        let Self { client, server, now } = self;
        for host in [&mut *client, &mut *server] {
            host.endpoint.release(*now, host.conn, Fate::Reuse);
        }
        run(client, server, *now);
        *now = now.after(PAUSE);
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
        let delivered = client.deliver(now) | server.deliver(now);
        if !(delivered | client.send(server, now) | server.send(client, now)) {
            return;
        }
    }
}

impl Host {
    fn new(n: u8, device: Device) -> Result<Self, String> {
        // Links are not tested: they are not idle but for a jump of the clock.
        let mut config = Config { testlink_time: 0, ..Config::default() };
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
        match device {
            Device::Ism => endpoint.add_ism(ism(n)),
            Device::Roce => endpoint.set_port(Instant(1), roce::port(n, id)),
        }
        let route = Route {
            interface: Some(id),
            local,
            peer: Ipv4Addr::new(10, 0, 0, 3 - n).into(),
            smc: true,
            ipsec: false,
            sndbuf: None,
            rcvbuf: None,
        };
        // TCP's and RoCE's own memory is not the protocol's.
        let (received, adapter) = (VecDeque::with_capacity(MAX_MESSAGE), Adapter::new());
        Ok(Self { endpoint, route, conn: ConnId(0), received, adapter, outcome: None, dmbs: 0 })
    }

    /// Takes what TCP brought; whether there was something.
    fn deliver(&mut self, now: Instant) -> bool {
        let bytes = self.received.make_contiguous();
        let taken = self.endpoint.handle_clc(now, self.conn, bytes);
        self.received.drain(..taken);
        taken > 0
    }

    /// Brings one message over RoCE; whether there was one.
    fn send(&mut self, peer: &mut Self, now: Instant) -> bool {
        let arrival = self.adapter.send(&peer.adapter);
        let arrived = arrival.is_some();
        if let Some(arrival) = arrival {
            arrival.tell(now, &mut self.endpoint, &mut peer.endpoint);
        }
        arrived
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
                Wish::ResolveNextHop { conn, .. } => {
                    let hop = NextHop { mac: Mac::default(), gateway: false };
                    self.endpoint.handle_next_hop(now, conn, Some(hop));
                }
                Wish::Links { group, wish } => {
                    self.adapter.carry_out(&mut self.endpoint, now, group, wish);
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
