// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An endpoint in the place of one end of a capture.
//!
//! Invariant: of the messages of the Linux that it stands for only what that one rolled dice for is
//! given to it: tokens, keys, addresses, queue pairs, packet numbers, the instance.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use smc_golden::Golden;
use smc_proto::Instant;
use smc_proto::config::Config;
use smc_proto::endpoint::{Endpoint, Wish};
use smc_proto::group::{self, BufferKind, RegisterError};
use smc_proto::handshake::inventory::{
    Address, Interface, InterfaceId, IsmDevice, PortGid, RocePort, RoceVersion,
};
use smc_proto::handshake::route::{NextHop, Route};
use smc_proto::id::{BufferId, ConnId, DeviceId, GroupId};
use smc_proto::smcd::dmb::Dmb;
use smc_proto::smcr::qp::QueuePair;
use smc_proto::smcr::{self, LinkId, Rtoken};
use smc_wire::clc::{AcceptConfirm, Body, Message};
use smc_wire::id::{Chid, IsmGid, Mac, Psn, Qpn, Rkey, RoceGid, Ueid};
use smc_wire::llc;
use smc_wire::size::PathMtu;
pub(crate) const ETH0: InterfaceId = InterfaceId(2);

/// What a capture's end was configured with.
struct Inputs<'a> {
    all: BTreeMap<String, String>,
    side: &'static str,
    scenario: &'a str,
}

impl Inputs<'_> {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let of = |side: &str| self.all.get(&format!("{side}.{key}"));
        // A guest that talks to itself is called the server.
        of(self.side).or_else(|| of("server")).map(String::as_str)
    }

    /// The values of `key.0`, `key.1` and so on.
    pub(crate) fn list(&self, key: &str) -> Vec<&str> {
        (0..).map_while(|n| self.get(&format!("{key}.{n}"))).collect()
    }

    pub(crate) fn number(&self, key: &str) -> u32 {
        let value = self.get(key).unwrap_or_else(|| panic!("no input {key}"));
        match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        }
    }

    /// The interface of TCP: a bridge where RoCE needs more than one port.
    pub(crate) fn tcp(&self) -> &'static str {
        if self.get("net.br0.mac").is_some() { "br0" } else { "eth0" }
    }

    pub(crate) fn mac(&self, of: &str) -> Option<Mac> {
        let bytes = self.get(&format!("net.{of}.mac"))?.split(':');
        let bytes: Vec<u8> = bytes.map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
        Some(Mac(bytes.try_into().unwrap()))
    }

    pub(crate) fn config(&self, instance: [u8; 2]) -> Config {
        let sysctl = |name: &str| self.number(&format!("sysctl.net.smc.{name}"));
        let mut config = Config {
            wmem: sysctl("wmem"),
            rmem: sysctl("rmem"),
            max_conns: sysctl("smcr_max_conns_per_lgr") as u8,
            max_links: sysctl("smcr_max_links_per_lgr") as u8,
            instance,
            ..Config::default()
        };
        config.set_hostname(self.get("hostname").unwrap());
        for ueid in self.list("ueid") {
            config.eids.add(Ueid::new(ueid).unwrap()).unwrap();
        }
        config
    }

    pub(crate) fn interface(&self) -> Interface {
        let address = |text: &str| {
            let (ip, len) = text.split_once('/').unwrap();
            Address { ip: ip.parse().unwrap(), prefix_len: len.parse().unwrap() }
        };
        Interface {
            id: ETH0,
            name: "eth0".into(),
            base: None,
            pnetid: None,
            up: true,
            vlan: 0,
            addresses: self
                .list(&format!("net.{}.address", self.tcp()))
                .into_iter()
                .map(address)
                .collect(),
        }
    }

    pub(crate) fn ism(&self, id: u32, name: &str) -> Option<IsmDevice> {
        let gid = self.get(&format!("dibs.{name}.gid"))?.replace('-', "");
        let half = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (first, last) = gid.split_at(16);
        Some(IsmDevice {
            id: DeviceId(id),
            name: name.into(),
            parent: String::new(),
            gid: IsmGid { gid: half(first), ext: half(last) },
            chid: Chid(self.number(&format!("dibs.{name}.fabric_id")) as u16),
            pnetid: None,
            v2: true,
            vlans: true,
            mapped: false,
            max_dmb: 1 << 20,
        })
    }

    /// Soft-RoCE has GIDs of version 2 only; for `smcr-v1` the capture made them version 1's.
    pub(crate) fn port(&self) -> Option<RocePort> {
        let version =
            if self.scenario.starts_with("smcr-v1") { RoceVersion::V1 } else { RoceVersion::V2 };
        let gids = self.list("roce.rxe0.gid").into_iter().map(|gid| {
            let gid: std::net::Ipv6Addr = gid.parse().unwrap();
            PortGid { gid: RoceGid(gid.octets()), version, interface: ETH0 }
        });
        let mut gids: Vec<PortGid> = gids.collect();
        if version == RoceVersion::V1 {
            gids.retain(|it| it.gid.0.starts_with(&[0; 10]));
        }
        (!gids.is_empty()).then(|| RocePort {
            id: DeviceId(9),
            adapter: "rxe0".into(),
            port: 1,
            mac: self.mac("eth0").unwrap(),
            interface: Some(ETH0),
            pnetid: None,
            active: true,
            gids,
            mtu: PathMtu::M1024,
        })
    }
}

