// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two endpoints joined in memory: TCP streams, a fabric of ISM devices, and faults to inject.
//!
//! Invariant: carries out every wish at once unless a fault says otherwise; time moves only in
//! [`Pair::pass`].

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::config::Config;
use smc_proto::endpoint::{Endpoint, Established, Wish};
use smc_proto::group::{self, Fate, RegisterError};
use smc_proto::handshake::inventory::{Address, Interface, InterfaceId, IsmDevice};
use smc_proto::handshake::reason::{Failure, Reason};
use smc_proto::handshake::route::{NextHop, Route};
use smc_proto::id::{ConnId, DeviceId};
use smc_proto::smcd::dmb::Dmb;
use smc_wire::clc::{Diagnosis, Message};
use smc_wire::id::{Chid, DmbToken, IsmGid, Ueid};

use crate::fabric::Fabric;

/// How a connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Smc(Box<Established>),
    Tcp(Reason),
    Dead(Failure),
    Aborted { tell_peer: bool },
}

/// Faults of one end's outside.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Answers to the next registrations.
    pub(crate) register: VecDeque<RegisterError>,
    /// Peers' GIDs cannot be reached.
    pub(crate) unreachable: bool,
    /// DMBs cannot be attached.
    pub(crate) no_attach: bool,
    /// What attached DMBs say that their length is, instead of the truth.
    pub(crate) attached_len: Option<u64>,
    /// VLANs are refused.
    pub(crate) no_vlan: bool,
    /// There is no route to RoCE ports.
    pub(crate) no_hop: bool,
    /// A gateway lies between.
    pub(crate) gateway: bool,
    /// Wishes for buffers are left undone.
    pub(crate) hold_buffers: bool,
}

/// One end.
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    pub(crate) route: Route,
    pub(crate) faults: Faults,
    pub(crate) outcomes: BTreeMap<ConnId, Outcome>,
    /// Every wish, in order.
    pub(crate) log: Vec<Wish>,
    dmbs: u64,
    seed: u64,
}

/// Two ends: the client is 0, the server 1; and the TCP connections between them.
pub(crate) struct Pair {
    pub(crate) ends: [End; 2],
    pub(crate) now: Instant,
    pub(crate) streams: Vec<Stream>,
    /// Changes what end 0 or 1 sends.
    pub(crate) tamper: Option<Tamper>,
    pub(crate) fabric: Fabric,
    dmb_lens: BTreeMap<u64, u64>,
}

/// Changes a message that an end sends.
pub(crate) type Tamper = Box<dyn FnMut(usize, &mut Vec<u8>)>;

/// A TCP connection: the connection's name at each end, and the bytes on their way to it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stream {
    pub(crate) conns: [Option<ConnId>; 2],
    pub(crate) bytes: [Vec<u8>; 2],
}

pub(crate) const IF: InterfaceId = InterfaceId(2);
pub(crate) const CHID: Chid = Chid(0xFF01);

pub(crate) fn ueid(name: &str) -> Ueid {
    Ueid::new(name).unwrap()
}

/// A configuration with the EID that both ends have.
pub(crate) fn config() -> Config {
    let mut config = Config { instance: [0x5A, 0xA5], ..Config::default() };
    config.set_hostname("host");
    config.eids.add(ueid("SMCV2-TEST-UEID")).unwrap();
    config
}

/// An emulated ISM device of end `n`.
pub(crate) fn ism(n: u64) -> IsmDevice {
    IsmDevice {
        id: DeviceId(1),
        name: format!("ism{n}"),
        parent: String::new(),
        gid: IsmGid { gid: 0xA000 + n, ext: 0xB000 + n },
        chid: CHID,
        pnetid: None,
        v2: true,
        vlans: true,
        mapped: false,
        max_dmb: 1 << 20,
    }
}

pub(crate) fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

pub(crate) fn interface(n: u8) -> Interface {
    Interface {
        id: IF,
        name: "eth0".into(),
        base: None,
        pnetid: None,
        up: true,
        vlan: 0,
        addresses: vec![Address { ip: address(n), prefix_len: 24 }],
    }
}

pub(crate) fn route(n: u8) -> Route {
    Route {
        interface: Some(IF),
        local: address(n),
        peer: address(3 - n),
        smc: true,
        ipsec: false,
        sndbuf: None,
        rcvbuf: None,
    }
}

