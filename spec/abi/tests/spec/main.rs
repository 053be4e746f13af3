// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Holds the four statements of the ABI against one another: `layout.rs`, the specification's
//! tables, the C header and what the code does with bytes.
//!
//! Invariant: whatever one of them names, all of them name, with the same numbers.

mod c_header;
mod c_layout;
mod catalogue;
mod document;
mod round_trip;
mod source;
