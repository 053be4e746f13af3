// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Joining, leaving and ending link groups (`smc_core.c`: `smc_conn_create`, `smc_conn_free`,
//! `smc_lgr_free_work`, `__smc_lgr_terminate`, `smc_lgr_cleanup_early`).
//!
//! Invariant: a group that ends is joined by nobody, tells each connection once, and is gone only
//! when they have left.

use std::time::Duration;

use super::buffers::{Pool, Release};
use super::key::{Ask, Key, LINKS, LinkPeer, Peer, Role};
use super::wish::{Cause, Wish};
use super::{Group, GroupError, Groups, Member};
use crate::Instant;
use crate::id::{ConnId, DeviceId, GroupId};
use crate::stats::Stats;

/// How long a group without connections lives (`SMC_LGR_FREE_DELAY_SERV`).
pub const IDLE: Duration = Duration::from_secs(600);
/// The same for an SMC-R client's (`SMC_LGR_FREE_DELAY_CLNT`): the server's must go first, or the
/// two would differ about whether there is one.
pub const IDLE_CLIENT: Duration = Duration::from_secs(610);
/// What the groups' numbers differ by (`SMC_LGR_NUM_INCR`).
const NUMBER_STEP: u32 = 256;

/// The link group of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The group.
    pub group: GroupId,
    /// Whether the group is new: first contact.
    pub first_contact: bool,
}

/// Why a connection has no link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The server goes on with a group that this client does not have: decline with SYNCERR and the
    /// out-of-sync bit, so that the server forgets its group.
    #[error("the server goes on with a link group that is not here")]
    OutOfSync,
    /// The caller's mistake: the connection belongs to a group already.
    #[error("connection {} belongs to link group {:#x} already", .0.0, .1.0)]
    Member(ConnId, GroupId),
}

/// What becomes of the buffers of a connection that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Zeroed, then used again.
    Reuse,
    /// Given back: their contents or the peer that may write them are not to be trusted.
    Discard,
}

impl Groups {
    /// Server: finds the group that the connection belongs to, or makes a new one
    /// (`smc_conn_create`). Go on with [`Self::acquire`].
    ///
    /// Two handshakes with one peer: while a first contact is under way
    /// ([`Self::first_contact_under_way`]) a server should let the second one wait. Else SMC-R makes
    /// a second group, and SMC-D names a group of which the client may not know yet, because its
    /// Accept takes another TCP connection; Linux has this race and answers it with SYNCERR.
    ///
    /// # Errors
    /// [`JoinError::Member`].
    pub fn join_server(&mut self, conn: ConnId, ask: &Ask) -> Result<Joined, JoinError> {
        let group = self.find(ask);
        self.join(conn, ask, group)
    }

    /// Client: `first_contact` is the bit of the Accept. If set a new group is made, else the one
    /// that the server means must be here.
    ///
    /// # Errors
    /// [`JoinError::OutOfSync`], [`JoinError::Member`].
    pub fn join_client(
        &mut self,
        conn: ConnId,
        ask: &Ask,
        first_contact: bool,
    ) -> Result<Joined, JoinError> {
        match (first_contact, self.find(ask)) {
            (true, _) => self.join(conn, ask, None),
            (false, Some(group)) => self.join(conn, ask, Some(group)),
            (false, None) => Err(JoinError::OutOfSync),
        }
    }

    /// The group with this peer whose first contact has not come to its end, if our side is the
    /// server there: [`Self::settle`] or [`Wish::Gone`] will end it.
    pub fn first_contact_under_way(&self, ask: &Ask) -> Option<GroupId> {
        let under_way = |group: &Group| {
            !group.settled && group.key.ask.role == Role::Server && group.key.begun_for(ask)
        };
        self.alike(ask).find(|(_, group)| under_way(group)).map(|(id, _)| id)
    }

