// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The handshake's decisions: what a client offers, what a server takes, what both check.
//!
//! Invariant: decides from the configuration, the devices and one message; waits for nothing and
//! keeps no connection. The order of messages and who is waited for is the
//! [endpoint](crate::endpoint)'s.
//!
//! | Module | What | Linux |
//! |---|---|---|
//! | [`inventory`] | devices and interfaces | `smc_ism.c`, `smc_ib.c` |
//! | [`pnet`] | which device reaches the network of an interface | `smc_pnet.c` |
//! | [`eid`] | the enterprise ids that version 2 needs in common | `smc_clc.c` |
//! | [`release`] | releases, limits and features of version 2.1 | `smc_clc_*_v2x_*` |
//! | [`route`] | the TCP connection | |
//! | [`reason`] | fallback and failure | `smc_clc.h` |
//! | `offer` | the client's choice of devices, the Proposal | `smc_find_proposal_devices` |
//! | `server` | the server's choice among them | `smc_listen_find_device` |
//! | `client` | the client's look at the Accept | `smc_connect_check_aclc` |
//! | `confirm` | the server's look at the Confirm | `smc_clc_v2x_features_confirm_check` |
//! | `prefix` | version 1 stays within a subnet | `smc_clc_prfx_match` |

pub(crate) mod client;
pub(crate) mod confirm;
pub mod eid;
pub(crate) mod first_contact;
pub(crate) mod host;
pub mod inventory;
pub(crate) mod offer;
pub mod pnet;
pub(crate) mod prefix;
pub mod reason;
pub mod release;
pub mod route;
pub(crate) mod server;
