// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names that this side gives to its own things.
//!
//! Invariant: local only; what names something on the wire is in [`smc_wire::id`].

/// A connection, from its handshake on; for SMC-R it is also the alert token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// A link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// A buffer of ours: a DMB, an RMB or a send buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// An ISM device or a RoCE port of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);
