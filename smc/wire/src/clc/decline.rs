// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Decline: stay on TCP, and why.
//!
//! Invariant: only version 2 has more than one diagnosis.

use super::header::{self, Eyecatcher, FLAG, Header, Kind};
use super::{Diagnosis, Os, Version};
use crate::Error;
use crate::id::PeerId;

/// A Decline (`struct smc_clc_msg_decline`, `struct smc_clc_msg_decline_v2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decline {
    /// 1 or 2.
    pub version: Version,
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
    /// Version 2: more of why. Linux sends zeros and does not read them; before Linux 5.16 it left
    /// them out, and was taken for an error by its successors.
    pub more: Option<[Diagnosis; 4]>,
}

impl Decline {
    /// The Decline that Linux sends in version 1, or in version 2 if `v2` (`smc_clc_send_decline`).
    /// [`Diagnosis::SYNCERR`] says that the link group is out of sync.
    pub fn new(v2: bool, peer: PeerId, diagnosis: Diagnosis) -> Self {
        Self {
            version: if v2 { Version::V2 } else { Version::V1 },
            out_of_sync: diagnosis == Diagnosis::SYNCERR,
            smcd: false,
            peer,
            diagnosis,
            os: if v2 { Os::LINUX } else { Os::UNKNOWN },
            more: v2.then_some([Diagnosis::NONE; 4]),
        }
    }

    /// Reads a Decline that fills `bytes`.
    ///
    /// # Errors
    /// [`Error`] for the first field that breaks the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (header, mut reader) = header::open(Kind::Decline, bytes)?;
        let v2 = header.is_v2()?;
        let r = &mut reader;
        let (peer, diagnosis) = (PeerId(r.array()?), Diagnosis(r.u32()?));
        let os = Os::from_bits(r.u8()? >> 4);
        r.take(3)?;
        let has_more = v2 && !r.rest().is_empty();
        let mut more = has_more.then_some([Diagnosis::NONE; 4]);
        for word in more.iter_mut().flatten() {
            *word = Diagnosis(r.u32()?);
        }
        header::close(reader)?;
        let smcd = header.eyecatcher == Eyecatcher::Smcd;
        let version = header.version;
        Ok(Self { version, out_of_sync: header.flag(), smcd, peer, diagnosis, os, more })
    }

    /// Writes the Decline as Linux does. Returns its length: 28, or 44 in version 2.
    ///
    /// # Errors
    /// [`Error::Short`] if `bytes` are too few, [`Error::Field`] if the version does not have what
    /// there is to say.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        let versions = if self.more.is_some() { 2..=2 } else { 1..=2 };
        if !versions.contains(&self.version.number()) {
            let allowed = "1 without further diagnoses, 2";
            let value = self.version.number().into();
            return Err(Error::Field { field: "decline.version", value, allowed });
        }
        let header = Header {
            eyecatcher: if self.smcd { Eyecatcher::Smcd } else { Eyecatcher::Smcr },
            kind: Kind::Decline,
            version: self.version,
            typev2: if self.out_of_sync { FLAG } else { 0 },
            typev1: 0,
        };
        header::emit(header, bytes, |w| {
            w.put(&self.peer.0)?;
            w.u32(self.diagnosis.0)?;
            w.u8(self.os.bits() << 4)?;
            w.zeros(3)?;
            self.more.iter().flatten().try_for_each(|word| w.u32(word.0))
        })
    }
}
