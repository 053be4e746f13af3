// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0

//! Layouts, commands, events and limits of the device (spec/virtio-ism.md, same order).
//!
//! Invariant: a structure's `SIZE` is the sum of its fields' sizes, and each field's offset is in
//! its `FIELDS` table; a test holds both against the specification's text.

/// A field type of the wire: a fixed number of bytes, little-endian for integers.
pub trait Field: Copy {
    /// Bytes on the wire.
    const SIZE: usize;
    /// Reads the field from the first `SIZE` bytes of `bytes`; `None` if there are fewer.
    fn get(bytes: &[u8]) -> Option<Self>;
    /// Writes the field to the first `SIZE` bytes of `bytes`; `None` if there are fewer.
    fn put(self, bytes: &mut [u8]) -> Option<()>;
}

macro_rules! integer_fields {
    ($($int:ty),*) => {$(
        impl Field for $int {
            const SIZE: usize = core::mem::size_of::<$int>();
            fn get(bytes: &[u8]) -> Option<Self> {
                Some(<$int>::from_le_bytes(*bytes.first_chunk()?))
            }
            fn put(self, bytes: &mut [u8]) -> Option<()> {
                *bytes.first_chunk_mut()? = self.to_le_bytes();
                Some(())
            }
        }
    )*};
}
integer_fields!(u8, u16, u32, u64);

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied()
    }
    fn put(self, bytes: &mut [u8]) -> Option<()> {
        *bytes.first_chunk_mut()? = self;
        Some(())
    }
}

/// Name, offset and size in bytes of one field, for the tests and the C header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldInfo {
    /// The field's name, as in the specification.
    pub name: &'static str,
    /// Bytes from the structure's start.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        impl $name {
            /// Bytes on the wire.
            pub const SIZE: usize = 0 $(+ <$ty as Field>::SIZE)*;

            /// Every field in wire order.
            pub const FIELDS: &'static [FieldInfo] = &{
                let mut at = 0;
                [$({
                    let size = <$ty as Field>::SIZE;
                    at += size;
                    FieldInfo { name: stringify!($field), offset: at - size, size }
                }),*]
            };

            /// Reads the structure from the first `SIZE` bytes of `bytes`; `None` if there are fewer.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                $(
                    let $field = <$ty as Field>::get(rest)?;
                    rest = rest.get(<$ty as Field>::SIZE..)?;
                )*
                let _ = rest;
                Some(Self { $($field),* })
            }

            /// The structure's bytes.
            pub fn to_bytes(&self) -> [u8; Self::SIZE] {
                let mut bytes = [0; Self::SIZE];
                let mut _at = 0;
                $(
                    if let Some(place) = bytes.get_mut(_at..) {
                        // Cannot be too short: SIZE is the sum of the fields.
                        let _ = Field::put(self.$field, place);
                    }
                    _at += <$ty as Field>::SIZE;
                )*
                bytes
            }
        }
    };
}

/// A member's address on a fabric: 128 bits, the `uuid_t` that dibs calls `gid`. Bytes 0–7 are
/// SMC's GID and bytes 8–15 its `gid_ext`, both unchanged.
pub type Gid = [u8; 16];

// ---- Device identification --------------------------------------------------------------------

/// The virtio device id reserved for ISM.
pub const VIRTIO_ID_ISM: u32 = 44;
/// The id used where the VMM refuses 44 (QEMU 11.1 aborts on it); told apart by `MAGIC`.
pub const VIRTIO_ID_ISM_FALLBACK: u32 = 38;
/// `Config::magic`: the bytes "vISM".
pub const MAGIC: u32 = u32::from_le_bytes(*b"vISM");
/// `Config::version`.
pub const VERSION: u16 = 1;

/// Control requests and replies.
pub const QUEUE_CONTROL: u16 = 0;
/// Events, device to driver.
pub const QUEUE_EVENT: u16 = 1;
/// Doorbells, driver to device.
pub const QUEUE_SIGNAL: u16 = 2;
/// Copied-mode data, driver to device.
pub const QUEUE_MOVE: u16 = 3;
/// Number of virtqueues.
pub const QUEUE_COUNT: u16 = 4;

/// Feature bit: the device has a window, so pairs may be in mapped mode.
pub const F_WINDOW: u32 = 0;
/// Feature bit: the device has a move queue, so pairs may be in copied mode.
pub const F_MOVE: u32 = 1;
/// Feature bit: the device has a board, on which members find the other ends of connections.
pub const F_BOARD: u32 = 2;

