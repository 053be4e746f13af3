// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What SMC-D has of its own: tokens, indices and events of ISM devices.
//!
//! Invariant: a place in a peer's DMB that this module names lies within 32 bits of offset, as
//! `move_data` takes it.

pub mod dmb;
pub mod event;
#[cfg(test)]
mod tests;
