// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The SMC protocol without I/O: handshake, link groups, connections; SMC-D and SMC-R.
//!
//! Invariant: bytes, outcomes and time go in, bytes and wishes come out; nothing here has a socket, a
//! thread, a clock or a mapping, and nothing a peer sends makes it panic.
//!
//! # Grammar
//! Every state machine of this crate is driven in the same words:
//!
//! * **Inputs** are called `handle_*`: something happened outside (bytes came, a deadline passed, a
//!   buffer was registered). They take what happened and, where it matters, the time.
//! * **Commands** are verbs (`connect`, `send`, `close`): what the application wants.
//! * **Getters** change nothing.
//! * **Wishes** are what the machine wants done: after any input or command, call `poll_wish` until
//!   `None` and carry them out in that order. A wish whose outcome matters names the `handle_*` that
//!   must be told.
//! * **Time**: `poll_timeout` says when `handle_timeout` has to be called next. Times are
//!   [`Instant`]s, given by the caller; nothing asks for the time.
//!
//! # Chapters
//! | Module | What | Source |
//! |---|---|---|
//! | [`conn`] | one connection: cursors, windows, urgent data, the close states | RFC 7609, 4.4–4.8; `smc_tx.c`, `smc_rx.c`, `smc_cdc.c`, `smc_close.c` |
//! | [`config`] | what an administrator decides | `smc_sysctl.c` |
//! | [`endpoint`] | a host's devices, handshakes and link groups, driven as one | `af_smc.c` |
//! | [`handshake`] | what is offered, taken and checked | RFC 7609, 3; `smc_clc.c`, `smc_pnet.c` |
//! | [`group`] | link groups: members, life, buffers | RFC 7609, 2.2, 4.2; `smc_core.c` |
//! | [`smcd`] | SMC-D: DMB tokens and indices, events | `smc_ism.c` |
//! | [`stats`] | what is counted | `smc_stats.c` |
//! | [`smcr`] | one SMC-R link group: links, LLC flows, keys, failover | RFC 7609, 3.5, 4.5, A.3; `smc_llc.c`, `smc_core.c` |

#![forbid(unsafe_code)]

pub mod config;
pub mod conn;
pub mod endpoint;
pub mod group;
pub mod handshake;
pub mod id;
pub mod smcd;
pub mod smcr;
pub mod stats;
pub mod time;

pub use time::Instant;
