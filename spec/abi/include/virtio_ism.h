/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0 */
/*
 * The virtio-ism device's layouts and numbers, as spec/virtio-ism.md states
 * them. Integers are little-endian; no structure has padding.
 *
 * Generated from spec/abi/src/layout.rs; do not edit. To renew it:
 * UPDATE_C_HEADER=1 cargo test -p ism-abi c_header
 */
#ifndef _LINUX_VIRTIO_ISM_H
#define _LINUX_VIRTIO_ISM_H

#include <linux/types.h>

/* ---- Device identification ---- */

/* The virtio device id reserved for ISM. */
#ifndef VIRTIO_ID_ISM
#define VIRTIO_ID_ISM 44
#endif

/*
 * The id used where the VMM refuses 44 (QEMU 11.1 aborts on it); told apart by
 * VIRTIO_ISM_MAGIC.
 */
#define VIRTIO_ID_ISM_FALLBACK 38

/* virtio_ism_config.magic: the bytes "vISM". */
#define VIRTIO_ISM_MAGIC 0x4d534976

/* virtio_ism_config.version. */
#define VIRTIO_ISM_VERSION 1

/* Control requests and replies. */
#define VIRTIO_ISM_QUEUE_CONTROL 0

/* Events, device to driver. */
#define VIRTIO_ISM_QUEUE_EVENT 1

/* Doorbells, driver to device. */
#define VIRTIO_ISM_QUEUE_SIGNAL 2

/* Copied-mode data, driver to device. */
#define VIRTIO_ISM_QUEUE_MOVE 3

/* Number of virtqueues. */
#define VIRTIO_ISM_QUEUE_COUNT 4

/* Feature bit: the device has a window, so pairs may be in mapped mode. */
#define VIRTIO_ISM_F_WINDOW 0

/* Feature bit: the device has a move queue, so pairs may be in copied mode. */
#define VIRTIO_ISM_F_MOVE 1

/*
 * Feature bit: the device has a board, on which members find the other ends of
 * connections.
 */
#define VIRTIO_ISM_F_BOARD 2

/* Shared memory region that is the window. */
#define VIRTIO_ISM_SHM_WINDOW 1

/* Lowest fabric id: a CHID of an emulated ISM device (net/smc/smc_clc.h). */
#define VIRTIO_ISM_FABRIC_ID_MIN 0xff00

/* Highest fabric id; 0xffff is Linux's loopback. */
#define VIRTIO_ISM_FABRIC_ID_MAX 0xfffe

/**
 * struct virtio_ism_config - Device configuration space. The first four fields
 *   are those of the earlier virtio-ism RFC; its gid and devid together are
 *   this device's 128-bit GID.
 * @gid: This member's GID.
 * @chunk_size: Bytes of one window extent, a multiple of 2 MiB; 0 without a
 *   window.
 * @notify_size: Bytes of the notification region: always 0, the device has
 *   none.
 * @magic: VIRTIO_ISM_MAGIC.
 * @version: VIRTIO_ISM_VERSION.
 * @fabric_id: The fabric's id, SMC's CHID.
 * @max_dmbs: DMB indices are below this; at most VIRTIO_ISM_MAX_DMBS.
 * @max_dmb_len: The longest DMB in bytes.
 * @window_size: Bytes of the window; 0 without one.
 * @max_move_len: The most payload bytes in one move request.
 * @ping_interval_ms: The driver should PING after this many milliseconds
 *   without an answer; 0: never.
 */
struct virtio_ism_config {
	__u8 gid[16];
	__le64 chunk_size;
	__le64 notify_size;
	__le32 magic;
	__le16 version;
	__le16 fabric_id;
	__le32 max_dmbs;
	__le32 max_dmb_len;
	__le64 window_size;
	__le32 max_move_len;
	__le32 ping_interval_ms;
};

/* ---- Limits ---- */

/*
 * The most DMBs a member can own; indices are 0 to VIRTIO_ISM_MAX_DMBS - 1, and
 * a pair's signal page has this many pending bits. Linux's own limit is 65536
 * (u16 index).
 */
