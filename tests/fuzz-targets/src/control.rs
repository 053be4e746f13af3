// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Control bytes of several members, on the device model alone.
//!
//! Invariant: each request is answered at most once and with a length and status of the
//! specification; a window never holds two mappings at one place, or one of a pair that its member
//! is not in; tokens are never 0 and never issued twice; what is zeroed is mapped nowhere else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use ism_abi::{
    EVENT_SIZE, Gid, RegisterReply, ReplyHeader, RequestHeader, WINDOW_ALIGN, command, status,
};
use ism_emulator::{
    Abilities, ExtentId, Fabric, FabricConfig, GroupConfig, MemberConfig, MemberId, Mode, Quota,
    TOKEN_KEY_SIZE, Tag, Wish, reply_len,
};

use crate::bytes::Bytes;

/// Members of the fabric; the last one shares no group with the first.
const MEMBERS: usize = 4;
const WINDOW: u64 = 512 << 20;

/// A member as the daemon would know it.
struct Member {
    id: MemberId,
    gid: Gid,
    /// Extents in its window: place and length.
    window: BTreeMap<u64, (ExtentId, u64)>,
    /// Requests without an answer, and whether they are REGISTERs.
    waiting: HashMap<Tag, bool>,
}

/// The fabric with a daemon that checks what it is asked to do.
struct World {
    fabric: Fabric,
    members: Vec<Member>,
    /// Members that have mapped an extent, ever.
    sides: HashMap<ExtentId, BTreeSet<MemberId>>,
    tokens: Vec<u64>,
    instances: Vec<u64>,
    now: Duration,
    next_tag: u64,
    maps_fail: bool,
}

/// The target.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut world = World::new();
    while !bytes.is_empty() {
        world.step(&mut bytes);
        world.carry_out();
    }
    for at in 0..MEMBERS {
        world.fabric.remove_member(world.members[at].id);
        world.members[at].waiting.clear();
        world.members[at].window.clear();
        world.carry_out();
    }
    let totals = world.fabric.totals();
    assert_eq!((totals.members, totals.pairs, totals.extents, totals.dmbs), (0, 0, 0, 0));
}

