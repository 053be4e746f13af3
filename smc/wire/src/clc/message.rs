// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A CLC message of any type.
//!
//! Invariant: the type byte and the variant agree.

use super::proposal::Proposal;
use super::{AcceptConfirm, Confirm, Decline};

/// Any CLC message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    Proposal(Proposal),
    /// Type 2.
    Accept(AcceptConfirm),
    /// Type 3.
    Confirm(Confirm),
    /// Type 4.
    Decline(Decline),
}
