// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The two flag bytes of CDC.
//!
//! Invariant: bits without a name are kept, so that a message is emitted as it was parsed.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// A byte of flags: its set operations, and `Display` as the names of those that are set.
macro_rules! flag_set {
    ($name:ident) => {
        impl $name {
            /// No flag.
            pub const EMPTY: Self = Self(0);

            /// Whether all flags of `other` are set here.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether some flag of `other` is set here.
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether no flag is set, those without a name included.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The flags of both.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// These flags without those of `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Sets the flags of `other`.
            pub const fn insert(&mut self, other: Self) {
                *self = self.union(other);
            }

            /// Clears the flags of `other`.
            pub const fn remove(&mut self, other: Self) {
                *self = self.without(other);
            }

            /// Sets or clears the flags of `other`.
            pub const fn set(&mut self, other: Self, on: bool) {
                *self = if on { self.union(other) } else { self.without(other) };
            }
        }

        impl BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                self.insert(other);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                show(f, self.0, &Self::NAMES.map(|(flag, name)| (flag.0, name)))
            }
        }
    };
}

/// What the writer says beside its cursor (`struct smc_cdc_producer_flags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ProducerFlags(pub u8);

impl ProducerFlags {
    /// The writer has more than fits into the ring and waits for space.
    pub const WRITE_BLOCKED: Self = Self(0x80);
    /// Urgent data will come, but not with this message.
    pub const URGENT_PENDING: Self = Self(0x40);
    /// The byte before the producer cursor is urgent.
    pub const URGENT_PRESENT: Self = Self(0x20);
    /// The reader shall publish its consumer cursor at once. Linux honours it and never sends it.
    pub const CONSUMER_UPDATE_REQUESTED: Self = Self(0x10);
    /// The connection moved to another link; the sequence number is the last that was completed.
    pub const FAILOVER_VALIDATION: Self = Self(0x08);

    const NAMES: [(Self, &'static str); 5] = [
        (Self::WRITE_BLOCKED, "write blocked"),
        (Self::URGENT_PENDING, "urgent pending"),
        (Self::URGENT_PRESENT, "urgent present"),
        (Self::CONSUMER_UPDATE_REQUESTED, "consumer update requested"),
        (Self::FAILOVER_VALIDATION, "failover validation"),
    ];
}

flag_set!(ProducerFlags);

/// How far the sender has closed the connection (`struct smc_cdc_conn_state_flags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConnectionState(pub u8);

impl ConnectionState {
    /// The sender will write no more; it may still read.
    pub const DONE_WRITING: Self = Self(0x80);
    /// The sender has closed its socket.
    pub const CLOSED: Self = Self(0x40);
    /// The sender has dropped the connection; data may be lost.
    pub const ABORTED: Self = Self(0x20);

    const NAMES: [(Self, &'static str); 3] = [
        (Self::DONE_WRITING, "done writing"),
        (Self::CLOSED, "closed"),
        (Self::ABORTED, "aborted"),
    ];
}

flag_set!(ConnectionState);

/// The names of the set flags with commas between, then what has no name, in hex.
fn show(f: &mut fmt::Formatter, mut bits: u8, names: &[(u8, &str)]) -> fmt::Result {
    if bits == 0 {
        return f.write_str("none");
    }
    let mut comma = "";
    for &(flag, name) in names {
        if bits & flag != 0 {
            write!(f, "{comma}{name}")?;
            comma = ", ";
            bits &= !flag;
        }
    }
    if bits != 0 {
        write!(f, "{comma}{bits:#04x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn flags_are_shown_by_name() {
        assert_eq!(ProducerFlags::EMPTY.to_string(), "none");
        let flags = ProducerFlags::WRITE_BLOCKED | ProducerFlags::FAILOVER_VALIDATION;
        assert_eq!(flags.to_string(), "write blocked, failover validation");
        assert_eq!(ConnectionState(0x41).to_string(), "closed, 0x01");
    }

    #[test]
    fn sets_are_changed_flag_by_flag() {
        let mut flags = ConnectionState::DONE_WRITING;
        flags |= ConnectionState::CLOSED;
        assert!(flags.contains(ConnectionState(0xC0)) && !flags.contains(ConnectionState(0xE0)));
        assert!(flags.intersects(ConnectionState(0xE0)));
        flags.set(ConnectionState::DONE_WRITING, false);
        assert_eq!(flags, ConnectionState::CLOSED);
        flags.remove(ConnectionState::CLOSED);
        assert!(flags.is_empty());
    }
}