#define VIRTIO_ISM_MAX_DMBS 4096

/* The shortest DMB in bytes: SMC's smallest buffer (compressed size 0). */
#define VIRTIO_ISM_MIN_DMB_LEN (16 << 10)

/*
 * The longest DMB in bytes: twice SMC-D's largest buffer in Linux, more than
 * the caches nearest to a core hold.
 */
#define VIRTIO_ISM_MAX_DMB_LEN (2 << 20)

/*
 * DMBs start at a multiple of their length rounded up to a power of two, and
 * never cross such a block of the window: a driver may map it with one compound
 * page.
 */
#define VIRTIO_ISM_WINDOW_ALIGN (2 << 20)

/* ---- Control queue ---- */

/* Commands of the control queue (virtio_ism_request_header.command). */

/* Start over: forget all this member had, and tell its limits. */
#define VIRTIO_ISM_CMD_HELLO 0x0001

/* Answer, to show that the device is alive. */
#define VIRTIO_ISM_CMD_PING 0x0002

/* Read the member's counters. */
#define VIRTIO_ISM_CMD_STATS 0x0003

/* Ask whether a GID can be reached, and in which mode. */
#define VIRTIO_ISM_CMD_QUERY_RGID 0x0010

/* Release what is left of a peer that is gone. */
#define VIRTIO_ISM_CMD_FORGET_PEER 0x0011

/* Register a DMB for one writer. */
#define VIRTIO_ISM_CMD_REGISTER 0x0020

/* Unregister an own DMB. */
#define VIRTIO_ISM_CMD_UNREGISTER 0x0021

/*
 * Attach to a peer's DMB, so that it outlives its registration until the
 * detach.
 */
#define VIRTIO_ISM_CMD_ATTACH 0x0022

/* Detach from a peer's DMB. */
#define VIRTIO_ISM_CMD_DETACH 0x0023

/* Join a VLAN. */
#define VIRTIO_ISM_CMD_ADD_VLAN 0x0030

/* Leave a VLAN. */
#define VIRTIO_ISM_CMD_DEL_VLAN 0x0031

/* Send a software event to a peer. */
#define VIRTIO_ISM_CMD_SIGNAL_EVENT 0x0040

/* Post an entry on the board. */
#define VIRTIO_ISM_CMD_BOARD_POST 0x0050

/*
 * Status of a reply (virtio_ism_reply_header.status,
 * virtio_ism_move_reply.status).
 */

/* Done. */
#define VIRTIO_ISM_S_OK 0

/* The request is too short, too long, or a field is out of its range. */
#define VIRTIO_ISM_S_INVALID 1

/* The command is unknown. */
#define VIRTIO_ISM_S_UNSUPPORTED 2

/*
 * No such member, or none that this member may talk to (the two are not told
 * apart).
 */
#define VIRTIO_ISM_S_UNREACHABLE 3

/*
 * No such token for this member (never issued, stale, or another's: not told
 * apart).
 */
#define VIRTIO_ISM_S_NO_TOKEN 4

/* A quota of this member or of the pair is used up, or no memory is left. */
#define VIRTIO_ISM_S_NO_SPACE 5

/* The index is in use with other parameters. */
#define VIRTIO_ISM_S_IN_USE 6

/* Offset and length reach past the DMB. */
#define VIRTIO_ISM_S_OUT_OF_RANGE 7

/* The pair's mode is another. */
#define VIRTIO_ISM_S_WRONG_MODE 8

/* The rate or queue limit is reached; try again later. */
#define VIRTIO_ISM_S_BUSY 9

/* A window could not be mapped, or guest memory not be reached. */
#define VIRTIO_ISM_S_IO_ERROR 10

/* HELLO has not been sent since the last reset. */
#define VIRTIO_ISM_S_NOT_READY 11

/*
 * The payload's CDC header is not one that a correct peer writes (copied mode,
 * option).
 */
#define VIRTIO_ISM_S_BAD_CDC 12

/*
 * How a pair of members exchanges data (virtio_ism_query_reply.mode,
 * virtio_ism_register_request.mode).
 */

