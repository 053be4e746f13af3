// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A thread per front-end that maps extents into the VM's window (vhost-user SHMEM_MAP).
//!
//! Invariant: messages are sent from this thread only, and only between the rings' start and
//! their stop: QEMU 11.1 crashes on a map before SET_FEATURES, and may deadlock on one from a
//! request handler. A front-end that does not answer stops nobody but this thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use ism_abi::layout::{SHM_WINDOW, WINDOW_ALIGN};
use ism_emulator::{ExtentId, MemberId};
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};

use crate::hub::Hub;
use crate::memory::Extent;

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
}

impl Mapper {
    /// Starts the thread for `member`, whose window has `window` bytes.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(
        hub: Weak<Hub>,
        member: MemberId,
        name: &str,
        backend: Backend,
        window: u64,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let running = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            hub,
            member,
            name: name.to_owned(),
            backend,
            running: Arc::clone(&running),
            live: false,
            uncertain: Vec::new(),
            window: Windows { size: window, mapped: BTreeMap::new() },
        };
        std::thread::Builder::new()
            .name(format!("map-{name}"))
            .spawn(move || worker.work(&queue))?;
        Ok(Self { jobs, running })
    }

    /// Hands a job to the thread; false if the thread is gone.
    pub fn send(&self, job: Job) -> bool {
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

struct Worker {
    hub: Weak<Hub>,
    member: MemberId,
    name: String,
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
                    let Some(hub) = self.hub.upgrade() else { return };
                    hub.call(|fabric, _| fabric.finish_map(extent, self.member, ok));
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
            log::error!("VM {}: {len} bytes at {offset:#x} are not mapped: {error}", self.name);
            return false;
        }
        let request = request(offset, len, VhostUserMMapFlags::WRITABLE);
        match self.backend.shmem_map(&request, &AsRaw(file)) {
            Ok(_) if self.running.load(Ordering::Acquire) => {
                self.window.mapped.insert(offset, len);
                log::debug!("VM {}: mapped {len} bytes at {offset:#x}", self.name);
                true
            }
            Ok(_) => {
                self.uncertain.push((offset, len));
                false
            }
            Err(error) => {
                log::warn!("VM {}: the front-end does not map {len} bytes: {error}", self.name);
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
            Ok(_) => log::debug!("VM {}: unmapped {len} bytes at {offset:#x}", self.name),
            Err(error) => log::warn!("VM {}: the front-end does not unmap: {error}", self.name),
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
    use super::*;

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