/// Shared memory region that is the window.
pub const SHM_WINDOW: u8 = 1;

/// Lowest fabric id: a CHID of an emulated ISM device (net/smc/smc_clc.h).
pub const FABRIC_ID_MIN: u16 = 0xff00;
/// Highest fabric id; 0xffff is Linux's loopback.
pub const FABRIC_ID_MAX: u16 = 0xfffe;

layout! {
    /// Device configuration space. The first four fields are those of the earlier virtio-ism RFC;
    /// its `gid` and `devid` together are this device's 128-bit GID.
    Config {
        /// This member's GID.
        gid: Gid,
        /// Bytes of one window extent, a multiple of 2 MiB; 0 without a window.
        chunk_size: u64,
        /// Bytes of the notification region: always 0, the device has none.
        notify_size: u64,
        /// [`MAGIC`].
        magic: u32,
        /// [`VERSION`].
        version: u16,
        /// The fabric's id, SMC's CHID.
        fabric_id: u16,
        /// DMB indices are below this; at most [`MAX_DMBS`].
        max_dmbs: u32,
        /// The longest DMB in bytes.
        max_dmb_len: u32,
        /// Bytes of the window; 0 without one.
        window_size: u64,
        /// The most payload bytes in one move request.
        max_move_len: u32,
        /// The driver should PING after this many milliseconds without an answer; 0: never.
        ping_interval_ms: u32,
    }
}

// ---- Limits -----------------------------------------------------------------------------------

/// The most DMBs a member can own; indices are `0..MAX_DMBS`, and a pair's signal page has this
/// many pending bits. Linux's own limit is 65536 (u16 index).
pub const MAX_DMBS: u32 = 4096;
/// The shortest DMB in bytes: SMC's smallest buffer (compressed size 0).
pub const MIN_DMB_LEN: u32 = 16 << 10;
/// The longest DMB in bytes: twice SMC-D's largest buffer in Linux, more than the caches nearest to a core
/// hold.
pub const MAX_DMB_LEN: u32 = 2 << 20;
/// DMBs start at a multiple of their length rounded up to a power of two, and never cross such a
/// block of the window: a driver may map it with one compound page.
pub const WINDOW_ALIGN: u64 = 2 << 20;

// ---- Control queue ----------------------------------------------------------------------------

/// Commands of the control queue (`RequestHeader::command`).
pub mod command {
    /// Start over: forget all this member had, and tell its limits.
    pub const HELLO: u16 = 0x0001;
    /// Answer, to show that the device is alive.
    pub const PING: u16 = 0x0002;
    /// Read the member's counters.
    pub const STATS: u16 = 0x0003;
    /// Ask whether a GID can be reached, and in which mode.
    pub const QUERY_RGID: u16 = 0x0010;
    /// Release what is left of a peer that is gone.
    pub const FORGET_PEER: u16 = 0x0011;
    /// Register a DMB for one writer.
    pub const REGISTER: u16 = 0x0020;
    /// Unregister an own DMB.
    pub const UNREGISTER: u16 = 0x0021;
    /// Attach to a peer's DMB, so that it outlives its registration until the detach.
    pub const ATTACH: u16 = 0x0022;
    /// Detach from a peer's DMB.
    pub const DETACH: u16 = 0x0023;
    /// Join a VLAN.
    pub const ADD_VLAN: u16 = 0x0030;
    /// Leave a VLAN.
    pub const DEL_VLAN: u16 = 0x0031;
    /// Send a software event to a peer.
    pub const SIGNAL_EVENT: u16 = 0x0040;
    /// Post an entry on the board.
    pub const BOARD_POST: u16 = 0x0050;
}

