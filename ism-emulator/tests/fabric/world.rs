// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A daemon without I/O for the tests: it carries out wishes in tables.
//!
//! Invariant: it checks on the way what no daemon should see: mappings that overlap, ranges outside
//! their extents, a block used again before it is zero.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use ism_abi::{
    EVENT_SIZE, EventHeader, Gid, HelloRequest, MoveRequest, RegisterReply, RegisterRequest,
    ReplyHeader, RequestHeader, SignalRequest, TokenRequest, VERSION, command, status,
};
use ism_emulator::{
    Abilities, ExtentId, Fabric, FabricConfig, GroupConfig, MemberConfig, MemberId, Mode,
    MoveTarget, Quota, Refusal, Tag, Wish,
};

/// Bytes of a test member's window: room for seven extents.
pub(crate) const WINDOW: u64 = 256 << 20;

/// A GID by a small number.
pub(crate) fn gid(n: u8) -> Gid {
    let mut gid = [n; 16];
    gid[0] = 0xc0;
    gid
}

/// A request's bytes.
pub(crate) fn request(command: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = RequestHeader { command, reserved: [0; 6] }.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// The status of a reply.
pub(crate) fn status(reply: &[u8]) -> u32 {
    ReplyHeader::from_bytes(reply).unwrap().status
}

/// The body of a reply.
pub(crate) fn body(reply: &[u8]) -> &[u8] {
    &reply[ReplyHeader::SIZE..]
}

/// The kind of an event.
pub(crate) fn kind(event: &[u8; EVENT_SIZE]) -> u16 {
    EventHeader::from_bytes(event).unwrap().event
}

/// The body of an event.
pub(crate) fn event_body(event: &[u8; EVENT_SIZE]) -> &[u8] {
    &event[EventHeader::SIZE..]
}

/// A REGISTER of `len` bytes at `index` for `rgid`; copied mode puts it at an address of its own.
pub(crate) fn register(rgid: Gid, index: u32, len: u32, mode: Mode) -> RegisterRequest {
    let copied = mode == Mode::Copied;
    RegisterRequest {
        rgid,
        index,
        len,
        ram_addr: if copied { (u64::from(index) + 1) << 24 } else { 0 },
        vlan_id: 0,
        vlan_valid: 0,
        mode: mode.wire(),
        reserved: [0; 4],
    }
}

/// Groups "m" (mapped), "c" (copied) and "checked" (copied, CDC header checked).
pub(crate) fn config() -> FabricConfig {
    let mut config = FabricConfig::new(0xff01);
    let mut group = |name: &str, mode, check_cdc| {
        config.groups.insert(name.to_owned(), GroupConfig { mode, check_cdc });
    };
    group("m", Mode::Mapped, false);
    group("c", Mode::Copied, false);
    group("checked", Mode::Copied, true);
    config
}

/// The fabric with its daemon.
pub(crate) struct World {
    pub(crate) fabric: Fabric,
    pub(crate) now: Duration,
    /// Answers by tag.
    pub(crate) replies: HashMap<Tag, Vec<u8>>,
    /// Events by member, in order.
    pub(crate) events: BTreeMap<MemberId, Vec<[u8; EVENT_SIZE]>>,
    /// Members whose events are taken whenever there are some.
    pub(crate) attentive: BTreeSet<MemberId>,
    /// Members whose front-ends do not answer maps.
    pub(crate) deaf: BTreeSet<MemberId>,
    /// Members whose front-ends refuse maps.
    pub(crate) refusing: BTreeSet<MemberId>,
    /// Memory files cannot be made.
    pub(crate) no_memory: bool,
    /// How often a memory file was wished for.
    pub(crate) created: usize,
    /// Extents and their lengths.
    pub(crate) extents: BTreeMap<ExtentId, u64>,
    /// Windows: extents by offset.
    pub(crate) maps: BTreeMap<MemberId, BTreeMap<u64, (ExtentId, u64)>>,
    /// Maps that were not answered.
    pub(crate) unanswered: Vec<(ExtentId, MemberId)>,
    /// Everybody who ever had an extent in its window.
    pub(crate) mapped_by: BTreeMap<ExtentId, BTreeSet<MemberId>>,
    /// Ranges made zero.
    pub(crate) zeroed: Vec<(ExtentId, u64, u64)>,
    next_tag: u64,
}

impl World {
    pub(crate) fn new(config: FabricConfig) -> Self {
        Self {
            fabric: Fabric::new(config, b"0123456789abcdef").unwrap(),
            now: Duration::from_secs(1000),
            replies: HashMap::new(),
            events: BTreeMap::new(),
            attentive: BTreeSet::new(),
            deaf: BTreeSet::new(),
            refusing: BTreeSet::new(),
            no_memory: false,
            created: 0,
            extents: BTreeMap::new(),
            maps: BTreeMap::new(),
            unanswered: Vec::new(),
            mapped_by: BTreeMap::new(),
            zeroed: Vec::new(),
            next_tag: 0,
        }
    }

    /// A member of `groups` with GID number `n`, connected, after HELLO, that takes its events.
    pub(crate) fn member(&mut self, n: u8, groups: &[&str]) -> MemberId {
        let id = self.silent_member(n, groups, Quota::default());
        self.connect(id);
        assert_eq!(status(&self.hello(id)), 0);
        id
    }

    /// A member without a front-end.
    pub(crate) fn silent_member(&mut self, n: u8, groups: &[&str], quota: Quota) -> MemberId {
        let config = MemberConfig {
            name: format!("member{n}"),
            gid: gid(n),
            groups: groups.iter().map(|&g| g.to_owned()).collect(),
            vlans: None,
            quota,
        };
        let id = self.fabric.add_member(config).unwrap();
        self.attentive.insert(id);
        id
    }

    /// A front-end with a window and a move queue.
    pub(crate) fn connect(&mut self, id: MemberId) {
        self.maps.remove(&id);
        self.events.remove(&id);
        self.fabric
            .connect(id, Abilities { window: Some(WINDOW), copied: true, board: true })
            .unwrap();
        self.work();
    }

    pub(crate) fn hello(&mut self, id: MemberId) -> Vec<u8> {
        let body = HelloRequest { version: VERSION, reserved: [0; 6] };
        self.call(id, command::HELLO, &body.to_bytes()).unwrap()
    }

    /// The status of a request that is answered when all wishes are carried out.
    pub(crate) fn status(&mut self, id: MemberId, command: u16, body: &[u8]) -> u32 {
        status(&self.call(id, command, body).unwrap())
    }

    /// A REGISTER that works.
    pub(crate) fn register(&mut self, id: MemberId, request: RegisterRequest) -> RegisterReply {
        let reply = self.call(id, command::REGISTER, &request.to_bytes()).unwrap();
        assert_eq!(status(&reply), status::OK);
        RegisterReply::from_bytes(body(&reply)).unwrap()
    }

    /// The status of a REGISTER.
    pub(crate) fn try_register(&mut self, id: MemberId, request: RegisterRequest) -> u32 {
        self.status(id, command::REGISTER, &request.to_bytes())
    }

    /// The status of UNREGISTER, ATTACH or DETACH.
    pub(crate) fn token(&mut self, id: MemberId, command: u16, token: u64) -> u32 {
        self.status(id, command, &TokenRequest { token }.to_bytes())
    }

    /// A doorbell.
    pub(crate) fn signal(&mut self, id: MemberId, token: u64) -> Result<Option<MemberId>, Refusal> {
        self.fabric.signal(id, &SignalRequest { token }.to_bytes(), self.now)
    }

    /// The DMB indices for which a member has signals.
    pub(crate) fn take_signals(&mut self, id: MemberId) -> Vec<u32> {
        let signals = self.fabric.signals(id).unwrap();
        let mut taken = Vec::new();
        while let Some(batch) = signals.take() {
            let bits = (0..64).filter(|bit| batch.mask & 1 << bit != 0);
            taken.extend(bits.map(|bit| batch.base + bit));
        }
        signals.arm();
        taken
    }

    /// Begins a move of `len` bytes.
    pub(crate) fn begin_move(
        &mut self,
        id: MemberId,
        token: u64,
        offset: u32,
        len: u32,
    ) -> Result<MoveTarget, Refusal> {
        let header = MoveRequest { token, offset, len, signal: 1, reserved: 0 }.to_bytes();
        self.fabric.begin_move(id, &header, len as usize, self.now)
    }

    /// A request and its answer, if it is there when all wishes are carried out.
    pub(crate) fn call(&mut self, id: MemberId, command: u16, body: &[u8]) -> Option<Vec<u8>> {
        let tag = self.send(id, &request(command, body));
        self.replies.remove(&tag)
    }

    /// A request; its answer will be in `replies`.
    pub(crate) fn send(&mut self, id: MemberId, request: &[u8]) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        if let Some(reply) = self.fabric.control(id, tag, request, self.now) {
            self.replies.insert(tag, reply.as_bytes().to_vec());
        }
        self.work();
        tag
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.fabric.handle_timeout(self.now);
        self.work();
    }

    /// Takes all events of a member.
    pub(crate) fn take_events(&mut self, id: MemberId) -> Vec<[u8; EVENT_SIZE]> {
        self.deliver(id);
        self.work();
        self.events.remove(&id).unwrap_or_default()
    }

    fn deliver(&mut self, id: MemberId) {
        while let Some(event) = self.fabric.poll_event(id) {
            self.events.entry(id).or_default().push(event);
        }
        self.fabric.events_delivered(id);
    }

    /// Carries out all wishes.
    pub(crate) fn work(&mut self) {
        while let Some(wish) = self.fabric.poll_wish() {
            self.carry_out(wish);
        }
    }

    pub(crate) fn carry_out(&mut self, wish: Wish) {
        match wish {
            Wish::CreateExtent { extent, len } => {
                assert!(!self.mapped_by.contains_key(&extent), "{extent:?} is used");
                self.created += 1;
                if !self.no_memory {
                    self.extents.insert(extent, len);
                }
            }
            Wish::Map { member, extent, window_offset, len } => {
                self.map(member, extent, window_offset, len);
            }
            Wish::Unmap { member, extent, window_offset, len } => {
                let maps = self.maps.entry(member).or_default();
                if let Some(mapped) = maps.remove(&window_offset) {
                    assert_eq!(mapped, (extent, len));
                }
            }
            Wish::Zero { extent, offset, len } => {
                assert!(offset + len <= self.extents[&extent]);
                self.zeroed.push((extent, offset, len));
                self.fabric.finish_zero(extent, offset, len, true);
            }
            Wish::DropExtent { extent } => {
                self.extents.remove(&extent);
            }
            Wish::Reply { tag, reply, .. } => {
                assert!(self.replies.insert(tag, reply.as_bytes().to_vec()).is_none());
            }
            Wish::EventsReady { member } => {
                if self.attentive.contains(&member) {
                    self.deliver(member);
                }
            }
        }
    }

    fn map(&mut self, member: MemberId, extent: ExtentId, offset: u64, len: u64) {
        let file = self.extents.get(&extent);
        assert!(file.is_none_or(|file| *file == len));
        let file = file.is_some();
        assert!(offset.is_multiple_of(2 << 20) && offset + len + (2 << 20) <= WINDOW);
        if self.deaf.contains(&member) {
            self.unanswered.push((extent, member));
            return;
        }
        let ok = file && !self.refusing.contains(&member);
        if ok {
            let maps = self.maps.entry(member).or_default();
            let overlaps = |(&at, &(_, other)): (&u64, &(ExtentId, u64))| {
                at < offset + len + (2 << 20) && offset < at + other + (2 << 20)
            };
            assert!(!maps.iter().any(overlaps), "no gap at {offset:#x}");
            maps.insert(offset, (extent, len));
            self.mapped_by.entry(extent).or_default().insert(member);
        }
        self.fabric.finish_map(extent, member, ok);
    }
}
