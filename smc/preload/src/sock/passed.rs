// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection that the program passes on to another process, which may not know of SMC.
//!
//! Invariant: it is plain TCP before anybody else has it, with no byte of the handshake left in it, or it is not passed
//! on.

use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use smc_snapshot::reason;

use super::{Sock, Stage, lock};
use crate::decline::{PATIENCE, decline};
use crate::settings::SETTINGS;
use crate::table::File;

impl Sock {
    /// Before another process gets it by SCM_RIGHTS.
    ///
    /// # Errors
    /// EOPNOTSUPP: it is SMC's, and what it is made of cannot be passed on.
    pub(crate) fn pass_on(&self, file: &Arc<File>) -> Result<(), Errno> {
        let until = Instant::now() + PATIENCE;
        self.end_meeting(file, PATIENCE);
        match self.stage() {
            // Nothing is proposed before TCP is connected.
            Stage::Connecting => self.become_tcp(file, reason::PASSED.into()),
            Stage::Fresh if self.is_server() => self.decline(file),
            _ => {}
        }
        while self.stage() < Stage::Late {
            let left = until.saturating_duration_since(Instant::now());
            let finished = self.finish(file, Some(left));
            if finished.is_err_and(|error| Errno::from_io_error(&error) != Some(Errno::INTR)) {
                // The peer is stopped, or silent.
                return Err(Errno::AGAIN);
            }
        }
        if self.stage() == Stage::Late {
            self.hear_out(file);
            self.become_tcp(file, reason::PASSED.into());
        }
        if self.stage() == Stage::Smc {
            let fd = self.number();
            SETTINGS.say(format_args!("socket {fd}: is in use over SMC-D, and is not passed on"));
            return Err(Errno::OPNOTSUPP);
        }
        Ok(())
    }

    /// Declines what the client has proposed, or is going to. One that looks for its other end on the board is not
    /// proposed anything yet.
    fn decline(&self, file: &Arc<File>) {
        // Who begins the handshake in this moment is first, or sees that it goes on without an engine.
        let is_ours = {
            let _beginning = lock(&self.beginning);
            self.move_on(Stage::Fresh, Stage::Handshake)
        };
        if is_ours {
            if self.meeting.is_none() {
                decline(&self.number);
            }
            self.become_tcp(file, reason::PASSED.into());
        }
    }
}
