// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The SMC protocol's costs: each message, a CDC round, a handshake, and the state they need.
//!
//! Invariant: a case is one operation, on a state of its own or on the one that the repetition before
//! left, so that it can be repeated without end and never does anything else.

pub mod connection;
pub mod handshake;
pub mod instructions;
mod roce;
pub mod state;
pub mod time;
pub mod wire;

use std::hint::black_box;
use std::time::{Duration, Instant};

/// An operation that can be measured.
pub struct Case {
    /// What it is.
    pub name: String,
    /// Nanoseconds that it may take, if there is a target.
    pub target: Option<u64>,
    /// Whether each repetition has a state of its own, which [`Case::repeat`] makes too.
    pub on_new: bool,
    repeat: Box<dyn FnMut(u32) -> Duration>,
}

impl Case {
    /// A case of `operation`, whose result is kept from being optimised away.
    pub fn new<T>(name: impl Into<String>, mut operation: impl FnMut() -> T + 'static) -> Self {
        let repeat = Box::new(move |times| {
            measured(|| {
                for _ in 0..times {
                    black_box(operation());
                }
            })
        });
        Self { name: name.into(), target: None, on_new: false, repeat }
    }

    /// A case of `operation` on something that `prepare` makes for each repetition. Neither that
    /// nor its end is measured.
    pub fn on_new<S, T>(
        name: impl Into<String>,
        mut prepare: impl FnMut() -> S + 'static,
        mut operation: impl FnMut(&mut S) -> T + 'static,
    ) -> Self {
        let repeat = Box::new(move |times| {
            let mut prepared: Vec<S> = (0..times).map(|_| prepare()).collect();
            measured(|| {
                for subject in &mut prepared {
                    black_box(operation(subject));
                }
            })
        });
        Self { name: name.into(), target: None, on_new: true, repeat }
    }

    /// The case with a target.
    #[must_use]
    pub fn within(self, nanoseconds: u64) -> Self {
        Self { target: Some(nanoseconds), ..self }
    }

    /// Runs the operation this often; how long that took.
    pub fn repeat(&mut self, times: u32) -> Duration {
        (self.repeat)(times)
    }
}

/// How long `work` takes. A function of its own, as valgrind counts what happens inside of it.
#[inline(never)]
fn measured(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// All cases, in the order in which they are shown.
///
/// # Errors
/// If a case cannot be set up.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut cases = wire::cases().map_err(|error| error.to_string())?;
    cases.extend(connection::cases()?);
    cases.extend(handshake::cases()?);
    Ok(cases)
}
