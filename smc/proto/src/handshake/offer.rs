// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a client proposes: the devices it chooses and the Proposal that names them.
//!
//! Invariant: each device offered exists and can be chosen by a server; a fabric is offered once,
//! because the server names its choice by the fabric alone (`smc_find_proposal_devices`,
//! `smc_clc_send_proposal`).

use std::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;
use smc_wire::clc::{
    Diagnosis, IsmArea, MAX_ISM_ENTRIES, Modes, OfferV1, OfferV2, Prefixes, Proposal, SmcdOffer,
    SmcrOffer, Version,
};
use smc_wire::id::{Chid, IsmGid, Mac, PeerId, RoceGid};

use super::host::Host;
use super::inventory::{
    self, Interface, IsmDevice, PortGid, RocePort, RoceVersion, pnetid_of_ism, pnetid_of_port,
};
use super::prefix;
use super::release::FEATURES;
use super::route::Route;
use crate::id::DeviceId;
use crate::smcr::qp::Port;

/// An ISM device that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChosenIsm {
    pub(crate) device: DeviceId,
    pub(crate) gid: IsmGid,
    pub(crate) chid: Chid,
}

/// Everything that a client offers for one connection.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// SMC-D version 1.
    pub(crate) ism1: Option<ChosenIsm>,
    /// SMC-R version 1.
    pub(crate) roce1: Option<Port>,
    /// SMC-D version 2; may be empty if `ism1` serves for it too.
    pub(crate) ism2: Option<ArrayVec<ChosenIsm, MAX_ISM_ENTRIES>>,
    /// SMC-R version 2.
    pub(crate) roce2: Option<Port>,
    /// The subnets that version 1 needs; `None` takes version 1 out of the offer.
    pub(crate) prefixes: Option<Prefixes>,
    /// The VLAN of the interface.
    pub(crate) vlan: u16,
}

impl Offer {
    /// Chooses the devices for a connection, in Linux's order.
    ///
    /// # Errors
    /// [`Diagnosis::NOSMCDEV`] if there are none, [`Diagnosis::CNFERR`] if those there are need a
    /// subnet and the interface has none.
    pub(crate) fn choose(host: &Host, route: &Route) -> Result<Self, Diagnosis> {
        let interface = route.interface.and_then(|id| host.inventory.interface(id));
        let versions = host.config;
        let mut offer = Self {
            ism1: None,
            roce1: None,
            ism2: None,
            roce2: None,
            prefixes: interface.and_then(|it| prefix::named(route, it)),
            vlan: interface.map_or(0, |it| it.vlan),
        };
        if let Some(interface) = interface {
            if versions.smcd.v1 {
                offer.ism1 = ism_v1(host, interface);
            }
            if versions.smcr.v1 {
                offer.roce1 = Place { vlan: interface.vlan, local: None }.find(host, interface);
            }
            if versions.smcr.v2 && !host.config.eids.ueids().is_empty() {
                let place = Place { vlan: interface.vlan, local: route.local4() };
                offer.roce2 = place.local.and_then(|_| place.find(host, interface));
            }
        }
        if versions.smcd.v2 && host.inventory.v2_capable() {
            offer.ism2 = ism_v2(host, offer.ism1);
        }
        offer.settle()
    }

    /// Takes version 1 out if no subnet can be named, and refuses to offer nothing.
    fn settle(mut self) -> Result<Self, Diagnosis> {
        let v1 = self.ism1.is_some() || self.roce1.is_some();
        let v2 = self.ism2.is_some() || self.roce2.is_some();
        match (v1, v2) {
            (false, false) => Err(Diagnosis::NOSMCDEV),
            (true, false) if self.prefixes.is_none() => Err(Diagnosis::CNFERR),
            _ => {
                if self.prefixes.is_none() {
                    (self.ism1, self.roce1) = (None, None);
                }
                Ok(self)
            }
        }
    }

    /// The offer without SMC-D version 1, whose device cannot take part in the VLAN.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub(crate) fn without_ism1(mut self) -> Result<Self, Diagnosis> {
        self.ism1 = None;
        self.ism2 = self.ism2.filter(|list| !list.is_empty());
        self.settle()
    }

    /// The modes offered under version 1.
    pub(crate) fn modes1(&self) -> Option<Modes> {
        Modes::of(self.roce1.is_some(), self.ism1.is_some())
    }

    /// The modes offered under version 2.
    pub(crate) fn modes2(&self) -> Option<Modes> {
        Modes::of(self.roce2.is_some(), self.ism2.is_some())
    }

    /// The offered device of a fabric: what an Accept of version 2 chooses
    /// (`smc_v2_determine_accepted_chid`).
    pub(crate) fn of_fabric(&self, chid: Chid) -> Option<ChosenIsm> {
        self.ism1.iter().chain(self.ism2.iter().flatten()).find(|it| it.chid == chid).copied()
    }

    /// The message.
    pub(crate) fn proposal(&self, host: &Host) -> Proposal {
        let ism = self.ism1.map_or_else(IsmArea::default, |it| IsmArea {
            gid: it.gid.gid,
            chid: it.chid,
            ..IsmArea::default()
        });
        let v1 = self.modes1().zip(self.prefixes.clone());
        Proposal {
            version: Version::V2,
            peer: self.roce1.map_or_else(PeerId::default, |_| host.peer_id()),
            gid: self.roce1.map_or_else(RoceGid::default, |it| it.gid),
            mac: self.roce1.map_or_else(Mac::default, |it| it.mac),
            ism: Some(ism),
            v1: v1.map(|(modes, prefixes)| OfferV1 { modes, prefixes }),
            v2: self.modes2().map(|_| self.offer_v2(host)),
        }
    }

    fn offer_v2(&self, host: &Host) -> OfferV2 {
        let config = host.config;
        let smcd = self.ism2.as_ref().map(|devices| {
            let mut offer = SmcdOffer { seid: config.eids.system(), ..SmcdOffer::default() };
            for it in devices {
                offer.push(it.gid, it.chid);
            }
            offer
        });
        OfferV2 {
            release: config.release,
            feature_mask: FEATURES,
            ueids: config.eids.ueids().iter().map(|ueid| ueid.eid()).collect(),
            smcr: self.roce2.map(|it| SmcrOffer {
                gid: it.gid,
                max_conns: config.max_conns,
                max_links: config.max_links,
            }),
            smcd,
        }
    }
}

