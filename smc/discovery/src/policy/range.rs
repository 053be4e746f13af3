// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ranges of addresses and ports, as the policy file writes them.
//!
//! Invariant: a prefix has no bits set behind its length, and a range's first port is not behind its last.

use std::net::IpAddr;

use serde::Deserialize;

/// All addresses that share their first bits: `192.0.2.0/24`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix {
    first: IpAddr,
    len: u32,
}

impl Prefix {
    /// Whether `ip` is in it. An IPv4 address that IPv6 carries (`::ffff:192.0.2.1`) is that IPv4 address.
    pub fn contains(self, ip: IpAddr) -> bool {
        let (first, width) = bits(self.first);
        let (ip, of) = bits(ip.to_canonical());
        width == of && (first ^ ip).checked_shr(width - self.len).unwrap_or(0) == 0
    }
}

/// An address as a number, and of how many bits.
fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (ip, len) = text.split_once('/').map_or((&*text, None), |(ip, len)| (ip, Some(len)));
        let first: IpAddr = ip.parse().map_err(|_| {
            format!("`{text}` is no address: write `192.0.2.1`, `192.0.2.0/24`, `2001:db8::1` or `2001:db8::/32`")
        })?;
        if first != first.to_canonical() {
            return Err(format!(
                "`{text}` is an IPv4 address in IPv6: write `{}`",
                first.to_canonical()
            ));
        }
        let (number, width) = bits(first);
        let len = match len {
            None => width,
            Some(len) => {
                len.parse().ok().filter(|len| *len <= width && !text.contains("/+")).ok_or_else(
                    || format!("`{text}`: behind the slash, 0 to {width} are allowed"),
                )?
            }
        };
        if number.checked_shl(128 - width + len).unwrap_or(0) != 0 {
            return Err(format!(
                "`{text}` has bits set behind the first {len}: leave out `/{len}`, or clear them"
            ));
        }
        Ok(Self { first, len })
    }
}

/// Ports from one to another, both included: `443`, `"8000-8099"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PortsText")]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// What TOML may have there.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a port is a number from 1 to 65535, or a range like \"8000-8099\"")]
enum PortsText {
    One(u16),
    Range(String),
}

impl TryFrom<PortsText> for Ports {
    type Error = String;

    fn try_from(text: PortsText) -> Result<Self, String> {
        let (first, last) = match &text {
            PortsText::One(port) => (Some(*port), Some(*port)),
            PortsText::Range(range) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (first.trim().parse().ok(), last.trim().parse().ok())
            }
        };
        match (first, last) {
            (Some(first), Some(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => {
                Err("a port is a number from 1 to 65535, or a range like \"8000-8099\"".to_owned())
            }
        }
    }
}
