// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How handshakes end.
//!
//! Invariant: what a handshake held is given back or goes to the established connection, whichever
//! way it ends.

use smc_wire::clc::{Decline, Diagnosis};

use super::Endpoint;
use super::late::Late;
use super::state::{Agreed, Handshake, Held, State};
use super::wish::{Established, Path, Wish};
use crate::group::{Cause, Fate, Role};
use crate::handshake::reason::{End, Failure, Kind, Reason};
use crate::id::ConnId;

impl Endpoint {
    /// Ends a handshake without SMC.
    pub(super) fn end(&mut self, hs: Box<Handshake>, end: End) {
        let (conn, role) = (hs.conn, hs.role);
        let v2 = hs.v2;
        self.abandon(*hs);
        match end {
            End::Decline(diagnosis) => {
                self.decline(conn, v2, diagnosis);
                self.fall_back(conn, role, diagnosis.into(), Late::Decline);
            }
            End::Fallback(reason) => self.fall_back(conn, role, reason, Late::Nothing),
            End::Fail(failure) => self.fail(conn, role, failure),
        }
    }

    pub(super) fn decline(&mut self, conn: ConnId, v2: bool, diagnosis: Diagnosis) {
        let decline = Decline::new(v2, self.peer_id(), diagnosis);
        self.send(conn, |bytes| decline.emit(bytes));
    }

    pub(super) fn fall_back(&mut self, conn: ConnId, role: Role, reason: Reason, late: Late) {
        self.stats.fallbacks.record(role, reason.diagnosis.0);
        self.wishes.push_back(Wish::Fallback { conn, reason, late });
    }

    pub(super) fn fail(&mut self, conn: ConnId, role: Role, failure: Failure) {
        self.stats.handshake_error(role);
        self.wishes.push_back(Wish::Failed { conn, failure });
    }

    /// Gives back what a handshake holds.
    pub(super) fn abandon(&mut self, mut hs: Handshake) {
        self.give_back(&mut hs);
        for (device, vlan) in hs.vlans {
            self.groups.release_vlan(device, vlan);
        }
    }

    /// Gives back what a handshake holds of a link group. A group that began with it goes
    /// (`smc_conn_abort`).
    pub(super) fn give_back(&mut self, hs: &mut Handshake) {
        let Some(held) = hs.held.take() else { return };
        // The peer may know the buffer by now and write it at any time.
        self.leave(held.group, hs.conn, Fate::Discard);
        if held.first {
            self.groups.terminate(held.group, Cause::Early);
            self.first_contact_over(held.group);
        }
    }

    /// A handshake is through: its buffers are the connection's.
    pub(super) fn establish(&mut self, hs: Box<Handshake>, agreed: &Agreed, path: Path) {
        let Some(Held { group, first, receive: Some(receive), .. }) = hs.held else {
            return self.end(hs, Failure::GroupGone.into());
        };
        let Some(params) = path.params(&receive) else {
            return self.end(hs, Diagnosis::INTERR.into());
        };
        for (device, vlan) in &hs.vlans {
            self.groups.release_vlan(*device, *vlan);
        }
        let Agreed { version, eid, terms } = *agreed;
        let smcd = !matches!(path, Path::Rdma { .. });
        self.stats.technology(smcd).handshake_success(hs.role, version);
        self.established.insert(hs.conn, group);
        let (conn, role, first_contact) = (hs.conn, hs.role, first);
        self.wishes.push_back(Wish::Established(Box::new(Established {
            conn,
            role,
            version,
            group,
            first_contact,
            eid,
            terms,
            params,
            receive,
            path,
        })));
        if first {
            self.groups.settle(group);
            self.first_contact_over(group);
        }
    }

    /// The time of a waiting handshake is over.
    pub(super) fn timed_out(&mut self, mut hs: Box<Handshake>) {
        if hs.state.is_first_contact() {
            return self.resume_anyway(hs);
        }
        let kind = hs.due().unwrap_or(Kind::Decline);
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Getting(purpose, ..) => self.not_had(hs, purpose, Diagnosis::ERR_REGBUF),
            State::LastWord(diagnosis) => self.end(hs, diagnosis.into()),
            State::Proposed(_) if hs.impatient => self.withdrawn(hs),
            State::Linked(agreed, remote) => self.establish_rdma(hs, &agreed, remote),
            _ => self.end(hs, Failure::Timeout(kind).into()),
        }
    }

    /// Sends a CLC message.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        emit: impl FnOnce(&mut [u8]) -> Result<usize, smc_wire::Error>,
    ) {
        let mut bytes = [0; smc_wire::clc::MAX_MESSAGE];
        let len = emit(&mut bytes);
        debug_assert!(len.is_ok(), "a message of ours cannot be sent: {len:?}");
        if let Some(message) = len.ok().and_then(|len| bytes.get(..len)) {
            self.wishes.push_back(Wish::SendClc { conn, message: message.into() });
        }
    }
}
