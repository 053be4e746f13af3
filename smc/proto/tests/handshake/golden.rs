// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One endpoint in the place of a captured Linux: it gets what the other Linux sent and must answer,
//! byte for byte, what the one it stands for did.
//!
//! Invariant: of that one's messages only what it rolled dice for is given to the endpoint: tokens,
//! keys, addresses, queue pairs, packet numbers, its instance.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use smc_golden::Golden;
use smc_proto::Instant;
use smc_proto::config::Config;
use smc_proto::endpoint::{Endpoint, Wish};
use smc_proto::group::{self, BufferKind};
use smc_proto::handshake::inventory::{
    Address, Interface, InterfaceId, IsmDevice, PortGid, RocePort, RoceVersion,
};
use smc_proto::handshake::pnet::{Named, PnetId};
use smc_proto::handshake::route::{NextHop, Route};
use smc_proto::id::{BufferId, ConnId, DeviceId, GroupId};
use smc_proto::smcd::dmb::Dmb;
use smc_proto::smcr::qp::QueuePair;
use smc_proto::smcr::{self, LinkId, Rtoken};
use smc_wire::clc::{AcceptConfirm, Body, Message};
use smc_wire::id::{Chid, IsmGid, Mac, Rkey, RoceGid, Ueid};
use smc_wire::llc;
use smc_wire::size::PathMtu;

const ETH0: InterfaceId = InterfaceId(2);

/// What a capture's end was configured with.
struct Inputs<'a> {
    all: BTreeMap<String, String>,
    side: &'static str,
    scenario: &'a str,
}

