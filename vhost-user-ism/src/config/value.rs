// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The values of `--vm`, of other options and of the configuration file: one parser each.
//!
//! Invariant: a value that exists is within its limits, and an error says what is allowed.

use std::fmt;
use std::str::FromStr;

use ism_abi::layout;
use serde::de::{self, Visitor};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where GIDs of VMs without `gid=` come from: UUID version 5 of the VM's name under this UUID.
const GID_NAMESPACE: Uuid = Uuid::from_u128(0x5f3c_5c0e_b6b0_5a0d_9f1b_7649_534d_0001);

/// A wrong value: what it is, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError(String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

fn wrong(what: &str, text: &str, allowed: &str) -> ValueError {
    ValueError(format!("`{text}` is no {what}; allowed: {allowed}"))
}

/// A name of a VM or a group: 1–64 of `A-Z a-z 0-9 . _ -`, so that it is itself in a log line, in
/// a path and in a `--vm` list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// The group of VMs that name none.
    pub fn default_group() -> Self {
        Self("default".to_owned())
    }

    /// The name of a VM whose socket gives it none.
    pub fn default_vm() -> Self {
        Self("vm".to_owned())
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong("name", text, "1 to 64 of A-Z a-z 0-9 . _ -"))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

/// Bytes: a number, or one with K, M or G (1024-based) behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (digits, shift) = match text.char_indices().next_back() {
            Some((at, 'K' | 'k')) => (&text[..at], 10),
            Some((at, 'M' | 'm')) => (&text[..at], 20),
            Some((at, 'G' | 'g')) => (&text[..at], 30),
            _ => (text, 0),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| wrong("size", text, "bytes, or a number with K, M or G, as in 64M"))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes, or a text such as \"64M\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number).map(Bytes).map_err(|_| E::custom("a size is not negative"))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(BytesVisitor)
    }
}

/// Bytes of a VM's window: a power of two (QEMU aborts on others) from 64 MiB to 64 GiB (it gives
/// the guest no region at 1 TiB).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Bytes")]
pub struct WindowSize(u64);

impl WindowSize {
    /// The window of VMs whose operator says nothing: address space, not memory.
    pub const DEFAULT: Self = Self(4 << 30);

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<Bytes> for WindowSize {
    type Error = ValueError;

    fn try_from(size: Bytes) -> Result<Self, ValueError> {
        let allowed = (64 << 20)..=(64 << 30);
        if size.0.is_power_of_two() && allowed.contains(&size.0) {
            Ok(Self(size.0))
        } else {
            Err(wrong("window size", &size.0.to_string(), "a power of two from 64M to 64G"))
        }
    }
}

impl FromStr for WindowSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse::<Bytes>()?.try_into()
    }
}

/// A member's address, written as a UUID; its 16 bytes are the wire's in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gid(Uuid);

impl Gid {
    /// The GID of the VM called `name`: UUID version 5, the same on every start and host.
    pub fn of_name(name: &Name) -> Self {
        Self(Uuid::new_v5(&GID_NAMESPACE, name.0.as_bytes()))
    }

    /// A GID that nobody has had: UUID version 4.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(uuid::Builder::from_random_bytes(bytes).into_uuid()))
    }

    /// The wire's bytes.
    pub fn bytes(self) -> layout::Gid {
        self.0.into_bytes()
    }

    /// Bytes 0–7, which SMC v1 and diagnostics take for the whole, and bytes 8–15, which
    /// smc_smcd_terminate compares alone: each is unique on a fabric.
    pub fn halves(self) -> [u64; 2] {
        let (first, last) = self.0.as_u64_pair();
        [first, last]
    }
}

impl From<layout::Gid> for Gid {
    fn from(bytes: layout::Gid) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Gid {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match Uuid::try_parse(text) {
            Ok(uuid) if !Self(uuid).halves().contains(&0) => Ok(Self(uuid)),
            _ => Err(wrong("GID", text, "a UUID with no half of eight zero bytes")),
        }
    }
}

impl From<Gid> for String {
    fn from(gid: Gid) -> Self {
        gid.to_string()
    }
}

impl TryFrom<String> for Gid {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

/// The fabric's id, SMC's CHID: 0xff00–0xfffe (net/smc/smc_clc.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct FabricId(u16);

impl FabricId {
    /// The id of a fabric whose operator says nothing.
    pub const DEFAULT: Self = Self(0xff01);

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for FabricId {
    type Error = ValueError;

    fn try_from(id: u32) -> Result<Self, ValueError> {
        u16::try_from(id)
            .ok()
            .filter(|id| (layout::FABRIC_ID_MIN..=layout::FABRIC_ID_MAX).contains(id))
            .map(Self)
            .ok_or_else(|| wrong("fabric id", &format!("{id:#x}"), "0xff00 to 0xfffe"))
    }
}

impl FromStr for FabricId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map_err(|_| wrong("fabric id", text, "0xff00 to 0xfffe"))?.try_into()
    }
}

/// How the members of a group exchange data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Memory that both VMs map: fast, for VMs that trust one another's kernels.
    Mapped,
    /// The daemon copies between the VMs' RAM, and can check what it copies.
    Copied,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [("0", 0), ("17", 17), ("4K", 4096), ("64M", 64 << 20), ("2g", 2 << 30)];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "64MB", "18446744073709551615K", "4 K", "é"] {
            let error = text.parse::<Bytes>().expect_err(text);
            assert!(error.to_string().contains("as in 64M"), "{error}");
        }
    }

    #[test]
    fn names() {
        for text in ["a", "web-1", "A.b_c", &"x".repeat(64)] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
        for text in ["", "a b", "a/b", "a,b", "a+b", "ü", "a\n", &"x".repeat(65)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn windows_are_powers_of_two_that_qemu_takes() {
        for text in ["64M", "256M", "4G", "64G"] {
            assert!(text.parse::<WindowSize>().is_ok(), "{text}");
        }
        for text in ["0", "32M", "3G", "128G", "1024G"] {
            assert!(text.parse::<WindowSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn fabric_ids_are_emulated_devices_chids() {
        assert_eq!("0xff00".parse::<FabricId>().map(FabricId::get), Ok(0xff00));
        assert_eq!("65534".parse::<FabricId>().map(FabricId::get), Ok(0xfffe));
        for text in ["0xfeff", "0xffff", "0x1ff01", "ff01", ""] {
            assert!(text.parse::<FabricId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_has_one_gid_for_ever() {
        let gid = Gid::of_name(&Name("a".to_owned()));
        // Written down: VMs keep their GID over upgrades of the daemon.
        assert_eq!(gid.to_string(), "83457f29-7529-587c-a617-9e9fc369fa24");
        assert_ne!(gid, Gid::of_name(&Name("b".to_owned())));
        assert_eq!(gid.to_string().parse(), Ok(gid));
        assert_eq!(&gid.bytes()[..8], &gid.halves()[0].to_be_bytes());
    }

    #[test]
    fn a_gid_needs_both_halves() {
        let (low, high) =
            ("00000000-0000-0000-1111-111111111111", "11111111-1111-1111-0000-000000000000");
        for text in ["", "a", low, high] {
            assert!(text.parse::<Gid>().is_err(), "{text}");
        }
    }
}