/// What the captured Linux rolled dice for, in its order.
#[derive(Default)]
struct Dice {
    tokens: VecDeque<Dmb>,
    qps: VecDeque<QueuePair>,
    /// Keys of receive buffers.
    keys: VecDeque<Rtoken>,
    instance: [u8; 2],
    /// Sizes of receive buffers: what the application asked for.
    sizes: VecDeque<u32>,
}

impl Dice {
    pub(crate) fn of(messages: &[Golden]) -> Self {
        let mut dice = Self::default();
        for golden in messages {
            match Message::parse(&golden.bytes) {
                Ok(Message::Decline(decline)) => {
                    let [a, b, ..] = decline.peer.0;
                    dice.instance = [a, b];
                }
                Ok(Message::Accept(accept)) => dice.answer(&accept.0),
                Ok(Message::Confirm(confirm)) => dice.answer(&confirm.common),
                _ => dice.control(&golden.bytes),
            }
        }
        dice
    }

    pub(crate) fn answer(&mut self, message: &AcceptConfirm) {
        match message.body {
            Body::Smcd(body) => {
                self.sizes.push_back(body.size.bytes());
                self.tokens.push_back(Dmb { token: body.token, index: 0 });
            }
            Body::Smcr(body) => {
                self.sizes.push_back(body.size.bytes());
                let [a, b, ..] = body.peer.0;
                self.instance = [a, b];
                let rtoken = Rtoken { rkey: body.rkey, vaddr: body.rmb_addr };
                if !self.keys.contains(&rtoken) {
                    self.keys.push_back(rtoken);
                }
                if message.contact.is_first() {
                    self.qps.push_back(QueuePair { qpn: body.qpn, psn: body.psn });
                }
            }
        }
    }

    pub(crate) fn control(&mut self, bytes: &[u8]) {
        let Ok(message) = llc::Message::parse(bytes) else { return };
        match message.body {
            llc::Body::AddLink(it) if it.rejected.is_none() => {
                self.qps.push_back(QueuePair { qpn: it.qpn, psn: it.psn });
                // In version 1 nobody learns the first buffer's key on a link that was rejected.
                if it.tail.is_none() {
                    self.keys.push_back(Rtoken { rkey: Rkey(0), vaddr: 0 });
                }
                for update in it.tail.iter().flat_map(|tail| tail.rkeys.iter()) {
                    self.keys.push_back(Rtoken { rkey: update.new, vaddr: update.vaddr });
                }
            }
            llc::Body::ConfirmRkey(it) if !message.response => {
                // The carrier is the link that is not among the others; its number is 1 or 2.
                let others = it.others().into_iter().flatten();
                let others: Vec<_> = others.map(|it| (it.link, it.rtoken)).collect();
                let carrier = if others.iter().any(|(link, _)| *link == 1) { 2 } else { 1 };
                let mut keys = others;
                keys.push((carrier, it.this_link));
                keys.sort_by_key(|(link, _)| *link);
                let keys = keys.into_iter();
                self.keys.extend(keys.map(|(_, it)| Rtoken { rkey: it.rkey, vaddr: it.vaddr }));
            }
            _ => {}
        }
    }
}

