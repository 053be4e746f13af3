// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fabric behind its lock, and who carries out what it wishes.
//!
//! Invariant: under the fabric's lock nothing waits for a VM: mappings go to the VM's own thread,
//! zeroing to the keeper's, and what touches another VM's rings is handed back as a [`Todo`], to
//! be done when no lock is held. Locks are taken in this order: a ring's, the fabric's, `ports`'.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ism_abi::Gid;
use ism_emulator::{ConfigError, ExtentId, Fabric, MemberId, Reply, Tag, Wish};

use crate::bells::Bells;
use crate::mapper::Job;
use crate::memory::Extent;
use crate::port::vring::lock;
use crate::port::{Kind, Port};

/// The fabric, shared by all VMs' threads.
pub struct Hub {
    state: Mutex<State>,
    ports: RwLock<HashMap<MemberId, Arc<Port>>>,
    started: Instant,
    keeper: Sender<Chore>,
}

struct State {
    fabric: Fabric,
    extents: HashMap<ExtentId, Arc<Extent>>,
    bells: Bells,
    /// When the keeper looks at the time next.
    keeper_wakes: Option<Duration>,
}

/// What the keeper does beside watching the time.
enum Chore {
    /// Look at the time: there is an earlier deadline.
    Look,
    /// Give memory back to the host.
    Zero { id: ExtentId, extent: Arc<Extent>, offset: u64, len: u64 },
    /// Let a memory file go; its last descriptor frees its pages.
    Drop(Arc<Extent>),
}

/// Work on VMs' rings, left for when no lock is held.
#[derive(Default)]
#[must_use = "wishes that are not carried out stall a VM"]
pub struct Todo {
    replies: Vec<(MemberId, Tag, Reply)>,
    events: Vec<MemberId>,
    signals: Vec<MemberId>,
}

impl Todo {
    /// The member has to look at its pending signals.
    pub fn tell(&mut self, member: MemberId) {
        if !self.signals.contains(&member) {
            self.signals.push(member);
        }
    }

    /// Adds another's work.
    pub fn append(&mut self, mut other: Todo) {
        self.replies.append(&mut other.replies);
        self.events.append(&mut other.events);
        for member in other.signals {
            self.tell(member);
        }
    }

    fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.events.is_empty() && self.signals.is_empty()
    }
}

