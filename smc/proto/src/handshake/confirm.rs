// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A server's look at the Confirm, against the Accept it sent and the Proposal before.
//!
//! Invariant: a Confirm that passes repeats the mode, the version, the first contact, the EID, the
//! fabric and the GID that were agreed on. Linux compares the release and the limits only.

use smc_wire::clc::{AcceptConfirm, Body, Contact};
use smc_wire::id::Chid;

use super::first_contact;
use super::reason::{End, Failure};
use super::release::Terms;
use super::server::{Means, Way};
use crate::group::Version;

/// Looks at a Confirm; what both sides have agreed on after it.
pub(crate) fn look(
    way: &Way,
    first: bool,
    terms: &Terms,
    confirm: &AcceptConfirm,
) -> Result<Terms, End> {
    let lie = |field| Err(Failure::Lie(field).into());
    let smcr = matches!(way.means, Means::Smcr { .. });
    if smcr != matches!(confirm.body, Body::Smcr(_)) {
        return lie("Confirm.type");
    }
    if confirm.contact.is_first() != first {
        return lie("Confirm.first contact");
    }
    let version = match confirm.contact {
        Contact::V1 { .. } => Version::V1,
        Contact::V2 { .. } => Version::V2,
    };
    if version != way.version {
        return lie("Confirm.version");
    }
    if !same_peer(way, first, &confirm.body) {
        return lie("Confirm.gid");
    }
    match &confirm.contact {
        Contact::V2 { eid, .. } if Some(*eid) != way.eid => lie("Confirm.eid"),
        Contact::V2 { first: Some(theirs), .. } => {
            Ok(terms.confirmed(&first_contact::terms(theirs), smcr)?)
        }
        _ => Ok(*terms),
    }
}

/// Whether the Confirm names the device that was proposed and accepted. An SMC-R client confirms a
/// later connection of a group with the port of whichever link the server chose.
fn same_peer(way: &Way, first: bool, body: &Body) -> bool {
    match (way.means, body) {
        (Means::Smcd(device, gid), Body::Smcd(theirs)) => {
            let v1 = way.version == Version::V1;
            let chid = if v1 { Chid::default() } else { device.chid };
            // A proposal's native device has 64 bits of its GID there, or in version 1 perhaps none.
            let half = theirs.gid.gid == gid.gid && (gid.ext == 0 || theirs.gid.ext == gid.ext);
            theirs.chid == chid && (half || (v1 && gid.gid == 0))
        }
        (Means::Smcr { gid, .. }, Body::Smcr(theirs)) => !first || theirs.gid == gid,
        _ => false,
    }
}
