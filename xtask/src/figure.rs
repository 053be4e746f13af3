// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is measured, and over what, by the names that the JSON of demo and bench has.
//!
//! Invariant: a name here never changes its meaning; others compare files of different versions.

use std::fmt;

use serde::Serialize;

/// The name of a transport in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Transport {
    /// TCP, over virtio-net or lo.
    #[serde(rename = "tcp")]
    Tcp,
    /// AF_UNIX stream sockets.
    #[serde(rename = "unix")]
    Unix,
    /// The guest kernel's SMC over our device.
    #[serde(rename = "smcd-kernel")]
    SmcdKernel,
    /// Host processes' SMC, below unmodified programs, over our device.
    #[serde(rename = "smcd-user")]
    SmcdUser,
    /// iceoryx2's publish-subscribe.
    #[serde(rename = "iceoryx2")]
    Iceoryx2,
    /// What two cores with shared memory can do at all.
    #[serde(rename = "limit")]
    Limit,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Tcp => "tcp",
            Transport::Unix => "unix",
            Transport::SmcdKernel => "smcd-kernel",
            Transport::SmcdUser => "smcd-user",
            Transport::Iceoryx2 => "iceoryx2",
            Transport::Limit => "limit",
        })
    }
}

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) transport: Transport,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}
