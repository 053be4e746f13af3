// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Linux's SMC-R, replayed: one end of a capture is a link group of ours, the other end's messages are
//! those that Linux sent.
//!
//! Invariant: from the same inputs (numbers, keys, addresses) the group sends each message that Linux
//! sent in its place, byte for byte on the same link, and no other.

// The captures are a little-endian host's.
#![cfg(target_endian = "little")]

use std::collections::BTreeMap;

use smc_golden::Golden;
use smc_proto::Instant;
use smc_proto::id::{BufferId, ConnId, DeviceId};
use smc_proto::smcr::qp::{PeerEnd, Port, QueuePair};
use smc_proto::smcr::{LinkGroup, LinkId, LinkView, Params, Received, Role, Rtoken, Wish};
use smc_wire::clc::{self, Contact};
use smc_wire::id::{Mac, Rkey, RoceGid};
use smc_wire::llc::{AddLink, Body, ConfirmRkey, DeleteTarget, Message, RkeyUpdate, Version};
use smc_wire::size::PathMtu;

use crate::fabric::World;
use crate::host::{CLIENT, Options, SERVER};

/// A capture's LLC messages and its first Accept and Confirm.
struct Script {
    llc: Vec<Golden>,
    /// The server's and the client's end, RMB included.
    ends: [clc::Smcr; 2],
    contact: Contact,
}

fn script(scenario: &str) -> Script {
    let all: Vec<_> = smc_golden::names(&format!("{scenario}/"))
        .iter()
        .map(|name| smc_golden::get(name))
        .collect();
    let first = all.iter().filter(|golden| golden.note("carried by") == Some("TCP"));
    let clc: Vec<_> = first.filter_map(|golden| clc::Message::parse(&golden.bytes).ok()).collect();
    let said = |wanted: usize| {
        clc.iter().find_map(|message| match message {
            clc::Message::Accept(clc::Accept(it)) if wanted == 0 => Some(*it),
            clc::Message::Confirm(it) if wanted == 1 => Some(it.common),
            _ => None,
        })
    };
    let common = [0, 1].map(|side| said(side).expect("a handshake"));
    let ends = common.map(|it| match it.body {
        clc::Body::Smcr(end) => end,
        clc::Body::Smcd(_) => panic!("{scenario} is SMC-D's"),
    });
    let roce = |golden: &Golden| golden.note("carried by").is_some_and(|by| by.starts_with("RoCE"));
    let llc = all.into_iter().filter(|golden| roce(golden) && golden.bytes[0] != 0xFE).collect();
    Script { llc, ends, contact: common[0].contact }
}

/// The number at the end of a GID that holds an IPv4 address.
fn address(gid: RoceGid) -> String {
    let [.., a, b, c, d] = gid.0;
    format!("{a}.{b}.{c}.{d}")
}

struct Replay<'a> {
    role: Role,
    script: &'a Script,
    /// The next message of the script.
    at: usize,
    group: LinkGroup,
    now: Instant,
    /// What the group sent and the script has not come to yet.
    sent: Vec<(LinkId, Vec<u8>)>,
    /// Connections by the key of their RMB on some link.
    conns: u32,
    rmbs: BTreeMap<BufferId, ConnId>,
}

impl<'a> Replay<'a> {
    fn start(script: &'a Script, version: Version, role: Role) -> Self {
        let side = usize::from(role == Role::Client);
        let own = script.ends[side];
        let port =
            Port { device: device(own.gid), mac: own.mac, gid: own.gid, mtu: PathMtu::M1024 };
        let mut params = Params::new(role, version, [0; 4], port);
        if let Contact::V2 { first: Some(first), .. } = script.contact {
            let features = first.features.unwrap();
            params.peer_release = first.release;
            (params.max_conns, params.max_links) = (features.max_conns, features.max_links);
            params.gateway = (!first.v2_direct).then_some(Mac([2; 6]));
        }
        let (group, sent, rmbs) = (LinkGroup::new(&params), Vec::new(), BTreeMap::new());
        let (at, now, conns) = (0, Instant(0), 0);
        let mut replay = Self { role, script, at, group, now, sent, conns, rmbs };
        replay.set_id(params);
        for port in replay.ports_of_first_step() {
            replay.group.handle_port_up(now, port);
        }
        replay.pump();
        replay.join();
        replay.group.share_rmb(now, BufferId(0)).unwrap();
        replay.pump();
        let clc::Smcr { qpn, psn, gid, mac, mtu, rkey, rmb_addr, .. } = script.ends[1 - side];
        let first = replay.group.first_link();
        replay.group.add_rtoken(first, Rtoken { rkey, vaddr: rmb_addr }).unwrap();
        replay.group.start(now, PeerEnd { qpn, psn, gid, mac, mtu }).unwrap();
        replay.pump();
        replay
    }

