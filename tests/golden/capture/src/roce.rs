// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What RoCE v2 carried: LLC and CDC messages in SENDs, and the list of all frames.
//!
//! Invariant: a frame that was sent again is listed again, but its message is taken once.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::files::{Message, Role};
use crate::name;
use crate::packet::{Carried, Packet, be16, be24};

/// RoCE v2's UDP port (InfiniBand specification, annex A17).
pub(crate) const PORT: u16 = 4791;
/// The base transport header; the checksum behind the payload.
const BTH: usize = 12;
const ICRC: usize = 4;

struct Frame<'a> {
    opcode: u8,
    solicited: bool,
    queue_pair: u32,
    psn: u32,
    /// After the base header, without padding and checksum.
    rest: &'a [u8],
}

/// All messages with the number of the packet that completed them, and the list of frames.
pub(crate) fn messages(
    packets: &[Packet],
    role: impl Fn(IpAddr) -> Role,
) -> (Vec<(usize, Message)>, String) {
    let (mut messages, mut list) = (Vec::new(), String::new());
    let mut seen = HashSet::new();
    let mut parts: HashMap<(IpAddr, u32), Vec<u8>> = HashMap::new();
    let mut step = "";
    for (number, packet) in packets.iter().enumerate() {
        let Carried::Udp(payload) = &packet.carried else { continue };
        let Some(frame) = frame(payload).filter(|_| packet.to.1 == PORT) else { continue };
        if step != packet.step {
            step = &packet.step;
            let _ = writeln!(list, "# {step}");
        }
        let sender = role(packet.from.0);
        let again = !seen.insert((packet.from.0, frame.queue_pair, frame.psn, frame.opcode));
        let _ = writeln!(list, "{}", line(packet, sender, &frame, again));
        if again || !is_send(frame.opcode) {
            continue;
        }
        let key = (packet.from.0, frame.queue_pair);
        let part = parts.entry(key).or_default();
        part.extend_from_slice(frame.rest);
        // FIRST and MIDDLE are followed by more.
        if matches!(frame.opcode, 0x00 | 0x01) {
            continue;
        }
        let bytes = std::mem::take(part);
        let notes = vec![
            ("carried by", format!("RoCE v2 SEND, queue pair {:#08x}", frame.queue_pair)),
            ("psn", format!("{:#08x}", frame.psn)),
            ("solicited event", frame.solicited.to_string()),
            ("sent from", packet.from.0.to_string()),
        ];
        let what = name::rdma(&bytes);
        let message = Message::new(&packet.step, sender, packet.from.0, what, bytes);
        messages.push((number, message.with(notes)));
    }
    (messages, list)
}

fn frame(payload: &[u8]) -> Option<Frame<'_>> {
    let flags = payload.get(1)?;
    let padding = usize::from(flags >> 4 & 3);
    let end = payload.len().checked_sub(ICRC + padding)?;
    Some(Frame {
        opcode: *payload.first()?,
        solicited: flags & 0x80 != 0,
        queue_pair: be24(payload, 5)?,
        psn: be24(payload, 9)?,
        rest: payload.get(BTH..end)?,
    })
}

fn is_send(opcode: u8) -> bool {
    matches!(opcode, 0x00..=0x02 | 0x04)
}

/// The name of a reliable connection's opcode, and how many header bytes come before its data.
fn operation(opcode: u8) -> (&'static str, usize) {
    match opcode {
        0x00 => ("SEND_FIRST", 0),
        0x01 => ("SEND_MIDDLE", 0),
        0x02 => ("SEND_LAST", 0),
        0x04 => ("SEND_ONLY", 0),
        0x06 => ("WRITE_FIRST", 16),
        0x07 => ("WRITE_MIDDLE", 0),
        0x08 => ("WRITE_LAST", 0),
        0x0a => ("WRITE_ONLY", 16),
        0x11 => ("ACKNOWLEDGE", 4),
        _ => ("OTHER", 0),
    }
}

fn line(packet: &Packet, sender: Role, frame: &Frame<'_>, again: bool) -> String {
    let (name, headers) = operation(frame.opcode);
    let length = frame.rest.len().saturating_sub(headers);
    let mut line = format!(
        "{sender:6} {} > {} {name} qp={:#08x} psn={:#08x} length={length}",
        packet.from.0, packet.to.0, frame.queue_pair, frame.psn
    );
    if frame.solicited {
        line.push_str(" solicited");
    }
    let word = |at: usize| {
        let bytes = frame.rest.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    };
    if headers == 16 {
        let address = u64::from(word(0)) << 32 | u64::from(word(4));
        let _ = write!(line, " rkey={:#010x} address={address:#x} total={}", word(8), word(12));
    }
    if headers == 4 {
        let syndrome = frame.rest.first().copied().unwrap_or_default();
        let _ = write!(line, " syndrome={syndrome:#04x}");
    }
    if is_send(frame.opcode) && be16(frame.rest, 0).is_some() {
        let _ = write!(line, " {}", name::rdma(frame.rest));
    }
    if again {
        line.push_str(" again");
    }
    line
}
