// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A server's choice: which of the ways that a client proposes it takes.
//!
//! Invariant: the ways are tried in Linux's order, each at most once, and of all that stands in
//! the way the first reason is the one that is told (`smc_listen_find_device`).
//!
//! ```text
//! v2 ISM ─► prefix ─► VLAN ─► v1 ISM ─► v2 RoCE ─► v1 RoCE ─► decline
//! ```
//! A way is tried in steps that need the outside: whether the peer's GID can be reached, by which
//! next hop, and whether a link group and buffers can be had.

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;
use smc_wire::clc::{Diagnosis, MAX_ISM_ENTRIES, Modes, OfferV2, Proposal};
use smc_wire::id::{Chid, Eid, IsmGid, Mac, PeerId, RoceGid};

use super::host::Host;
use super::inventory::Interface;
use super::offer::{ChosenIsm, Place, chosen, gid_to_ipv4, ism_of_network};
use super::prefix;
use super::release::Terms;
use super::route::{NextHop, Route};
use crate::group::Version;
use crate::id::DeviceId;
use crate::smcr::qp::Port;

/// The VLAN that stands for "any" when a version 2 peer's GID is looked for (`ISM_RESERVED_VLANID`).
pub(crate) const RESERVED_VLAN: u16 = 0x1FFF;

/// A way to the client that may be tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) version: Version,
    pub(crate) vlan: u16,
    pub(crate) eid: Option<Eid>,
    pub(crate) means: Means,
}

/// What the way goes over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Means {
    /// SMC-D, and the client's GID.
    Smcd(ChosenIsm, IsmGid),
    /// SMC-R.
    Smcr { port: Port, peer: PeerId, gid: RoceGid, mac: Mac, hop: Option<NextHop> },
}

/// What has to be done for the choice to go on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Ask the device whether it reaches the GID, then [`Choice::reached`].
    Ask { device: DeviceId, gid: IsmGid, vlan: u16 },
    /// Look for the next hop to the client's port, then [`Choice::hop`].
    Resolve { from: Ipv4Addr, to: Ipv4Addr },
    /// Get a link group and buffers; [`Choice::failed`] if they cannot be had.
    Try(Way),
    /// There is no way.
    Decline(Diagnosis),
}

/// Where the choice has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Version 2 ISM: the next proposed device, and the next of ours to compare it with.
    Ism2 { proposed: usize, ours: usize },
    /// Between: prefix and VLAN.
    Subnet,
    /// Version 1 ISM: the next device of the network to look at.
    Ism1 { ours: usize },
    /// Version 2 RoCE.
    Roce2,
    /// Version 1 RoCE.
    Roce1,
}

/// A choice under way.
#[derive(Debug)]
pub(crate) struct Choice {
    proposal: Proposal,
    route: Route,
    /// The modes of version 2 that are possible.
    v2: Option<Modes>,
    terms: Terms,
    stage: Stage,
    /// The ISM devices proposed under version 2.
    proposed: ArrayVec<(Chid, IsmGid), { MAX_ISM_ENTRIES + 1 }>,
    /// The way that was asked about.
    asked: Option<Way>,
    /// Our devices that reach one of them.
    matched: ArrayVec<DeviceId, { MAX_ISM_ENTRIES + 1 }>,
    /// The subnets differ: version 1 is out.
    apart: bool,
    /// The last way was tried.
    last: bool,
    reason: Option<Diagnosis>,
}

impl Choice {
    /// Begins with a proposal that came over `route` (`smc_listen_v2_check`,
    /// `smc_clc_srv_v2x_features_validate`).
    ///
    /// # Errors
    /// Why nothing in it can be taken.
    pub(crate) fn new(host: &Host, route: &Route, proposal: Proposal) -> Result<Self, Diagnosis> {
        let v2 = usable_v2(host, &proposal)?;
        let release = proposal.v2.as_ref().map_or(0, |v2| v2.release);
        let smcr = proposal.v2.as_ref().and_then(|v2| v2.smcr);
        let offered = Terms {
            max_conns: smcr.map_or(0, |it| it.max_conns),
            max_links: smcr.map_or(0, |it| it.max_links),
            ..Terms::fixed(release)
        };
        let terms = Terms::taken(host.config, &offered, v2.is_some_and(Modes::smcr))?;
        let proposed = match v2.is_some_and(Modes::smcd) {
            true => proposed_ism(&proposal),
            false => ArrayVec::new(),
        };
        Ok(Self {
            proposal,
            route: *route,
            v2,
            terms,
            stage: Stage::Ism2 { proposed: 0, ours: 0 },
            proposed,
            asked: None,
            matched: ArrayVec::new(),
            apart: false,
            last: false,
            reason: None,
        })
    }

