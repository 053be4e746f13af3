// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A thread per front-end that maps extents into the VM's window (vhost-user SHMEM_MAP).
//!
//! Invariant: messages are sent from this thread only, and only between the rings' start and
//! their stop: QEMU 11.1 crashes on a map before SET_FEATURES, and may deadlock on one from a
//! request handler. A front-end that does not answer stops nobody but this thread, and holds up
//! at most [`MAX_MAPS`] extents in each of at most [`MAX_THREADS`] threads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use ism_abi::layout::{SHM_WINDOW, WINDOW_ALIGN};
use ism_emulator::{ExtentId, MemberId};
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};

use crate::hub::Hub;
use crate::memory::Extent;

/// Extents that may wait for a front-end's answer: as many as fit in a window of the usual size.
const MAX_MAPS: usize = 128;
/// Threads of one VM. There is one, but for those of earlier front-ends that have gone without
/// closing the channel for requests.
const MAX_THREADS: usize = 4;

/// Something to tell the front-end, in order.
pub enum Job {
    /// Map all of an extent.
    Map {
        /// Its name.
        extent: ExtentId,
        /// Its file; `None` if it could not be made.
        file: Option<Arc<Extent>>,
        /// Where in the window, bytes.
        window_offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Remove a mapping.
    Unmap {
        /// Where in the window, bytes.
        window_offset: u64,
        /// Bytes.
        len: u64,
    },
    /// The rings are stopped.
    Stopped,
    /// The rings run. `resumed`: they go on where they stopped (a VM that was paused), so the
    /// front-end did not drop its mappings as it does when the device is reset.
    Started {
        /// See above.
        resumed: bool,
    },
}

/// Why a mapping is not asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum BadRange {
    /// Offset or length is no multiple of 2 MiB.
    Alignment,
    /// It reaches past the window.
    Window,
    /// It overlaps a mapping.
    Overlap,
    /// The extent is shorter.
    File,
}

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alignment => "it is not aligned to 2 MiB",
            Self::Window => "it reaches past the window",
            Self::Overlap => "it overlaps another mapping",
            Self::File => "its memory file is too short",
        })
    }
}

/// What is mapped in one window. QEMU checks neither alignment nor length of what it maps.
#[derive(Debug)]
struct Windows {
    size: u64,
    /// Length by offset.
    mapped: BTreeMap<u64, u64>,
}

impl Windows {
    fn check(&self, offset: u64, len: u64, file_len: u64) -> Result<(), BadRange> {
        if !offset.is_multiple_of(WINDOW_ALIGN) || !len.is_multiple_of(WINDOW_ALIGN) || len == 0 {
            return Err(BadRange::Alignment);
        }
        let end = offset.checked_add(len).ok_or(BadRange::Window)?;
        if end > self.size {
            return Err(BadRange::Window);
        }
        if len > file_len {
            return Err(BadRange::File);
        }
        match self.mapped.range(..end).next_back() {
            Some((at, length)) if at.saturating_add(*length) > offset => Err(BadRange::Overlap),
            _ => Ok(()),
        }
    }
}

/// The handle to a front-end's mapping thread; the thread ends when it is dropped and the
/// front-end answers, or is gone.
pub struct Mapper {
    jobs: Sender<Job>,
    running: Arc<AtomicBool>,
    /// Maps that were sent and not yet carried out.
    maps: Arc<AtomicUsize>,
}

/// Whose front-end it is.
pub struct Who {
    /// The member.
    pub member: MemberId,
    /// Its name, which the thread has.
    pub name: String,
    /// What lines of the log begin with.
    pub title: String,
}

/// The mapping threads of one VM, those of earlier front-ends included.
#[derive(Clone, Debug, Default)]
pub struct Threads(Arc<AtomicUsize>);

/// One of them, as long as it runs.
struct Place(Threads);