/* The DMB is in the pair's arena, mapped in both members' windows. */
#define VIRTIO_ISM_MODE_MAPPED 1

/* The DMB is in the owner's RAM; the device copies into it. */
#define VIRTIO_ISM_MODE_COPIED 2

/**
 * struct virtio_ism_request_header - Starts every control request.
 * @command: One of VIRTIO_ISM_CMD_*.
 * @reserved: Zero.
 */
struct virtio_ism_request_header {
	__le16 command;
	__u8 reserved[6];
};

/**
 * struct virtio_ism_reply_header - Starts every control reply.
 * @status: One of VIRTIO_ISM_S_*; if it is not VIRTIO_ISM_S_OK, the reply's
 *   other fields are zero.
 * @reserved: Zero.
 */
struct virtio_ism_reply_header {
	__le32 status;
	__le32 reserved;
};

/**
 * struct virtio_ism_hello_request - HELLO: request body.
 * @version: The ABI version the driver speaks.
 * @reserved: Zero.
 */
struct virtio_ism_hello_request {
	__le16 version;
	__u8 reserved[6];
};

/**
 * struct virtio_ism_hello_reply - HELLO: reply body.
 * @max_dmbs: DMBs this member may own.
 * @max_peers: Peers this member may share an arena with.
 * @max_bytes: Bytes of DMBs this member may own.
 * @max_signal_rate: Signals a second; 0: no limit.
 * @max_control_rate: Control requests a second; 0: no limit.
 */
struct virtio_ism_hello_reply {
	__le32 max_dmbs;
	__le32 max_peers;
	__le64 max_bytes;
	__le32 max_signal_rate;
	__le32 max_control_rate;
};

/**
 * struct virtio_ism_ping - PING: request and reply body.
 * @cookie: Returned unchanged.
 */
struct virtio_ism_ping {
	__le64 cookie;
};

/**
 * struct virtio_ism_stats_reply - STATS: reply body. All counters since HELLO.
 * @dmbs: DMBs this member owns now.
 * @grants: Peers' DMBs this member may write now.
 * @dmb_bytes: Bytes of owned DMBs.
 * @signals_sent: Signals sent through the device.
 * @signals_received: Signals delivered to this member by the device.
 * @moves: Move requests carried out.
 * @move_bytes: Bytes moved by the device.
 * @errors: Requests answered with a status other than OK.
 */
struct virtio_ism_stats_reply {
	__le32 dmbs;
	__le32 grants;
	__le64 dmb_bytes;
	__le64 signals_sent;
	__le64 signals_received;
	__le64 moves;
	__le64 move_bytes;
	__le64 errors;
};

/**
 * struct virtio_ism_query_request - QUERY_RGID: request body.
 * @gid: The peer asked about; the own GID is reachable too.
 * @vlan_id: VLAN id, if vlan_valid is 1.
 * @vlan_valid: 0 or 1.
 * @reserved: Zero.
 */
struct virtio_ism_query_request {
	__u8 gid[16];
	__le16 vlan_id;
	__u8 vlan_valid;
	__u8 reserved[5];
};

/**
 * struct virtio_ism_query_reply - QUERY_RGID: reply body.
 * @mode: One of VIRTIO_ISM_MODE_*.
 * @reserved: Zero.
 */
struct virtio_ism_query_reply {
	__u8 mode;
	__u8 reserved[7];
};

/**
 * struct virtio_ism_forget_peer_request - FORGET_PEER: request body.
 * @gid: The GID of a PEER_GONE event.
 * @instance: The event's instance.
 */
struct virtio_ism_forget_peer_request {
	__u8 gid[16];
	__le64 instance;
};

