// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What TCP carried: the SMC option of SYN and SYN-ACK, and CLC messages.
//!
//! Invariant: a CLC message is taken once, where its last byte arrived, whatever TCP sent twice.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::files::{Message, Role};
use crate::name;
use crate::packet::{Carried, Packet, be16};

/// "SMCR" and "SMCD" in EBCDIC (net/smc/smc_clc.c).
const EYECATCHERS: [[u8; 4]; 2] = [[0xe2, 0xd4, 0xc3, 0xd9], [0xe2, 0xd4, 0xc3, 0xc4]];
/// Kind 254 (experiments), 6 bytes, "SMCR" (include/net/tcp.h); aligned with two NOPs.
const OPTION: [u8; 8] = [1, 1, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9];

type End = (IpAddr, u16);

/// One direction of a connection.
struct Stream {
    role: Role,
    next: u32,
    bytes: Vec<u8>,
}

/// All messages with the number of the packet that completed them.
pub(crate) fn messages(packets: &[Packet]) -> Vec<(usize, Message)> {
    let mut streams: HashMap<(End, End), Stream> = HashMap::new();
    let mut messages = Vec::new();
    for (number, packet) in packets.iter().enumerate() {
        let Carried::Tcp { syn, ack, sequence, options, payload } = &packet.carried else {
            continue;
        };
        let key = (packet.from, packet.to);
        if *syn {
            let role = if *ack { Role::Server } else { Role::Client };
            let next = sequence.wrapping_add(1);
            streams.insert(key, Stream { role, next, bytes: Vec::new() });
            let what = if *ack { "syn-ack" } else { "syn" };
            messages.extend(option(packet, role, what, options).map(|message| (number, message)));
            continue;
        }
        let Some(stream) = streams.get_mut(&key) else { continue };
        if *sequence != stream.next || payload.is_empty() {
            continue;
        }
        stream.next = stream.next.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
        stream.bytes.extend_from_slice(payload);
        while let Some(bytes) = take_clc(&mut stream.bytes) {
            let notes = vec![("carried by", "TCP".to_owned())];
            let what = name::clc(&bytes);
            let message = Message::new(&packet.step, stream.role, packet.from.0, what, bytes);
            messages.push((number, message.with(notes)));
        }
    }
    messages
}

/// The option with the two NOPs before it; the note has all options of the segment.
fn option(packet: &Packet, role: Role, what: &str, options: &[u8]) -> Option<Message> {
    let hex: Vec<String> = options.iter().map(|byte| format!("{byte:02x}")).collect();
    let notes = vec![("carried by", "TCP".to_owned()), ("all options", hex.join(" "))];
    let found = options.windows(OPTION.len()).any(|window| window == OPTION);
    let (what, bytes) = match found {
        true => (format!("{what}-option"), OPTION.to_vec()),
        // Worth a file as well: a SYN-ACK that does not agree to SMC.
        false => (format!("{what}-without-option"), options.to_vec()),
    };
    Some(Message::new(&packet.step, role, packet.from.0, what, bytes).with(notes))
}

/// Takes a whole CLC message off the front; None if there is none (yet).
fn take_clc(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let eyecatcher = bytes.first_chunk::<4>()?;
    if !EYECATCHERS.contains(eyecatcher) {
        return None;
    }
    let length = usize::from(be16(bytes, 5)?);
    if length < 8 || bytes.len() < length {
        return None;
    }
    Some(bytes.drain(..length).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(from: u16, syn: bool, sequence: u32, payload: &[u8]) -> Packet {
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let (payload, options) = (payload.to_vec(), OPTION.to_vec());
        let carried = Carried::Tcp { syn, ack: false, sequence, options, payload };
        let (from, to) = ((address, from), (address, 12345 - from));
        Packet { step: "a step".into(), from, to, carried }
    }

    #[test]
    fn a_message_in_pieces_and_sent_twice_is_taken_once_and_data_behind_it_is_not() {
        let mut decline = vec![0xe2, 0xd4, 0xc3, 0xd9, 4, 0, 28, 0x10];
        decline.resize(28, 7);
        let (head, tail) = decline.split_at(10);
        let tail = [tail, b"data"].concat();
        let packets = [
            segment(1, true, u32::MAX - 4, &[]),
            segment(1, false, u32::MAX - 3, head),
            segment(1, false, u32::MAX - 3, head),
            segment(1, false, 6, &tail),
        ];
        let found = messages(&packets);
        let names: Vec<_> = found.iter().map(|(at, message)| (*at, &*message.what)).collect();
        assert_eq!(names, [(0, "syn-option"), (3, "decline-v1-07070707")]);
        assert_eq!(found.last().map(|(_, message)| &message.bytes), Some(&decline));
    }
}
