// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a connection's data reach the peer: over which link, with which key.
//!
//! Invariant: on the wire a CDC message comes behind the data that it tells of, because both go over
//! the same queue pair in the order of [`Route::publish`] (RFC 7609, 4.4; `smc_tx_rdma_write`).

use smc_wire::cdc::Smcr;
use smc_wire::id::Rkey;

use super::link::LinkId;
use super::rtoken::Rtoken;

/// A connection's way to its peer's RMB; a value that the connection keeps until
/// [`Wish::MoveConnection`](super::Wish::MoveConnection).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// On whose queue pair to post.
    pub link: LinkId,
    /// The peer's RMB over that link.
    pub rtoken: Rtoken,
}

/// Bytes of the send buffer that belong into the peer's RMB; offsets in bytes from their begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where they are in the send buffer.
    pub from: u32,
    /// Where they belong in the RMB.
    pub to: u32,
    /// How many.
    pub len: u32,
}

/// A work request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// An RDMA write; unsignalled, its failure shows in the send behind it.
    Write {
        /// Offset in the send buffer, in bytes.
        from: u32,
        /// Bytes.
        len: u32,
        /// The peer's key.
        rkey: Rkey,
        /// The peer's address.
        address: u64,
    },
    /// A signalled send of a CDC message.
    Send([u8; Smcr::LEN]),
}

impl Route {
    /// The work requests that write `chunks` and then tell the peer, in the order in which they have
    /// to be posted on [`Self::link`].
    pub fn publish<'a>(&self, chunks: &'a [Chunk], cdc: &Smcr) -> impl Iterator<Item = Work> + 'a {
        let rtoken = self.rtoken;
        let mut message = [0; Smcr::LEN];
        // The array is as long as the message.
        let told = cdc.emit(&mut message).is_ok().then_some(Work::Send(message));
        let writes = chunks.iter().map(move |&Chunk { from, to, len }| Work::Write {
            from,
            len,
            rkey: rtoken.rkey,
            address: rtoken.vaddr.wrapping_add(to.into()),
        });
        writes.chain(told)
    }
}
