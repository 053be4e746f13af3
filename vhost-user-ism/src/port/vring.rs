// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtqueue's vhost-user side, made safe to use from other VMs' threads.
//!
//! Invariant: while the queue's lock is held, nothing is called that a front-end can delay. The
//! event descriptors are therefore outside it, are eventfds, and do not block; `VringMutex` alone
//! would read the kick under the lock, and write the call with it.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, preadv2};
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as QueueError, Queue, QueueT};
use vm_memory::GuestMemoryAtomic;

use crate::memory::GuestMemory;
use crate::ringer;

/// The memory handle of vhost-user-backend.
pub type AtomicMemory = GuestMemoryAtomic<GuestMemory>;

/// Where `preadv2` reads a file that has no offsets.
const CURRENT: u64 = u64::MAX;

/// One virtqueue: descriptors, kick and call.
#[derive(Clone)]
pub struct Vring {
    queue: VringMutex<AtomicMemory>,
    events: Arc<Events>,
}

#[derive(Default)]
struct Events {
    kick: Mutex<Option<Arc<File>>>,
    call: Mutex<Option<Arc<File>>>,
}

/// Takes a lock whatever happened to its last holder. What is inside is replaced whole, but for the
/// fabric: after a panic in there, which is a fault of ours, serving the other VMs with what may be
/// half-written is still better than to serve none.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vring {
    /// Runs `work` with the queue locked if the ring is started and enabled, else does nothing.
    pub fn with_queue<R>(&self, work: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        let mut state = self.queue.get_mut();
        if !state.is_enabled() || !state.get_queue().ready() {
            return None;
        }
        // A panic must not pass the guard: the library unwraps this lock everywhere, so poison
        // would spread to each thread that touches the ring.
        let result = catch_unwind(AssertUnwindSafe(|| work(state.get_queue_mut())));
        drop(state);
        match result {
            Ok(result) => Some(result),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Tells the driver that buffers were used. A call that cannot be delivered is not an error:
    /// the driver that removed it does not wait for it.
    pub fn call(&self) {
        signal(&self.events.call);
    }

    /// Has the VM's own worker look at the queue, as a kick does.
    pub fn wake_worker(&self) {
        signal(&self.events.kick);
    }
}

/// Signals an eventfd of the front-end, if there is one.
fn signal(event: &Mutex<Option<Arc<File>>>) {
    let Some(event) = lock(event).clone() else { return };
    if let Err(error) = ringer::ring(event.as_fd()) {
        // Without linux-aio a write has to do. What a front-end makes blocking is not signalled
        // at all.
        log::debug!("signalling by a write: {error}");
        let nonblocking = |flags: OFlags| flags.contains(OFlags::NONBLOCK);
        if rustix::fs::fcntl_getfl(&event).is_ok_and(nonblocking) {
            let _ = rustix::io::write(&event, &1u64.to_ne_bytes());
        }
    }
}

/// Makes a descriptor of the front-end harmless: an eventfd that never blocks. Anything else is
/// dropped, as if the front-end had sent none.
fn harmless(file: Option<File>, what: &str) -> Option<Arc<File>> {
    let file = file?;
    match make_harmless(&file) {
        Ok(()) => Some(Arc::new(file)),
        Err(error) => {
            log::warn!("the front-end's {what} descriptor is not used: {error}");
            None
        }
    }
}

fn make_harmless(file: &File) -> io::Result<()> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let target = std::fs::read_link(link)?;
    // "anon_inode:[eventfd]": any other kind of file may block whatever its flags say.
    if !target.to_string_lossy().contains("[eventfd]") {
        return Err(io::Error::other(format!("{} is not an eventfd", target.display())));
    }
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file.as_fd(), flags | OFlags::NONBLOCK)?)
}

impl<'a> VringStateGuard<'a, AtomicMemory> for Vring {
    type G = MutexGuard<'a, VringState<AtomicMemory>>;
}

impl<'a> VringStateMutGuard<'a, AtomicMemory> for Vring {
    type G = MutexGuard<'a, VringState<AtomicMemory>>;
}