    /// The group's name, which nothing but the links' names for display shows.
    fn set_id(&mut self, mut params: Params) {
        let confirm = self.upcoming().find_map(|(_, body)| match body {
            Body::ConfirmLink(confirm) => Some(confirm),
            _ => None,
        });
        let confirm = confirm.unwrap();
        let uid = u32::from_be_bytes(confirm.link_uid);
        params.id = (uid - u32::from(confirm.link)).to_ne_bytes();
        self.group = LinkGroup::new(&params);
    }

    fn is_ours(&self, golden: &Golden) -> bool {
        let who = if self.role == Role::Server { "server" } else { "client" };
        golden.note("from").unwrap().starts_with(who)
    }

    /// What this role will still send.
    fn upcoming(&self) -> impl Iterator<Item = (&'a Golden, Body<'a>)> {
        let rest = self.script.llc[self.at..].iter().filter(|golden| self.is_ours(golden));
        rest.map(|golden| (golden, Message::parse(&golden.bytes).unwrap().body))
    }

    fn offers(&self) -> impl Iterator<Item = (&'a Golden, AddLink<'a>)> {
        self.upcoming().filter_map(|(golden, body)| match body {
            Body::AddLink(add) if add.rejected.is_none() && add.mtu.is_some() => {
                Some((golden, add))
            }
            _ => None,
        })
    }

    /// The ports of this role's links that come with the first contact.
    fn ports_of_first_step(&self) -> Vec<Port> {
        let step = self.script.llc[0].note("step");
        let offers = self.offers().filter(|(golden, _)| golden.note("step") == step);
        offers.map(|(_, add)| port(add.gid, add.mac)).collect()
    }

    fn join(&mut self) -> LinkId {
        let conn = ConnId(self.conns);
        self.conns += 1;
        let link = self.group.join(conn).unwrap();
        self.rmbs.insert(BufferId(conn.0), conn);
        link
    }

    fn pump(&mut self) {
        while let Some(wish) = self.group.poll_wish() {
            match wish {
                Wish::CreateQp { link, port } => {
                    let qp = self.queue_pair(link, port);
                    self.group.handle_qp_created(self.now, link, Some(qp));
                }
                Wish::RegisterMr { link, buffer } => {
                    let rtoken = self.key(link, buffer);
                    self.group.handle_mr_registered(self.now, link, buffer, Some(rtoken));
                }
                Wish::PostSend { link, work, message } => {
                    self.sent.push((link, message));
                    self.group.handle_sent(self.now, link, work, true);
                }
                Wish::Drain { link } => self.group.handle_drained(self.now, link),
                Wish::BufferReady { result, .. } => assert_eq!(result, Ok(())),
                Wish::FirstContactFailed(_) => panic!("{wish:?}"),
                _ => {}
            }
        }
    }

    /// The numbers of a queue pair that Linux made in this one's place.
    fn queue_pair(&self, link: LinkId, port: Port) -> QueuePair {
        if link == self.group.first_link() {
            let own = self.script.ends[usize::from(self.role == Role::Client)];
            return QueuePair { qpn: own.qpn, psn: own.psn };
        }
        let mut offers = self.offers();
        let (_, add) = offers.find(|(_, add)| add.gid == port.gid).expect("Linux made none");
        QueuePair { qpn: add.qpn, psn: add.psn }
    }

    /// The key that Linux got in this one's place.
    fn key(&self, link: LinkId, buffer: BufferId) -> Rtoken {
        let view = self.group.link(link).unwrap();
        if buffer == BufferId(0) && link == self.group.first_link() {
            let own = self.script.ends[usize::from(self.role == Role::Client)];
            return Rtoken { rkey: own.rkey, vaddr: own.rmb_addr };
        }
        if view.state != smc_proto::smcr::link::State::Active {
            let known = |rkey: Rkey| self.buffer_of(rkey) == Some(buffer);
            let told = self.upcoming().flat_map(|(_, body)| updates(&body));
            let mut told =
                told.filter(|(link, update)| *link == view.number && known(update.known));
            // Version 1 tells keys only when the offer was accepted.
            let update = told.next().unwrap_or_default().1;
            return Rtoken { rkey: update.new, vaddr: update.vaddr };
        }
        let (golden, confirm) = self
            .upcoming()
            .find_map(|(golden, body)| match body {
                Body::ConfirmRkey(confirm) if golden.bytes[3] & 0x80 == 0 => {
                    Some((golden, confirm))
                }
                _ => None,
            })
            .unwrap();
        if self.link(golden).id == link {
            return confirm.this_link;
        }
        let mut others = confirm.others().unwrap();
        others.find(|other| other.link == view.number).expect("Linux told no key for it").rtoken
    }