/**
 * struct virtio_ism_register_request - REGISTER: request body. The same request
 *   again answers with the same token.
 * @rgid: The only member that may write this DMB.
 * @index: The owner's number for the DMB, below virtio_ism_config.max_dmbs and
 *   free.
 * @len: Bytes: VIRTIO_ISM_MIN_DMB_LEN to virtio_ism_config.max_dmb_len, a
 *   multiple of 4096.
 * @ram_addr: Copied mode: guest-physical address, a multiple of 8, of len
 *   contiguous zeroed bytes; else 0.
 * @vlan_id: VLAN id, if vlan_valid is 1.
 * @vlan_valid: 0 or 1.
 * @mode: One of VIRTIO_ISM_MODE_*, as QUERY_RGID answered.
 * @reserved: Zero.
 */
struct virtio_ism_register_request {
	__u8 rgid[16];
	__le32 index;
	__le32 len;
	__le64 ram_addr;
	__le16 vlan_id;
	__u8 vlan_valid;
	__u8 mode;
	__u8 reserved[4];
};

/**
 * struct virtio_ism_register_reply - REGISTER: reply body. Window fields are
 *   zero in copied mode.
 * @token: The DMB's name for its writer: 64 random bits, never 0, never issued
 *   twice.
 * @window_offset: The DMB's place in the owner's window.
 * @extent_offset: The place in the owner's window of the extent that holds the
 *   DMB; a multiple of VIRTIO_ISM_WINDOW_ALIGN.
 * @extent_len: Bytes of that extent: virtio_ism_config.chunk_size.
 * @signal_offset: Place in the owner's window of the signal page its peer sets
 *   bits in.
 * @instance: The pair's instance, as in virtio_ism_peer_gone.instance.
 */
struct virtio_ism_register_reply {
	__le64 token;
	__le64 window_offset;
	__le64 extent_offset;
	__le64 extent_len;
	__le64 signal_offset;
	__le64 instance;
};

/**
 * struct virtio_ism_token_request - UNREGISTER, ATTACH, DETACH: request body.
 * @token: The DMB's token.
 */
struct virtio_ism_token_request {
	__le64 token;
};

/**
 * struct virtio_ism_attach_reply - ATTACH: reply body.
 * @window_offset: The DMB's place in the caller's window.
 * @len: Bytes.
 * @index: The owner's index.
 */
struct virtio_ism_attach_reply {
	__le64 window_offset;
	__le32 len;
	__le32 index;
};

/**
 * struct virtio_ism_vlan_request - ADD_VLAN, DEL_VLAN: request body.
 * @vlan_id: VLAN id, 1 to 4094, or 0x1fff (ISM_RESERVED_VLANID), which is
 *   always accepted.
 * @reserved: Zero.
 */
struct virtio_ism_vlan_request {
	__le16 vlan_id;
	__u8 reserved[6];
};

/**
 * struct virtio_ism_signal_event_request - SIGNAL_EVENT: request body.
 * @gid: Receiver.
 * @code: Receiver's dibs_event.subtype, unchanged.
 * @reserved: Zero.
 * @info: Receiver's dibs_event.data, unchanged.
 */
struct virtio_ism_signal_event_request {
	__u8 gid[16];
	__le32 code;
	__le32 reserved;
	__le64 info;
};

/*
 * What an entry of the board says (virtio_ism_board_post_request.kind,
 * virtio_ism_board_entry.kind).
 */

/* An end of a connection is here. */
#define VIRTIO_ISM_BOARD_ANNOUNCE 1

/* An end agrees to meet another. */
#define VIRTIO_ISM_BOARD_ACCEPT 2

/* An end, a listener or a caller is not here any more. */
#define VIRTIO_ISM_BOARD_LEAVE 3

/* A listener wants to know who is about to connect. */
#define VIRTIO_ISM_BOARD_LISTEN 4

/* A caller is about to connect. Not kept if nobody listens. */
#define VIRTIO_ISM_BOARD_CALL 5

/**
 * struct virtio_ism_board_post_request - BOARD_POST: request body.
 * @key: What the entry is about, of the drivers' choice.
 * @kind: One of VIRTIO_ISM_BOARD_*.
 * @side: VIRTIO_ISM_BOARD_ANNOUNCE: 0 or 1, which of the connection's two ends;
 *   else 0.
 * @reserved: Zero.
 * @id: The end, listener or caller that it is about: a number that the member
 *   has chosen.
 * @other: VIRTIO_ISM_BOARD_ACCEPT: the end that is agreed to; else 0.
 */
