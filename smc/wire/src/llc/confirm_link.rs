// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CONFIRM LINK: the first message on a link; its arrival shows that the link works.
//!
//! Invariant: the link number is not 0.

use super::header::{Header, assigned};
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::{Mac, Qpn, RoceGid};

/// CONFIRM LINK (RFC 7609, A.3.1; `struct smc_llc_msg_confirm_link`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConfirmLink {
    /// The sender's port.
    pub mac: Mac,
    /// The sender's port.
    pub gid: RoceGid,
    /// The sender's queue pair.
    pub qpn: Qpn,
    /// The link's number, which the server gave; 1 to 255.
    pub link: u8,
    /// What the sender calls the link in its messages to people.
    pub link_uid: [u8; 4],
    /// Links that the sender would have in a group; Linux sends 2, from release 1 on what was
    /// negotiated.
    pub max_links: u8,
    /// Connections that the sender would have in a group, what was negotiated; 0 before release 1.
    pub max_conns: u8,
    /// Whether the sender writes no eyecatchers into its RMBs. Linux demands it
    /// (`smc_llc_eval_conf_link`); one of the flag's two bits is enough.
    pub no_eyecatcher: bool,
}

const NO_EYECATCHER: u8 = 0x03;

impl ConfirmLink {
    pub(super) fn parse(header: &Header, reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            mac: Mac(reader.array()?),
            gid: RoceGid(reader.array()?),
            qpn: Qpn(reader.u24()?),
            link: assigned("confirm_link.link_num", reader.u8()?)?,
            link_uid: reader.array()?,
            max_links: reader.u8()?,
            max_conns: reader.u8()?,
            no_eyecatcher: header.has(NO_EYECATCHER),
        })
    }

    pub(super) fn emit(&self, header: &mut Header, writer: &mut Writer) -> Result<(), Error> {
        header.set(NO_EYECATCHER, self.no_eyecatcher);
        writer.put(&self.mac.0)?;
        writer.put(&self.gid.0)?;
        writer.u24(self.qpn.0)?;
        writer.u8(self.link)?;
        writer.put(&self.link_uid)?;
        writer.u8(self.max_links)?;
        writer.u8(self.max_conns)
    }
}
