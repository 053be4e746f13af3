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
struct Inputs {
    all: BTreeMap<String, String>,
    side: &'static str,
    scenario: &'static str,
}

impl Inputs {
    fn get(&self, key: &str) -> Option<&str> {
        self.all.get(&format!("{}.{key}", self.side)).map(String::as_str)
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

    fn mac(&self) -> Mac {
        let bytes = self.get("net.eth0.mac").unwrap().split(':');
        let bytes: Vec<u8> = bytes.map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
        Mac(bytes.try_into().unwrap())
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
            addresses: self.list("net.eth0.address").into_iter().map(address).collect(),
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
        let version = if self.scenario == "smcr-v1" { RoceVersion::V1 } else { RoceVersion::V2 };
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
            mac: self.mac(),
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
                let rtoken = Rtoken { rkey: it.this_link.rkey, vaddr: it.this_link.vaddr };
                self.keys.push_back(rtoken);
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
    links: BTreeMap<u32, (GroupId, LinkId)>,
    established: usize,
    /// The peer's ISM devices are there.
    reachable: bool,
}

const NOW: Instant = Instant(1);

impl StandIn {
    fn new(scenario: &'static str, side: &'static str, messages: &[Golden]) -> Self {
        let inputs = Inputs { all: smc_golden::inputs(scenario), side, scenario };
        let own: Vec<Golden> = messages.iter().filter(|it| from(it) == side).cloned().collect();
        let dice = Dice::of(&own);
        let mut endpoint = Endpoint::new(inputs.config(dice.instance)).unwrap();
        let interface = inputs.interface();
        let local = interface.addresses.iter().map(|it| it.ip).find(IpAddr::is_ipv4).unwrap();
        endpoint.set_interface(interface);
        for (id, name) in [(1, "lo"), (2, "ism-virtio2")] {
            // Two captures kept SMC-D out of the way.
            let away = ["smcr-v1", "smcr-v2-limits"].contains(&scenario);
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
            links: BTreeMap::new(),
            established: 0,
            reachable: scenario != "smcd-strangers" && !scenario.starts_with("smcr"),
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
        let (group, link) = self.links[&u32::from_str_radix(qpn, 16).unwrap()];
        self.endpoint.handle_recv(NOW, group, link, &golden.bytes);
    }

    fn run(&mut self) {
        while let Some(wish) = self.endpoint.poll_wish() {
            match wish {
                Wish::SendClc { message, .. } => self.sent.push_back(message.into()),
                Wish::QueryRemoteGid { conn, device, .. } => {
                    // Loopback reaches nobody but itself.
                    let reached = self.reachable && device != DeviceId(1);
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
                    self.links.insert(qp.qpn.0, (group, link));
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

/// CLC and LLC messages of a scenario's first `handshakes`.
fn messages(scenario: &str, handshakes: usize) -> Vec<Golden> {
    let all = smc_golden::names(&format!("{scenario}/")).into_iter();
    let all = all.map(|name| smc_golden::get(&name)).filter(|golden| {
        let clc = Message::parse(&golden.bytes).is_ok();
        clc || llc::Message::parse(&golden.bytes)
            .is_ok_and(|it| golden.bytes.len() >= 44 && !matches!(it.body, llc::Body::Unknown(_)))
    });
    let mut proposals = 0;
    let within = all.take_while(|golden| {
        let proposal = matches!(Message::parse(&golden.bytes), Ok(Message::Proposal(_)));
        proposals += usize::from(proposal);
        proposals <= handshakes
    });
    let mut within: Vec<Golden> = within.collect();
    let last = within.iter().rposition(|golden| Message::parse(&golden.bytes).is_ok());
    within.truncate(last.map_or(0, |last| last + 1));
    within
}

fn stand_in(scenario: &'static str, handshakes: usize, established: usize) {
    for side in ["client", "server"] {
        let messages = messages(scenario, handshakes);
        let mut end = StandIn::new(scenario, side, &messages);
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
