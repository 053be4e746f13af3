// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keys of ADD LINK in version 2: all in the message's tail.
//!
//! Invariant: a key is taken only if it was received whole and names an RMB that is known
//! (`smc_llc_save_add_link_rkeys`).

use smc_wire::llc::{AddLink, Version};

use super::add_link::take_key;
use super::core::Core;
use super::link::LinkId;

/// Takes the peer's keys on `new` from its message over `carrier`.
///
/// A message without a tail, or with a shorter one than it claims, brings fewer keys: RMBs without a
/// key on the new link cannot be written over it.
pub(super) fn take_keys(core: &mut Core, carrier: LinkId, new: LinkId, message: &AddLink) {
    let Some(tail) = message.tail.filter(|_| core.version == Version::V2) else { return };
    for update in tail.rkeys.iter() {
        take_key(core, carrier, new, update);
    }
}
