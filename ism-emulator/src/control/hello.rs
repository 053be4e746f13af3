// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! HELLO, PING, STATS.
//!
//! Invariant: HELLO is answered when no copy is inside what the member had before, so that the
//! driver may use that RAM again.

use ism_abi::{HelloRequest, Ping, VERSION};

use super::{Answer, Call, Reply};
use crate::fabric::Fabric;
use crate::part::Parting;
use crate::refusal::Refusal;

pub(super) fn hello(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let request = HelloRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    if request.version != VERSION || request.reserved != [0; 6] {
        return Err(Refusal::Invalid);
    }
    if fabric.members.get(&call.id).is_none_or(|m| m.abilities.is_none()) {
        return Err(Refusal::NotReady);
    }
    fabric.part(call.id, Parting::Hello);
    if let Some(member) = fabric.members.get_mut(&call.id) {
        member.hello.push((call.tag, None));
    }
    fabric.answer_hello(call.id);
    fabric.watch_gates(call.now);
    Ok(None)
}

pub(super) fn ping(_: &mut Fabric, call: &Call<'_>) -> Answer {
    let request = Ping::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    Ok(Some(Reply::ok(&request.to_bytes())))
}

pub(super) fn stats(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let stats = fabric.stats(call.id).ok_or(Refusal::NotReady)?;
    Ok(Some(Reply::ok(&stats.wire.to_bytes())))
}
