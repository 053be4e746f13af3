// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The packets of a recording: pcap, Ethernet, IP, TCP and UDP, as far as it takes.
//!
//! Invariant: packets keep their order; what is no TCP or UDP is left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};

/// The port to which a step's name is sent: it is in the recording before what it provokes.
pub(crate) const NOTE_PORT: u16 = 4790;

/// One packet, and the step that was under way.
pub(crate) struct Packet {
    pub(crate) step: String,
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) carried: Carried,
}

pub(crate) enum Carried {
    Tcp { syn: bool, ack: bool, sequence: u32, options: Vec<u8>, payload: Vec<u8> },
    Udp(Vec<u8>),
}

/// Takes a pcap file of Ethernet frames apart (pcap-savefile(5)).
pub(crate) fn packets(file: &[u8]) -> Result<Vec<Packet>> {
    ensure!(file.get(..4) == Some(&0xa1b2_c3d4_u32.to_le_bytes()), "the recording is no pcap");
    ensure!(le32(file, 20)? == 1, "the recording is not of Ethernet");
    let (mut packets, mut at, mut step) = (Vec::new(), 24, String::new());
    while at < file.len() {
        let length = usize::try_from(le32(file, at + 8)?)?;
        let Some(frame) = file.get(at + 16..at + 16 + length) else { break };
        at += 16 + length;
        let Some(mut packet) = packet(frame) else { continue };
        match &packet.carried {
            Carried::Udp(text) if packet.to.1 == NOTE_PORT => {
                step = String::from_utf8_lossy(text).trim().to_owned();
            }
            _ => {
                step.clone_into(&mut packet.step);
                packets.push(packet);
            }
        }
    }
    if packets.is_empty() {
        bail!("nothing was recorded");
    }
    Ok(packets)
}

fn le32(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk).context("the recording is cut off")?;
    Ok(u32::from_le_bytes(*word))
}

fn packet(frame: &[u8]) -> Option<Packet> {
    let (from, to, protocol, rest) = match be16(frame, 12)? {
        0x0800 => ipv4(frame.get(14..)?)?,
        0x86dd => ipv6(frame.get(14..)?)?,
        _ => return None,
    };
    let ports = (be16(rest, 0)?, be16(rest, 2)?);
    let carried = match protocol {
        6 => {
            let header = usize::from(rest.get(12)? >> 4) * 4;
            let flags = rest.get(13)?;
            Carried::Tcp {
                syn: flags & 0x02 != 0,
                ack: flags & 0x10 != 0,
                sequence: u32::from_be_bytes(*rest.get(4..)?.first_chunk()?),
                options: rest.get(20..header)?.to_vec(),
                payload: rest.get(header..)?.to_vec(),
            }
        }
        17 => Carried::Udp(rest.get(8..usize::from(be16(rest, 4)?))?.to_vec()),
        _ => return None,
    };
    Some(Packet { step: String::new(), from: (from, ports.0), to: (to, ports.1), carried })
}

type Datagram<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn ipv4(packet: &[u8]) -> Option<Datagram<'_>> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let length = usize::from(be16(packet, 2)?);
    let address = |at| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?).into());
    Some((address(12)?, address(16)?, *packet.get(9)?, packet.get(header..length)?))
}

fn ipv6(packet: &[u8]) -> Option<Datagram<'_>> {
    let length = usize::from(be16(packet, 4)?);
    let address = |at| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into());
    Some((address(8)?, address(24)?, *packet.get(6)?, packet.get(40..40 + length)?))
}

/// Two bytes as a big-endian number.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Three bytes as a big-endian number.
pub(crate) fn be24(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(port: u16, text: &[u8]) -> Vec<u8> {
        let length = u8::try_from(text.len()).expect("short");
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 28 + length, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 7]);
        frame.extend(port.to_be_bytes());
        frame.extend([0, 8 + length, 0, 0]);
        frame.extend(text);
        frame.extend([0; 6]); // Ethernet pads short frames
        frame
    }

    #[test]
    fn a_note_names_the_packets_behind_it() {
        let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        file.extend([0; 16]);
        file.extend(1_u32.to_le_bytes());
        for frame in [frame(NOTE_PORT, b"c1: closes\n"), frame(4791, b"abc")] {
            file.extend([0; 8]);
            file.extend(u32::try_from(frame.len()).expect("short").to_le_bytes());
            file.extend([0; 4]);
            file.extend(frame);
        }
        let packets = packets(&file).expect("a good recording");
        let [packet] = packets.as_slice() else { panic!("{} packets", packets.len()) };
        assert_eq!((packet.step.as_str(), packet.to.1), ("c1: closes", 4791));
        assert!(matches!(&packet.carried, Carried::Udp(payload) if payload == b"abc"));
    }
}