struct virtio_ism_board_post_request {
	__u8 key[60];
	__u8 kind;
	__u8 side;
	__u8 reserved[2];
	__le64 id;
	__le64 other;
};

/**
 * struct virtio_ism_board_post_reply - BOARD_POST: reply body.
 * @listeners: VIRTIO_ISM_BOARD_CALL: listeners under the key; with 0 the caller
 *   was not kept. Else 0.
 * @reserved: Zero.
 */
struct virtio_ism_board_post_reply {
	__le32 listeners;
	__le32 reserved;
};

/* ---- Event queue ---- */

/* Events (virtio_ism_event_header.event). */

/* DMBs of this member have been written. */
#define VIRTIO_ISM_EVENT_SIGNALS 1

/* A peer may write into a DMB of its owner: the writer is told. */
#define VIRTIO_ISM_EVENT_DMB_GRANTED 2

/* A granted DMB is unregistered: the writer is told. */
#define VIRTIO_ISM_EVENT_DMB_UNREGISTERED 3

/* A peer is gone, with all its DMBs. */
#define VIRTIO_ISM_EVENT_PEER_GONE 4

/* A peer sent a software event. */
#define VIRTIO_ISM_EVENT_SOFTWARE_EVENT 5

/* An entry of the board, for one of this member's ends or listeners. */
#define VIRTIO_ISM_EVENT_BOARD_ENTRY 6

/* Bytes of every event and so of every buffer of the event queue. */
#define VIRTIO_ISM_EVENT_SIZE 64

/**
 * struct virtio_ism_event_header - Starts every event; bytes after the event's
 *   body are zero.
 * @event: One of VIRTIO_ISM_EVENT_*.
 * @reserved: Zero.
 */
struct virtio_ism_event_header {
	__le16 event;
	__u8 reserved[6];
};

/**
 * struct virtio_ism_signals - SIGNALS: event body.
 * @base: The DMB index of mask's bit 0, a multiple of 64.
 * @reserved: Zero.
 * @mask: Bit n: the DMB with index base + n.
 */
struct virtio_ism_signals {
	__le32 base;
	__le32 reserved;
	__le64 mask;
};

/**
 * struct virtio_ism_dmb_granted - DMB_GRANTED: event body. Delivered before the
 *   owner's REGISTER is answered. Window fields are zero in copied mode.
 * @gid: The owner.
 * @token: The DMB's token.
 * @window_offset: The DMB's place in the receiver's window.
 * @signal_offset: Place in the receiver's window of the signal page in which to
 *   set the owner's bits.
 * @len: Bytes.
 * @index: The owner's index, and the bit in the signal page.
 * @mode: One of VIRTIO_ISM_MODE_*.
 * @reserved: Zero.
 */
struct virtio_ism_dmb_granted {
	__u8 gid[16];
	__le64 token;
	__le64 window_offset;
	__le64 signal_offset;
	__le32 len;
	__le32 index;
	__u8 mode;
	__u8 reserved[7];
};

/**
 * struct virtio_ism_dmb_unregistered - DMB_UNREGISTERED: event body. The token
 *   is dead when the event is delivered.
 * @gid: The owner.
 * @token: The DMB's token.
 */
struct virtio_ism_dmb_unregistered {
	__u8 gid[16];
	__le64 token;
};

/**
 * struct virtio_ism_peer_gone - PEER_GONE: event body. Tokens of both
 *   directions are dead. Memory shared with the peer stays mapped until the
 *   driver has unregistered its own DMBs for it and sent FORGET_PEER.
 * @gid: The peer.
 * @instance: The pair's instance, for FORGET_PEER.
 */
struct virtio_ism_peer_gone {
	__u8 gid[16];
	__le64 instance;
};

/**
 * struct virtio_ism_software_event - SOFTWARE_EVENT: event body.
 * @gid: The sender, as the device knows it.
 * @code: virtio_ism_signal_event_request.code.
 * @reserved: Zero.
 * @info: virtio_ism_signal_event_request.info.
 */
