// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client's look at the Accept, against what it offered.
//!
//! Invariant: an Accept that passes names a device, a mode, a version, an EID and a release that
//! were offered (`smc_connect_check_aclc`, `smc_v2_determine_accepted_chid`; the EID and the release
//! are checked beyond Linux).

use smc_wire::clc::{AcceptConfirm, Body, Contact, Diagnosis, FirstContact, Smcd, Smcr};
use smc_wire::id::Eid;

use super::first_contact;
use super::host::Host;
use super::offer::{ChosenIsm, Offer};
use super::reason::{End, Failure};
use super::release::Terms;
use crate::group::Version;
use crate::smcr::qp::Port;

/// What the server chose of the offer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen {
    pub(crate) version: Version,
    /// The server begins a link group.
    pub(crate) first: bool,
    /// The enterprise id of version 2.
    pub(crate) eid: Option<Eid>,
    pub(crate) terms: Terms,
    pub(crate) means: Means,
}

/// The way that the server chose.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Means {
    /// SMC-D over one of the offered devices, to the server's DMB.
    Smcd(ChosenIsm, Smcd),
    /// SMC-R over the offered port, to the server's RMB.
    Smcr {
        port: Port,
        peer: Smcr,
        /// The server reaches us without a gateway; version 2's first contact says so.
        direct: Option<bool>,
    },
}

/// Looks at an Accept.
pub(crate) fn look(host: &Host, offer: &Offer, accept: &AcceptConfirm) -> Result<Chosen, End> {
    let (version, eid, first) = match &accept.contact {
        Contact::V1 { .. } => (Version::V1, None, None),
        Contact::V2 { eid, first } => (Version::V2, Some(*eid), first.as_ref()),
    };
    let modes = if version == Version::V1 { offer.modes1() } else { offer.modes2() };
    let offered = modes.is_some_and(|modes| match accept.body {
        Body::Smcr(_) => modes.smcr(),
        Body::Smcd(_) => modes.smcd(),
    });
    if !offered {
        return Err(Diagnosis::MODEUNSUPP.into());
    }
    let smcr = matches!(accept.body, Body::Smcr(_));
    let terms = match first {
        Some(first) => Terms::accepted(host.config, &first_contact::terms(first), smcr)?,
        None => Terms::fixed(host.config.release),
    };
    let means = means(offer, accept, version, first)?;
    if eid.is_some_and(|eid| !may_choose(host, &eid, smcr)) {
        return Err(Failure::Lie("Accept.eid").into());
    }
    Ok(Chosen { version, first: accept.contact.is_first(), eid, terms, means })
}

/// Whether the server may choose this EID: the system's is for SMC-D alone.
fn may_choose(host: &Host, eid: &Eid, smcr: bool) -> bool {
    let eids = &host.config.eids;
    eids.ueids().iter().any(|it| it.eid() == *eid) || (!smcr && eids.system() == Some(*eid))
}

fn means(
    offer: &Offer,
    accept: &AcceptConfirm,
    version: Version,
    first: Option<&FirstContact>,
) -> Result<Means, End> {
    match accept.body {
        Body::Smcd(peer) => {
            let device = match version {
                Version::V1 => offer.ism1,
                Version::V2 => offer.of_fabric(peer.chid),
            };
            let device = device.ok_or(Failure::Lie("Accept.chid"))?;
            Ok(Means::Smcd(device, peer))
        }
        Body::Smcr(peer) => {
            let port = match version {
                Version::V1 => offer.roce1,
                Version::V2 => offer.roce2,
            };
            let port = port.ok_or(Diagnosis::MODEUNSUPP)?;
            Ok(Means::Smcr { port, peer, direct: first.map(|it| it.v2_direct) })
        }
    }
}