/// Status of a reply (`ReplyHeader::status`, `MoveReply::status`).
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// The request is too short, too long, or a field is out of its range.
    pub const INVALID: u32 = 1;
    /// The command is unknown.
    pub const UNSUPPORTED: u32 = 2;
    /// No such member, or none that this member may talk to (the two are not told apart).
    pub const UNREACHABLE: u32 = 3;
    /// No such token for this member (never issued, stale, or another's: not told apart).
    pub const NO_TOKEN: u32 = 4;
    /// A quota of this member or of the pair is used up, or no memory is left.
    pub const NO_SPACE: u32 = 5;
    /// The index is in use with other parameters.
    pub const IN_USE: u32 = 6;
    /// Offset and length reach past the DMB.
    pub const OUT_OF_RANGE: u32 = 7;
    /// The pair's mode is another.
    pub const WRONG_MODE: u32 = 8;
    /// The rate or queue limit is reached; try again later.
    pub const BUSY: u32 = 9;
    /// A window could not be mapped, or guest memory not be reached.
    pub const IO_ERROR: u32 = 10;
    /// HELLO has not been sent since the last reset.
    pub const NOT_READY: u32 = 11;
    /// The payload's CDC header is not one that a correct peer writes (copied mode, option).
    pub const BAD_CDC: u32 = 12;
}

/// How a pair of members exchanges data (`QueryReply::mode`, `RegisterRequest::mode`).
pub mod mode {
    /// The DMB is in the pair's arena, mapped in both members' windows.
    pub const MAPPED: u8 = 1;
    /// The DMB is in the owner's RAM; the device copies into it.
    pub const COPIED: u8 = 2;
}

layout! {
    /// Starts every control request.
    RequestHeader {
        /// One of [`command`].
        command: u16,
        /// Zero.
        reserved: [u8; 6],
    }
}
layout! {
    /// Starts every control reply.
    ReplyHeader {
        /// One of [`status`]; if it is not `OK`, the reply's other fields are zero.
        status: u32,
        /// Zero.
        reserved: u32,
    }
}
layout! {
    /// HELLO: request body.
    HelloRequest {
        /// The ABI version the driver speaks.
        version: u16,
        /// Zero.
        reserved: [u8; 6],
    }
}
layout! {
    /// HELLO: reply body.
    HelloReply {
        /// DMBs this member may own.
        max_dmbs: u32,
        /// Peers this member may share an arena with.
        max_peers: u32,
        /// Bytes of DMBs this member may own.
        max_bytes: u64,
        /// Signals a second; 0: no limit.
        max_signal_rate: u32,
        /// Control requests a second; 0: no limit.
        max_control_rate: u32,
    }
}
layout! {
    /// PING: request and reply body.
    Ping {
        /// Returned unchanged.
        cookie: u64,
    }
}
layout! {
    /// STATS: reply body. All counters since HELLO.
    StatsReply {
        /// DMBs this member owns now.
        dmbs: u32,
        /// Peers' DMBs this member may write now.
        grants: u32,
        /// Bytes of owned DMBs.
        dmb_bytes: u64,
        /// Signals sent through the device.
        signals_sent: u64,
        /// Signals delivered to this member by the device.
        signals_received: u64,
        /// Move requests carried out.
        moves: u64,
        /// Bytes moved by the device.
        move_bytes: u64,
        /// Requests answered with a status other than OK.
        errors: u64,
    }
}
layout! {
    /// QUERY_RGID: request body.
    QueryRequest {
        /// The peer asked about; the own GID is reachable too.
        gid: Gid,
        /// VLAN id, if `vlan_valid` is 1.
        vlan_id: u16,
        /// 0 or 1.
        vlan_valid: u8,
        /// Zero.
        reserved: [u8; 5],
    }
}
layout! {
    /// QUERY_RGID: reply body.
    QueryReply {
        /// One of [`mode`].
        mode: u8,
        /// Zero.
        reserved: [u8; 7],
    }
}
layout! {
    /// FORGET_PEER: request body.
    ForgetPeerRequest {
        /// The GID of a PEER_GONE event.
        gid: Gid,
        /// The event's instance.
        instance: u64,
    }
}
layout! {
    /// REGISTER: request body. The same request again answers with the same token.
    RegisterRequest {
        /// The only member that may write this DMB.
        rgid: Gid,
        /// The owner's number for the DMB, below `Config::max_dmbs` and free.
        index: u32,
        /// Bytes: `MIN_DMB_LEN..=Config::max_dmb_len`, a multiple of 4096.
        len: u32,
        /// Copied mode: guest-physical address, a multiple of 8, of `len` contiguous zeroed bytes;
        /// else 0.
        ram_addr: u64,
        /// VLAN id, if `vlan_valid` is 1.
        vlan_id: u16,
        /// 0 or 1.
        vlan_valid: u8,
        /// One of [`mode`], as QUERY_RGID answered.
        mode: u8,
        /// Zero.
        reserved: [u8; 4],
    }
}
layout! {
    /// REGISTER: reply body. Window fields are zero in copied mode.
    RegisterReply {
        /// The DMB's name for its writer: 64 random bits, never 0, never issued twice.
        token: u64,
        /// The DMB's place in the owner's window.
        window_offset: u64,
        /// The place in the owner's window of the extent that holds the DMB; a multiple of
        /// [`WINDOW_ALIGN`].
        extent_offset: u64,
        /// Bytes of that extent: `Config::chunk_size`.
        extent_len: u64,
        /// Place in the owner's window of the [`signal_page`] its peer sets bits in.
        signal_offset: u64,
        /// The pair's instance, as in `PeerGone::instance`.
        instance: u64,
    }
}
layout! {
    /// UNREGISTER, ATTACH, DETACH: request body.
    TokenRequest {
        /// The DMB's token.
        token: u64,
    }
}
layout! {
    /// ATTACH: reply body.
    AttachReply {
        /// The DMB's place in the caller's window.
        window_offset: u64,
        /// Bytes.
        len: u32,
        /// The owner's index.
        index: u32,
    }
}
layout! {
    /// ADD_VLAN, DEL_VLAN: request body.
    VlanRequest {
        /// VLAN id, 1–4094, or 0x1fff (ISM_RESERVED_VLANID), which is always accepted.
        vlan_id: u16,
        /// Zero.
        reserved: [u8; 6],
    }
}
layout! {
    /// SIGNAL_EVENT: request body.
    SignalEventRequest {
        /// Receiver.
        gid: Gid,
        /// Receiver's `dibs_event.subtype`, unchanged.
        code: u32,
        /// Zero.
        reserved: u32,
        /// Receiver's `dibs_event.data`, unchanged.
        info: u64,
    }
}