impl End {
    pub(crate) fn new(n: u8, config: Config) -> Self {
        let mut endpoint = Endpoint::new(config).unwrap();
        endpoint.set_interface(interface(n));
        Self {
            endpoint,
            route: route(n),
            faults: Faults::default(),
            outcomes: BTreeMap::new(),
            log: Vec::new(),
            dmbs: 0,
            seed: u64::from(n) << 32,
        }
    }
}

impl Pair {
    /// Two hosts of one subnet without devices.
    pub(crate) fn bare() -> Self {
        Self::of([config(), config()])
    }

    pub(crate) fn of(configs: [Config; 2]) -> Self {
        let [one, two] = configs;
        Self {
            ends: [End::new(1, one), End::new(2, two)],
            now: Instant(1),
            streams: Vec::new(),
            tamper: None,
            fabric: Fabric::default(),
            dmb_lens: BTreeMap::new(),
        }
    }

    /// Two hosts with an emulated ISM device each.
    pub(crate) fn ism() -> Self {
        Self::mapped([false, false])
    }

    /// The same, with a mapped sender at the ends that say so.
    pub(crate) fn mapped(mapped: [bool; 2]) -> Self {
        let mut pair = Self::bare();
        for (n, mapped) in mapped.into_iter().enumerate() {
            pair.ends[n].endpoint.add_ism(IsmDevice { mapped, ..ism(n as u64 + 1) });
        }
        pair
    }

    /// Connects TCP and begins both handshakes; nothing is carried out yet.
    pub(crate) fn begin(&mut self) -> usize {
        let server = self.ends[1].route;
        let client = self.ends[0].route;
        let accepted = self.ends[1].endpoint.accept(self.now, &server);
        let connected = self.ends[0].endpoint.connect(self.now, &client);
        let conns = [Some(connected), Some(accepted)];
        self.streams.push(Stream { conns, bytes: Default::default() });
        self.streams.len() - 1
    }

    /// Begins and runs until nothing more happens; how both ends stand.
    pub(crate) fn connect(&mut self) -> [Outcome; 2] {
        let stream = self.begin();
        self.run();
        [0, 1].map(|n| self.outcome(n, stream).expect("the handshake is under way"))
    }

    /// As [`Self::connect`], for a handshake that gives an SMC connection.
    pub(crate) fn establish(&mut self) -> [Established; 2] {
        self.connect().map(|outcome| match outcome {
            Outcome::Smc(established) => *established,
            other => panic!("{other:?}"),
        })
    }