impl Hub {
    /// Starts the keeper's thread for `fabric`.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(fabric: Fabric) -> std::io::Result<Arc<Self>> {
        let (keeper, chores) = channel();
        let hub = Arc::new(Self {
            state: Mutex::new(State {
                fabric,
                extents: HashMap::new(),
                bells: Bells::default(),
                keeper_wakes: None,
            }),
            ports: RwLock::default(),
            started: Instant::now(),
            keeper,
        });
        let kept = Arc::clone(&hub);
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || keep(&kept, &chores))?;
        Ok(hub)
    }

    /// Calls the fabric, with the time since the hub's start, and dispatches its wishes.
    pub fn run<R>(&self, call: impl FnOnce(&mut Fabric, Duration) -> R) -> (R, Todo) {
        let mut state = lock(&self.state);
        let now = self.started.elapsed();
        let result = call(&mut state.fabric, now);
        let mut todo = Todo::default();
        while let Some(wish) = state.fabric.poll_wish() {
            self.dispatch(&mut state, wish, &mut todo);
        }
        if let Some(at) = state.fabric.poll_timeout()
            && state.keeper_wakes.is_none_or(|wakes| at < wakes)
        {
            state.keeper_wakes = Some(at);
            self.chore(Chore::Look);
        }
        (result, todo)
    }

    /// As [`Hub::run`], and does what is left to do. Not with a ring's lock held.
    pub fn call<R>(&self, call: impl FnOnce(&mut Fabric, Duration) -> R) -> R {
        let (result, todo) = self.run(call);
        self.carry_out(todo);
        result
    }

    /// Does what is left to do on VMs' rings. Not with a ring's lock held.
    pub fn carry_out(&self, mut todo: Todo) {
        while !todo.is_empty() {
            let now = std::mem::take(&mut todo);
            for (member, tag, reply) in now.replies {
                self.with_port(member, |port| port.reply(tag, &reply));
            }
            for member in now.events {
                self.with_port(member, |port| todo.append(port.deliver(self, true)));
            }
            for member in now.signals {
                self.with_port(member, |port| todo.append(port.deliver(self, false)));
            }
        }
    }

    /// A process's end of the bell that it shares with another one, once in the life of their pair.
    ///
    /// # Errors
    /// The two have no pair, the peer is no process, or no descriptors are left.
    pub fn bell(&self, port: &Port, gid: &Gid) -> std::io::Result<OwnedFd> {
        let mut state = lock(&self.state);
        let State { fabric, bells, .. } = &mut *state;
        bells.retain(|instance| fabric.is_live(instance));
        let pair = fabric.pair_with(port.id(), gid);
        let (instance, peer) = pair.ok_or_else(|| std::io::Error::other("there is no pair"))?;
        if self.port(peer).is_none_or(|peer| peer.kind() != Kind::Process) {
            return Err(std::io::Error::other("the peer is no process of this host"));
        }
        bells.take(instance, port.id(), peer)
    }

    /// Makes a member of `make`'s port known, so that wishes reach it.
    ///
    /// # Errors
    /// The fabric's, by `make`.
    pub fn add_port(
        &self,
        make: impl FnOnce(&mut Fabric) -> Result<Arc<Port>, ConfigError>,
    ) -> Result<Arc<Port>, ConfigError> {
        let port = self.call(|fabric, _| make(fabric))?;
        self.ports_mut().insert(port.id(), Arc::clone(&port));
        Ok(port)
    }

    /// Removes a member.
    pub fn remove_port(&self, member: MemberId) {
        self.call(|fabric, _| fabric.remove_member(member));
        {
            let mut state = lock(&self.state);
            let State { fabric, bells, .. } = &mut *state;
            bells.retain(|instance| fabric.is_live(instance));
        }
        self.ports_mut().remove(&member);
    }

    /// The port of a member, unless it was removed.
    pub fn port(&self, member: MemberId) -> Option<Arc<Port>> {
        self.ports.read().unwrap_or_else(PoisonError::into_inner).get(&member).cloned()
    }

    fn with_port(&self, member: MemberId, work: impl FnOnce(&Port)) {
        if let Some(port) = self.port(member) {
            work(&port);
        }
    }

    fn ports_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<MemberId, Arc<Port>>> {
        self.ports.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, state: &mut State, wish: Wish, todo: &mut Todo) {
        match wish {
            Wish::CreateExtent { extent, len } => match Extent::new("ism-arena", len) {
                Ok(file) => drop(state.extents.insert(extent, Arc::new(file))),
                Err(error) => log::error!("no memory file of {len} bytes for a pair: {error}"),
            },
            Wish::Map { member, extent, window_offset, len } => {
                let file = state.extents.get(&extent).cloned();
                let job = Job::Map { extent, file, window_offset, len };
                let sent = self.port(member).is_some_and(|port| port.send_job(job));
                if !sent {
                    state.fabric.finish_map(extent, member, false);
                }
            }
            Wish::Unmap { member, window_offset, len, .. } => {
                if let Some(port) = self.port(member) {
                    port.send_job(Job::Unmap { window_offset, len });
                }
            }
            Wish::Zero { extent, offset, len } => match state.extents.get(&extent) {
                Some(file) => {
                    let file = Arc::clone(file);
                    self.chore(Chore::Zero { id: extent, extent: file, offset, len });
                }
                None => state.fabric.finish_zero(extent, offset, len, false),
            },
            Wish::DropExtent { extent } => {
                if let Some(file) = state.extents.remove(&extent) {
                    self.chore(Chore::Drop(file));
                }
            }
            Wish::Reply { member, tag, reply } => todo.replies.push((member, tag, reply)),
            Wish::EventsReady { member } => todo.events.push(member),
        }
    }

    fn chore(&self, chore: Chore) {
        // The keeper ends only with the process.
        let _ = self.keeper.send(chore);
    }
}

