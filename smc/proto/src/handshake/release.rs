// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What version 2.1 adds: both sides agree on a release, on an SMC-R link group's limits and on
//! features.
//!
//! Invariant: the client offers, the server takes at most that, and each side checks that the other
//! keeps to it (`smc_clc_srv_v2x_features_validate`, `smc_clc_clnt_v2x_features_validate`,
//! `smc_clc_v2x_features_confirm_check`).

use smc_wire::clc::Diagnosis;

use crate::config::Config;

/// Connections that an SMC-R link group must at least hold (`SMC_CONN_PER_LGR_MIN`).
pub const MIN_CONNS: u8 = 16;
/// Connections of an SMC-R link group unless agreed on otherwise (`SMC_CONN_PER_LGR_MAX`).
pub const MAX_CONNS: u8 = 255;
/// Links of an SMC-R link group unless agreed on otherwise (`SMC_LINKS_ADD_LNK_MAX`).
pub const MAX_LINKS: u8 = 2;
/// The features that this side has: bit 0, emulated ISM (`SMC_FEATURE_MASK`).
pub const FEATURES: u16 = 1;

/// The release from which a first contact negotiates limits and features.
const RELEASE_1: u8 = 1;

/// What one side offers, takes or has agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The release of version 2.
    pub release: u8,
    /// Connections of the link group; SMC-R only.
    pub max_conns: u8,
    /// Links of the link group; SMC-R only.
    pub max_links: u8,
    /// Features, a bit each.
    pub features: u16,
}

impl Terms {
    /// What holds where nothing is negotiated.
    pub(crate) fn fixed(release: u8) -> Self {
        Self { release, max_conns: MAX_CONNS, max_links: MAX_LINKS, features: FEATURES }
    }

    /// What a server makes of a client's `offer`; `smcr` if SMC-R version 2 is still possible.
    pub(crate) fn taken(config: &Config, offer: &Self, smcr: bool) -> Result<Self, Diagnosis> {
        let release = offer.release.min(config.release);
        if release < RELEASE_1 || !smcr {
            return Ok(Self::fixed(release));
        }
        let max_conns = offer.max_conns.min(config.max_conns);
        let max_links = offer.max_links.min(config.max_links);
        if max_conns < MIN_CONNS {
            return Err(Diagnosis::MAXCONNERR);
        }
        if max_links == 0 {
            return Err(Diagnosis::MAXLINKERR);
        }
        Ok(Self { release, max_conns, max_links, features: FEATURES })
    }

    /// What a client makes of a server's `answer` at a first contact.
    ///
    /// Beyond Linux, which takes any, the release must not be above the one that was offered.
    pub(crate) fn accepted(config: &Config, answer: &Self, smcr: bool) -> Result<Self, Diagnosis> {
        if answer.release > config.release {
            return Err(Diagnosis::RELEASEERR);
        }
        let mut terms = Self::fixed(answer.release);
        if answer.release < RELEASE_1 {
            return Ok(terms);
        }
        if smcr {
            if answer.max_conns < MIN_CONNS {
                return Err(Diagnosis::MAXCONNERR);
            }
            if !(1..=MAX_LINKS).contains(&answer.max_links) {
                return Err(Diagnosis::MAXLINKERR);
            }
            (terms.max_conns, terms.max_links) = (answer.max_conns, answer.max_links);
        }
        terms.features = answer.features & FEATURES;
        Ok(terms)
    }

    /// Whether a client's confirm repeats at a first contact what the server `took`; with the
    /// features that both have.
    pub(crate) fn confirmed(&self, confirm: &Self, smcr: bool) -> Result<Self, Diagnosis> {
        if self.release != confirm.release {
            return Err(Diagnosis::RELEASEERR);
        }
        if self.release < RELEASE_1 {
            return Ok(*self);
        }
        if smcr && self.max_conns != confirm.max_conns {
            return Err(Diagnosis::MAXCONNERR);
        }
        if smcr && self.max_links != confirm.max_links {
            return Err(Diagnosis::MAXLINKERR);
        }
        Ok(Self { features: confirm.features & FEATURES, ..*self })
    }
}