/// An endpoint in the place of one end of a capture.
pub(crate) struct StandIn {
    pub(crate) endpoint: Endpoint,
    pub(crate) side: &'static str,
    pub(crate) route: Route,
    dice: Dice,
    pub(crate) conn: Option<ConnId>,
    pub(crate) sent: VecDeque<Vec<u8>>,
    pub(crate) kinds: BTreeMap<BufferId, BufferKind>,
    pub(crate) links: Vec<(u32, GroupId, LinkId)>,
    pub(crate) established: usize,
    /// The MAC of the second RoCE port's interface.
    pub(crate) second: Option<Mac>,
    /// The peer's ISM devices are there.
    pub(crate) reachable: bool,
    /// No buffer can be had.
    pub(crate) no_buffer: Option<RegisterError>,
    /// The peers' subnets differ.
    pub(crate) gateway: bool,
    /// The peer is the same host: loopback reaches nobody else.
    pub(crate) alone: bool,
}

pub(crate) const NOW: Instant = Instant(1);

impl StandIn {
    pub(crate) fn new(scenario: &str, side: &'static str, messages: &[Golden]) -> Self {
        let inputs = Inputs { all: smc_golden::inputs(scenario), side, scenario };
        let own: Vec<Golden> = messages.iter().filter(|it| from(it) == side).cloned().collect();
        let dice = Dice::of(&own);
        let mut endpoint = Endpoint::new(inputs.config(dice.instance)).unwrap();
        let interface = inputs.interface();
        let local = interface.addresses.iter().map(|it| it.ip).find(IpAddr::is_ipv4);
        let local = local.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        endpoint.set_interface(interface);
        for (id, name) in [(1, "lo"), (2, "ism-virtio2")] {
            // These captures kept SMC-D out of the way.
            let away = scenario.starts_with("smcr-v1")
                || ["smcr-v2-limits", "smcr-v2-declines"].contains(&scenario);
            if let Some(device) = inputs.ism(id, name).filter(|_| !away) {
                endpoint.add_ism(device);
            }
        }
        if let Some(port) = inputs.port() {
            endpoint.set_port(NOW, port);
        }
        let route = Route {
            interface: Some(ETH0),
            local,
            peer: IpAddr::from([0, 0, 0, 0]),
            smc: true,
            ipsec: false,
            sndbuf: None,
            rcvbuf: None,
        };
        Self {
            endpoint,
            side,
            route,
            dice,
            conn: None,
            sent: VecDeque::new(),
            kinds: BTreeMap::new(),
            links: Vec::new(),
            established: 0,
            second: inputs.mac("veth1"),
            reachable: scenario != "smcd-strangers" && !scenario.starts_with("smcr"),
            no_buffer: None,
            gateway: scenario == "smcr-v2-routed",
            alone: scenario == "smcd-v1",
        }
    }

    /// Goes through the messages: gets the other end's, compares its own.
    pub(crate) fn replay(&mut self, messages: &[Golden]) {
        for golden in messages {
            let proposal = matches!(Message::parse(&golden.bytes), Ok(Message::Proposal(_)));
            if proposal {
                self.route.rcvbuf = self.dice.sizes.pop_front();
                self.conn = Some(match self.side {
                    "client" => self.endpoint.connect(NOW, &self.route),
                    _ => self.endpoint.accept(NOW, &self.route),
                });
            }
            self.run();
            if from(golden) == self.side {
                let ours = self.sent.pop_front();
                let ours = ours.unwrap_or_else(|| panic!("{}: nothing was sent", golden.name));
                let (name, theirs) = (&golden.name, &golden.bytes);
                assert_eq!(&ours, theirs, "{name}:\n ours   {ours:02x?}\n theirs {theirs:02x?}");
            } else {
                self.receive(golden);
            }
            self.run();
        }
        assert!(self.sent.is_empty(), "{:x?}", self.sent);
    }

    pub(crate) fn receive(&mut self, golden: &Golden) {
        if golden.note("carried by") == Some("TCP") {
            let taken = self.endpoint.handle_clc(NOW, self.conn.unwrap(), &golden.bytes);
            assert_eq!(taken, golden.bytes.len(), "{}", golden.name);
            return;
        }
        let carrier = golden.note("carried by").unwrap();
        let qpn = carrier.rsplit_once("0x").unwrap().1;
        let qpn = u32::from_str_radix(qpn, 16).unwrap();
        // Two devices may give their queue pairs the same number; the second ports are .11 and .12.
        let second = golden.note("sent from").is_some_and(|ip| ip.len() > "10.77.0.1".len());
        let links: Vec<_> = self.links.iter().filter(|(it, ..)| *it == qpn).collect();
        let &(_, group, link) = links[usize::from(second && links.len() > 1)];
        self.endpoint.handle_recv(NOW, group, link, &golden.bytes);
    }

