// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes of state.
//!
//! Invariant: what a message borrows is not counted, what a value owns is.

use std::mem::size_of;

use smc_proto::conn::Connection;
use smc_wire::{cdc, llc};

use crate::report::Row;

/// The sizes of what is kept, a message's beside it.
pub fn rows() -> Vec<Row> {
    let row = |name: &str, size: usize| {
        // A size has far fewer bits than a float's mantissa.
        Row::of_value(name, u32::try_from(size).map_or(f64::NAN, f64::from), "B")
    };
    vec![
        row("a connection", size_of::<Connection>()),
        row("an LLC message as a value", size_of::<llc::Message>()),
        row("a CDC message as a value", size_of::<cdc::Smcr>()),
    ]
}
