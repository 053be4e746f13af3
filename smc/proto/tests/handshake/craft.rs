// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages made by hand, for one endpoint alone.

use smc_proto::endpoint::Wish;
use smc_wire::clc::{
    Accept, AcceptConfirm, Body, Confirm, Contact, Diagnosis, FirstContact, Message, Modes,
    OfferV1, OfferV2, Os, PrefixV4, Prefixes, Proposal, Smcd, SmcdOffer, SmcrOffer, Version,
};
use smc_wire::id::{Chid, DmbToken, IsmGid, LinkGroupId, RoceGid};
use smc_wire::size::BufferSize;

use crate::pair::{CHID, Outcome, Pair, Stream, ueid};

/// What a client offers that has the devices of [`crate::pair::ism`].
pub(crate) fn proposal() -> Proposal {
    Proposal {
        version: Version::V2,
        peer: Default::default(),
        gid: Default::default(),
        mac: Default::default(),
        ism: Some(Default::default()),
        v1: None,
        v2: Some(OfferV2 {
            release: 1,
            feature_mask: 1,
            ueids: [ueid("SMCV2-TEST-UEID").eid()].into_iter().collect(),
            smcr: None,
            smcd: Some(smcd_offer(&[(IsmGid { gid: 0xA001, ext: 0xB001 }, CHID)])),
        }),
    }
}

pub(crate) fn smcd_offer(devices: &[(IsmGid, Chid)]) -> SmcdOffer {
    let mut offer = SmcdOffer::default();
    for (gid, chid) in devices {
        assert!(offer.push(*gid, *chid));
    }
    offer
}

pub(crate) fn offer_v1(modes: Modes) -> OfferV1 {
    let v4 = PrefixV4 { subnet: [10, 0, 0, 0].into(), len: 24 };
    OfferV1 { modes, prefixes: Prefixes { v4, ..Prefixes::default() } }
}

pub(crate) fn smcr_offer(ip: [u8; 4]) -> SmcrOffer {
    SmcrOffer { gid: gid_of(ip), max_conns: 255, max_links: 2 }
}

/// The RoCEv2 GID of an IPv4 address.
pub(crate) fn gid_of(ip: [u8; 4]) -> RoceGid {
    RoceGid(std::net::Ipv4Addr::from(ip).to_ipv6_mapped().octets())
}

pub(crate) fn first(release: u8) -> FirstContact {
    FirstContact {
        v2_direct: false,
        os: Os::LINUX,
        release,
        hostname: [b' '; 32],
        features: (release > 0).then(Default::default),
    }
}

/// What the server of [`crate::pair::ism`] answers at a first contact.
pub(crate) fn accept() -> AcceptConfirm {
    AcceptConfirm {
        contact: Contact::V2 { eid: ueid("SMCV2-TEST-UEID").eid(), first: Some(first(1)) },
        body: Body::Smcd(smcd(2)),
    }
}

/// The DMB of end `n`, 1 or 2.
pub(crate) fn smcd(n: u64) -> Smcd {
    Smcd {
        gid: IsmGid { gid: 0xA000 + n, ext: 0xB000 + n },
        chid: CHID,
        token: DmbToken(0x1234),
        dmbe_idx: 0,
        size: BufferSize::MIN,
        link_id: LinkGroupId([0; 4]),
    }
}

impl Pair {
    /// Begins a server's handshake alone and gives it a proposal.
    pub(crate) fn propose(&mut self, proposal: &Proposal) -> usize {
        let conn = self.ends[1].endpoint.accept(self.now, &self.ends[1].route.clone());
        self.streams.push(Stream { conns: [None, Some(conn)], bytes: Default::default() });
        let stream = self.streams.len() - 1;
        self.inject(1, stream, Message::Proposal(proposal.clone()));
        stream
    }

    /// Begins a client's handshake alone; its proposal.
    pub(crate) fn offer(&mut self) -> (usize, Option<Proposal>) {
        let conn = self.ends[0].endpoint.connect(self.now, &self.ends[0].route.clone());
        self.streams.push(Stream { conns: [Some(conn), None], bytes: Default::default() });
        self.run();
        let proposal = self.sent(0).into_iter().rev().find_map(|message| match message {
            Message::Proposal(proposal) => Some(proposal),
            _ => None,
        });
        (self.streams.len() - 1, proposal)
    }

    /// Lets a message come to end `n` and runs.
    pub(crate) fn inject(&mut self, n: usize, stream: usize, message: Message) {
        let mut bytes = [0; 700];
        let len = message.emit(&mut bytes).unwrap();
        self.streams[stream].bytes[n].extend_from_slice(&bytes[..len]);
        self.run();
    }

    pub(crate) fn inject_accept(&mut self, stream: usize, accept: AcceptConfirm) {
        self.inject(0, stream, Message::Accept(Accept(accept)));
    }

    pub(crate) fn inject_confirm(&mut self, stream: usize, common: AcceptConfirm) {
        self.inject(1, stream, Message::Confirm(Confirm { common, gids: None }));
    }

    /// The diagnosis with which end `n` declined and fell back.
    pub(crate) fn declined(&self, n: usize, stream: usize) -> Diagnosis {
        let Some(Outcome::Tcp(reason)) = self.outcome(n, stream) else {
            panic!("{:?}", self.outcome(n, stream))
        };
        let last = self.ends[n].log.iter().rev().find_map(|wish| match wish {
            Wish::SendClc { message, .. } => Some(Message::parse(message).unwrap()),
            _ => None,
        });
        let Some(Message::Decline(decline)) = last else { panic!("{last:?}") };
        assert_eq!(decline.diagnosis, reason.diagnosis);
        reason.diagnosis
    }
}

/// An Accept of SMC-R version 2.
pub(crate) fn smcr_accept() -> AcceptConfirm {
    AcceptConfirm {
        contact: accept().contact,
        body: Body::Smcr(smc_wire::clc::Smcr {
            peer: Default::default(),
            gid: gid_of([10, 0, 0, 2]),
            mac: Default::default(),
            qpn: smc_wire::id::Qpn(77),
            rkey: smc_wire::id::Rkey(5),
            rmbe_idx: 1,
            alert_token: smc_wire::id::AlertToken(9),
            size: BufferSize::MIN,
            mtu: smc_wire::size::PathMtu::M1024,
            rmb_addr: 0x1000,
            psn: smc_wire::id::Psn(3),
        }),
    }
}