    pub(crate) fn run(&mut self) {
        while let Some(wish) = self.endpoint.poll_wish() {
            match wish {
                Wish::SendClc { message, .. } => self.sent.push_back(message.into()),
                Wish::QueryRemoteGid { conn, device, .. } => {
                    let reached = self.reachable && (device != DeviceId(1) || self.alone);
                    self.endpoint.handle_remote_gid(NOW, conn, reached);
                }
                Wish::ResolveNextHop { conn, .. } => {
                    let hop = NextHop { mac: Mac::default(), gateway: self.gateway };
                    self.endpoint.handle_next_hop(NOW, conn, Some(hop));
                }
                Wish::Established(_) => self.established += 1,
                Wish::Group(group::Wish::Register { buffer, kind, .. }) => {
                    self.kinds.insert(buffer, kind);
                    let dmb = match kind {
                        BufferKind::Receive => self.dice.tokens.pop_front().unwrap_or_default(),
                        BufferKind::Send => Dmb::default(),
                    };
                    let outcome = self.no_buffer.map_or(Ok(dmb), Err);
                    self.endpoint.handle_registered(NOW, buffer, outcome);
                }
                Wish::Links { group, wish } => self.carry_out(group, wish),
                _ => {}
            }
        }
    }

    pub(crate) fn carry_out(&mut self, group: GroupId, wish: smcr::Wish) {
        match wish {
            smcr::Wish::CreateQp { link, .. } => {
                let unknown = QueuePair { qpn: Qpn(0xFFF), psn: Psn(1) };
                let qp = self.dice.qps.pop_front().unwrap_or(unknown);
                self.links.push((qp.qpn.0, group, link));
                self.endpoint.handle_qp_created(NOW, group, link, Some(qp));
            }
            smcr::Wish::RegisterMr { link, buffer } => {
                let rtoken = match self.kinds[&buffer] {
                    BufferKind::Receive => self.dice.keys.pop_front(),
                    BufferKind::Send => None,
                };
                let rtoken = rtoken.unwrap_or(Rtoken { rkey: Rkey(0), vaddr: 0 });
                self.endpoint.handle_mr_registered(NOW, group, link, buffer, Some(rtoken));
            }
            smcr::Wish::PostSend { link, work, message } => {
                self.sent.push_back(message);
                self.endpoint.handle_sent(NOW, group, link, work, true);
            }
            _ => {}
        }
    }
}

pub(crate) fn from(golden: &Golden) -> &str {
    golden.note("from").unwrap().split(',').next().unwrap()
}

/// CLC and LLC messages of a scenario's first `handshakes`, up to where connections end.
pub(crate) fn messages(scenario: &str, handshakes: usize) -> Vec<Golden> {
    let all = smc_golden::names(&format!("{scenario}/")).into_iter();
    let all = all.map(|name| smc_golden::get(&name));
    let all = all.filter(|golden| Message::parse(&golden.bytes).is_ok() || control(golden));
    let mut proposals = 0;
    let within = all.take_while(|golden| {
        let proposal = matches!(Message::parse(&golden.bytes), Ok(Message::Proposal(_)));
        proposals += usize::from(proposal);
        proposals <= handshakes && (handshakes == usize::MAX || !deletes(golden))
    });
    within.collect()
}

/// Whether it is an LLC message.
pub(crate) fn control(golden: &Golden) -> bool {
    let message = llc::Message::parse(&golden.bytes);
    message.is_ok_and(|it| golden.bytes.len() >= 44 && !matches!(it.body, llc::Body::Unknown(_)))
}

pub(crate) fn deletes(golden: &Golden) -> bool {
    let message = llc::Message::parse(&golden.bytes);
    control(golden)
        && message
            .is_ok_and(|it| matches!(it.body, llc::Body::DeleteRkey(_) | llc::Body::DeleteLink(_)))
}
