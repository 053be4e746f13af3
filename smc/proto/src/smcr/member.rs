// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connections of a link group and the link that each uses.
//!
//! Invariant: at most as many as negotiated, at most 255; each on one link.

use super::link::LinkId;
use crate::id::ConnId;

/// Why a connection cannot join a link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// As many connections as negotiated are there (`smc_core.c:2012`): make another group.
    #[error("link group full: it has all its {0} connections")]
    Full(u8),
    /// `SMC_CLC_DECL_NOACTLINK`
    #[error("no active link in the link group")]
    NoActiveLink,
    /// `SMC_CLC_DECL_NOSRVLINK`
    #[error("the server's link was not found in the link group")]
    NoServerLink,
}

/// A connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) conn: ConnId,
    pub(super) link: LinkId,
}

/// All connections, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Members {
    list: Vec<Member>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn link(&self, conn: ConnId) -> Option<LinkId> {
        self.list.iter().find(|member| member.conn == conn).map(|member| member.link)
    }

    /// Puts a connection on a link, a new one or one that is there.
    pub(super) fn put(&mut self, conn: ConnId, link: LinkId) {
        match self.list.iter_mut().find(|member| member.conn == conn) {
            Some(member) => member.link = link,
            None => self.list.push(Member { conn, link }),
        }
    }

    pub(super) fn remove(&mut self, conn: ConnId) {
        self.list.retain(|member| member.conn != conn);
    }

    /// Moves the connections of a link to another one and names them.
    pub(super) fn switch(&mut self, from: LinkId, to: LinkId) -> impl Iterator<Item = ConnId> {
        let moved = self.list.iter_mut().filter(move |member| member.link == from);
        moved.map(move |member| {
            member.link = to;
            member.conn
        })
    }

    /// Connections of one link.
    pub(super) fn on(&self, link: LinkId) -> usize {
        self.list.iter().filter(|member| member.link == link).count()
    }

    /// Removes all and names them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = ConnId> {
        self.list.drain(..).map(|member| member.conn)
    }
}