    /// Our RMB that has this key on some link.
    fn buffer_of(&self, rkey: Rkey) -> Option<BufferId> {
        let has = |buffer: BufferId| {
            let links: Vec<_> = self.group.links().map(|link| link.id).collect();
            let keys = links.into_iter().filter_map(|link| self.group.local_rtoken(buffer, link));
            keys.into_iter().any(|key| key.rkey == rkey)
        };
        (0..self.conns).map(BufferId).find(|&buffer| has(buffer))
    }

    /// The link that carried a message: its receiver's queue pair, its sender's address and its packet
    /// number say so.
    fn link(&self, golden: &Golden) -> LinkView {
        let by = golden.note("carried by").unwrap();
        let qpn = u32::from_str_radix(by.rsplit("0x").next().unwrap(), 16).unwrap();
        let from = golden.note("sent from").unwrap();
        let ours = self.is_ours(golden);
        let fits = |link: &LinkView| {
            let (Some(own), Some(peer)) = (link.qp, link.peer) else { return false };
            let (to, gid) = if ours { (peer.qpn, link.port.gid) } else { (own.qpn, peer.gid) };
            to.0 == qpn && address(gid) == from
        };
        // Queue pairs of two ports may have the same number: the packet numbers tell them apart.
        let psn = u32::from_str_radix(&golden.note("psn").unwrap()[2..], 16).unwrap();
        let sent_before = |link: &LinkView| {
            let begin = if ours { link.qp.unwrap().psn } else { link.peer.unwrap().psn };
            psn.wrapping_sub(begin.0) & 0xFF_FFFF
        };
        let found = self.group.links().filter(fits).min_by_key(sent_before);
        found.unwrap_or_else(|| panic!("{}: no link carries it", golden.name))
    }

    /// Lets happen here what made Linux send a message of its own accord.
    fn provoke(&mut self, golden: &Golden) {
        let message = Message::parse(&golden.bytes).unwrap();
        assert!(!message.response, "{}: not answered; {:x?}", golden.name, self.sent);
        match message.body {
            Body::ConfirmRkey(confirm) => self.share(golden, &confirm),
            Body::DeleteRkey(delete) => {
                let rkey = delete.rkeys.iter().next().unwrap();
                let buffer = self.buffer_of(rkey).expect("a key of ours");
                self.group.unshare_rmb(self.now, buffer).unwrap();
                self.group.leave(self.rmbs[&buffer]);
            }
            Body::DeleteLink(delete) => match delete.target {
                DeleteTarget::All => self.group.terminate(self.now, delete.orderly, delete.reason),
                DeleteTarget::Link(number) => {
                    let link = self.group.links().find(|link| link.number == number).unwrap();
                    self.group.handle_port_down(self.now, link.port.device);
                }
            },
            Body::TestLink(_) => {
                self.now = self.group.poll_timeout().unwrap();
                self.group.handle_timeout(self.now);
            }
            Body::ReqAddLink(request) => {
                let gid = request.gids.iter().nth(1).unwrap();
                let (_, add) = self.offers().find(|(_, add)| add.gid == gid).unwrap();
                self.group.handle_port_up(self.now, port(gid, add.mac));
            }
            Body::AddLink(add) => self.group.handle_port_up(self.now, port(add.gid, add.mac)),
            _ => panic!("{}: nothing provokes it", golden.name),
        }
        self.pump();
    }

    /// A further connection's RMB: one that was used before, or a new one.
    fn share(&mut self, golden: &Golden, confirm: &ConfirmRkey) {
        let link = self.link(golden).id;
        let known = self.buffer_of(confirm.this_link.rkey);
        let joined = self.join();
        if self.role == Role::Server {
            assert_eq!(joined, link, "{}: Linux took another link", golden.name);
        }
        let conn = ConnId(self.conns - 1);
        let buffer = known.unwrap_or(BufferId(conn.0));
        self.rmbs.insert(buffer, conn);
        self.group.share_rmb_over(self.now, buffer, link).unwrap();
    }

