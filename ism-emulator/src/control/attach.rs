// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ATTACH, DETACH: a writer holds a DMB's memory past its registration.
//!
//! Invariant: memory of an attached DMB is not zeroed or used again before the DETACH, or before
//! the writer is gone or has forgotten the pair.

use ism_abi::{AttachReply, TokenRequest};

use super::{Answer, Call, Reply};
use crate::config::Mode;
use crate::fabric::Fabric;
use crate::refusal::Refusal;

pub(super) fn attach(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let token = TokenRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?.token;
    let member = fabric.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
    let grant = member.grants.get_mut(&token).ok_or(Refusal::NoToken)?;
    let (Mode::Mapped, Some((_, window_offset))) = (grant.mode, grant.block) else {
        return Err(Refusal::WrongMode);
    };
    grant.attached = true;
    let body = AttachReply { window_offset, len: grant.len, index: grant.index };
    Ok(Some(Reply::ok(&body.to_bytes())))
}

pub(super) fn detach(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let token = TokenRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?.token;
    let member = fabric.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
    if let Some((instance, block)) = member.orphans.remove(&token) {
        fabric.release_block(instance, block);
        return Ok(Some(Reply::ok(&[])));
    }
    let grant = member.grants.get_mut(&token).ok_or(Refusal::NoToken)?;
    if grant.mode != Mode::Mapped {
        return Err(Refusal::WrongMode);
    }
    grant.attached = false;
    Ok(Some(Reply::ok(&[])))
}
