// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Decline: stay on TCP, and why.
//!
//! Invariant: version 1 has one diagnosis, version 2 has five.

use super::{Diagnosis, Os};
use crate::id::PeerId;

/// A Decline (`struct smc_clc_msg_decline`, `struct smc_clc_msg_decline_v2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decline {
    /// The link group that the receiver meant does not exist any more: it shall be terminated.
    pub out_of_sync: bool,
    /// The eyecatcher is SMC-D's; Linux always sends SMC-R's.
    pub smcd: bool,
    /// The sender's host; zeros if it has no RoCE port or the mode is SMC-D.
    pub peer: PeerId,
    /// Why.
    pub diagnosis: Diagnosis,
    /// The sender's operating system; Linux tells it in version 2 only.
    pub os: Os,
    /// Version 2: more of why. Linux sends zeros and does not read them.
    pub more: Option<[Diagnosis; 4]>,
}

impl Decline {
    /// The Decline that Linux sends in version 1, or in version 2 if `v2` (`smc_clc_send_decline`).
    /// [`Diagnosis::SYNCERR`] says that the link group is out of sync.
    pub fn new(v2: bool, peer: PeerId, diagnosis: Diagnosis) -> Self {
        Self {
            out_of_sync: diagnosis == Diagnosis::SYNCERR,
            smcd: false,
            peer,
            diagnosis,
            os: if v2 { Os::LINUX } else { Os::UNKNOWN },
            more: v2.then_some([Diagnosis::NONE; 4]),
        }
    }
}
