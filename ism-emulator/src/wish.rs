// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the fabric asks its daemon to do, and the names used for it.
//!
//! Invariant: a [`Wish::Map`] names one of the two members of the extent's pair, never a third.

use crate::control::Reply;

/// A member of the fabric; never used again after [`Fabric::remove_member`](crate::Fabric::remove_member).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub(crate) u64);

/// One memory file of a pair's arena; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentId(pub(crate) u64);

/// The daemon's own name for a control buffer (a descriptor's head, say); the fabric only returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// Something only the daemon can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Create a zeroed memory file of `len` bytes, sealed against shrinking and growing. If that
    /// fails, answer its `Map`s with `ok: false`. Wished again for an extent that nobody has mapped
    /// yet: then replace the file, if there is one.
    CreateExtent {
        /// Its name.
        extent: ExtentId,
        /// Bytes.
        len: u64,
    },
    /// Map all of the extent into the member's window. Always answered by
    /// [`Fabric::finish_map`](crate::Fabric::finish_map), however late.
    Map {
        /// Whose window.
        member: MemberId,
        /// What.
        extent: ExtentId,
        /// Where in the window, in bytes.
        window_offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Remove a mapping. Not answered; a failure is to be ignored, because a front-end drops its
    /// mappings by itself when its device is reset.
    Unmap {
        /// Whose window.
        member: MemberId,
        /// What.
        extent: ExtentId,
        /// Where in the window, in bytes.
        window_offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make a range zero, giving its memory back to the host. Always answered by
    /// [`Fabric::finish_zero`](crate::Fabric::finish_zero): until then the range is not used again.
    Zero {
        /// The memory file.
        extent: ExtentId,
        /// Where in it, in bytes.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Close the memory file; the fabric will not name it again.
    DropExtent {
        /// Its name.
        extent: ExtentId,
    },
    /// Answer a control buffer.
    Reply {
        /// Whose.
        member: MemberId,
        /// Which.
        tag: Tag,
        /// The device-writable bytes.
        reply: Reply,
    },
    /// The member should look at [`Fabric::poll_event`](crate::Fabric::poll_event) and at its
    /// [`SignalSet`](crate::SignalSet).
    EventsReady {
        /// Who.
        member: MemberId,
    },
}