/// What an entry of the board says (`BoardPostRequest::kind`, `BoardEntry::kind`).
pub mod board {
    /// An end of a connection is here.
    pub const ANNOUNCE: u8 = 1;
    /// An end agrees to meet another.
    pub const ACCEPT: u8 = 2;
    /// An end, a listener or a caller is not here any more.
    pub const LEAVE: u8 = 3;
    /// A listener wants to know who is about to connect.
    pub const LISTEN: u8 = 4;
    /// A caller is about to connect. Not kept if nobody listens.
    pub const CALL: u8 = 5;
}

layout! {
    /// BOARD_POST: request body.
    BoardPostRequest {
        /// What the entry is about, of the drivers' choice.
        key: [u8; 60],
        /// One of [`board`].
        kind: u8,
        /// `ANNOUNCE`: 0 or 1, which of the connection's two ends; else 0.
        side: u8,
        /// Zero.
        reserved: [u8; 2],
        /// The end, listener or caller that it is about: a number that the member has chosen.
        id: u64,
        /// `ACCEPT`: the end that is agreed to; else 0.
        other: u64,
    }
}
layout! {
    /// BOARD_POST: reply body.
    BoardPostReply {
        /// `CALL`: listeners under the key; with 0 the caller was not kept. Else 0.
        listeners: u32,
        /// Zero.
        reserved: u32,
    }
}

// ---- Event queue ------------------------------------------------------------------------------

/// Events (`EventHeader::event`).
pub mod event {
    /// DMBs of this member have been written.
    pub const SIGNALS: u16 = 1;
    /// A peer may write into a DMB of its owner: the writer is told.
    pub const DMB_GRANTED: u16 = 2;
    /// A granted DMB is unregistered: the writer is told.
    pub const DMB_UNREGISTERED: u16 = 3;
    /// A peer is gone, with all its DMBs.
    pub const PEER_GONE: u16 = 4;
    /// A peer sent a software event.
    pub const SOFTWARE_EVENT: u16 = 5;
    /// An entry of the board, for one of this member's ends or listeners.
    pub const BOARD_ENTRY: u16 = 6;
}

/// Bytes of every event and so of every buffer of the event queue.
pub const EVENT_SIZE: usize = 64;