impl Threads {
    fn enter(&self) -> std::io::Result<Place> {
        let enter = |running: usize| (running < MAX_THREADS).then_some(running + 1);
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter) {
            Ok(_) => Ok(Place(self.clone())),
            Err(running) => Err(std::io::Error::other(format!(
                "{running} earlier front-ends have not closed their channel for requests"
            ))),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Mapper {
    /// Starts the thread for `who`, whose window has `window` bytes.
    ///
    /// # Errors
    /// No thread can be made, or too many of earlier front-ends still run.
    pub fn start(
        threads: &Threads,
        hub: Weak<Hub>,
        who: Who,
        backend: Backend,
        window: u64,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let running = Arc::new(AtomicBool::new(false));
        let maps = Arc::new(AtomicUsize::new(0));
        let thread = format!("map-{}", who.name);
        let worker = Worker {
            _place: threads.enter()?,
            maps: Arc::clone(&maps),
            hub,
            who,
            backend,
            running: Arc::clone(&running),
            live: false,
            uncertain: Vec::new(),
            window: Windows { size: window, mapped: BTreeMap::new() },
        };
        std::thread::Builder::new().name(thread).spawn(move || worker.work(&queue))?;
        Ok(Self { jobs, running, maps })
    }

    /// Hands a job to the thread; false if the thread is gone, or has too much to map already.
    pub fn send(&self, job: Job) -> bool {
        if matches!(job, Job::Map { .. }) {
            // Only the fabric's lock's holder sends maps, so none comes in between.
            if self.maps.load(Ordering::Acquire) >= MAX_MAPS {
                return false;
            }
            self.maps.fetch_add(1, Ordering::AcqRel);
        }
        self.jobs.send(job).is_ok()
    }

    /// The rings run.
    pub fn started(&self, resumed: bool) {
        self.running.store(true, Ordering::Release);
        self.send(Job::Started { resumed });
    }

    /// The rings are stopped: from here on nothing is sent.
    pub fn stopped(&self) {
        self.running.store(false, Ordering::Release);
        self.send(Job::Stopped);
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // What is left in the queue is for nobody.
        self.running.store(false, Ordering::Release);
    }
}

struct Worker {
    _place: Place,
    maps: Arc<AtomicUsize>,
    hub: Weak<Hub>,
    who: Who,
    backend: Backend,
    /// The rings run now.
    running: Arc<AtomicBool>,
    /// The rings ran when the job was sent.
    live: bool,
    window: Windows,
    /// Mapped while the device was reset: the front-end may have them or not.
    uncertain: Vec<(u64, u64)>,
}

impl Worker {
    fn work(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Map { extent, file, window_offset, len } => {
                    let ok = self.map(file.as_deref(), window_offset, len);
                    drop(file);
                    self.maps.fetch_sub(1, Ordering::AcqRel);
                    let Some(hub) = self.hub.upgrade() else { return };
                    hub.call(|fabric, _| fabric.finish_map(extent, self.who.member, ok));
                }
                Job::Unmap { window_offset, len } => self.unmap(window_offset, len),
                Job::Stopped => self.live = false,
                Job::Started { resumed } => self.start_over(resumed),
            }
        }
    }

    fn map(&mut self, file: Option<&Extent>, offset: u64, len: u64) -> bool {
        let Some(file) = file else { return false };
        if !self.live || !self.running.load(Ordering::Acquire) {
            return false;
        }
        if let Err(error) = self.window.check(offset, len, file.len()) {
            log::error!("{}: {len} bytes at {offset:#x} are not mapped: {error}", self.who.title);
            return false;
        }
        let request = request(offset, len, VhostUserMMapFlags::WRITABLE);
        match self.backend.shmem_map(&request, &AsRaw(file)) {
            Ok(_) if self.running.load(Ordering::Acquire) => {
                self.window.mapped.insert(offset, len);
                log::debug!("{}: mapped {len} bytes at {offset:#x}", self.who.title);
                true
            }
            Ok(_) => {
                self.uncertain.push((offset, len));
                false
            }
            Err(error) => {
                log::warn!("{}: the front-end does not map {len} bytes: {error}", self.who.title);
                false
            }
        }
    }

    /// Forgets a mapping and removes it. While the rings are stopped the front-end is not asked:
    /// it drops all mappings when the device is reset, and `start_over` sees to those that a
    /// paused VM kept.
    fn unmap(&mut self, offset: u64, len: u64) {
        if self.live && self.window.mapped.get(&offset) == Some(&len) {
            self.window.mapped.remove(&offset);
            self.remove(offset, len);
        }
    }

    /// The mappings of the time before the rings stopped are the fabric's no more.
    fn start_over(&mut self, resumed: bool) {
        self.live = true;
        for (offset, len) in std::mem::take(&mut self.uncertain) {
            self.remove(offset, len);
        }
        for (offset, len) in std::mem::take(&mut self.window.mapped) {
            if resumed {
                self.remove(offset, len);
            }
        }
    }

    fn remove(&self, offset: u64, len: u64) {
        let request = request(offset, len, VhostUserMMapFlags::empty());
        match self.backend.shmem_unmap(&request) {
            Ok(_) => log::debug!("{}: unmapped {len} bytes at {offset:#x}", self.who.title),
            Err(error) => log::warn!("{}: the front-end does not unmap: {error}", self.who.title),
        }
    }
}

