// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether the other end of a TCP connection speaks SMC.
//!
//! Invariant: nothing here says that a peer speaks SMC unless the peer itself said so, about this very connection.
//!
//! A connection is decided in this order:
//!
//! 1. [`policy`]: what the operator's file says of the addresses. What it leaves to TCP is not even marked.
//! 2. [`sockopt`]: the TCP option in SYN and SYN-ACK, where the program `smc-discovery` runs.
//! 3. [`rendezvous`]: where it does not, both ends tell the fabric their addresses, and each sees the other.
//! 4. Otherwise TCP.
//!
//! That the peer speaks SMC does not say that it is on the same fabric: the CLC handshake finds that out.

pub mod policy;
pub mod rendezvous;
pub mod sockopt;
