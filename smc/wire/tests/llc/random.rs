// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random messages come back as they were sent; random bytes do not panic.

use proptest::collection::vec;
use proptest::prelude::*;
use smc_wire::id::{Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::llc::{
    AddLink, AddLinkCont, AddLinkTail, Body, ConfirmLink, ConfirmRkey, ConfirmRkeyCont, DeleteLink,
    DeleteReason, DeleteRkey, DeleteTarget, LinkRtoken, MAX_LEN, Message, RejectReason, ReqAddLink,
    RkeyUpdate, Rtoken, TestLink, Type, Version,
};
use smc_wire::size::PathMtu;

use crate::emitted;

/// What a message may hold that borrows.
#[derive(Debug, Clone)]
struct Lists {
    updates: Vec<RkeyUpdate>,
    rkeys: Vec<Rkey>,
    gids: Vec<RoceGid>,
}

fn lists() -> impl Strategy<Value = Lists> {
    let update = any::<(u32, u32, u64)>().prop_map(|(known, new, vaddr)| RkeyUpdate {
        known: Rkey(known),
        new: Rkey(new),
        vaddr,
    });
    let rkey = any::<u32>().prop_map(Rkey);
    let gid = any::<[u8; 16]>().prop_map(RoceGid);
    (vec(update, 0..=255), vec(rkey, 0..=255), vec(gid, 0..=255))
        .prop_map(|(updates, rkeys, gids)| Lists { updates, rkeys, gids })
}

/// Random bits from which [`body`] takes its fields.
#[derive(Debug, Clone)]
struct Bits(Vec<u8>);

impl Bits {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        self.0.split_off(self.0.len() - N).try_into().unwrap()
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.take())
    }

    fn u24(&mut self) -> u32 {
        u32::from_be_bytes(self.take()) >> 8
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn bool(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    fn rtoken(&mut self) -> Rtoken {
        Rtoken { rkey: Rkey(self.u32()), vaddr: u64::from_be_bytes(self.take()) }
    }

    fn link_rtoken(&mut self) -> LinkRtoken {
        LinkRtoken { link: self.u8(), rtoken: self.rtoken() }
    }
}

fn confirm_link(bits: &mut Bits) -> ConfirmLink {
    ConfirmLink {
        mac: Mac(bits.take()),
        gid: RoceGid(bits.take()),
        qpn: Qpn(bits.u24()),
        link: bits.u8().max(1),
        link_uid: bits.take(),
        max_links: bits.u8(),
        max_conns: bits.u8(),
        no_eyecatcher: bits.bool(),
    }
}

fn add_link<'a>(version: Version, bits: &mut Bits, lists: &'a Lists) -> AddLink<'a> {
    let v2 = version == Version::V2;
    let reason = RejectReason(if v2 { 0 } else { bits.u8() & 0xF });
    let tail = AddLinkTail::new(bits.bool(), RoceGid(bits.take()), &lists.updates);
    AddLink {
        mac: Mac(bits.take()),
        gid: RoceGid(bits.take()),
        qpn: Qpn(bits.u24()),
        link: bits.u8().max(1),
        mtu: PathMtu::from_bits("", bits.u8() % 6).ok(),
        psn: Psn(bits.u24()),
        rejected: bits.bool().then_some(reason),
        tail: (v2 && bits.bool()).then_some(tail),
    }
}

fn confirm_rkey(bits: &mut Bits) -> ConfirmRkey {
    ConfirmRkey {
        this_link: bits.rtoken(),
        num_others: bits.u8(),
        other_slots: [bits.link_rtoken(), bits.link_rtoken()],
        negative: bits.bool(),
        retry: bits.bool(),
    }
}

fn delete_link(bits: &mut Bits) -> DeleteLink {
    let target = if bits.bool() { DeleteTarget::All } else { DeleteTarget::Link(bits.u8()) };
    DeleteLink { target, orderly: bits.bool(), reason: DeleteReason(bits.u32()) }
}

fn delete_rkey<'a>(version: Version, bits: &mut Bits, lists: &'a Lists) -> DeleteRkey<'a> {
    let max = if version == Version::V1 { 8 } else { 255 };
    let rkeys = &lists.rkeys[..lists.rkeys.len().min(max)];
    let (unknown, negative) = (bits.u8(), bits.bool());
    DeleteRkey { unknown, negative, ..DeleteRkey::request(rkeys) }
}

fn body<'a>(kind: Type, mut bits: Bits, lists: &'a Lists) -> Body<'a> {
    let bits = &mut bits;
    let version = kind.version();
    match kind.base() {
        Type::CONFIRM_LINK => Body::ConfirmLink(confirm_link(bits)),
        Type::ADD_LINK => Body::AddLink(add_link(version, bits, lists)),
        Type::ADD_LINK_CONT => {
            Body::AddLinkCont(AddLinkCont::next(bits.u8(), lists.updates.iter().copied()))
        }
        Type::DELETE_LINK => Body::DeleteLink(delete_link(bits)),
        Type::REQ_ADD_LINK => Body::ReqAddLink(ReqAddLink::new(&lists.gids)),
        Type::CONFIRM_RKEY => Body::ConfirmRkey(confirm_rkey(bits)),
        Type::TEST_LINK => Body::TestLink(TestLink { user_data: bits.take() }),
        Type::CONFIRM_RKEY_CONT => Body::ConfirmRkeyCont(ConfirmRkeyCont { content: bits.take() }),
        _ => Body::DeleteRkey(delete_rkey(version, bits, lists)),
    }
}

fn kinds() -> Vec<Type> {
    (0..=255).map(Type).filter(|kind| kind.is_known()).collect()
}

/// That what `bytes` say is said by the bytes emitted for it, too.
fn assert_stable(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let again = emitted(&message);
        assert_eq!(Message::parse(&again).unwrap(), message, "{bytes:x?}");
    }
}

proptest! {
    // rows 59, 62, 63, 64, 65, 66, 67, 70
    #[test]
    fn messages_come_back(
        kind in proptest::sample::select(kinds()),
        response: bool,
        bits in vec(any::<u8>(), 100).prop_map(Bits),
        lists in lists(),
    ) {
        let message = Message { version: kind.version(), response, body: body(kind, bits, &lists) };
        let bytes = emitted(&message);
        prop_assert_eq!(message.kind(), Ok(kind));
        prop_assert_eq!(bytes[0], kind.0);
        prop_assert_eq!(Message::parse(&bytes).unwrap(), message);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        assert_stable(&bytes);
    }

    #[test]
    fn broken_messages_are_parsed_or_refused(
        kind in proptest::sample::select(kinds()),
        bits in vec(any::<u8>(), 100).prop_map(Bits),
        lists in lists(),
        hits in vec((0..MAX_LEN, any::<u8>()), 0..6),
        len in 0..MAX_LEN,
    ) {
        let message =
            Message { version: kind.version(), response: false, body: body(kind, bits, &lists) };
        let mut bytes = emitted(&message);
        for (at, byte) in hits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        assert_stable(&bytes);
        bytes.truncate(len.max(44));
        assert_stable(&bytes);
    }
}