fn request(offset: u64, len: u64, flags: VhostUserMMapFlags) -> VhostUserMMap {
    VhostUserMMap {
        shmid: SHM_WINDOW,
        padding: [0; 7],
        fd_offset: 0,
        shm_offset: offset,
        len,
        flags: flags.bits(),
    }
}

/// The interface of `vhost` wants `AsRawFd`; an extent shows its descriptor only for a borrow.
struct AsRaw<'a>(&'a Extent);

impl std::os::fd::AsRawFd for AsRaw<'_> {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(self.0).as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use ism_abi::layout::{HelloRequest, RegisterRequest, RequestHeader, VERSION, command, mode};
    use ism_emulator::{Abilities, Fabric, FabricConfig, MemberConfig, Quota, Tag, Wish};

    use super::*;

    /// The name of an extent, from a fabric that wished for one.
    fn extent() -> ExtentId {
        let gid = [1; 16];
        let (name, groups) = ("vm".to_owned(), Vec::new());
        let config = MemberConfig { name, gid, groups, vlans: None, quota: Quota::default() };
        let mut fabric = Fabric::new(FabricConfig::new(0xff00), &[7; 16]).expect("fabric");
        let member = fabric.add_member(config).expect("member");
        let abilities = Abilities { window: Some(1 << 30), copied: true, board: true };
        fabric.connect(member, abilities).expect("a member");
        let mut send = |code, body: &[u8]| {
            let header = RequestHeader { command: code, reserved: [0; 6] }.to_bytes();
            let request = [&header, body].concat();
            fabric.control(member, Tag(0), &request, std::time::Duration::ZERO)
        };
        send(command::HELLO, &HelloRequest { version: VERSION, reserved: [0; 6] }.to_bytes());
        let register = RegisterRequest {
            rgid: gid,
            ram_addr: 0,
            index: 0,
            len: 1 << 16,
            vlan_valid: 0,
            mode: mode::MAPPED,
            vlan_id: 0,
            reserved: [0; 4],
        };
        send(command::REGISTER, &register.to_bytes());
        let mut wishes = std::iter::from_fn(|| fabric.poll_wish());
        let found = wishes.find_map(|wish| match wish {
            Wish::CreateExtent { extent, .. } => Some(extent),
            _ => None,
        });
        found.expect("a pair has memory")
    }

    #[test]
    fn a_front_end_that_does_not_answer_holds_up_so_many_extents() {
        let (jobs, _nobody) = channel();
        let mapper = Mapper { jobs, running: Arc::default(), maps: Arc::default() };
        let extent = extent();
        let map = || Job::Map { extent, file: None, window_offset: 0, len: 0 };
        let sent = (0..2 * MAX_MAPS).filter(|_| mapper.send(map())).count();
        assert_eq!(sent, MAX_MAPS);
        assert!(mapper.send(Job::Unmap { window_offset: 0, len: 0 }), "what ends something goes");
    }

    #[test]
    fn front_ends_that_do_not_end_hold_up_so_many_threads() {
        let threads = Threads::default();
        let mut places: Vec<Place> =
            std::iter::from_fn(|| threads.enter().ok()).take(2 * MAX_THREADS).collect();
        assert_eq!(places.len(), MAX_THREADS);
        places.pop();
        assert!(threads.enter().is_ok());
    }

    #[test]
    fn ranges_are_checked_because_qemu_does_not() {
        const M: u64 = 1 << 20;
        let mut window = Windows { size: 256 * M, mapped: BTreeMap::new() };
        window.mapped.insert(32 * M, 32 * M);
        let table = [
            (0, 32 * M, Ok(())),
            (64 * M, 32 * M, Ok(())),
            (224 * M, 32 * M, Ok(())),
            (M, 32 * M, Err(BadRange::Alignment)),
            (0, M, Err(BadRange::Alignment)),
            (0, 0, Err(BadRange::Alignment)),
            (226 * M, 32 * M, Err(BadRange::Window)),
            (u64::MAX - 2 * M + 1, 2 * M, Err(BadRange::Window)),
            (64 * M, 34 * M, Err(BadRange::File)),
            (2 * M, 32 * M, Err(BadRange::Overlap)),
            (32 * M, 32 * M, Err(BadRange::Overlap)),
            (62 * M, 2 * M, Err(BadRange::Overlap)),
        ];
        for (offset, len, expected) in table {
            assert_eq!(window.check(offset, len, 32 * M), expected, "{offset:#x} {len:#x}");
        }
    }
}
