// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One SMC-R link group over abstract reliable-connected queue pairs.
//!
//! Invariant: nothing that a peer sends harms more than its own link group; queue pairs, memory regions
//! and time are the caller's.
//!
//! A group begins with one link whose ends the CLC handshake exchanged. [`LinkGroup::new`] wishes its
//! queue pair; [`LinkGroup::start`] connects it and runs the first contact. From then on the two ends
//! keep their links, and the keys of their memory, in step by LLC messages over those links:
//!
//! | File | Flow | Source |
//! |---|---|---|
//! | `first_contact` | CONFIRM LINK, then the try for a second link | RFC 7609, 3.5.1; `af_smc.c:618,1872` |
//! | `confirm_link` | a link's proof | RFC 7609, A.3.1 |
//! | `add_link`, `add_link_server`, `add_link_client` | a further link | RFC 7609, 3.5.2; `smc_llc.c:1050,1400` |
//! | `add_link_cont`, `add_link_v2` | its keys, in version 1 and 2 | RFC 7609, A.3.3 |
//! | `req_add_link` | the client asks for a further link | `smc_llc.c:1117` |
//! | `delete_link` | a link's orderly end | RFC 7609, 3.5.4; `smc_llc.c:1537,1620` |
//! | `ending` | the group's end | `smc_core.c:1516` |
//! | `rkey` | an RMB's keys come and go | RFC 7609, 3.5.5; `smc_llc.c:1706,1742` |
//! | `test_link` | is the peer of an idle link there? | `smc_llc.c:2186` |
//! | `failover` | a link's loss | RFC 7609, 4.6; `smc_core.c:1100,1790` |
//!
//! One flow of ours runs at a time; what the peer begins meanwhile waits, but for its keys, which are
//! taken at once (`smc_llc_flow_initiate`). The flows work on `core`, which holds the links
//! ([`link`]), ports and queue pairs ([`qp`]), our buffers, the peer's keys ([`rtoken`]) and the
//! connections ([`member`]). They know nothing of each other but who comes next in a chain; `group`
//! drives them.

mod add_link;
mod add_link_client;
mod add_link_cont;
mod add_link_server;
mod add_link_v2;
mod buffer;
mod confirm_link;
mod core;
mod delete_link;
mod ending;
mod failover;
mod first_contact;
mod flow;
mod group;
pub mod link;
pub mod member;
mod params;
pub mod qp;
mod req_add_link;
mod rkey;
pub mod route;
pub mod rtoken;
mod step;
mod test_link;
pub mod wish;

use std::time::Duration;

pub use self::core::{Redundancy, Role};
pub use group::{LinkGroup, NotReady, Received};
pub use link::{LinkId, LinkView, WorkId};
pub use member::JoinError;
pub use params::Params;
pub use route::Route;
pub use rtoken::{Rtoken, RtokenIndex};
pub use wish::{BufferError, Wish};

/// How long an answer may take (`SMC_LLC_WAIT_TIME`).
pub const WAIT: Duration = Duration::from_secs(2);
/// How long a further link's CONFIRM LINK may take (`SMC_LLC_WAIT_FIRST_TIME`).
pub const WAIT_FIRST: Duration = Duration::from_secs(5);
/// How long a command may wait for other flows (`smc_llc_flow_initiate`).
pub const FLOW_WAIT: Duration = Duration::from_secs(20);
/// How long a full send queue may stand still (`SMC_WR_TX_WAIT_FREE_SLOT_TIME`).
pub const SEND_WAIT: Duration = Duration::from_secs(10);
/// How long a queue pair's creation or a memory region's registration may take
/// (`SMC_WR_REG_MR_WAIT_TIME`).
pub const REGISTER_WAIT: Duration = Duration::from_secs(5);
/// After how long without a message a link is tested (`SMC_LLC_TESTLINK_DEFAULT_TIME`).
pub const TEST_LINK_TIME: Duration = Duration::from_secs(30);