    fn run(&mut self) {
        while let Some(golden) = self.script.llc.get(self.at) {
            if self.group.is_gone() && self.sent.is_empty() {
                // Linux's server says DELETE LINK ALL twice, in an orderly way and not.
                assert_eq!(golden.bytes[0] & 0x0F, 4, "{} comes after the end", golden.name);
            } else if self.is_ours(golden) {
                let found =
                    |it: &Self| it.sent.iter().position(|(_, bytes)| *bytes == golden.bytes);
                let at = found(self).or_else(|| {
                    self.provoke(golden);
                    found(self)
                });
                let at = at.unwrap_or_else(|| {
                    panic!(
                        "{}: {:02x?} not sent, but {:02x?}",
                        golden.name, golden.bytes, self.sent
                    )
                });
                let link = self.sent.remove(at).0;
                if let Some(view) = self.group.link(link) {
                    assert_eq!(self.link(golden).id, view.id, "{}: on another link", golden.name);
                }
            } else {
                let link = self.link(golden).id;
                let received = self.group.handle_recv(self.now, link, &golden.bytes);
                assert_eq!(received, Received::Control, "{}", golden.name);
                self.pump();
            }
            self.at += 1;
        }
        assert_eq!(self.sent, [], "Linux did not send these");
        assert!(self.group.is_quiet());
    }
}

/// The keys that a message tells, and for which link.
fn updates(body: &Body) -> Vec<(u8, RkeyUpdate)> {
    match body {
        Body::AddLink(AddLink { link, tail: Some(tail), .. }) => {
            tail.rkeys.iter().map(|update| (*link, update)).collect()
        }
        Body::AddLinkCont(cont) => cont.updates().map(|update| (cont.link, update)).collect(),
        _ => Vec::new(),
    }
}

fn device(gid: RoceGid) -> DeviceId {
    let [.., last] = gid.0;
    DeviceId(last.into())
}

fn port(gid: RoceGid, mac: Mac) -> Port {
    Port { device: device(gid), mac, gid, mtu: PathMtu::M1024 }
}

fn replay(scenario: &str, version: Version) {
    let script = script(scenario);
    for role in [Role::Server, Role::Client] {
        Replay::start(&script, version, role).run();
    }
}

// rows 59, 62, 66
#[test]
fn version_1_with_one_port() {
    replay("smcr-v1", Version::V1);
}

// rows 59, 62, 66
#[test]
fn version_2_with_one_port() {
    replay("smcr-v2", Version::V2);
}

// rows 64, 65, 67, 68
#[test]
fn two_ports_that_go_and_come() {
    replay("smcr-v2-two-ports", Version::V2);
}

// rows 63, 65, 67, 68, 69
#[test]
fn two_ports_of_version_1() {
    replay("smcr-v1-two-ports", Version::V1);
}

// rows 67, 70
#[test]
fn idle_links_and_an_idle_group() {
    replay("smcr-v1-idle", Version::V1);
    replay("smcr-v2-idle", Version::V2);
}

// row 72
#[test]
fn gateway_between_the_hosts() {
    replay("smcr-v2-routed", Version::V2);
}

// rows 64, 65, 67, 69
#[test]
fn asymmetric_link_that_is_no_longer_needed() {
    replay("smcr-v2-asymmetric", Version::V2);
}

// rows 59, 71
#[test]
fn limits_that_were_lowered() {
    replay("smcr-v2-limits", Version::V2);
}

// row 59: a CONFIRM LINK that is not liked ends the group in Linux's words
#[test]
fn refused_first_contact_ends_as_linuxs_does() {
    let mut world = World::new(&Options::new(Version::V2, &[1], &[1]));
    world.tamper = Some(Box::new(|from, _, bytes| {
        if (from, bytes[0]) == (CLIENT, 0x21) {
            bytes[3] &= !0x03;
        }
        true
    }));
    world.start();
    world.run();
    let names = smc_golden::names("smcr-v2-declines/");
    let mut ends = names.iter().filter(|name| name.ends_with("delete-link-v2-request-all"));
    let linuxs = smc_golden::load(ends.next().unwrap());
    let ours = world.frames.iter().find(|frame| frame.bytes[0] == 0x24).unwrap();
    assert_eq!((ours.from, &ours.bytes), (SERVER, &linuxs));
}
