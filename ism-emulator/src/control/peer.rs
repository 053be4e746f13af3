// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QUERY_RGID, FORGET_PEER, SIGNAL_EVENT: commands that name a peer.
//!
//! Invariant: a peer that does not exist, one that is not ready and one in no common group are
//! answered alike.

use ism_abi::{
    ForgetPeerRequest, QueryReply, QueryRequest, SignalEventRequest, SoftwareEvent, event,
};

use super::{Answer, Call, Reply, vlan};
use crate::events::Kind;
use crate::fabric::Fabric;
use crate::refusal::Refusal;

pub(super) fn query(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let request = QueryRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    if request.reserved != [0; 5] {
        return Err(Refusal::Invalid);
    }
    let vlan = vlan::field(request.vlan_valid, request.vlan_id)?;
    let reach = fabric.reach(call.id, &request.gid, vlan)?;
    let body = QueryReply { mode: reach.mode.wire(), reserved: [0; 7] };
    Ok(Some(Reply::ok(&body.to_bytes())))
}

/// Unmaps and forgets a pair whose peer is gone. What is forgotten already is forgotten: OK.
pub(super) fn forget(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let request = ForgetPeerRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    let done = Ok(Some(Reply::ok(&[])));
    let member = fabric.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
    let Some(pair) = fabric.pairs.get(&request.instance) else {
        return done;
    };
    if !member.pairs.contains(&request.instance) {
        return done;
    }
    if pair.other_gid(call.id) != Some(request.gid) {
        return Err(Refusal::Invalid);
    }
    if pair.whole() || member.own.values().any(|d| d.instance == request.instance) {
        return Err(Refusal::InUse);
    }
    member.pairs.remove(&request.instance);
    member.orphans.retain(|_, (instance, _)| *instance != request.instance);
    fabric.leave_pair(call.id, request.instance, true, false);
    done
}

pub(super) fn signal_event(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let request = SignalEventRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    if request.reserved != 0 {
        return Err(Refusal::Invalid);
    }
    let peer = fabric.reach(call.id, &request.gid, None)?.peer;
    let gid = fabric.members.get(&call.id).ok_or(Refusal::NotReady)?.gid();
    let receiver = fabric.members.get_mut(&peer).ok_or(Refusal::Unreachable)?;
    if !receiver.events.admit(call.id) {
        return Err(Refusal::Busy);
    }
    let body = SoftwareEvent { gid, code: request.code, reserved: 0, info: request.info };
    let kind = Kind::Software { sender: call.id };
    fabric.push_event(peer, kind, event::SOFTWARE_EVENT, &body.to_bytes());
    Ok(Some(Reply::ok(&[])))
}
