// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The extension with which a version 2 link group begins.
//!
//! Invariant: has 36 bytes for SMC-D in release 0, 52 otherwise (`smc_clc_fill_fce_v2x`).

use smc_wire::clc::{Features, FirstContact};

use super::release::Terms;
use crate::config::Config;

/// What this side says: `smcr` is `None` for SMC-D, else whether packets go without a gateway.
pub(crate) fn ours(config: &Config, terms: &Terms, smcr: Option<bool>) -> FirstContact {
    let said = Features {
        max_conns: smcr.map_or(0, |_| terms.max_conns),
        max_links: smcr.map_or(0, |_| terms.max_links),
        feature_mask: terms.features,
        vendor_options: 0,
    };
    let ours = FirstContact::new(smcr.is_some(), terms.release, config.hostname, said);
    FirstContact { v2_direct: smcr.unwrap_or(false), ..ours }
}

/// What the peer says.
pub(crate) fn terms(theirs: &FirstContact) -> Terms {
    let features = theirs.features.unwrap_or_default();
    Terms {
        release: theirs.release,
        max_conns: features.max_conns,
        max_links: features.max_links,
        features: features.feature_mask,
    }
}