/// The keeper: gives memory back, and tells the fabric the time when it asked for it.
fn keep(hub: &Hub, chores: &Receiver<Chore>) {
    loop {
        let wait = {
            let mut state = lock(&hub.state);
            state.keeper_wakes = state.fabric.poll_timeout();
            state.keeper_wakes.map(|at| at.saturating_sub(hub.started.elapsed()))
        };
        // Before a chore and not only without one: guests make chores, and must not be able to keep
        // the time from others.
        if wait.is_some_and(|wait| wait.is_zero()) {
            hub.call(Fabric::handle_timeout);
        }
        let chore = match wait {
            Some(wait) => chores.recv_timeout(wait),
            None => chores.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match chore {
            Ok(Chore::Look) => {}
            Ok(Chore::Drop(extent)) => drop(extent),
            Ok(Chore::Zero { id, extent, offset, len }) => {
                let result = extent.punch(offset, len);
                if let Err(error) = &result {
                    log::error!("shared memory is not given back: {error}");
                }
                hub.call(|fabric, _| fabric.finish_zero(id, offset, len, result.is_ok()));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use ism_abi::layout::{HelloRequest, RegisterRequest, RequestHeader, VERSION, command, mode};
    use ism_emulator::{Abilities, FabricConfig, MemberConfig, Quota};

    use super::*;

    /// A fabric with a REGISTER whose time to wait for its writer is over at once.
    fn overdue() -> Fabric {
        let mut config = FabricConfig::new(0xff00);
        config.answer_timeout = Duration::ZERO;
        let mut fabric = Fabric::new(config, &[7; 16]).expect("fabric");
        let (gid, name, groups) = ([1; 16], "vm".to_owned(), Vec::new());
        let config = MemberConfig { name, gid, groups, vlans: None, quota: Quota::default() };
        let member = fabric.add_member(config).expect("member");
        fabric
            .connect(member, Abilities { window: None, copied: true, board: true })
            .expect("a member");
        let mut send = |code, body: &[u8]| {
            let header = RequestHeader { command: code, reserved: [0; 6] }.to_bytes();
            fabric.control(member, Tag(0), &[&header, body].concat(), Duration::ZERO)
        };
        send(command::HELLO, &HelloRequest { version: VERSION, reserved: [0; 6] }.to_bytes());
        let register = RegisterRequest {
            rgid: gid,
            ram_addr: 0x10000,
            index: 0,
            len: 1 << 16,
            vlan_valid: 0,
            mode: mode::COPIED,
            vlan_id: 0,
            reserved: [0; 4],
        };
        assert!(send(command::REGISTER, &register.to_bytes()).is_none(), "it waits");
        fabric
    }

    #[test]
    fn chores_do_not_keep_the_keeper_from_the_time() {
        let fabric = overdue();
        assert_eq!(fabric.poll_timeout(), Some(Duration::ZERO));
        let hub = Hub {
            state: Mutex::new(State {
                fabric,
                extents: HashMap::new(),
                bells: Bells::default(),
                keeper_wakes: None,
            }),
            ports: RwLock::default(),
            started: Instant::now(),
            keeper: channel().0,
        };
        // Never without a chore, until the test ends.
        let (more, chores) = channel();
        for _ in 0..1000 {
            more.send(Chore::Look).expect("the other end is here");
        }
        drop(more);
        keep(&hub, &chores);
        assert_eq!(lock(&hub.state).fabric.poll_timeout(), None);
    }
}
