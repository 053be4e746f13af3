// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0

//! What the daemon says to a process that connects to a door (spec/decisions/0004).
//!
//! Invariant: a door says one message and closes; nothing that the process sends is read.
//!
//! The message is two bytes, [`VERSION`] and one of the codes, and a text of at most [`MAX_TEXT`] bytes of
//! UTF-8. With [`ADMITTED`] comes one descriptor: a connected socket on which the daemon is
//! a vhost-user back-end for a member of its own, and the text is the member's name.

/// The message's first byte.
pub const VERSION: u8 = 1;
/// Come in.
pub const ADMITTED: u8 = 0;
/// The process's user may not.
pub const REFUSED_USER: u8 = 1;
/// As many processes as allowed are in.
pub const REFUSED_FULL: u8 = 2;
/// The daemon lacks something.
pub const REFUSED_ERROR: u8 = 3;
/// Bytes of the longest text.
pub const MAX_TEXT: usize = 510;
