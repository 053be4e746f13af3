// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Move and signal requests on the device model, and descriptor chains in the daemon's parser.
//!
//! Invariant: an accepted move stays inside the DMB it names; a chain costs a bounded number of
//! reads, and nothing outside of guest memory is reached.

use std::time::Duration;

use ism_abi::{DmbGranted, EventHeader, MoveRequest, RequestHeader, command, mode};
use ism_emulator::{
    Abilities, Fabric, FabricConfig, GroupConfig, MemberConfig, MemberId, Mode, Quota,
    TOKEN_KEY_SIZE, Tag,
};
use vhost_user_ism::memory::GuestMemory;
use vhost_user_ism::port::queues::{Chain, MAX_DESCRIPTORS, Popped};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes as _, GuestAddress};

use crate::bytes::Bytes;

const DMB: u32 = 16 << 10;
const RAM: u64 = 0x10_0000;
const NOW: Duration = Duration::from_secs(1);

/// The target: the first byte says which parser.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.byte() % 2 {
        0 => requests(&mut bytes),
        _ => chains(&mut bytes),
    }
}

/// A fabric of two members and a DMB that the second may write; its token.
fn fabric(check_cdc: bool) -> (Fabric, MemberId, MemberId, u64) {
    let mut config = FabricConfig::new(0xff01);
    config.groups.insert("default".into(), GroupConfig { mode: Mode::Copied, check_cdc });
    let mut fabric = Fabric::new(config, &[9; TOKEN_KEY_SIZE]).expect("a valid configuration");
    let mut add = |n: u8| {
        let id = fabric
            .add_member(MemberConfig {
                name: format!("m{n}"),
                gid: [n; 16],
                groups: Vec::new(),
                vlans: None,
                quota: Quota::default(),
            })
            .expect("a valid member");
        fabric
            .connect(id, Abilities { window: None, copied: true, board: false })
            .expect("it exists");
        let header = RequestHeader { command: command::HELLO, reserved: [0; 6] };
        let hello = [header.to_bytes(), [1, 0, 0, 0, 0, 0, 0, 0]].concat();
        fabric.control(id, Tag(0), &hello, NOW);
        id
    };
    let (owner, writer) = (add(1), add(2));
    let request = ism_frontend::commands::register_request([2; 16], 0, DMB, mode::COPIED);
    let request = ism_abi::RegisterRequest { ram_addr: RAM, ..request };
    let bytes = ism_frontend::commands::encode(command::REGISTER, &request.to_bytes());
    fabric.control(owner, Tag(1), &bytes, NOW);
    let event = fabric.poll_event(writer).expect("the grant");
    let grant = DmbGranted::from_bytes(&event[EventHeader::SIZE..]).expect("a grant");
    fabric.events_delivered(writer);
    (fabric, owner, writer, grant.token)
}

fn requests(bytes: &mut Bytes<'_>) {
    let (mut fabric, owner, writer, token) = fabric(bytes.byte() & 1 != 0);
    while !bytes.is_empty() {
        let choice = bytes.byte();
        let mut header = bytes.run().to_vec();
        if choice & 1 != 0 {
            for (to, from) in header.iter_mut().zip(token.to_le_bytes()) {
                *to = from;
            }
        }
        let sender = if choice & 2 == 0 { writer } else { owner };
        if choice & 4 != 0 {
            // A refusal is the usual answer.
            let _ = fabric.signal(sender, &header, NOW);
            continue;
        }
        let payload = bytes.run();
        // A length that the buffer has, or one that it only claims.
        let len = if choice & 8 == 0 { payload.len() } else { bytes.word() as usize };
        let Ok(target) = fabric.begin_move(sender, &header, len, NOW) else { continue };
        let request = MoveRequest::from_bytes(&header).expect("an accepted header");
        assert_eq!((sender, request.token), (writer, token), "somebody else's DMB");
        assert_eq!((target.owner, target.len as usize), (owner, len));
        let end = target.addr + u64::from(target.len);
        assert!(target.addr >= RAM && end <= RAM + u64::from(DMB), "outside of the DMB");
        if let Some(check) = target.cdc
            && check.check(payload).is_err()
        {
            target.fail();
        } else {
            target.finish();
        }
    }
}

/// Guest memory of the chain parser: rings first, then room.
const MEMORY: usize = 64 << 10;
const QUEUE: u16 = 16;

fn chains(bytes: &mut Bytes<'_>) {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("mapping");
    let mut queue = Queue::new(QUEUE).expect("a size that is allowed");
    queue.set_size(QUEUE);
    queue.set_desc_table_address(Some(0), None);
    queue.set_avail_ring_address(Some(0x100), None);
    queue.set_used_ring_address(Some(0x200), None);
    queue.set_event_idx(bytes.byte() & 1 != 0);
    queue.set_ready(true);
    let (skip, len) = (usize::from(bytes.byte()), usize::from(bytes.byte()) * 64);
    let to = GuestAddress(bytes.word().into());
    let image = bytes.rest();
    memory.write(image, GuestAddress(0)).expect("the memory is not empty");
    let mut chain = Chain::default();
    let mut read = [0; 128];
    for _ in 0..64 {
        match chain.pop(&mut queue, &memory) {
            Popped::Nothing | Popped::BadRing => break,
            Popped::Bad(_) => {}
            Popped::Chain => {
                let most = u64::from(u32::MAX) * MAX_DESCRIPTORS as u64;
                assert!(chain.readable_len() + chain.writable_len() <= most);
                if let Ok(count) = chain.read_start(&memory, &mut read) {
                    assert!(count as u64 <= chain.readable_len() && count <= read.len());
                }
                // Fails where the chain's buffers are outside, which is no matter here.
                let _ = chain.copy_to_guest(&memory, skip, len, &memory, to);
                if let Ok(written) = chain.write_reply(&memory, &read[..64]) {
                    assert_eq!(written, 64);
                }
            }
        }
        let _ = queue.add_used(&memory, chain.head(), 0);
    }
}
