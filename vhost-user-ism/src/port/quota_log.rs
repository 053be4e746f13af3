// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Says in the log that a member has reached a limit.
//!
//! Invariant: one that is refused all the time costs one line in [`PERIOD`].

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ism_abi::layout::{ReplyHeader, status};
use ism_emulator::Reply;

use super::vring::lock;

/// Time between two lines about one VM.
const PERIOD: Duration = Duration::from_secs(10);

/// One VM's refusals since the last line.
#[derive(Debug, Default)]
pub(super) struct QuotaLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_line: Option<Instant>,
    unsaid: u64,
}

impl QuotaLog {
    /// Looks at an answer on its way to a VM.
    pub(super) fn see(&self, title: &str, reply: &Reply) {
        let header = ReplyHeader::from_bytes(reply.as_bytes());
        let what = match header.map(|header| header.status) {
            Some(status::NO_SPACE) => "a quota of DMBs, bytes or peers, or memory, is used up",
            Some(status::BUSY) => {
                "its rate of control requests, or a peer's room for its events, is used up"
            }
            _ => return,
        };
        if let Some(times) = self.count(Instant::now()) {
            log::warn!("{title}: {what} ({times} times since the last such line)");
        }
    }

    /// Counts a refusal; how many to report, if it is time for a line.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        state.unsaid += 1;
        let silent = state.last_line.is_none_or(|last| now.duration_since(last) >= PERIOD);
        silent.then(|| {
            state.last_line = Some(now);
            std::mem::take(&mut state.unsaid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_are_few_lines() {
        let log = QuotaLog::default();
        let start = Instant::now();
        assert_eq!(log.count(start), Some(1));
        for _ in 0..1000 {
            assert_eq!(log.count(start + PERIOD / 2), None);
        }
        assert_eq!(log.count(start + PERIOD), Some(1001));
        assert_eq!(log.count(start + PERIOD), None);
    }
}
