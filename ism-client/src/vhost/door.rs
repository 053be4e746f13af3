// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Getting in: a knock at the daemon's door (`ism_abi::door`).
//!
//! Invariant: what comes out is a connection for this process alone, or the daemon's reason against it.

use std::os::unix::net::UnixStream;
use std::path::Path;

use ism_abi::door::{ADMITTED, MAX_TEXT, VERSION};

use super::PATIENCE;
use super::message::receive_some;
use crate::error::{DOOR, Error, Result};

/// Knocks at the daemon's door `socket`; the connection that this process is a member by.
///
/// # Errors
/// Nobody is there, the daemon refuses, or it says something else.
pub fn enter(socket: &Path) -> Result<UnixStream> {
    let door = UnixStream::connect(socket).map_err(Error::io(DOOR))?;
    door.set_read_timeout(Some(PATIENCE)).map_err(Error::io("setting a timeout"))?;
    let mut message = [0; MAX_TEXT + 2];
    let (mut len, mut connection) = (0, None);
    loop {
        let rest = message.get_mut(len..).unwrap_or_default();
        let (read, fd) = receive_some(&door, rest).map_err(Error::io("waiting at the door"))?;
        if read == 0 {
            break;
        }
        len += read;
        connection = connection.or(fd);
    }
    let text = String::from_utf8_lossy(message.get(2..len).unwrap_or_default()).into_owned();
    match (message.get(..len), connection) {
        (Some([VERSION, ADMITTED, ..]), Some(fd)) => Ok(UnixStream::from(fd)),
        (Some([VERSION, code, ..]), None) if *code != ADMITTED => {
            let socket = socket.display().to_string();
            Err(Error::NotAdmitted { socket, code: *code, reason: text })
        }
        _ => Err(Error::Device("its door says what this version does not know".into())),
    }
}