    /// The first contact has come to its good end: SMC-D server: Confirm was received; SMC-R: the
    /// first link is confirmed; client: Confirm was sent.
    pub fn settle(&mut self, group: GroupId) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.settled = true;
        }
    }

    /// SMC-R: the link with this number, which no other link of the group ever has, is active now
    /// with that end, or with `None` no longer. New connections find the group by its active links.
    pub fn set_link(&mut self, group: GroupId, link: u32, end: Option<LinkPeer>) {
        let Some(group) = self.groups.get_mut(&group) else { return };
        let links = &mut group.key.links;
        links.retain(|(number, _)| *number != link);
        if let Some(end) = end
            && links.len() < LINKS
        {
            links.push((link, end));
        }
    }

    /// SMC-R server: whether new connections may join, as far as the machine knows: false while the
    /// table of the peer's RMBs is full (`rtokens_used_mask`).
    pub fn set_open(&mut self, group: GroupId, open: bool) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.closed = !open;
        }
    }

    /// The connection is through with the group and its buffers. For a connection that a
    /// [`Wish::Kill`] named: once nobody reads its buffers any more.
    ///
    /// # Errors
    /// [`GroupError::NoMember`].
    pub fn leave(
        &mut self,
        now: Instant,
        id: GroupId,
        conn: ConnId,
        fate: Fate,
        stats: &mut Stats,
    ) -> Result<(), GroupError> {
        let group = self.groups.get_mut(&id).ok_or(GroupError::NoMember(id, conn))?;
        let member = group.members.remove(&conn).ok_or(GroupError::NoMember(id, conn))?;
        let smcd = group.key.ask.peer.is_smcd();
        let how = match fate {
            _ if group.ending => Release::WithGroup,
            Fate::Reuse => Release::Reuse,
            Fate::Discard if smcd => Release::Discard,
            Fate::Discard => Release::Retire,
        };
        let counters = stats.technology(smcd);
        for buffer in [member.send, member.receive].into_iter().flatten() {
            self.buffers.release(buffer, how, &mut group.pool, &mut self.wishes, counters);
        }
        if group.members.is_empty() && !group.ending {
            let client = !smcd && group.key.ask.role == Role::Client;
            let deadline = now.after(if client { IDLE_CLIENT } else { IDLE });
            group.deadline = Some(deadline);
            self.idle.insert((deadline, id));
        }
        self.finish(id);
        Ok(())
    }

    /// Ends the groups that were idle for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.idle.first()
            && deadline <= now
        {
            self.idle.pop_first();
            self.end(id, Cause::Idle);
        }
    }

    /// Ends a group: each connection gets a [`Wish::Kill`]; one that failed itself leaves before.
    /// False if there is no such group or it is ending.
    pub fn terminate(&mut self, group: GroupId, cause: Cause) -> bool {
        self.end(group, cause)
    }

    /// Our ISM device goes: ends all groups over it (`smc_smcd_terminate_all`). Groups over a RoCE
    /// port lose links, not themselves; that is their machines' affair.
    pub fn terminate_device(&mut self, device: DeviceId) {
        self.end_all(Cause::DeviceGone, |ask| match ask.peer {
            Peer::Smcd(peer) => peer.device == device,
            Peer::Smcr(_) => false,
        });
    }

    /// SMC-R: no link of the group is left, nothing the peer does reaches its buffers.
    pub fn handle_links_gone(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.ending {
            group.links_up = false;
            self.finish(id);
        }
    }

    /// Ends all groups for whose peer `of` holds.
    pub(super) fn end_all(&mut self, cause: Cause, of: impl Fn(&Ask) -> bool) {
        let ids = self.groups.iter().filter(|(_, group)| of(&group.key.ask));
        let ids: Vec<GroupId> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, cause);
        }
    }

    /// The oldest group that fits, as Linux takes it.
    fn find(&self, ask: &Ask) -> Option<GroupId> {
        self.alike(ask).find(|(_, group)| group.takes(ask)).map(|(id, _)| id)
    }

    /// The groups that could fit and are not ending, the oldest first.
    fn alike(&self, ask: &Ask) -> impl Iterator<Item = (GroupId, &Group)> {
        let ends = ask.ends();
        let ids = self.by_ends.range((ends, GroupId(0))..=(ends, GroupId(u32::MAX)));
        ids.filter_map(|(_, id)| Some((*id, &**self.groups.get(id)?)))
    }

    fn join(
        &mut self,
        conn: ConnId,
        ask: &Ask,
        found: Option<GroupId>,
    ) -> Result<Joined, JoinError> {
        let id = found.unwrap_or_else(|| self.new_id());
        if found.is_none() {
            self.by_ends.insert((ask.ends(), id));
            if let Some((device, vlan)) = ask.kept_vlan() {
                self.hold_vlan(device, vlan);
            }
        }
        let group = self.groups.entry(id).or_insert_with(|| Box::new(Group::new(Key::new(*ask))));
        if group.members.contains_key(&conn) {
            return Err(JoinError::Member(conn, id));
        }
        group.members.insert(conn, Member::default());
        if let Some(deadline) = group.deadline.take() {
            self.idle.remove(&(deadline, id));
        }
        Ok(Joined { group: id, first_contact: found.is_none() })
    }

    fn new_id(&mut self) -> GroupId {
        loop {
            self.last.0 = self.last.0.wrapping_add(NUMBER_STEP);
            if self.last.0 != 0 && !self.groups.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    fn end(&mut self, id: GroupId, cause: Cause) -> bool {
        let talk = cause != Cause::Idle || !self.has_busy_sibling(id);
        let Some(group) = self.groups.get_mut(&id).filter(|group| !group.ending) else {
            return false;
        };
        group.ending = true;
        self.by_ends.remove(&(group.key.ask.ends(), id));
        if let Some(deadline) = group.deadline.take() {
            self.idle.remove(&(deadline, id));
        }
        let signal = cause != Cause::PeerGone && talk;
        let tell_peer = !matches!(cause, Cause::PeerGone | Cause::NoLink);
        let kill = |&conn| Wish::Kill { conn, tell_peer };
        self.wishes.extend(group.members.keys().map(kill));
        match group.key.ask.shutdown_event(id) {
            None => self.wishes.push_back(Wish::EndLinks { group: id, cause }),
            Some(event) if signal => self.wishes.push_back(event),
            Some(_) => {}
        }
        self.finish(id);
        true
    }

    /// Whether the peer would take this group's shutdown event for a group that is in use: the
    /// event names no group, only the two devices and the VLAN.
    fn has_busy_sibling(&self, id: GroupId) -> bool {
        let Some(group) = self.groups.get(&id) else { return false };
        let same = |other: &Group| {
            !other.members.is_empty() && other.key.ask.shares_events_with(&group.key.ask)
        };
        self.alike(&group.key.ask).any(|(other_id, other)| other_id != id && same(other))
    }

    /// Gives back what an ending group still holds, as far as nobody can touch it any more.
    pub(super) fn finish(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.ending || group.links_up {
            return;
        }
        self.buffers.free_all(&mut group.pool, &mut self.wishes);
        if !group.members.is_empty() || !group.pool.is_empty() {
            return;
        }
        let vlan = group.key.ask.kept_vlan();
        self.groups.remove(&id);
        if let Some((device, vlan)) = vlan {
            self.release_vlan(device, vlan);
        }
        self.wishes.push_back(Wish::Gone { group: id });
    }
}

impl Group {
    fn new(key: Key) -> Self {
        let links_up = !key.ask.peer.is_smcd();
        Self {
            key,
            members: std::collections::BTreeMap::new(),
            pool: Pool::default(),
            deadline: None,
            closed: false,
            settled: false,
            ending: false,
            links_up,
        }
    }

    /// Whether a connection that asks so may join.
    fn takes(&self, ask: &Ask) -> bool {
        self.key.fits(ask) && (ask.role == Role::Client || self.has_room())
    }

    /// SMC-R: whether the server may let another connection in (`smc_conn_create`). SMC-D knows no
    /// limit.
    fn has_room(&self) -> bool {
        match self.key.ask.peer {
            Peer::Smcd(_) => true,
            Peer::Smcr(peer) => !self.closed && self.members.len() < usize::from(peer.max_conns),
        }
    }
}