impl VringT<AtomicMemory> for Vring {
    fn new(memory: AtomicMemory, max_queue_size: u16) -> Result<Self, QueueError> {
        let queue = VringMutex::new(memory, max_queue_size)?;
        Ok(Self { queue, events: Arc::default() })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, AtomicMemory>>::G {
        self.queue.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, AtomicMemory>>::G {
        self.queue.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), QueueError> {
        self.queue.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.call();
        Ok(())
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.queue.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.queue.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.queue.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.queue.set_enabled(enabled);
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.queue.set_queue_info(desc, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.queue.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.queue.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.queue.set_queue_next_used(idx);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.queue.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.queue.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.queue.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.queue.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        let kick = harmless(file, "kick");
        // The library registers its own copy with epoll; reading happens on ours, unlocked.
        let registered = kick.as_ref().and_then(|kick| kick.try_clone().ok());
        *lock(&self.events.kick) = kick;
        self.queue.set_kick(registered);
    }

    fn read_kick(&self) -> io::Result<bool> {
        let kick = lock(&self.events.kick).clone();
        if let Some(kick) = kick {
            // EAGAIN: another reader was faster; the buffers are looked for all the same. O_NONBLOCK
            // alone is not enough: the front-end shares the flag, and can clear it again.
            let mut count = [0; 8];
            let mut buffers = [IoSliceMut::new(&mut count)];
            let _ = preadv2(&kick, &mut buffers, CURRENT, ReadWriteFlags::NOWAIT);
        }
        Ok(self.queue.get_ref().is_enabled())
    }

    fn set_call(&self, file: Option<File>) {
        *lock(&self.events.call) = harmless(file, "call");
    }

    fn set_err(&self, _file: Option<File>) {
        // The device reports errors in its replies, never through this descriptor.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn vring() -> Vring {
        let memory = AtomicMemory::new(GuestMemory::new());
        Vring::new(memory, 16).expect("16 is a power of two")
    }

    #[test]
    fn a_full_call_counter_does_not_block() {
        let vring = vring();
        let call = File::from(eventfd(0, EventfdFlags::empty()).expect("eventfd"));
        rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).expect("fill the counter");
        vring.set_call(Some(call));
        vring.call(); // would never return
    }

    #[test]
    fn an_empty_kick_does_not_block() {
        let vring = vring();
        vring.set_kick(Some(File::from(eventfd(0, EventfdFlags::empty()).expect("eventfd"))));
        assert!(!vring.read_kick().expect("kick"));
    }

    #[test]
    fn a_kick_that_was_made_blocking_again_does_not_block() {
        let vring = vring();
        let kick = eventfd(0, EventfdFlags::empty()).expect("eventfd");
        vring.set_kick(Some(File::from(kick.try_clone().expect("dup"))));
        rustix::fs::fcntl_setfl(&kick, OFlags::empty()).expect("the flag is shared");
        vring.read_kick().expect("kick"); // would never return
        vring.wake_worker();
        vring.read_kick().expect("kick");
        rustix::fs::fcntl_setfl(&kick, OFlags::NONBLOCK).expect("the flag");
        assert!(rustix::io::read(&kick, &mut [0; 8]).is_err(), "the count was not taken");
    }

    #[test]
    fn only_eventfds_are_used() {
        let vring = vring();
        let (reader, _writer) = std::io::pipe().expect("pipe");
        vring.set_kick(Some(File::from(std::os::fd::OwnedFd::from(reader))));
        assert!(vring.get_ref().get_kick().is_none());
    }

    #[test]
    fn a_ring_that_is_not_enabled_is_not_served() {
        let vring = vring();
        vring.set_queue_ready(true);
        assert!(vring.with_queue(|_| ()).is_none());
        vring.set_enabled(true);
        assert!(vring.with_queue(|_| ()).is_some());
    }

    #[test]
    fn a_panic_while_the_queue_is_held_does_not_poison_it() {
        let vring = vring();
        vring.set_queue_ready(true);
        vring.set_enabled(true);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            vring.with_queue(|_| std::panic::panic_any("injected"));
        }));
        assert!(panicked.is_err());
        assert!(vring.with_queue(|_| ()).is_some());
        vring.set_enabled(false); // the library unwraps the lock
    }
}