    /// What both sides have agreed on so far.
    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// Goes on to the next thing that needs the outside.
    pub(crate) fn step(&mut self, host: &Host) -> Step {
        loop {
            let step = match self.stage {
                Stage::Ism2 { .. } => self.ism2(host),
                Stage::Subnet => self.subnet(host),
                Stage::Ism1 { .. } => self.ism1(host),
                Stage::Roce2 => self.roce2(host),
                Stage::Roce1 => return self.roce1(host),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// What came of [`Step::Ask`].
    pub(crate) fn reached(&mut self, host: &Host, reached: bool) -> Step {
        let Some(way) = self.asked.take().filter(|_| reached) else { return self.step(host) };
        match (&mut self.stage, way.means) {
            (Stage::Ism2 { proposed, ours }, Means::Smcd(device, _)) => {
                (*proposed, *ours) = (*proposed + 1, 0);
                self.matched.push(device.device);
                if way.eid.is_none() {
                    // Linux stores no reason for enterprise ids that differ.
                    self.stage = Stage::Subnet;
                    return self.step(host);
                }
            }
            _ => self.after_ism1(),
        }
        Step::Try(way)
    }

    /// What came of [`Step::Resolve`].
    pub(crate) fn hop(&mut self, host: &Host, hop: Option<NextHop>) -> Step {
        let way = self.asked.take();
        if hop.is_none() {
            self.store(Diagnosis::NOSMCRDEV);
        }
        match way.zip(hop) {
            Some((mut way, found)) => {
                if let Means::Smcr { hop, .. } = &mut way.means {
                    *hop = Some(found);
                }
                Step::Try(way)
            }
            None => self.step(host),
        }
    }

    /// What came of [`Step::Try`], if it was not to be had.
    pub(crate) fn failed(&mut self, host: &Host, why: Diagnosis) -> Step {
        self.store(why);
        self.step(host)
    }

    /// Keeps the first reason (`smc_init_info_store_rc`).
    fn store(&mut self, reason: Diagnosis) {
        self.reason.get_or_insert(reason);
    }

    /// Version 2 ISM (`smc_find_ism_v2_device_serv`).
    fn ism2(&mut self, host: &Host) -> Option<Step> {
        let Stage::Ism2 { proposed, ours } = &mut self.stage else { return None };
        while let Some((chid, gid)) = self.proposed.get(*proposed).copied() {
            while let Some(device) = host.inventory.ism().get(*ours) {
                *ours += 1;
                if device.chid == chid && !self.matched.contains(&device.id) {
                    let eids = self.proposal.v2.as_ref().map(|v2| {
                        let system = v2.smcd.as_ref().and_then(|it| it.seid);
                        host.config.eids.negotiate(system, &v2.ueids)
                    });
                    self.asked = Some(Way {
                        version: Version::V2,
                        vlan: 0,
                        eid: eids.flatten(),
                        means: Means::Smcd(chosen(device), gid),
                    });
                    return Some(Step::Ask { device: device.id, gid, vlan: RESERVED_VLAN });
                }
            }
            (*proposed, *ours) = (*proposed + 1, 0);
        }
        if self.matched.is_empty() && self.v2.is_some_and(Modes::smcd) {
            self.store(Diagnosis::NOSMCD2DEV);
        }
        self.stage = Stage::Subnet;
        None
    }

    /// Prefix and VLAN: what version 1 needs beside devices.
    fn subnet(&mut self, host: &Host) -> Option<Step> {
        let interface = self.interface(host);
        if let Some(v1) = &self.proposal.v1 {
            self.apart = !interface.is_some_and(|it| prefix::matches(it, &v1.prefixes));
        }
        let known = interface.is_some();
        if self.apart {
            self.store(Diagnosis::DIFFPREFIX);
        }
        if !known {
            return Some(self.decline(Diagnosis::GETVLANERR));
        }
        match self.modes1().is_some_and(Modes::smcd) && !self.apart {
            true => self.stage = Stage::Ism1 { ours: 0 },
            false => self.after_ism1(),
        }
        self.only_ism()
    }

    /// Version 1 ISM (`smc_find_ism_v1_device_serv`).
    fn ism1(&mut self, host: &Host) -> Option<Step> {
        let Stage::Ism1 { ours } = &mut self.stage else { return None };
        let from = *ours;
        *ours += 1;
        let interface = self.interface(host)?;
        let mut devices = ism_of_network(host, interface).filter(|_| host.config.smcd.v1);
        let Some(device) = devices.nth(from) else {
            self.store(Diagnosis::NOSMCDDEV);
            self.after_ism1();
            return self.only_ism();
        };
        let gid = IsmGid { gid: self.proposal.ism.map_or(0, |it| it.gid), ext: 0 };
        let vlan = interface.vlan;
        let means = Means::Smcd(chosen(device), gid);
        let way = Way { version: Version::V1, vlan, eid: None, means };
        if gid.gid == 0 {
            self.after_ism1();
            return Some(Step::Try(way));
        }
        self.asked = Some(way);
        Some(Step::Ask { device: device.id, gid, vlan })
    }

    fn after_ism1(&mut self) {
        self.stage = Stage::Roce2;
    }

    /// Ends the choice where only SMC-D was proposed.
    fn only_ism(&mut self) -> Option<Step> {
        let smcr = |modes: Option<Modes>| modes.is_some_and(Modes::smcr);
        let done = self.stage == Stage::Roce2 && !smcr(self.modes1()) && !smcr(self.said2());
        done.then(|| self.decline(Diagnosis::NOSMCDDEV))
    }
}

/// The ways over RoCE, and how the choice ends.
impl Choice {
    /// Version 2 RoCE (`smc_find_rdma_v2_device_serv`).
    fn roce2(&mut self, host: &Host) -> Option<Step> {
        self.stage = Stage::Roce1;
        let offer = self.proposal.v2.as_ref().filter(|_| self.v2.is_some_and(Modes::smcr))?;
        let gid = offer.smcr?.gid;
        // Linux stores no reason for enterprise ids that differ.
        let eid = host.config.eids.negotiate(None, &offer.ueids)?;
        let interface = self.interface(host)?;
        let local = self.route.local4();
        let place = Place { vlan: interface.vlan, local };
        let usable = host.config.smcr.v2 && local.is_some();
        let port = if usable { place.find(host, interface) } else { None };
        let (Some(port), Some(from), Some(to)) = (port, local, gid_to_ipv4(gid)) else {
            self.store(Diagnosis::NOSMCRDEV);
            return None;
        };
        let (peer, mac) = (self.proposal.peer, self.proposal.mac);
        self.asked = Some(Way {
            version: Version::V2,
            vlan: interface.vlan,
            eid: Some(eid),
            means: Means::Smcr { port, peer, gid, mac, hop: None },
        });
        Some(Step::Resolve { from, to })
    }

    /// Version 1 RoCE (`smc_find_rdma_v1_device_serv`); the last way, tried once.
    fn roce1(&mut self, host: &Host) -> Step {
        if self.apart {
            return Step::Decline(Diagnosis::DIFFPREFIX);
        }
        let wanted = self.modes1().is_some_and(Modes::smcr) && !self.last;
        let interface = self.interface(host).filter(|_| wanted && host.config.smcr.v1);
        let port = interface.and_then(|it| {
            let place = Place { vlan: it.vlan, local: None };
            Some((place.find(host, it)?, it.vlan))
        });
        let Some((port, vlan)) = port else {
            return self.decline(Diagnosis::NOSMCDEV);
        };
        self.last = true;
        let Proposal { peer, gid, mac, .. } = self.proposal;
        let means = Means::Smcr { port, peer, gid, mac, hop: None };
        Step::Try(Way { version: Version::V1, vlan, eid: None, means })
    }

    /// The end without a way: the first reason, or `otherwise`.
    fn decline(&self, otherwise: Diagnosis) -> Step {
        Step::Decline(self.reason.unwrap_or(otherwise))
    }

    fn interface<'a>(&self, host: &Host<'a>) -> Option<&'a Interface> {
        self.route.interface.and_then(|id| host.inventory.interface(id))
    }

    /// The modes that the proposal names under version 1.
    fn modes1(&self) -> Option<Modes> {
        self.proposal.v1.as_ref().map(|v1| v1.modes)
    }

    /// The modes that the proposal names under version 2.
    fn said2(&self) -> Option<Modes> {
        self.proposal.v2.as_ref().and_then(OfferV2::modes)
    }
}

/// The modes of version 2 that this host could do.
///
/// # Errors
/// The last reason why not, if version 1 is not proposed either.
fn usable_v2(host: &Host, proposal: &Proposal) -> Result<Option<Modes>, Diagnosis> {
    let (mut smcr, mut smcd) = (false, false);
    let mut reason = Diagnosis::PEERNOSMC;
    if let Some(v2) = &proposal.v2 {
        if let Some(offer) = &v2.smcd {
            smcd = true;
            if !host.config.smcd.v2 || !host.inventory.v2_capable() {
                (smcd, reason) = (false, Diagnosis::NOISM2SUPP);
            } else if v2.ueids.is_empty() && offer.seid.is_none() {
                (smcd, reason) = (false, Diagnosis::NOUEID);
            }
        }
        if v2.smcr.is_some() {
            smcr = !v2.ueids.is_empty();
            if !smcr {
                reason = Diagnosis::NOUEID;
            }
        }
    }
    match Modes::of(smcr, smcd) {
        None if proposal.v1.is_none() => Err(reason),
        modes => Ok(modes),
    }
}

/// The ISM devices that are proposed under version 2: the one of version 1 first, if its fabric is
/// named.
fn proposed_ism(proposal: &Proposal) -> ArrayVec<(Chid, IsmGid), { MAX_ISM_ENTRIES + 1 }> {
    let native = proposal.ism.filter(|it| it.chid != Chid::default());
    let native = native.map(|it| (it.chid, IsmGid { gid: it.gid, ext: 0 }));
    let listed = proposal.v2.iter().filter_map(|v2| v2.smcd.as_ref());
    let listed = listed.flat_map(|smcd| smcd.devices().map(|(gid, chid)| (chid, gid)));
    native.into_iter().chain(listed).collect()
}
