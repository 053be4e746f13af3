// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parsing and emitting of each message.
//!
//! Invariant: a message is parsed from the bytes that are emitted for it, CLC from those that Linux
//! sent.

use std::hint::black_box;

use smc_wire::cdc::{ConnectionState, Cursor, ProducerFlags, Smcd, Smcr};
use smc_wire::id::{AlertToken, Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::llc::{
    AddLink, AddLinkCont, AddLinkTail, Body, ConfirmLink, ConfirmRkey, DeleteLink, DeleteReason,
    DeleteRkey, DeleteTarget, LinkRtoken, MAX_LEN, Message, ReqAddLink, RkeyUpdate, Rtoken,
    TestLink, Version,
};
use smc_wire::size::PathMtu;
use smc_wire::{Error, clc, tcp_option};

use super::Case;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GID: RoceGid = RoceGid([0xFE; 16]);
const RTOKEN: Rtoken = Rtoken { rkey: Rkey(0x1234), vaddr: 0x7F00_0000_1000 };
const UPDATES: [RkeyUpdate; 255] =
    [RkeyUpdate { known: Rkey(1), new: Rkey(2), vaddr: 0x1000 }; 255];
const RKEYS: [Rkey; 8] = [Rkey(7); 8];
const GIDS: [RoceGid; 2] = [GID; 2];

/// CLC messages, as Linux sent them (`smc-golden`), by how their files' names end.
const CLC: [&str; 7] = [
    "proposal-v1n-v2d",
    "proposal-v1n-v2b",
    "accept-d-v2-first-contact",
    "confirm-d-v2-first-contact",
    "accept-r-v2-first-contact",
    "confirm-r-v2-first-contact",
    "decline-v2-03030007",
];

/// Every message of CDC and LLC, CLC's of version 2, and the TCP option.
pub fn cases() -> Result<Vec<Case>, Error> {
    let mut cases = vec![option()];
    let captured = smc_golden::names("");
    for kind in CLC {
        if let Some(name) = captured.iter().find(|name| name.ends_with(kind)) {
            cases.extend(clc(kind, &smc_golden::load(name))?);
        }
    }
    cases.extend(cdc()?);
    for (name, version, body) in llc_messages() {
        cases.extend(llc(name, Message { version, response: false, body })?);
    }
    Ok(cases)
}

fn option() -> Case {
    // A SYN's options as Linux orders them: MSS, SACK permitted, time stamps, NOP, window scale.
    let mut syn = vec![2, 4, 5, 0xB4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    syn.extend(tcp_option::OPTION);
    Case::new("TCP option, find", move || tcp_option::is_offered(black_box(&syn)))
}

fn clc(kind: &str, bytes: &[u8]) -> Result<[Case; 2], Error> {
    let message = clc::Message::parse(bytes)?;
    let (bytes, mut buffer) = (bytes.to_vec(), [0; clc::MAX_MESSAGE]);
    Ok([
        Case::new(format!("CLC {kind}, parse"), move || clc::Message::parse(black_box(&bytes))),
        Case::new(format!("CLC {kind}, emit"), move || {
            black_box(&message).emit(black_box(&mut buffer))
        }),
    ])
}

fn cdc() -> Result<[Case; 4], Error> {
    let (prod, cons) = (Cursor { wrap: 1, count: 70_000 }, Cursor { wrap: 1, count: 4_000 });
    let (flags, state) = (ProducerFlags::WRITE_BLOCKED, ConnectionState::EMPTY);
    let smcr = Smcr { seqno: 1, token: AlertToken(2), prod, cons, flags, state };
    let smcd = Smcd { prod, cons, flags, state };
    let mut message = [0; Smcr::LEN];
    smcr.emit(&mut message)?;
    let halves = smcd.to_halves();
    let mut buffer = [0; Smcr::LEN];
    Ok([
        Case::new("CDC of SMC-R, parse", move || Smcr::parse(black_box(&message))),
        Case::new("CDC of SMC-R, emit", move || black_box(&smcr).emit(black_box(&mut buffer))),
        Case::new("CDC of SMC-D, parse", move || {
            let (prod, cons) = black_box(halves);
            Smcd::parse_halves(prod, cons)
        }),
        Case::new("CDC of SMC-D, emit", move || black_box(&smcd).to_halves()),
    ])
}

/// One of each type, and the long ones at their longest too.
fn llc_messages() -> [(&'static str, Version, Body<'static>); 12] {
    let confirm = ConfirmLink {
        mac: MAC,
        gid: GID,
        qpn: Qpn(0x11),
        link: 1,
        link_uid: [1; 4],
        max_links: 2,
        max_conns: 255,
        no_eyecatcher: true,
    };
    let add = AddLink {
        mac: MAC,
        gid: GID,
        qpn: Qpn(0x12),
        link: 2,
        mtu: Some(PathMtu::M1024),
        psn: Psn(0x55),
        rejected: None,
        tail: None,
    };
    let with_keys = |keys| AddLink { tail: Some(AddLinkTail::new(true, GID, keys)), ..add };
    let delete = DeleteLink {
        target: DeleteTarget::Link(2),
        orderly: true,
        reason: DeleteReason::LOST_PATH,
    };
    let rkey = ConfirmRkey::request(RTOKEN, [LinkRtoken { link: 2, rtoken: RTOKEN }]);
    let cont = AddLinkCont::next(2, UPDATES.iter().take(3).copied());
    let (one, all) = UPDATES.split_at(1);
    let (v1, v2) = (Version::V1, Version::V2);
    [
        ("CONFIRM LINK", v1, Body::ConfirmLink(confirm)),
        ("ADD LINK v1", v1, Body::AddLink(add)),
        ("ADD LINK v2, 1 key", v2, Body::AddLink(with_keys(one))),
        ("ADD LINK v2, 254 keys", v2, Body::AddLink(with_keys(all))),
        ("ADD LINK CONTINUATION", v1, Body::AddLinkCont(cont)),
        ("DELETE LINK", v1, Body::DeleteLink(delete)),
        ("REQUEST ADD LINK, 2 GIDs", v2, Body::ReqAddLink(ReqAddLink::new(&GIDS))),
        ("CONFIRM RKEY", v1, Body::ConfirmRkey(rkey)),
        ("TEST LINK", v1, Body::TestLink(TestLink::default())),
        ("DELETE RKEY v1, 1 key", v1, Body::DeleteRkey(DeleteRkey::request(&RKEYS[..1]))),
        ("DELETE RKEY v1, 8 keys", v1, Body::DeleteRkey(DeleteRkey::request(&RKEYS))),
        ("DELETE RKEY v2, 8 keys", v2, Body::DeleteRkey(DeleteRkey::request(&RKEYS))),
    ]
}

fn llc(name: &str, message: Message<'static>) -> Result<[Case; 2], Error> {
    let mut bytes = vec![0; MAX_LEN];
    let len = message.emit(&mut bytes)?;
    let mut buffer = bytes.clone();
    bytes.truncate(len);
    Ok([
        Case::new(format!("LLC {name}, parse"), move || parse_whole(black_box(&bytes))),
        Case::new(format!("LLC {name}, emit"), move || {
            black_box(&message).emit(black_box(&mut buffer))
        }),
    ])
}

/// Parses, and looks at each item of a list: they are decoded only then.
fn parse_whole(bytes: &[u8]) -> Result<(), Error> {
    let message = black_box(Message::parse(bytes)?);
    match message.body {
        Body::AddLink(AddLink { tail: Some(tail), .. }) => look_at(tail.rkeys.iter()),
        Body::ReqAddLink(request) => look_at(request.gids.iter()),
        Body::DeleteRkey(delete) => look_at(delete.rkeys.iter()),
        _ => {}
    }
    Ok(())
}

fn look_at<T>(items: impl Iterator<Item = T>) {
    for item in items {
        black_box(item);
    }
}
