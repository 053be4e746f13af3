// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What SMC-D wrote into DMBs: the driver's `move_data`, as a kernel probe in the sender's guest saw
//! it.
//!
//! Invariant: writes keep the order in which the sender's kernel made them.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::files::{Message, Role};
use crate::name;

/// Bytes of the CDC area at a DMB's start, and what the probe takes of each write.
const AREA: usize = 32;

/// The probe on `int move_data(dibs, token, idx, sf, offset, data, size)` (include/linux/dibs.h), in
/// the syntax of kprobe_events.
pub(crate) fn probe(function: &str) -> String {
    format!(
        "p:golden/{function} {function} token=%si:x64 sf=%cx:x8 offset=%r8:u32 size=$stack1:u32 data=+0(%r9):x8[{AREA}]"
    )
}

/// The probe on `int signal_event(dibs, rgid, trigger_irq, event_code, info)`.
pub(crate) fn event_probe(function: &str) -> String {
    format!("p:golden/{function} {function} code=%cx:u32 info=%r8:x64")
}

/// The events that a guest signalled to its peers: 8 bytes in the host's order each.
pub(crate) fn events(trace: &str, sender: Role) -> Vec<Message> {
    let (mut messages, mut step) = (Vec::new(), String::new());
    for text in trace.lines() {
        if let Some((_, note)) = text.split_once("tracing_mark_write: ") {
            note.trim().clone_into(&mut step);
        }
        let (Some(code), Some(info)) = (field(text, "code"), field(text, "info")) else { continue };
        let (Ok(code), Some(info)) = (code.parse::<u32>(), hex(info)) else { continue };
        let name = match code {
            0x80 => "shutdown",
            0x83 => "test-link",
            _ => "unknown",
        };
        let notes = vec![
            ("carried by", "signal_event of the driver".to_owned()),
            ("event code", format!("{code:#x}")),
        ];
        let none = std::net::Ipv4Addr::UNSPECIFIED.into();
        let what = format!("event-{name}");
        let bytes = info.to_le_bytes().to_vec();
        messages.push(Message::new(&step, sender, none, what, bytes).with(notes));
    }
    messages
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!(" {name}="))?;
    rest.split(' ').next()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// The CDC areas that were written, and the list of all writes. `role` says whose DMB a token names
/// by the messages of the handshakes: the writer is the other end.
pub(crate) fn messages(trace: &str, writers: &HashMap<u64, Role>) -> (Vec<Message>, String) {
    let (mut messages, mut list, mut step) = (Vec::new(), String::new(), String::new());
    for text in trace.lines() {
        if let Some((_, note)) = text.split_once("tracing_mark_write: ") {
            note.trim().clone_into(&mut step);
            let _ = writeln!(list, "# {step}");
            continue;
        }
        let Some(write) = Write::parse(text) else { continue };
        let Some(&writer) = writers.get(&write.token) else { continue };
        let _ = writeln!(
            list,
            "{writer:6} token={:#018x} offset={} length={} signal={}",
            write.token, write.offset, write.size, write.signal
        );
        if write.offset == 0 && write.size == AREA {
            let flag = |at: usize| write.data.get(at).copied().unwrap_or_default();
            let what = format!("area{}", name::cdc_flags(flag(22), flag(23)));
            let notes = vec![
                ("carried by", "move_data to offset 0 of the peer's DMB".to_owned()),
                ("token", format!("{:#018x}", write.token)),
                ("signal", write.signal.to_string()),
            ];
            let none = std::net::Ipv4Addr::UNSPECIFIED.into();
            messages.push(Message::new(&step, writer, none, what, write.data).with(notes));
        }
    }
    (messages, list)
}

struct Write {
    token: u64,
    signal: bool,
    offset: usize,
    size: usize,
    data: Vec<u8>,
}

impl Write {
    fn parse(line: &str) -> Option<Self> {
        let data = field(line, "data")?.trim_matches(['{', '}']);
        let bytes = data.split(',').map(|byte| Some(hex(byte)?.to_le_bytes()[0]));
        Some(Self {
            token: hex(field(line, "token")?)?,
            signal: hex(field(line, "sf")?)? != 0,
            offset: field(line, "offset")?.parse().ok()?,
            size: field(line, "size")?.parse().ok()?,
            data: bytes.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_taken_from_its_trace_line_and_named_after_its_step() {
        let area = "fe,0,0,0,0,0,0,0,0,0,e,0,0,0,0,0,0,0,14,0,0,0,80,40,0,0,0,0,0,0,0,0";
        let data: Vec<String> = area.split(',').map(|byte| format!("0x{byte}")).collect();
        let data = data.join(",");
        let trace = format!(
            "  sh-1  [000] ..... 1.0: tracing_mark_write: c1: closes\n\
             puppet-2 [000] d..1. 1.2: ism_op_move: (ism_op_move+0x0/0x90) token=0x12ab sf=0x1 \
             offset=0 size=32 data={{{data}}}\n"
        );
        let writers = HashMap::from([(0x12ab, Role::Client)]);
        let (messages, list) = messages(&trace, &writers);
        let message = messages.first().expect("a write to offset 0 is an area");
        assert_eq!(message.step, "c1: closes");
        assert_eq!(message.what, "area-write-blocked-closed");
        assert_eq!(message.bytes.get(..11), Some(&[0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 14][..]));
        assert!(list.contains("offset=0 length=32 signal=true"), "{list}");
    }
}
