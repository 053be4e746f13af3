// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One connection after its handshake.
//!
//! Invariant: what the peer writes is copied once and validated before it changes anything.
