// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the fabric denies handshakes whose peer may be ending: it waits for TCP's word.
//!
//! Invariant: nothing waits here for longer than [`TCP_END`]; then the fabric's word counts.
//!
//! A process's descriptors close one after another, the fabric's before TCP's: so that a peer is gone may be heard here
//! before TCP says how its connection ended.

use std::sync::Arc;
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::group::Peer;
use smc_proto::id::{ConnId, DeviceId};
use smc_wire::id::DmbToken;

use crate::control::{Control, abi_gid};
use crate::shared::Shared;
use crate::tcp::{self, Front, Standing};
use crate::types::Role;

/// How long the end of a peer's TCP connection is waited for after the fabric said that it is gone.
/// A process's descriptors close together; a VM's TCP never says anything.
pub(crate) const TCP_END: Duration = Duration::from_millis(250);
/// How long, where the fabric has never known the peer: most likely it is on another one, and that is waited for once.
const STRANGER: Duration = Duration::from_millis(50);
/// Peers that are known not to be reached; they are forgotten together.
const STRANGERS: usize = 1024;

/// What waits at a time: all of it is looked at together.
const MOST: usize = 64;

/// What waits.
#[derive(Debug, Clone, Copy)]
enum What {
    /// A client whose GID cannot be reached.
    Unreached { conn: ConnId, gid: ism_abi::Gid },
    /// A DMB that cannot be attached.
    Unattached { conn: ConnId, device: DeviceId, token: DmbToken },
    /// A peer that is gone, but not from its handshakes.
    Gone { gid: ism_abi::Gid },
}

/// All that waits.
#[derive(Default)]
pub(crate) struct Parked {
    all: Vec<(Instant, What)>,
    /// Peers that TCP had nothing to say of.
    strangers: std::collections::HashSet<ism_abi::Gid>,
}

impl Parked {
    /// When something has waited long enough.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.all.iter().map(|(until, _)| *until).min()
    }

    /// Whether something of a handshake does.
    pub(crate) fn has(&self, conn: ConnId) -> bool {
        self.all.iter().any(|(_, what)| what.conn() == Some(conn))
    }
}

impl What {
    const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Unreached { conn, .. } | Self::Unattached { conn, .. } => Some(*conn),
            Self::Gone { .. } => None,
        }
    }
}

impl Control {
    /// The peer of a handshake cannot be reached.
    pub(crate) fn not_reached(&mut self, now: Instant, conn: ConnId, gid: ism_abi::Gid) {
        let known = self.parked.strangers.contains(&gid);
        self.park(
            now.after(if known { Duration::ZERO } else { STRANGER }),
            What::Unreached { conn, gid },
        );
        self.look_at_parked(now);
    }

    /// A peer's DMB cannot be attached.
    pub(crate) fn not_attached(
        &mut self,
        now: Instant,
        conn: ConnId,
        device: DeviceId,
        token: DmbToken,
    ) {
        self.park(now.after(TCP_END), What::Unattached { conn, device, token });
        self.look_at_parked(now);
    }

    /// A peer is gone.
    pub(crate) fn peer_gone(&mut self, now: Instant, gid: ism_abi::Gid) {
        self.park(now.after(TCP_END), What::Gone { gid });
        self.look_at_parked(now);
    }

    fn park(&mut self, until: Instant, what: What) {
        let is_full = self.parked.all.len() >= MOST;
        self.parked.all.push((if is_full { Instant(0) } else { until }, what));
    }

    /// Looks whether TCP has said something, or has had its time.
    pub(crate) fn look_at_parked(&mut self, now: Instant) {
        // What ends here may let others go on.
        let mut before = usize::MAX;
        while self.parked.all.len() < before {
            before = self.parked.all.len();
            for (until, what) in std::mem::take(&mut self.parked.all) {
                if !self.is_decided(now, until, what) {
                    self.parked.all.push((until, what));
                }
            }
        }
    }

    fn is_decided(&mut self, now: Instant, until: Instant, what: What) -> bool {
        let is_due = until <= now;
        match what {
            What::Unreached { conn, gid } => match self.front(conn) {
                Some(Front::End) => self.endpoint.handle_tcp_end(now, conn),
                Some(Front::Nothing) if !is_due => return false,
                _ => {
                    self.is_stranger(gid);
                    self.endpoint.handle_remote_gid(now, conn, false);
                }
            },
            What::Unattached { conn, device, token } => {
                // What a client has sent that has confirmed is in our DMB, and can be read to its end.
                let is_orphan = self.is_orphan(conn);
                match self.front(conn) {
                    Some(Front::End) if !is_orphan => self.endpoint.handle_tcp_end(now, conn),
                    Some(Front::Nothing) if !is_orphan && !is_due => return false,
                    _ => {
                        let len = is_orphan.then_some(u64::MAX);
                        self.endpoint.handle_attached(now, conn, device, token, len);
                    }
                }
            }
            What::Gone { gid } if is_due || !self.has_handshakes(gid) => self.bury(now, gid),
            What::Gone { .. } => return false,
        }
        true
    }

    fn is_stranger(&mut self, gid: ism_abi::Gid) {
        if self.parked.strangers.len() >= STRANGERS {
            self.parked.strangers.clear();
        }
        self.parked.strangers.insert(gid);
    }

    /// What is in front of a connection's TCP stream; `None`: it is no handshake any more.
    fn front(&self, conn: ConnId) -> Option<Front> {
        let tcp = self.socket(conn).filter(|socket| socket.outcome().is_none())?.tcp()?;
        Some(tcp::peek(&*tcp, &mut [0]))
    }

    /// Whether the client of this connection has confirmed and is gone since.
    fn is_orphan(&self, conn: ConnId) -> bool {
        let server = self.socket(conn).filter(|socket| socket.role == Role::Server);
        let tcp = server.and_then(|socket| socket.tcp());
        tcp.is_some_and(|tcp| tcp::standing(&*tcp) != Standing::Up)
    }

    /// Whether handshakes with a peer go on.
    fn has_handshakes(&self, gid: ism_abi::Gid) -> bool {
        let groups = self.endpoint.groups();
        let is_with = |peer: &Peer| matches!(peer, Peer::Smcd(peer) if abi_gid(peer.gid) == gid);
        let mut members =
            groups.infos().filter(|it| is_with(&it.ask.peer)).flat_map(|it| groups.members(it.id));
        members.any(|conn| self.socket(conn).is_some_and(|socket| socket.outcome().is_none()))
    }

    fn socket(&self, conn: ConnId) -> Option<&Arc<Shared>> {
        self.sockets.get(&conn)
    }
}