    /// As [`Self::connect`], for a handshake that falls back.
    pub(crate) fn fall_back(&mut self) -> [Diagnosis; 2] {
        self.connect().map(|outcome| match outcome {
            Outcome::Tcp(reason) => reason.diagnosis,
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn outcome(&self, n: usize, stream: usize) -> Option<Outcome> {
        self.outcome_of(n, self.streams[stream].conns[n].unwrap())
    }

    pub(crate) fn outcome_of(&self, n: usize, conn: ConnId) -> Option<Outcome> {
        self.ends[n].outcomes.get(&conn).cloned()
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for end in &mut self.ends {
            end.endpoint.handle_timeout(self.now);
        }
        self.run();
    }

    /// The caller is through with a connection at end `n`.
    pub(crate) fn release(&mut self, n: usize, conn: ConnId) {
        self.ends[n].endpoint.release(self.now, conn, Fate::Reuse);
        self.run();
    }

    /// Carries out wishes and moves bytes until nothing more happens.
    pub(crate) fn run(&mut self) {
        while self.wishes() | self.deliver() | self.deliver_rdma() {}
    }

    fn wishes(&mut self) -> bool {
        let mut any = false;
        for n in [0, 1] {
            while let Some(wish) = self.ends[n].endpoint.poll_wish() {
                any = true;
                self.ends[n].log.push(wish.clone());
                self.carry_out(n, wish);
            }
        }
        any
    }

    fn deliver(&mut self) -> bool {
        let mut any = false;
        for stream in &mut self.streams {
            for n in [0, 1] {
                let (Some(conn), bytes) = (stream.conns[n], &mut stream.bytes[n]) else { continue };
                let taken = self.ends[n].endpoint.handle_clc(self.now, conn, bytes);
                bytes.drain(..taken);
                any |= taken > 0;
            }
        }
        any
    }

    fn reaches(&self, n: usize, gid: IsmGid) -> bool {
        let peers = self.ends[1 - n].endpoint.inventory().ism();
        peers
            .iter()
            .any(|it| it.gid.gid == gid.gid && (it.gid.ext == gid.ext || !it.chid.is_emulated()))
    }

    pub(crate) fn carry_out(&mut self, n: usize, wish: Wish) {
        let reaches = |gid| self.reaches(n, gid) && !self.ends[n].faults.unreachable;
        let now = self.now;
        match wish {
            Wish::SendClc { conn, message } => self.send(n, conn, message.into()),
            Wish::QueryRemoteGid { conn, gid, .. } => {
                let reached = reaches(gid);
                self.ends[n].endpoint.handle_remote_gid(now, conn, reached);
            }
            Wish::ResolveNextHop { conn, .. } => {
                let end = &mut self.ends[n];
                let hop = NextHop { mac: Default::default(), gateway: end.faults.gateway };
                let hop = (!end.faults.no_hop).then_some(hop);
                end.endpoint.handle_next_hop(now, conn, hop);
            }
            Wish::Attach { conn, device, token } => {
                let end = &mut self.ends[n];
                let len = self.dmb_lens.get(&token.0).copied();
                let len = end.faults.attached_len.or(len).filter(|_| !end.faults.no_attach);
                end.endpoint.handle_attached(now, conn, device, token, len);
            }
            Wish::Detach { .. } => {}
            Wish::Established(established) => {
                let conn = established.conn;
                let before = self.ends[n].outcomes.insert(conn, Outcome::Smc(established));
                assert_eq!(before, None);
            }
            Wish::Fallback { conn, reason, .. } => {
                let before = self.ends[n].outcomes.insert(conn, Outcome::Tcp(reason));
                assert_eq!(before, None);
            }
            Wish::Failed { conn, failure } => {
                let before = self.ends[n].outcomes.insert(conn, Outcome::Dead(failure));
                assert_eq!(before, None);
                self.reset(n, conn);
            }
            Wish::Abort { conn, tell_peer } => {
                self.ends[n].outcomes.insert(conn, Outcome::Aborted { tell_peer });
                self.ends[n].endpoint.release(now, conn, Fate::Discard);
            }
            Wish::Group(wish) => self.carry_out_group(n, wish),
            Wish::Links { group, wish } => self.carry_out_links(n, group, wish),
        }
    }

    fn carry_out_group(&mut self, n: usize, wish: group::Wish) {
        let now = self.now;
        let end = &mut self.ends[n];
        match wish {
            group::Wish::Register { .. } if end.faults.hold_buffers => {}
            group::Wish::Register { buffer, kind, size, .. } => {
                let outcome = match end.faults.register.pop_front() {
                    Some(error) => Err(error),
                    None if kind == group::BufferKind::Send => Ok(Dmb::default()),
                    None => {
                        end.dmbs += 1;
                        let token = DmbToken(end.seed + end.dmbs);
                        self.dmb_lens.insert(token.0, size.bytes().into());
                        Ok(Dmb { token, index: end.dmbs as u16 })
                    }
                };
                end.endpoint.handle_registered(now, buffer, outcome);
            }
            group::Wish::Zero { buffer, .. } => end.endpoint.handle_zeroed(now, buffer, true),
            group::Wish::AddVlan { device, vlan } => {
                let added = !end.faults.no_vlan;
                end.endpoint.handle_vlan(now, device, vlan, added);
            }
            group::Wish::Kill { .. } | group::Wish::EndLinks { .. } => {
                panic!("an endpoint keeps this wish for itself")
            }
            _ => {}
        }
    }

    fn send(&mut self, n: usize, conn: ConnId, mut message: Vec<u8>) {
        if let Some(tamper) = &mut self.tamper {
            tamper(n, &mut message);
        }
        let to = self.streams.iter_mut().find(|it| it.conns[n] == Some(conn));
        if let Some(stream) = to {
            stream.bytes[1 - n].extend(message);
        }
    }

    /// End `n` resets the TCP connection.
    fn reset(&mut self, n: usize, conn: ConnId) {
        let stream = self.streams.iter().find(|it| it.conns[n] == Some(conn));
        if let Some(peer) = stream.and_then(|it| it.conns[1 - n]) {
            let now = self.now;
            self.ends[1 - n].endpoint.handle_tcp_end(now, peer);
        }
    }

    /// CLC messages that end `n` sent.
    pub(crate) fn sent(&self, n: usize) -> Vec<Message> {
        let messages = self.ends[n].log.iter().filter_map(|wish| match wish {
            Wish::SendClc { message, .. } => Some(Message::parse(message).unwrap()),
            _ => None,
        });
        messages.collect()
    }
}
