// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Points in time, as the caller measures them.
//!
//! Invariant: arithmetic saturates; the clock is monotonic and its origin is the caller's affair.

use std::time::Duration;

/// Nanoseconds since an origin that the caller chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The time `delay` later, or the last one there is.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was, zero if it was not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
