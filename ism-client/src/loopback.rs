// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fabric within this process: the daemon's device model, without a daemon.
//!
//! Invariant: what the model wishes is carried out before the call that caused it returns, so nothing waits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ism_abi::{EVENT_SIZE, Gid, SignalRequest};
use ism_emulator::{
    Abilities, ExtentId, Fabric, FabricConfig, MemberConfig, MemberId, Quota, Reply,
    TOKEN_KEY_SIZE, Tag, Wish,
};
use rustix::event::{EventfdFlags, eventfd};
use smc_ring::{Mapping, View, memory_file};

use crate::bell;
use crate::codec::{Carrier, Coded};
use crate::driver::Device;
use crate::error::{Error, Result};
use crate::own::Own;

/// Bytes of each member's window: address space only.
const WINDOW: u64 = 4 << 30;

/// A fabric. Cheap to clone; it lives as long as a clone or a member.
#[derive(Clone)]
pub struct Loopback(Arc<Mutex<State>>);

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loopback")
    }
}

struct State {
    fabric: Fabric,
    started: Instant,
    members: HashMap<MemberId, Seat>,
    extents: HashMap<ExtentId, Own>,
    /// Replies that came by a wish.
    replies: Vec<(Tag, Reply)>,
    /// The ends that were not fetched, by the member they are for and the other one's GID.
    bells: HashMap<(MemberId, Gid), Own>,
}

/// What a member has here.
struct Seat {
    /// Mappings by their place in the window.
    window: BTreeMap<u64, Arc<Mapping>>,
    events: VecDeque<[u8; EVENT_SIZE]>,
    wake: Own,
}

impl Loopback {
    /// A fabric without members.
    ///
    /// # Errors
    /// The id is outside of its range.
    pub fn new(fabric_id: u16) -> Result<Self> {
        // Tokens need not be unguessable where every member is the same process.
        let key = [0x5a; TOKEN_KEY_SIZE];
        let fabric = Fabric::new(FabricConfig::new(fabric_id), &key);
        let fabric = fabric.map_err(|error| Error::Device(error.to_string()))?;
        Ok(Self(Arc::new(Mutex::new(State {
            fabric,
            started: Instant::now(),
            members: HashMap::new(),
            extents: HashMap::new(),
            replies: Vec::new(),
            bells: HashMap::new(),
        }))))
    }

    /// A new member with this address; it goes with its device.
    ///
    /// # Errors
    /// The GID is taken or has a half that is zero; no descriptors.
    pub fn join(&self, gid: Gid) -> Result<Device> {
        let member = Member { fabric: self.clone(), id: self.add(gid)?, wake: self.wake_fd()? };
        let config = self.seat(&member)?;
        Device::new(Box::new(Coded::new(member, &config)?))
    }

    /// What the fabric holds: pairs, memory files, DMBs; to see that nothing is left over.
    pub fn totals(&self) -> (usize, usize, usize) {
        let totals = self.lock().fabric.totals();
        (totals.pairs, totals.extents, totals.dmbs)
    }

    fn add(&self, gid: Gid) -> Result<MemberId> {
        let mut state = self.lock();
        let name = format!("member-{}", state.members.len());
        let (groups, vlans, quota) = (Vec::new(), None, Quota::default());
        let config = MemberConfig { name, gid, groups, vlans, quota };
        state.fabric.add_member(config).map_err(|error| Error::Device(error.to_string()))
    }

