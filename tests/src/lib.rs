// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the whole-daemon tests share.
//!
//! Invariant: nothing here decides what is right; a helper fails the test when the daemon does not
//! do what the helper's name says.

pub mod fabric;
pub mod random;
pub mod siege;
pub mod stream;
