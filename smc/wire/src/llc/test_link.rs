// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! TEST LINK: is the peer there?
//!
//! Invariant: the answer repeats the request's bytes.

use crate::Error;
use crate::bytes::{Reader, Writer};

/// TEST LINK (RFC 7609, A.3.8; `struct smc_llc_msg_test_link`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TestLink {
    /// Whatever the sender of the request likes; Linux sends zeros.
    pub user_data: [u8; 16],
}

impl TestLink {
    pub(super) fn parse(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { user_data: reader.array()? })
    }

    pub(super) fn emit(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.put(&self.user_data)
    }
}