layout! {
    /// Starts every event; bytes after the event's body are zero.
    EventHeader {
        /// One of [`event`].
        event: u16,
        /// Zero.
        reserved: [u8; 6],
    }
}
layout! {
    /// SIGNALS: event body.
    Signals {
        /// The DMB index of `mask`'s bit 0, a multiple of 64.
        base: u32,
        /// Zero.
        reserved: u32,
        /// Bit n: the DMB with index `base + n`.
        mask: u64,
    }
}
layout! {
    /// DMB_GRANTED: event body. Delivered before the owner's REGISTER is answered. Window fields
    /// are zero in copied mode.
    DmbGranted {
        /// The owner.
        gid: Gid,
        /// The DMB's token.
        token: u64,
        /// The DMB's place in the receiver's window.
        window_offset: u64,
        /// Place in the receiver's window of the [`signal_page`] in which to set the owner's bits.
        signal_offset: u64,
        /// Bytes.
        len: u32,
        /// The owner's index, and the bit in the signal page.
        index: u32,
        /// One of [`mode`].
        mode: u8,
        /// Zero.
        reserved: [u8; 7],
    }
}
layout! {
    /// DMB_UNREGISTERED: event body. The token is dead when the event is delivered.
    DmbUnregistered {
        /// The owner.
        gid: Gid,
        /// The DMB's token.
        token: u64,
    }
}
layout! {
    /// PEER_GONE: event body. Tokens of both directions are dead. Memory shared with the peer stays
    /// mapped until the driver has unregistered its own DMBs for it and sent FORGET_PEER.
    PeerGone {
        /// The peer.
        gid: Gid,
        /// The pair's instance, for FORGET_PEER.
        instance: u64,
    }
}
layout! {
    /// SOFTWARE_EVENT: event body.
    SoftwareEvent {
        /// The sender, as the device knows it.
        gid: Gid,
        /// `SignalEventRequest::code`.
        code: u32,
        /// Zero.
        reserved: u32,
        /// `SignalEventRequest::info`.
        info: u64,
    }
}

layout! {
    /// BOARD_ENTRY: event body.
    BoardEntry {
        /// The end or listener of this member that reads it.
        reader: u64,
        /// Its number under its key, from 0 without gaps; 0 for a listener.
        number: u64,
        /// The member that posted it, as the device knows it.
        gid: Gid,
        /// `BoardPostRequest::id`.
        id: u64,
        /// `BoardPostRequest::other`.
        other: u64,
        /// One of [`board`].
        kind: u8,
        /// `BoardPostRequest::side`.
        side: u8,
        /// Zero.
        reserved: [u8; 6],
    }
}

// ---- Signal and move queues -------------------------------------------------------------------

layout! {
    /// One doorbell: the whole of a signal queue buffer (device-readable).
    SignalRequest {
        /// Token of a granted DMB.
        token: u64,
    }
}
layout! {
    /// Starts a move request (device-readable); `len` bytes of payload follow.
    MoveRequest {
        /// Token of a granted DMB.
        token: u64,
        /// Where in the DMB, in bytes.
        offset: u32,
        /// Bytes of payload, at most `Config::max_move_len`.
        len: u32,
        /// 1: signal the owner after the data is in place; else 0.
        signal: u32,
        /// Zero.
        reserved: u32,
    }
}
layout! {
    /// The device-writable end of a move request.
    MoveReply {
        /// One of [`status`].
        status: u32,
    }
}

// ---- Between drivers --------------------------------------------------------------------------

/// The signal page of one direction of a pair in mapped mode: 4096 bytes in the pair's arena,
/// zero at first. It is a protocol between the two drivers; the device neither reads nor writes
/// it. The sender sets pending bits and asks [`doorbell`](signal_page::DOORBELL) whether to ring;
/// nothing in it is trusted: a lie costs the pair a spurious or a late look, and nothing else.
pub mod signal_page {
    /// Bytes of the page.
    pub const SIZE: usize = 4096;
    /// le32: one of the `doorbell` values; written by the receiver, and by the sender from
    /// `ARMED` to `SILENT`.
    pub const DOORBELL: usize = 0;
    /// le64: bit w is set when `PENDING` word w may be non-zero.
    pub const SUMMARY: usize = 64;
    /// 64 × le64: bit n of word w is set when the DMB with index `64 * w + n` was written.
    pub const PENDING: usize = 128;
    /// Number of words at `PENDING`.
    pub const PENDING_WORDS: usize = 64;

    /// The receiver takes no part: ring for every signal. (The value of fresh memory.)
    pub const RING_ALWAYS: u32 = 0;
    /// The receiver sleeps: who changes this to `SILENT` rings.
    pub const ARMED: u32 = 1;
    /// The receiver looks by itself, or has been rung for.
    pub const SILENT: u32 = 2;
}
