// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The SMC protocol's costs: each message, a CDC round, a handshake, and the state they need.
//!
//! Invariant: a case is one operation on the state that the one before left, so that it can be
//! repeated without end and never does anything else.

pub mod connection;
pub mod handshake;
pub mod instructions;
pub mod state;
pub mod time;
pub mod wire;

use std::hint::black_box;

/// An operation that can be measured.
pub struct Case {
    /// What it is.
    pub name: String,
    /// Nanoseconds that it may take, if there is a target.
    pub target: Option<u64>,
    repeat: Box<dyn FnMut(u64)>,
}

impl Case {
    /// A case of `operation`, whose result is kept from being optimised away.
    pub fn new<T>(name: impl Into<String>, mut operation: impl FnMut() -> T + 'static) -> Self {
        let repeat = Box::new(move |times| {
            for _ in 0..times {
                black_box(operation());
            }
        });
        Self { name: name.into(), target: None, repeat }
    }

    /// The case with a target.
    #[must_use]
    pub fn within(self, nanoseconds: u64) -> Self {
        Self { target: Some(nanoseconds), ..self }
    }

    /// Runs the operation this often.
    pub fn repeat(&mut self, times: u64) {
        (self.repeat)(times);
    }
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