struct virtio_ism_software_event {
	__u8 gid[16];
	__le32 code;
	__le32 reserved;
	__le64 info;
};

/**
 * struct virtio_ism_board_entry - BOARD_ENTRY: event body.
 * @reader: The end or listener of this member that reads it.
 * @number: Its number under its key, from 0 without gaps; 0 for a listener.
 * @gid: The member that posted it, as the device knows it.
 * @id: virtio_ism_board_post_request.id.
 * @other: virtio_ism_board_post_request.other.
 * @kind: One of VIRTIO_ISM_BOARD_*.
 * @side: virtio_ism_board_post_request.side.
 * @reserved: Zero.
 */
struct virtio_ism_board_entry {
	__le64 reader;
	__le64 number;
	__u8 gid[16];
	__le64 id;
	__le64 other;
	__u8 kind;
	__u8 side;
	__u8 reserved[6];
};

/* ---- Signal and move queues ---- */

/**
 * struct virtio_ism_signal_request - One doorbell: the whole of a signal queue
 *   buffer (device-readable).
 * @token: Token of a granted DMB.
 */
struct virtio_ism_signal_request {
	__le64 token;
};

/**
 * struct virtio_ism_move_request - Starts a move request (device-readable); len
 *   bytes of payload follow.
 * @token: Token of a granted DMB.
 * @offset: Where in the DMB, in bytes.
 * @len: Bytes of payload, at most virtio_ism_config.max_move_len.
 * @signal: 1: signal the owner after the data is in place; else 0.
 * @reserved: Zero.
 */
struct virtio_ism_move_request {
	__le64 token;
	__le32 offset;
	__le32 len;
	__le32 signal;
	__le32 reserved;
};

/**
 * struct virtio_ism_move_reply - The device-writable end of a move request.
 * @status: One of VIRTIO_ISM_S_*.
 */
struct virtio_ism_move_reply {
	__le32 status;
};

/* ---- Between drivers ---- */

/*
 * The signal page of one direction of a pair in mapped mode: 4096 bytes in the
 * pair's arena, zero at first. It is a protocol between the two drivers; the
 * device neither reads nor writes it. The sender sets pending bits and asks
 * doorbell whether to ring; nothing in it is trusted: a lie costs the pair a
 * spurious or a late look, and nothing else.
 */

/* Bytes of the page. */
#define VIRTIO_ISM_SIGNAL_PAGE_SIZE 4096

/*
 * le32: one of the doorbell values; written by the receiver, and by the sender
 * from VIRTIO_ISM_SIGNAL_PAGE_ARMED to VIRTIO_ISM_SIGNAL_PAGE_SILENT.
 */
#define VIRTIO_ISM_SIGNAL_PAGE_DOORBELL 0

/*
 * le64: bit w is set when VIRTIO_ISM_SIGNAL_PAGE_PENDING word w may be
 * non-zero.
 */
#define VIRTIO_ISM_SIGNAL_PAGE_SUMMARY 64

/*
 * 64 * le64: bit n of word w is set when the DMB with index 64 * w + n was
 * written.
 */
#define VIRTIO_ISM_SIGNAL_PAGE_PENDING 128

/* Number of words at VIRTIO_ISM_SIGNAL_PAGE_PENDING. */
#define VIRTIO_ISM_SIGNAL_PAGE_PENDING_WORDS 64

/*
 * The receiver takes no part: ring for every signal. (The value of fresh
 * memory.)
 */
#define VIRTIO_ISM_SIGNAL_PAGE_RING_ALWAYS 0

/*
 * The receiver sleeps: who changes this to VIRTIO_ISM_SIGNAL_PAGE_SILENT rings.
 */
#define VIRTIO_ISM_SIGNAL_PAGE_ARMED 1

/* The receiver looks by itself, or has been rung for. */
#define VIRTIO_ISM_SIGNAL_PAGE_SILENT 2

#endif /* _LINUX_VIRTIO_ISM_H */