    fn wake_fd(&self) -> Result<Own> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        eventfd(0, flags).map(Own::new).map_err(Error::io("eventfd"))
    }

    /// Connects a member; its configuration space.
    fn seat(&self, member: &Member) -> Result<Vec<u8>> {
        let wake = Own::copy(&member.wake).map_err(Error::io("dup"))?;
        let mut state = self.lock();
        let seat = Seat { window: BTreeMap::new(), events: VecDeque::new(), wake };
        state.members.insert(member.id, seat);
        let abilities = Abilities { window: Some(WINDOW), copied: false, board: true };
        let connected = state.fabric.connect(member.id, abilities);
        connected.map_err(|error| Error::Device(error.to_string()))?;
        state.settle();
        Ok(state.fabric.config(member.id).to_vec())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Carries out what the model wishes.
    fn settle(&mut self) {
        let now = self.started.elapsed();
        self.fabric.handle_timeout(now);
        while let Some(wish) = self.fabric.poll_wish() {
            match wish {
                Wish::CreateExtent { extent, len } => {
                    // Without memory the model is told when it wants it mapped.
                    if let Ok(file) = memory_file("ism-loopback", len) {
                        self.extents.insert(extent, Own::new(file));
                    }
                }
                Wish::Map { member, extent, window_offset, len } => {
                    let mapped = self.map(member, extent, window_offset, len);
                    self.fabric.finish_map(extent, member, mapped.is_some());
                }
                Wish::Unmap { member, window_offset, .. } => {
                    if let Some(seat) = self.members.get_mut(&member) {
                        seat.window.remove(&window_offset);
                    }
                }
                Wish::Zero { extent, offset, len } => {
                    let done = self.zero(extent, offset, len).is_some();
                    self.fabric.finish_zero(extent, offset, len, done);
                }
                Wish::DropExtent { extent } => drop(self.extents.remove(&extent)),
                Wish::Reply { tag, reply, .. } => self.replies.push((tag, reply)),
                Wish::EventsReady { member } => self.deliver(member),
            }
        }
    }

    fn map(&mut self, member: MemberId, extent: ExtentId, at: u64, len: u64) -> Option<()> {
        let file = self.extents.get(&extent)?;
        let mapping = Mapping::new(file, 0, usize::try_from(len).ok()?).ok()?;
        self.members.get_mut(&member)?.window.insert(at, Arc::new(mapping));
        Some(())
    }

    fn zero(&self, extent: ExtentId, offset: u64, len: u64) -> Option<()> {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.extents.get(&extent)?, flags, offset, len).ok()
    }

    /// Hands a member its events and signals.
    fn deliver(&mut self, id: MemberId) {
        let Some(seat) = self.members.get_mut(&id) else { return };
        let before = seat.events.len();
        while let Some(event) = self.fabric.poll_event(id) {
            seat.events.push_back(event);
        }
        if let Some(signals) = self.fabric.signals(id) {
            loop {
                while let Some(batch) = signals.take() {
                    seat.events.push_back(batch.to_event());
                }
                if signals.arm() {
                    break;
                }
            }
        }
        if seat.events.len() > before {
            // Full is readable too.
            let _ = rustix::io::write(&seat.wake, &1u64.to_ne_bytes());
        }
        self.fabric.events_delivered(id);
    }

    /// An end of the bell of a pair, if it lives; the other waits for the peer.
    fn bell(&mut self, id: MemberId, own: Gid, gid: Gid) -> Option<OwnedFd> {
        if let Some(end) = self.bells.remove(&(id, gid)) {
            return Some(end.into());
        }
        let peer = self.fabric.list().find(|member| member.gid == gid)?.id;
        let (ours, theirs) = bell::pair().ok()?;
        self.bells.insert((peer, own), Own::new(theirs));
        Some(ours)
    }
}

/// A member's carrier.
struct Member {
    fabric: Loopback,
    id: MemberId,
    wake: Own,
}

impl Member {
    fn gid(&self, state: &State) -> Option<Gid> {
        state.fabric.list().find(|member| member.id == self.id).map(|member| member.gid)
    }
}

impl Carrier for Member {
    fn request(&self, what: &'static str, request: &[u8], _room: usize) -> Result<Vec<u8>> {
        let mut state = self.fabric.lock();
        let (tag, now) = (Tag(0), state.started.elapsed());
        let mut reply = state.fabric.control(self.id, tag, request, now);
        state.settle();
        // Nobody else's: the lock is held from the request to here.
        if let Some((_, late)) = state.replies.pop() {
            reply = Some(late);
        }
        reply.map(|reply| reply.as_bytes().to_vec()).ok_or(Error::Timeout(what))
    }

    fn window(&self, offset: u64, len: usize) -> Result<View> {
        let state = self.fabric.lock();
        let window = &state.members.get(&self.id).ok_or(Error::Gone)?.window;
        let missing = || Error::Device(format!("nothing is mapped at {offset:#x} of the window"));
        let (start, mapping) = window.range(..=offset).next_back().ok_or_else(missing)?;
        let within = usize::try_from(offset - start).map_err(|_| missing())?;
        let mapping = Arc::clone(mapping);
        Ok(View::new(mapping).part(within, len)?)
    }

    fn event(&self) -> Result<Option<[u8; EVENT_SIZE]>> {
        let mut state = self.fabric.lock();
        Ok(state.members.get_mut(&self.id).ok_or(Error::Gone)?.events.pop_front())
    }

    fn ring(&self, token: u64) -> Result<()> {
        let mut state = self.fabric.lock();
        let request = SignalRequest { token }.to_bytes();
        let now = state.started.elapsed();
        // A wrong token has no effect.
        if let Ok(Some(owner)) = state.fabric.signal(self.id, &request, now) {
            state.deliver(owner);
        }
        state.settle();
        Ok(())
    }

    fn arm(&self) -> Result<bool> {
        let state = self.fabric.lock();
        let quiet = state.members.get(&self.id).ok_or(Error::Gone)?.events.is_empty();
        if !quiet {
            // A look need not take all of them, and it was perhaps made unreadable before.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
        Ok(quiet)
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wake.as_fd()]
    }

    fn drain(&self) {
        // Empty if nothing came.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn bell(&self, gid: Gid) -> Result<Option<OwnedFd>> {
        let mut state = self.fabric.lock();
        let own = self.gid(&state).ok_or(Error::Gone)?;
        Ok(state.bell(self.id, own, gid))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.fabric.lock();
        let gid = self.gid(&state);
        state.fabric.remove_member(self.id);
        state.settle();
        state.members.remove(&self.id);
        state.bells.retain(|(member, peer), _| *member != self.id && Some(*peer) != gid);
    }
}
