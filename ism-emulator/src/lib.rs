// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device model without I/O: a fabric of members, their DMBs and signals.
//!
//! Invariant: bytes and time go in, bytes and [`Wish`]es come out; nothing here opens, maps, sleeps,
//! reads a clock or panics, whatever the bytes are.
//!
//! # How a daemon drives it
//! A [`Fabric`] lives behind one lock. What must not wait for that lock is shared by `Arc` or moved
//! out: [`SignalSet`] (a member's pending signals) and [`MoveTarget`] (a copy under way).
//!
//! * Membership: [`Fabric::add_member`] → [`Fabric::connect`] when its front-end is there →
//!   [`Fabric::reset`] when the rings stop, [`Fabric::disconnect`] when it is gone →
//!   [`Fabric::remove_member`].
//! * A control buffer: [`Fabric::control`]; an answer that is not there yet comes as
//!   [`Wish::Reply`] with the buffer's [`Tag`].
//! * A signal buffer: [`Fabric::signal`]; the member it names has to look at its `SignalSet`.
//! * A move buffer: [`Fabric::begin_move`], copy without the lock, [`MoveTarget::finish`].
//! * Free event buffers: [`Fabric::poll_event`] until `None`, then [`SignalSet::take`]; when they
//!   are in the ring, [`Fabric::events_delivered`].
//! * After any call: [`Fabric::poll_wish`] until `None`. **Wishes of one extent, and those of one
//!   member, are carried out in the order in which they came.** [`Fabric::finish_map`] and
//!   [`Fabric::finish_zero`] say how they went.
//! * Time: [`Fabric::poll_timeout`] says when to call [`Fabric::handle_timeout`].

#![forbid(unsafe_code)]

mod board;
mod buddy;
mod cdc;
mod config;
mod control;
mod dmb;
mod events;
mod fabric;
mod gate;
mod maps;
mod member;
mod moves;
mod pair;
mod part;
mod quota;
mod refusal;
mod signals;
mod stats;
mod sync;
mod time;
mod token;
mod window;
mod wish;

pub use cdc::CdcCheck;
pub use config::{Abilities, ConfigError, FabricConfig, GroupConfig, MemberConfig, Mode, Quota};
pub use control::{Reply, reply_len};
pub use fabric::Fabric;
pub use gate::{Gate, Leave};
pub use moves::{Finished, MoveTarget};
pub use refusal::Refusal;
pub use signals::{SignalBatch, SignalSet};
pub use stats::{FabricStats, MemberStats, MemberSummary};
pub use token::TOKEN_KEY_SIZE;
pub use wish::{ExtentId, MemberId, Tag, Wish};
