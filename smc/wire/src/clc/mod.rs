// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CLC: the handshake in the TCP stream, before a connection moves to shared memory.
//!
//! Invariant: a message that was parsed ends where its length says, and each of its areas lies where
//! Linux puts it: none overlaps another, none is left over.
//!
//! ```text
//! client                      server
//!   │ Proposal ──────────────►  │   what the client offers
//!   │ ◄────────────── Accept    │   what the server chose, where its buffer is
//!   │ Confirm ───────────────►  │   where the client's buffer is
//!   │ Decline ◄──────────────►  │   instead of any of the latter two: stay on TCP
//! ```
//!
//! [`frame`] says how many bytes of the stream belong to the message, [`Message::parse`] takes
//! exactly those. RFC 7609, A.2 describes version 1; version 2 and 2.1 are in
//! "IBM Shared Memory Communications Version 2" and in Linux's `net/smc/smc_clc.h`.

mod accept;
mod confirm;
mod decline;
mod diagnosis;
mod first_contact;
mod frame;
mod header;
mod message;
mod offer_v2;
mod proposal;

pub use accept::{Accept, AcceptConfirm, Body, Contact, Smcd, Smcr};
pub use confirm::{Confirm, MAX_GIDS};
pub use decline::Decline;
pub use diagnosis::Diagnosis;
pub use first_contact::{Features, FirstContact, HOSTNAME, Os, hostname};
pub use frame::{Frame, MAX_MESSAGE, frame};
pub use header::{Modes, Version};
pub use message::Message;
pub use offer_v2::{IsmEntry, MAX_ISM_ENTRIES, MAX_UEIDS, OfferV2, SmcdOffer, SmcrOffer};
pub use proposal::{IsmArea, MAX_PREFIXES_V6, OfferV1, PrefixV4, PrefixV6, Prefixes, Proposal};