impl Inputs<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let of = |side: &str| self.all.get(&format!("{side}.{key}"));
        // A guest that talks to itself is called the server.
        of(self.side).or_else(|| of("server")).map(String::as_str)
    }

    /// The values of `key.0`, `key.1` and so on.
    fn list(&self, key: &str) -> Vec<&str> {
        (0..).map_while(|n| self.get(&format!("{key}.{n}"))).collect()
    }

    fn number(&self, key: &str) -> u32 {
        let value = self.get(key).unwrap_or_else(|| panic!("no input {key}"));
        match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        }
    }

    /// The interface of TCP: a bridge where RoCE needs more than one port.
    fn tcp(&self) -> &'static str {
        if self.get("net.br0.mac").is_some() { "br0" } else { "eth0" }
    }

    fn mac(&self, of: &str) -> Option<Mac> {
        let bytes = self.get(&format!("net.{of}.mac"))?.split(':');
        let bytes: Vec<u8> = bytes.map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
        Some(Mac(bytes.try_into().unwrap()))
    }

    fn config(&self, instance: [u8; 2]) -> Config {
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

    fn interface(&self) -> Interface {
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

    fn ism(&self, id: u32, name: &str) -> Option<IsmDevice> {
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
    fn port(&self) -> Option<RocePort> {
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
    fn of(messages: &[Golden]) -> Self {
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

    fn answer(&mut self, message: &AcceptConfirm) {
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

    fn control(&mut self, bytes: &[u8]) {
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
struct StandIn {
    endpoint: Endpoint,
    side: &'static str,
    route: Route,
    dice: Dice,
    conn: Option<ConnId>,
    sent: VecDeque<Vec<u8>>,
    kinds: BTreeMap<BufferId, BufferKind>,
    links: Vec<(u32, GroupId, LinkId)>,
    established: usize,
    /// The MAC of the second RoCE port's interface.
    second: Option<Mac>,
    /// The peer's ISM devices are there.
    reachable: bool,
    /// The peer is the same host: loopback reaches nobody else.
    alone: bool,
}

const NOW: Instant = Instant(1);

impl StandIn {
    fn new(scenario: &str, side: &'static str, messages: &[Golden]) -> Self {
        let inputs = Inputs { all: smc_golden::inputs(scenario), side, scenario };
        let own: Vec<Golden> = messages.iter().filter(|it| from(it) == side).cloned().collect();
        let dice = Dice::of(&own);
        let mut endpoint = Endpoint::new(inputs.config(dice.instance)).unwrap();
        let interface = inputs.interface();
        let local = interface.addresses.iter().map(|it| it.ip).find(IpAddr::is_ipv4);
        let local = local.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        endpoint.set_interface(interface);
        for (id, name) in [(1, "lo"), (2, "ism-virtio2")] {
            // Two captures kept SMC-D out of the way.
            let away = scenario.starts_with("smcr-v1") || scenario == "smcr-v2-limits";
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
            alone: scenario == "smcd-v1",
        }
    }

    /// Goes through the messages: gets the other end's, compares its own.
    fn replay(&mut self, messages: &[Golden]) {
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

    fn receive(&mut self, golden: &Golden) {
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

    fn run(&mut self) {
        while let Some(wish) = self.endpoint.poll_wish() {
            match wish {
                Wish::SendClc { message, .. } => self.sent.push_back(message.into()),
                Wish::QueryRemoteGid { conn, device, .. } => {
                    let reached = self.reachable && (device != DeviceId(1) || self.alone);
                    self.endpoint.handle_remote_gid(NOW, conn, reached);
                }
                Wish::ResolveNextHop { conn, .. } => {
                    let hop = NextHop { mac: Mac::default(), gateway: false };
                    self.endpoint.handle_next_hop(NOW, conn, Some(hop));
                }
                Wish::Established(_) => self.established += 1,
                Wish::Group(group::Wish::Register { buffer, kind, .. }) => {
                    self.kinds.insert(buffer, kind);
                    let dmb = match kind {
                        BufferKind::Receive => self.dice.tokens.pop_front().unwrap_or_default(),
                        BufferKind::Send => Dmb::default(),
                    };
                    self.endpoint.handle_registered(NOW, buffer, Ok(dmb));
                }
                Wish::Links { group, wish } => self.carry_out(group, wish),
                _ => {}
            }
        }
    }

    fn carry_out(&mut self, group: GroupId, wish: smcr::Wish) {
        match wish {
            smcr::Wish::CreateQp { link, .. } => {
                let qp = self.dice.qps.pop_front();
                if let Some(qp) = qp {
                    self.links.push((qp.qpn.0, group, link));
                }
                self.endpoint.handle_qp_created(NOW, group, link, qp);
            }
            smcr::Wish::RegisterMr { link, buffer } => {
                let rtoken = match self.kinds[&buffer] {
                    BufferKind::Receive => self.dice.keys.pop_front(),
                    BufferKind::Send => Some(Rtoken { rkey: Default::default(), vaddr: 0 }),
                };
                self.endpoint.handle_mr_registered(NOW, group, link, buffer, rtoken);
            }
            smcr::Wish::PostSend { link, work, message } => {
                self.sent.push_back(message);
                self.endpoint.handle_sent(NOW, group, link, work, true);
            }
            _ => {}
        }
    }
}

fn from(golden: &Golden) -> &str {
    golden.note("from").unwrap().split(',').next().unwrap()
}

/// CLC and LLC messages of a scenario's first `handshakes`, up to where connections end.
fn messages(scenario: &str, handshakes: usize) -> Vec<Golden> {
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
fn control(golden: &Golden) -> bool {
    let message = llc::Message::parse(&golden.bytes);
    message.is_ok_and(|it| golden.bytes.len() >= 44 && !matches!(it.body, llc::Body::Unknown(_)))
}

fn deletes(golden: &Golden) -> bool {
    let message = llc::Message::parse(&golden.bytes);
    control(golden)
        && message
            .is_ok_and(|it| matches!(it.body, llc::Body::DeleteRkey(_) | llc::Body::DeleteLink(_)))
}

/// Changes what the inputs say, which is how the scenario ended.
type Prepare = fn(&mut StandIn);

fn stand_in(scenario: &str, handshakes: usize, established: usize) {
    stand_in_as(scenario, handshakes, established, |_| {});
}

fn stand_in_as(scenario: &str, handshakes: usize, established: usize, prepare: Prepare) {
    for side in ["client", "server"] {
        let messages = messages(scenario, handshakes);
        let mut end = StandIn::new(scenario, side, &messages);
        prepare(&mut end);
        end.replay(&messages);
        assert_eq!(end.established, established, "{scenario} {side}");
    }
}

// rows 5, 12, 14
#[test]
fn smcd_version_2() {
    stand_in("smcd-pair", 3, 3);
}

// row 27
#[test]
fn smcd_with_several_ueids() {
    stand_in("smcd-two-ueids", 2, 2);
}

#[test]
fn smcd_strangers_decline() {
    stand_in("smcd-strangers", 1, 0);
}

// rows 5, 13, 14, 16
#[test]
fn smcr_version_2() {
    stand_in("smcr-v2", 3, 3);
}

// row 34
#[test]
fn smcr_version_2_with_limits() {
    stand_in("smcr-v2-limits", 2, 2);
}

// rows 5, 13
#[test]
fn smcr_version_1() {
    stand_in("smcr-v1", 3, 3);
}

fn ueids(end: &mut StandIn, names: &[&str]) {
    let mut config = end.endpoint.config().clone();
    config.eids.flush();
    for name in names {
        config.eids.add(Ueid::new(name).unwrap()).unwrap();
    }
    end.endpoint.configure(config).unwrap();
}

fn without_port(end: &mut StandIn) {
    end.endpoint.remove_port(NOW, DeviceId(9));
}

/// The capture began before the port was there, which names the host for good.
fn never_a_port(end: &mut StandIn) {
    let interface = end.endpoint.inventory().interface(ETH0).cloned().unwrap();
    end.endpoint = Endpoint::new(end.endpoint.config().clone()).unwrap();
    end.endpoint.set_interface(interface);
}

/// The loopback is a device of version 1 of the network that TCP's interface is in.
fn loopback_of_version_1(end: &mut StandIn) {
    let mut config = end.endpoint.config().clone();
    let id = PnetId::new("NET1").unwrap();
    config.pnet.add(Named::Interface("eth0".into()), id).unwrap();
    config.pnet.add(Named::Device { name: "lo".into(), port: 1 }, id).unwrap();
    end.endpoint.configure(config).unwrap();
    let mut interface = end.endpoint.inventory().interface(ETH0).cloned().unwrap();
    interface.addresses = vec![Address { ip: [127, 0, 0, 1].into(), prefix_len: 8 }];
    end.endpoint.set_interface(interface);
}

// row 12
#[test]
fn smcd_version_1_in_a_group_of_version_2() {
    let all = messages("smcd-v1", usize::MAX);
    let of = |steps: &[&str]| {
        let is = |it: &&Golden| {
            let step = it.note("step").unwrap();
            steps.iter().any(|wanted| step.starts_with(wanted))
        };
        all.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    let first = of(&["the GID query forced to succeed"]);
    let later = of(&["without a UEID", "the client connects again"]);
    let mut end = StandIn::new("smcd-v1", "server", &[first.clone(), later.clone()].concat());
    loopback_of_version_1(&mut end);
    ueids(&mut end, &["VHOST-USER-ISM"]);
    end.replay(&first);
    ueids(&mut end, &[]);
    end.replay(&later);
    assert_eq!(end.established, 3);
}

// row 24
#[test]
fn smcd_version_1_of_another_subnet() {
    let mut messages = messages("smcd-v1", usize::MAX);
    messages.retain(|it| it.note("step").unwrap().starts_with("the server sees another prefix"));
    let mut end = StandIn::new("smcd-v1", "server", &messages);
    loopback_of_version_1(&mut end);
    let mut interface = end.endpoint.inventory().interface(ETH0).cloned().unwrap();
    interface.addresses.clear();
    end.endpoint.set_interface(interface);
    end.replay(&messages);
}

/// Two RoCE ports of one network; the capture lost the server's second one before its end.
fn two_ports(end: &mut StandIn) {
    let mut config = end.endpoint.config().clone();
    let id = PnetId::new("NET1").unwrap();
    config.pnet.add(Named::Interface("eth0".into()), id).unwrap();
    for name in ["rxe0", "rxe1"] {
        config.pnet.add(Named::Device { name: name.into(), port: 1 }, id).unwrap();
    }
    end.endpoint.configure(config).unwrap();
    let last = if end.side == "client" { 12 } else { 11 };
    let mac = end.second.unwrap();
    let mut port = end.endpoint.inventory().ports()[0].clone();
    (port.id, port.adapter, port.mac) = (DeviceId(10), "rxe1".into(), mac);
    port.gids = vec![PortGid {
        gid: crate::craft::gid_of([10, 77, 0, last]),
        version: RoceVersion::V2,
        interface: ETH0,
    }];
    end.endpoint.set_port(NOW, port);
}

// row 16
#[test]
fn smcr_with_two_ports() {
    stand_in_as("smcr-v2-two-ports", 4, 4, two_ports);
}

// row 23
#[test]
fn smcr_offered_in_both_versions() {
    stand_in_as("smcr-versions", 1, 1, |end| {
        ueids(end, &["VHOST-USER-ISM"]);
        let mut port = end.endpoint.inventory().ports()[0].clone();
        let v1 = port.gids.clone().into_iter().filter(|it| it.gid.0.starts_with(&[0; 10]));
        let v1: Vec<_> = v1.map(|it| PortGid { version: RoceVersion::V1, ..it }).collect();
        port.gids.extend(v1);
        end.endpoint.set_port(NOW, port);
    });
}

// rows 17, 18
#[test]
fn a_server_declines_what_linux_declines() {
    let cases: [(&str, &str, Prepare); 9] = [
        ("smcd-declines", "the client has no UEID", |_| {}),
        ("smcd-declines", "the client has another UEID", |_| {}),
        ("smcd-declines", "the server has no UEID", |it| ueids(it, &[])),
        ("smcd-v1", "the only device is one of version 1", |it| {
            ueids(it, &["VHOST-USER-ISM"]);
            it.reachable = false;
        }),
        ("smcr-v1-declines", "the client's prefix has another length", |_| {}),
        ("smcr-v1-declines", "the server has no RoCE device", without_port),
        ("smcr-v2-declines", "the server has no RoCE device", never_a_port),
        ("smcr-v2-declines", "the server has another UEID", |it| ueids(it, &["OTHER"])),
        ("smcr-v2-declines", "the server does not find the network device", |it| {
            it.endpoint.remove_interface(ETH0);
        }),
    ];
    for (scenario, step, prepare) in cases {
        let mut messages = messages(scenario, usize::MAX);
        messages.retain(|it| it.note("step").unwrap().starts_with(step));
        assert_eq!(messages.len(), 2, "{scenario}: {step}");
        let mut end = StandIn::new(scenario, "server", &messages);
        prepare(&mut end);
        end.replay(&messages);
    }
}
