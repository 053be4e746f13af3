// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel's SMC and the processes' as one.
//!
//! Invariant: a kernel without SMC is no error where processes are shown too; of a socket that several
//! processes have there is one row.

use std::collections::HashMap;

use smc_snapshot as snapshot;

use crate::client::{self, Error};
use crate::linkgroup::Gid;
use crate::processes::{Holder, Processes, Told};
use crate::socket::{Buffers, Carrier, Conninfo, Dmbs, Socket};
use crate::told::side;

/// What the kernel says, or nothing if it has no SMC.
///
/// # Errors
/// It has, and asking it failed.
pub fn kernel<T: Default>(asked: Result<T, Error>) -> Result<T, Error> {
    match asked {
        Err(Error::NoSmc | Error::NoDiag) => Ok(T::default()),
        other => other,
    }
}

/// The kernel's sockets, then the processes'.
///
/// # Errors
/// The kernel's cannot be had, though it has SMC.
pub fn sockets(processes: &Processes) -> Result<Vec<Socket>, Error> {
    let mut all = kernel(client::sockets())?;
    let mut at = HashMap::new();
    for told in &processes.told {
        for connection in &told.snapshot.connections {
            let socket = socket(told, connection);
            match at.get(&socket.inode).and_then(|at| all.get_mut(*at)) {
                // One of the processes has the connection, the others only its descriptor.
                Some(known) if matches!(socket.carrier, Carrier::Smcd { .. }) => *known = socket,
                Some(_) => {}
                None => {
                    at.insert(socket.inode, all.len());
                    all.push(socket);
                }
            }
        }
    }
    Ok(all)
}

pub(crate) fn gid(gid: snapshot::Gid) -> Gid {
    Gid { gid: gid.gid, ext: gid.ext }
}

/// A process's connection as the kernel would list it.
fn socket(told: &Told, connection: &snapshot::Connection) -> Socket {
    let own = told.snapshot.device.as_ref().map(|device| gid(device.gid)).unwrap_or_default();
    let mut socket = Socket {
        state: connection.state,
        uid: connection.uid,
        inode: connection.inode,
        interface: 0,
        local: connection.local,
        peer: connection.peer,
        carrier: Carrier::None,
        buffers: None,
        shutdown: None,
        conninfo: None,
        link: None,
        board: None,
        side: (connection.carrier != snapshot::Carrier::None).then(|| side(connection.role)),
        process: Some(Holder { pid: told.holder.pid, name: told.holder.name.clone() }),
    };
    match &connection.carrier {
        snapshot::Carrier::None => {}
        snapshot::Carrier::Tcp { reason, peer } => {
            socket.carrier = Carrier::Tcp { reason: *reason, peer_diagnosis: *peer };
        }
        snapshot::Carrier::Smcd(smcd) => {
            let dmbs = Dmbs {
                link_group: smcd.group,
                gid: own,
                peer_gid: gid(smcd.peer_gid),
                token: smcd.token,
                peer_token: smcd.peer_token,
            };
            socket.carrier = Carrier::Smcd { dmbs: Some(dmbs) };
            socket.board = Some(smcd.board);
            let buffers = Buffers { send: 0, receive: smcd.ring, peer_receive: smcd.peer_ring };
            socket.buffers = Some(buffers);
            socket.shutdown = Some(smcd.shutdown);
            socket.conninfo = Some(Conninfo { token: 0, cursors: smcd.cursors.clone() });
        }
    }
    socket
}
