// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ADD_VLAN, DEL_VLAN, and the VLAN fields of other commands.
//!
//! Invariant: a member is in no VLAN that the operator did not allow it.

use ism_abi::VlanRequest;

use super::{Answer, Call, Reply};
use crate::fabric::Fabric;
use crate::member::{MAX_VLAN, RESERVED_VLAN};
use crate::refusal::Refusal;

/// The VLAN of a request with `vlan_valid` and `vlan_id`.
pub(super) fn field(valid: u8, id: u16) -> Result<Option<u16>, Refusal> {
    match valid {
        0 => Ok(None),
        1 if id == RESERVED_VLAN || (1..=MAX_VLAN).contains(&id) => Ok(Some(id)),
        _ => Err(Refusal::Invalid),
    }
}

/// The VLAN of an ADD_VLAN or DEL_VLAN.
fn request(call: &Call<'_>) -> Result<u16, Refusal> {
    let request = VlanRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    let id = field(1, request.vlan_id)?.ok_or(Refusal::Invalid)?;
    if request.reserved == [0; 6] { Ok(id) } else { Err(Refusal::Invalid) }
}

pub(super) fn add(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let id = request(call)?;
    let member = fabric.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
    if id != RESERVED_VLAN {
        if member.config.vlans.as_ref().is_some_and(|allowed| !allowed.contains(&id)) {
            return Err(Refusal::Unreachable);
        }
        member.vlans.insert(id);
    }
    Ok(Some(Reply::ok(&[])))
}

pub(super) fn del(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let id = request(call)?;
    let member = fabric.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
    member.vlans.remove(&id);
    Ok(Some(Reply::ok(&[])))
}
