// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What RoCE v2 carried: LLC and CDC messages in SENDs, and the list of all frames.
//!
//! Invariant: a frame that was sent again counts as such, and its message is taken once.

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
    let (mut step, mut again) = ("", 0);
    for (number, packet) in packets.iter().enumerate() {
        let Carried::Udp(payload) = &packet.carried else { continue };
        let Some(frame) = frame(payload).filter(|_| packet.to.1 == PORT) else { continue };
        if step != packet.step {
            repeated(&mut list, &mut again);
            step = &packet.step;
            let _ = writeln!(list, "# {step}");
        }
        let sender = role(packet.from.0);
        if !seen.insert((packet.from.0, frame.queue_pair, frame.psn, frame.opcode)) {
            again += 1;
            continue;
        }
        let _ = writeln!(list, "{}", line(packet, sender, &frame));
        if !is_send(frame.opcode) {
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
    repeated(&mut list, &mut again);
    (messages, list)
}

/// A line about the frames of a step that were sent again: for ever, where the peer is gone.
fn repeated(list: &mut String, again: &mut u32) {
    if *again > 0 {
        let _ = writeln!(list, "({again} frames were sent again)");
        *again = 0;
    }
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

fn line(packet: &Packet, sender: Role, frame: &Frame<'_>) -> String {
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
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SEND with one byte of padding and a checksum.
    fn send(opcode: u8, psn: u8, data: &[u8]) -> Packet {
        let mut payload = vec![opcode, 0x90, 0xff, 0xff, 0, 0, 0, 0x11, 0x80, 0, 0, psn];
        payload.extend_from_slice(data);
        payload.extend_from_slice(&[0; 1 + ICRC]);
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let carried = Carried::Udp(payload);
        Packet { step: "a step".into(), from: (address, 1), to: (address, PORT), carried }
    }

    #[test]
    fn a_message_in_two_frames_is_put_together_and_a_repeated_frame_is_only_counted() {
        let packets = [
            send(0x00, 1, &[0x24, 44, 0]),
            send(0x00, 1, &[0x24, 44, 0]),
            send(0x02, 2, &[0x60, 1, 2]),
        ];
        let (found, list) = messages(&packets, |_| Role::Server);
        assert_eq!(found.len(), 1);
        let (at, message) = found.first().expect("one message");
        assert_eq!((*at, &*message.what), (2, "delete-link-v2-request-all-orderly"));
        assert_eq!(message.bytes, [0x24, 44, 0, 0x60, 1, 2]);
        assert!(list.ends_with("(1 frames were sent again)\n"), "{list}");
    }
}