impl World {
    fn new() -> Self {
        let mut config = FabricConfig::new(0xff01);
        let copied = GroupConfig { mode: Mode::Copied, check_cdc: true };
        config.groups.insert("strict".into(), copied);
        config.pair_extents = 2;
        let key = [7; TOKEN_KEY_SIZE];
        let mut fabric = Fabric::new(config, &key).expect("a valid configuration");
        let groups: [&[&str]; MEMBERS] =
            [&["default"], &["default", "strict"], &["default"], &["strict"]];
        let members = (1u8..).zip(groups).map(|(n, groups)| {
            let gid = [n; 16];
            let quota = Quota { bytes: 24 << 20, dmbs: 40, peers: 3, ..Quota::default() };
            let id = fabric.add_member(MemberConfig {
                name: format!("m{n}"),
                gid,
                groups: groups.iter().map(ToString::to_string).collect(),
                vlans: None,
                quota,
            });
            let id = id.expect("a valid member");
            let window = BTreeMap::new();
            Member { id, gid, window, waiting: HashMap::new() }
        });
        let members = members.collect();
        let mut world = Self {
            fabric,
            members,
            sides: HashMap::new(),
            tokens: Vec::new(),
            instances: Vec::new(),
            now: Duration::ZERO,
            next_tag: 0,
            maps_fail: false,
        };
        for at in 0..MEMBERS {
            world.connect(at);
            world.request(at, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            world.carry_out();
        }
        world
    }

    fn connect(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.window.clear();
        member.waiting.clear();
        // The last front-end has no SHMEM.
        let window = (at + 1 < MEMBERS).then_some(WINDOW);
        let abilities = Abilities { window, copied: true, board: true };
        self.fabric.connect(member.id, abilities).expect("the member exists");
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.byte();
        let at = usize::from(choice >> 6) % MEMBERS;
        let id = self.members[at].id;
        match choice & 0x3f {
            0 => {
                self.members[at].waiting.clear();
                self.fabric.reset(id);
            }
            1 => self.connect(at),
            2 => {
                self.members[at].window.clear();
                self.members[at].waiting.clear();
                self.fabric.disconnect(id);
            }
            3 => {
                self.now += Duration::from_millis(u64::from(bytes.byte()) * 20);
                self.fabric.handle_timeout(self.now);
            }
            4 => self.maps_fail = !self.maps_fail,
            5..=9 => self.take_events(at, usize::from(bytes.byte() % 8)),
            10..=14 => {
                let request = self.patched(bytes);
                // A refusal is the usual answer.
                let _ = self.fabric.signal(id, &request, self.now);
            }
            _ => {
                let request = self.patched(bytes);
                self.request(at, &request);
            }
        }
    }

    /// A request whose bytes may hold GIDs, tokens and instances that exist.
    fn patched(&self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let patch = bytes.byte();
        let pick = bytes.byte();
        let mut request = bytes.run().to_vec();
        let mut put = |at: usize, value: &[u8]| {
            for (to, from) in request.iter_mut().skip(at).zip(value) {
                *to = *from;
            }
        };
        let one_of = |list: &[u64]| {
            let at = usize::from(pick).checked_rem(list.len()).unwrap_or(0);
            list.get(at).copied().unwrap_or(0).to_le_bytes()
        };
        if patch & 1 != 0 {
            put(8, &self.members[usize::from(pick) % MEMBERS].gid);
        }
        if patch & 2 != 0 {
            put(8, &one_of(&self.tokens));
        }
        if patch & 4 != 0 {
            put(24, &one_of(&self.instances));
        }
        if patch & 8 != 0 {
            put(0, &one_of(&self.tokens));
        }
        request
    }

    fn request(&mut self, at: usize, request: &[u8]) {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        let code = RequestHeader::from_bytes(request).map(|header| header.command);
        let register = code == Some(command::REGISTER);
        let id = self.members[at].id;
        if let Some(reply) = self.fabric.control(id, tag, request, self.now) {
            assert_eq!(reply.as_bytes().len(), reply_len(request));
            self.read_reply(register, reply.as_bytes());
        } else {
            self.members[at].waiting.insert(tag, register);
        }
    }

    fn read_reply(&mut self, register: bool, reply: &[u8]) {
        let header = ReplyHeader::from_bytes(reply).expect("a header");
        assert!(header.status <= status::BAD_CDC);
        if header.status != status::OK {
            assert!(reply[4..].iter().all(|byte| *byte == 0), "a refusal that says more");
            return;
        }
        if register {
            let body = RegisterReply::from_bytes(&reply[8..]).expect("a body");
            assert_ne!(body.token, 0);
            assert_eq!(body.extent_offset % WINDOW_ALIGN, 0);
            self.tokens.push(body.token);
            self.instances.push(body.instance);
        }
    }

    fn take_events(&mut self, at: usize, most: usize) {
        let id = self.members[at].id;
        for _ in 0..most {
            let Some(event) = self.fabric.poll_event(id) else { break };
            assert_eq!(event.len(), EVENT_SIZE);
            if event[0] == 2 {
                let token = event[24..32].try_into().expect("eight bytes");
                self.tokens.push(u64::from_le_bytes(token));
            }
        }
        self.fabric.events_delivered(id);
        let signals = self.fabric.signals(id).expect("the member exists");
        while signals.take().is_some() {}
        signals.arm();
    }

    fn at(&self, id: MemberId) -> usize {
        self.members.iter().position(|member| member.id == id).expect("a known member")
    }

    fn carry_out(&mut self) {
        while let Some(wish) = self.fabric.poll_wish() {
            match wish {
                Wish::CreateExtent { extent, len } => {
                    assert_eq!(len % WINDOW_ALIGN, 0);
                    // Again only if nobody has mapped it: the file is then replaced.
                    let before = self.sides.insert(extent, BTreeSet::new());
                    assert!(before.is_none_or(|sides| sides.is_empty()), "a file replaced");
                }
                Wish::DropExtent { extent } => {
                    assert!(self.sides.remove(&extent).is_some(), "unknown extent dropped");
                    let held = self.members.iter().flat_map(|m| m.window.values());
                    assert!(held.into_iter().all(|(e, _)| *e != extent), "dropped while mapped");
                }
                Wish::Map { member, extent, window_offset, len } => {
                    self.map(member, extent, window_offset, len);
                }
                Wish::Unmap { member, extent, window_offset, len } => {
                    let at = self.at(member);
                    // Ignored if the mapping had failed.
                    if let Some(was) = self.members[at].window.remove(&window_offset) {
                        assert_eq!(was, (extent, len));
                    }
                }
                Wish::Zero { extent, offset, len } => {
                    assert!(self.sides.contains_key(&extent), "zeroing an unknown extent");
                    self.fabric.finish_zero(extent, offset, len, true);
                }
                Wish::Reply { member, tag, reply } => {
                    let at = self.at(member);
                    let waited = self.members[at].waiting.remove(&tag);
                    let register = waited.expect("an answer to nothing");
                    self.read_reply(register, reply.as_bytes());
                }
                // The driver looks when its bytes say so.
                Wish::EventsReady { .. } => {}
            }
        }
    }

    fn map(&mut self, id: MemberId, extent: ExtentId, offset: u64, len: u64) {
        let sides = self.sides.get_mut(&extent).expect("mapping an unknown extent");
        if !self.maps_fail {
            sides.insert(id);
        }
        assert!(sides.len() <= 2, "an extent for a third member");
        assert_eq!((offset % WINDOW_ALIGN, len % WINDOW_ALIGN), (0, 0));
        let end = offset + len + WINDOW_ALIGN;
        assert!(end <= WINDOW, "outside of the window");
        let ok = !self.maps_fail;
        if ok {
            let at = self.at(id);
            let window = &mut self.members[at].window;
            let free = window
                .iter()
                .all(|(other, (_, size))| other + size + WINDOW_ALIGN <= offset || end <= *other);
            assert!(free, "over another mapping, or without a gap");
            window.insert(offset, (extent, len));
        }
        self.fabric.finish_map(extent, id, ok);
    }
}
