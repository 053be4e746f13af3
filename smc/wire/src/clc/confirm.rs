// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Confirm: the client's answer to an Accept.
//!
//! Invariant: a list of GIDs is there only in SMC-R version 2's first contact.

use arrayvec::ArrayVec;

use super::accept::{AcceptConfirm, Body, Contact};
use super::header::{self, Kind, bound};
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::RoceGid;

/// GIDs in a Confirm, at most; Linux sends 1 or 2.
pub const MAX_GIDS: usize = 8;
/// Bytes of a GID.
const GID: usize = 16;
/// Bytes before the list's GIDs: their number, then reserved ones.
const LIST: usize = 4;

/// A Confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// What an Accept has too.
    pub common: AcceptConfirm,
    /// The ports that the client has for more links: in SMC-R version 2's first contact only, where
    /// Linux always sends the list and never reads it.
    pub gids: Option<ArrayVec<RoceGid, MAX_GIDS>>,
}

impl Confirm {
    /// Reads a Confirm that fills `bytes`.
    ///
    /// # Errors
    /// [`Error`] for the first field or area that breaks the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (header, mut reader) = header::open(Kind::Confirm, bytes)?;
        let list = |rest: &[u8]| match rest.first() {
            None => true,
            Some(&count) => rest.len() == LIST + GID * usize::from(count),
        };
        let common = AcceptConfirm::parse(&header, &mut reader, list)?;
        let may_follow = may_have_list(&common) && !reader.rest().is_empty();
        let gids = if may_follow { Some(parse_gids(&mut reader)?) } else { None };
        header::close(reader)?;
        Ok(Self { common, gids })
    }

    /// Writes the Confirm as Linux does (`smc_clc_send_confirm`). Returns its length, 48 to 292.
    ///
    /// # Errors
    /// [`Error::Short`] if `bytes` are too few, [`Error::Field`] if a number does not fit or is not
    /// the version's, or if there is a list of GIDs where none may be.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        header::emit(self.common.header(Kind::Confirm), bytes, |w| {
            self.common.emit(w)?;
            match &self.gids {
                None => Ok(()),
                Some(gids) if may_have_list(&self.common) => emit_gids(gids, w),
                Some(gids) => {
                    let (value, allowed) =
                        (gids.len() as u64, "no list outside SMC-R version 2's first contact");
                    Err(Error::Field { field: "confirm.gid_cnt", value, allowed })
                }
            }
        })
    }
}

fn may_have_list(common: &AcceptConfirm) -> bool {
    let first = matches!(common.contact, Contact::V2 { first: Some(_), .. });
    first && matches!(common.body, Body::Smcr(_))
}

fn parse_gids(r: &mut Reader) -> Result<ArrayVec<RoceGid, MAX_GIDS>, Error> {
    let count = r.u8()?;
    bound("confirm.gid_cnt", count, MAX_GIDS as u64, "0 to 8")?;
    r.take(LIST - 1)?;
    let mut gids = ArrayVec::new();
    for _ in 0..count {
        gids.push(RoceGid(r.array()?));
    }
    Ok(gids)
}

fn emit_gids(gids: &[RoceGid], w: &mut Writer) -> Result<(), Error> {
    w.u8(u8::try_from(gids.len()).unwrap_or(u8::MAX))?;
    w.zeros(LIST - 1)?;
    gids.iter().try_for_each(|gid| w.put(&gid.0))
}
