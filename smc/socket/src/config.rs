// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a program or its administrator chooses for a stack.
//!
//! Invariant: plain values; the protocol's own bounds are checked when the stack is made.

use std::time::Duration;

use smc_proto::config::{Config as Proto, Versions};
use smc_wire::id::Ueid;
use smc_wire::size::BufferSize;

use crate::error::SetUpError;
use crate::machine;

/// The configuration of a stack.
#[derive(Debug, Clone)]
pub struct Config {
    /// The enterprise id that all peers must have, as `smcd ueid add` takes it.
    pub eid: String,
    /// This host's name, for the peer's diagnosis.
    pub hostname: String,
    /// Bytes of the receive buffer of each of the first few connections: 16 KiB to 2 MiB, rounded up to a
    /// power of two. The default is what was fastest with caches like this machine's.
    pub receive_buffer: u32,
    /// The same for connections of a stack that has many already: at least so many, at most so many bytes. All that
    /// two processes share has to fit in what the fabric gives a pair (docs/preload.md).
    pub crowds: [(usize, u32); 3],
    /// How long a client waits for the server to accept before it goes on as TCP; `None`: six seconds, as
    /// Linux, and then there is no connection.
    pub patience: Option<Duration>,
    /// Longest time that a waiting thread looks by itself before it sleeps; zero: it sleeps at once.
    /// How long it is within that follows from how often it paid.
    pub spin: Duration,
}

/// What a server needs to accept, and more than the time for which the preload leaves an accepted
/// connection to a program that may fork.
const PATIENCE: Duration = Duration::from_millis(250);

impl Default for Config {
    fn default() -> Self {
        Self {
            eid: "VHOST-USER-ISM".into(),
            hostname: String::new(),
            receive_buffer: machine::receive_buffer(),
            crowds: [(8, 256 << 10), (64, 64 << 10), (512, 16 << 10)],
            patience: Some(PATIENCE),
            spin: Self::SPIN,
        }
    }
}

impl Config {
    /// The longest that spinning may pay: about what two sleeps and two wakes cost.
    pub const SPIN: Duration = Duration::from_micros(50);

    /// As the protocol's endpoint takes it: SMC-D version 2 alone, as a process has no RoCE adapters
    /// and no PNETID.
    pub(crate) fn protocol(&self) -> Result<Proto, SetUpError> {
        let mut proto = Proto {
            rmem: self.receive_buffer,
            wmem: self.receive_buffer,
            patience: self.patience,
            largest_dmb: BufferSize::MAX_DMB,
            smcd: Versions { v1: false, v2: true },
            smcr: Versions::NONE,
            ..Proto::default()
        };
        proto.set_hostname(&self.hostname);
        let eid = Ueid::new(&self.eid);
        let eid = eid.map_err(|why| SetUpError::Eid { eid: self.eid.clone(), why })?;
        // The table is empty, so there is room for it.
        let _ = proto.eids.add(eid);
        Ok(proto)
    }
}