/// The first ISM device of the interface's physical network (`smc_find_ism_device`), if it can take
/// part in the interface's VLAN (`smc_connect_ism_vlan_setup`).
fn ism_v1(host: &Host, interface: &Interface) -> Option<ChosenIsm> {
    let device = ism_of_network(host, interface).next();
    device.filter(|it| interface.vlan == 0 || it.vlans).map(chosen)
}

/// The ISM devices of the interface's physical network, in order.
pub(crate) fn ism_of_network<'a>(
    host: &'a Host,
    interface: &Interface,
) -> impl Iterator<Item = &'a IsmDevice> + use<'a> {
    let table = &host.config.pnet;
    let id = inventory::pnetid_for_ism(host.inventory, table, interface);
    let ism = host.inventory.ism().iter();
    ism.filter(move |it| id.is_some() && pnetid_of_ism(it, table) == id)
}

/// One ISM device of each fabric, of those that reach any network or one that an interface has
/// (`smc_find_ism_v2_device_clnt`); `None` if version 2 cannot be offered for SMC-D.
fn ism_v2(host: &Host, v1: Option<ChosenIsm>) -> Option<ArrayVec<ChosenIsm, MAX_ISM_ENTRIES>> {
    let mut list: ArrayVec<ChosenIsm, MAX_ISM_ENTRIES> = ArrayVec::new();
    let mut lines = 0;
    for device in host.inventory.ism() {
        let reaches = pnetid_of_ism(device, &host.config.pnet)
            .is_none_or(|id| host.inventory.hardware_has(id));
        let new = v1.iter().chain(&list).all(|it| it.chid != device.chid);
        let need = if device.chid.is_emulated() { 2 } else { 1 };
        if reaches && new && lines + need <= MAX_ISM_ENTRIES {
            list.push(chosen(device));
            lines += need;
        }
    }
    (v1.is_some() || !list.is_empty()).then_some(list)
}

/// What a GID must be to serve a connection, or the link group of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The VLAN of the interface that the GID belongs to; 0 for none.
    pub(crate) vlan: u16,
    /// Version 2: the local address in whose subnet that interface is.
    pub(crate) local: Option<Ipv4Addr>,
}

impl Place {
    /// The first GID of a port that fits, if the port is active (`smc_ib_determine_gid`).
    pub(crate) fn on(&self, host: &Host, port: &RocePort) -> Option<Port> {
        let fits = |gid: &&PortGid| {
            let at = host.inventory.interface(gid.interface);
            at.is_some_and(|at| at.vlan == self.vlan && self.is_version(at, gid))
        };
        let gid = port.gids.iter().find(fits).filter(|_| port.active)?.gid;
        Some(Port { device: port.id, mac: port.mac, gid, mtu: port.mtu })
    }

    /// Version 2 wants a GID that is an IPv4 address of an interface in the subnet of `local`
    /// (`smc_ib_determine_gid_rcu`).
    fn is_version(&self, at: &Interface, gid: &PortGid) -> bool {
        match self.local {
            None => gid.version == RoceVersion::V1,
            Some(local) => {
                gid.version == RoceVersion::V2
                    && gid_to_ipv4(gid.gid).is_some()
                    && at.addresses.iter().any(|it| it.covers4(local))
            }
        }
    }

    /// The first active port of the interface's physical network with a GID that fits; where no
    /// network is known, the port that the interface itself is (`smc_pnet_find_roce_by_pnetid`).
    pub(crate) fn find(&self, host: &Host, interface: &Interface) -> Option<Port> {
        let table = &host.config.pnet;
        let ports = host.inventory.ports().iter();
        match inventory::pnetid_for_roce(host.inventory, table, interface) {
            Some(id) => {
                let mut there = ports.filter(|it| pnetid_of_port(it, table) == Some(id));
                there.find_map(|it| self.on(host, it))
            }
            None => {
                let base = host.inventory.base(interface).id;
                let there = ports.filter(|it| it.interface == Some(base));
                there.filter_map(|it| self.on(host, it)).next_back()
            }
        }
    }

    /// The ports on other adapters of the same physical network as `used` that a link group may
    /// have links on (`smc_pnet_find_alt_roce`).
    pub(crate) fn others(&self, host: &Host, used: DeviceId) -> impl Iterator<Item = Port> {
        let table = &host.config.pnet;
        let used = host.inventory.port(used);
        let ports = host.inventory.ports().iter().filter(move |it| {
            used.is_some_and(|used| {
                it.adapter != used.adapter
                    && pnetid_of_port(it, table) == pnetid_of_port(used, table)
            })
        });
        ports.filter_map(|it| self.on(host, it))
    }
}

/// The IPv4 address that a RoCEv2 GID holds (`smc_ib_gid_to_ipv4`).
pub(crate) fn gid_to_ipv4(gid: RoceGid) -> Option<Ipv4Addr> {
    Ipv6Addr::from(gid.0).to_ipv4().filter(|ip| !ip.is_broadcast())
}

pub(crate) fn chosen(device: &IsmDevice) -> ChosenIsm {
    ChosenIsm { device: device.id, gid: device.gid, chid: device.chid }
}
