// SPDX-License-Identifier: GPL-2.0

//! [`Native`]: the C half's `struct ism` with safe methods, one for each service in shim.h.
//!
//! Invariant: the pointer is valid as long as any `Native` exists, because `ism_destroy()` in
//! driver.c drops the Rust half, which holds them all, before it frees the structure. That is
//! what every SAFETY comment below refers to as "valid".

use core::{
    fmt::{self, Write},
    ptr::NonNull,
};
use kernel::{
    error::{to_result, Error},
    ffi::{c_uint, c_ulong, c_void},
    prelude::*,
};

use crate::{abi::Gid, ffi};

/// Queue numbers, as the C half takes them.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Queue {
    Control = crate::abi::QUEUE_CONTROL as u32,
    Event = crate::abi::QUEUE_EVENT as u32,
    Signal = crate::abi::QUEUE_SIGNAL as u32,
    Move = crate::abi::QUEUE_MOVE as u32,
}

/// `enum ism_work` of shim.h.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Work {
    Watchdog,
    Rescan,
    Reap,
    Vlan,
    Held,
    Bury,
}

/// Severity of a message, as in printk.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(crate) enum Level {
    Err = 3,
    Warn = 4,
    Info = 6,
}

/// `enum dibs_event_type` of include/linux/dibs.h.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum DibsEvent {
    Buffer = 0,
    Device = 1,
    Software = 2,
}

/// No dibs client (include/linux/dibs.h).
pub(crate) const NO_CLIENT: u8 = 0xff;

/// The C half's part of a device.
#[derive(Clone, Copy)]
pub(crate) struct Native(NonNull<ffi::Ism>);

// SAFETY: The C half guards what it owns; every function of shim.h may be called on any CPU.
unsafe impl Send for Native {}
// SAFETY: As above.
unsafe impl Sync for Native {}

/// A log line; what does not fit is cut.
struct Line {
    text: [u8; 200],
    used: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.get_mut(self.used..).ok_or(fmt::Error)?;
        let take = text.len().min(room.len());
        let (to, from) = (room.get_mut(..take), text.as_bytes().get(..take));
        to.ok_or(fmt::Error)?
            .copy_from_slice(from.ok_or(fmt::Error)?);
        self.used = self.used.saturating_add(take);
        Ok(())
    }
}

/// A used buffer.
pub(crate) struct Used {
    /// As given to [`Native::queue_add`].
    pub(crate) cookie: usize,
    /// Bytes that the device says it wrote.
    pub(crate) len: usize,
}

impl Native {
    /// # Safety
    ///
    /// `ism` must be valid until the returned value and its copies are gone.
    pub(crate) unsafe fn new(ism: *mut ffi::Ism) -> Option<Self> {
        NonNull::new(ism).map(Self)
    }

    pub(crate) fn raw(self) -> *mut ffi::Ism {
        self.0.as_ptr()
    }

    pub(crate) fn log(self, level: Level, message: fmt::Arguments<'_>) {
        let mut line = Line {
            text: [0; 200],
            used: 0,
        };
        // Only "full" can fail, and a cut line is better than none.
        let _ = line.write_fmt(message);
        let len = line.used as c_uint;
        // SAFETY: valid; `line.text` has at least `len` bytes.
        unsafe { ffi::ism_log(self.raw(), level as i32, line.text.as_ptr().cast(), len) }
    }

    // ---- The virtio device ----

    pub(crate) fn config_read(self, to: &mut [u8]) {
        // SAFETY: valid; `to` is writable for its length.
        unsafe { ffi::ism_config_read(self.raw(), to.as_mut_ptr().cast(), to.len() as c_uint) }
    }

    pub(crate) fn has_feature(self, bit: u32) -> bool {
        // SAFETY: valid.
        unsafe { ffi::ism_has_feature(self.raw(), bit) }
    }

    /// Only while features are negotiated.
    pub(crate) fn drop_feature(self, bit: u32) {
        // SAFETY: valid.
        unsafe { ffi::ism_drop_feature(self.raw(), bit) }
    }

    pub(crate) fn queues_find(self) -> Result {
        // SAFETY: valid.
        to_result(unsafe { ffi::ism_queues_find(self.raw()) })
    }

    pub(crate) fn queue_size(self, queue: Queue) -> usize {
        // SAFETY: valid, and queues are looked for in probe.
        unsafe { ffi::ism_queue_size(self.raw(), queue as u32) as usize }
    }

    pub(crate) fn queue_broken(self, queue: Queue) -> bool {
        // SAFETY: valid.
        unsafe { ffi::ism_queue_broken(self.raw(), queue as u32) }
    }

    /// # Safety
    ///
    /// The memory must stay until the buffer was used or the device reset, and the caller must
    /// hold the queue's lock. Null pointers stand for absent parts.
    pub(crate) unsafe fn queue_add(
        self,
        queue: Queue,
        head: (*mut u8, usize),
        body: (*mut u8, usize),
        reply: (*mut u8, usize),
        cookie: usize,
    ) -> Result {
        // SAFETY: valid; the rest is the caller's promise.
        to_result(unsafe {
            ffi::ism_queue_add(
                self.raw(),
                queue as u32,
                head.0.cast(),
                head.1 as c_uint,
                body.0.cast(),
                body.1 as c_uint,
                reply.0.cast(),
                reply.1 as c_uint,
                cookie as c_ulong,
            )
        })
    }

    /// With the queue's lock held.
    pub(crate) fn queue_used(self, queue: Queue) -> Option<Used> {
        let mut len: c_uint = 0;
        // SAFETY: valid; `len` is writable.
        let cookie = unsafe { ffi::ism_queue_used(self.raw(), queue as u32, &mut len) };
        (cookie != 0).then_some(Used {
            cookie: cookie as usize,
            len: len as usize,
        })
    }

    /// With the queue's lock held. True: call [`Self::queue_notify`], best without the lock.
    pub(crate) fn queue_kick_prepare(self, queue: Queue) -> bool {
        // SAFETY: valid.
        unsafe { ffi::ism_queue_kick_prepare(self.raw(), queue as u32) }
    }

    pub(crate) fn queue_notify(self, queue: Queue) {
        // SAFETY: valid; needs no lock (virtqueue_notify).
        unsafe { ffi::ism_queue_notify(self.raw(), queue as u32) }
    }

    /// With the queue's lock held.
    pub(crate) fn callbacks_off(self, queue: Queue) {
        // SAFETY: valid.
        unsafe { ffi::ism_queue_callbacks_off(self.raw(), queue as u32) }
    }

    /// With the queue's lock held. False: there are used buffers already.
    pub(crate) fn callbacks_on(self, queue: Queue) -> bool {
        // SAFETY: valid.
        unsafe { ffi::ism_queue_callbacks_on(self.raw(), queue as u32) }
    }

    // ---- Control slots ----

    pub(crate) fn slot_get(self, timeout_ms: u32) -> Result {
        // SAFETY: valid; the caller may sleep.
        to_result(unsafe { ffi::ism_slot_get(self.raw(), timeout_ms) })
    }

    pub(crate) fn slot_try_get(self) -> bool {
        // SAFETY: valid.
        unsafe { ffi::ism_slot_try_get(self.raw()) }
    }

    pub(crate) fn slot_put(self) {
        // SAFETY: valid.
        unsafe { ffi::ism_slot_put(self.raw()) }
    }

    /// `slot` is below `control::SLOTS` in these three.
    pub(crate) fn answer_prepare(self, slot: usize) {
        // SAFETY: valid, and the slot exists.
        unsafe { ffi::ism_answer_prepare(self.raw(), slot as c_uint) }
    }

    pub(crate) fn answer_complete(self, slot: usize) {
        // SAFETY: valid, and the slot exists.
        unsafe { ffi::ism_answer_complete(self.raw(), slot as c_uint) }
    }

    pub(crate) fn answer_wait(self, slot: usize, timeout_ms: u32) -> Result {
        // SAFETY: valid, the slot exists, and the caller may sleep.
        match unsafe { ffi::ism_answer_wait(self.raw(), slot as c_uint, timeout_ms) } {
            0 => Err(ETIMEDOUT),
            rc if rc < 0 => Err(Error::from_errno(rc as i32)),
            _ => Ok(()),
        }
    }

    // ---- The window ----

    /// The window's bytes, if the device has one.
    pub(crate) fn window_find(self) -> Option<u64> {
        let mut len = 0;
        // SAFETY: valid; `len` is writable.
        unsafe { ffi::ism_window_find(self.raw(), &mut len) }.then_some(len)
    }

    /// After [`Self::window_find`]; mapped until the C half is destroyed.
    pub(crate) fn window_map(self) -> Option<NonNull<u8>> {
        // SAFETY: valid.
        NonNull::new(unsafe { ffi::ism_window_map(self.raw()) }.cast())
    }

    // ---- Works, the poller ----

    pub(crate) fn work_queue(self, work: Work, delay_ms: u32) {
        // SAFETY: valid.
        unsafe { ffi::ism_work_queue(self.raw(), work as u32, delay_ms) }
    }

    pub(crate) fn backstop_start(self, ns: u64) {
        // SAFETY: valid.
        unsafe { ffi::ism_backstop_start(self.raw(), ns) }
    }

    pub(crate) fn poller_start(self) -> Result {
        // SAFETY: valid.
        to_result(unsafe { ffi::ism_poller_start(self.raw()) })
    }

    pub(crate) fn poller_wake(self) {
        // SAFETY: valid.
        unsafe { ffi::ism_poller_wake(self.raw()) }
    }

    // ---- dibs ----

    pub(crate) fn dibs_add(self, gid: &Gid) -> Result {
        // SAFETY: valid; a GID has 16 bytes.
        to_result(unsafe { ffi::ism_dibs_add(self.raw(), gid.as_ptr()) })
    }

    pub(crate) fn dibs_del(self) {
        // SAFETY: valid; the caller may sleep for long.
        unsafe { ffi::ism_dibs_del(self.raw()) }
    }

    /// Only while the device is in dibs.
    pub(crate) fn dibs_set_client(self, index: u32, client: u8) {
        // SAFETY: valid, and dibs calls us only then.
        unsafe { ffi::ism_dibs_set_client(self.raw(), index, client) }
    }

    pub(crate) fn dibs_signal(self, base: u32, mask: u64) {
        // SAFETY: valid.
        unsafe { ffi::ism_dibs_signal(self.raw(), base, mask) }
    }

    pub(crate) fn dibs_event(
        self,
        kind: DibsEvent,
        subtype: u32,
        gid: &Gid,
        token: u64,
        data: u64,
    ) {
        // SAFETY: valid; a GID has 16 bytes.
        unsafe { ffi::ism_dibs_event(self.raw(), kind as u32, subtype, gid.as_ptr(), token, data) }
    }
}

/// Own pages over one extent of the window.
pub(crate) struct ExtentPages {
    handle: *mut c_void,
    /// Address of the first byte in the linear map.
    pub(crate) va: NonNull<u8>,
    len: u64,
}

// SAFETY: Owned alone, and its functions may be called on any CPU.
unsafe impl Send for ExtentPages {}

impl ExtentPages {
    /// `offset` and `len` must be multiples of `abi::WINDOW_ALIGN` inside the window. Sleeps.
    pub(crate) fn map(native: Native, offset: u64, len: u64) -> Result<Self> {
        let mut va = core::ptr::null_mut();
        // SAFETY: valid; `va` is writable.
        let handle = unsafe { ffi::ism_extent_map(native.raw(), offset, len, &mut va) };
        let handle = kernel::error::from_err_ptr(handle)?;
        let va = NonNull::new(va.cast()).ok_or(EIO)?;
        Ok(Self { handle, va, len })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether a pipe still refers to a page of it.
    pub(crate) fn held(&self) -> bool {
        // SAFETY: The extent is mapped with pages for all of `len`.
        unsafe { ffi::ism_pages_held(self.va.as_ptr().cast(), self.len as usize) }
    }
}

impl Drop for ExtentPages {
    /// Leaks pages that are in use: they must keep their memory map.
    fn drop(&mut self) {
        if !self.held() {
            // SAFETY: From ism_extent_map(), and no page of it is in use.
            unsafe { ffi::ism_extent_unmap(self.handle) }
        }
    }
}

/// Whether pipes refer to the pages under a DMB.
///
/// # Safety
///
/// The memory must have struct pages: of an [`ExtentPages`] or a `memory::Pages`.
pub(crate) unsafe fn pages_held(memory: NonNull<u8>, len: usize) -> bool {
    // SAFETY: As the caller promises.
    unsafe { ffi::ism_pages_held(memory.as_ptr().cast(), len) }
}

/// Whether this kernel can make struct pages for a window (CONFIG_ZONE_DEVICE).
pub(crate) fn pages_possible() -> bool {
    // SAFETY: Has no conditions.
    unsafe { ffi::ism_pages_possible() }
}

/// Nanoseconds of a clock that never stops while the system runs.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: Has no conditions.
    unsafe { ffi::ism_now_ns() }
}

/// The module's parameter `poll_max_us`, in nanoseconds.
pub(crate) fn poll_max_ns() -> u64 {
    // SAFETY: Has no conditions.
    u64::from(unsafe { ffi::ism_poll_max_us() }) * 1000
}

/// Runs `body` with bottom halves off; those it caused run before this returns.
pub(crate) fn without_bh<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: Paired with the call below, and nothing in between can unwind.
    unsafe { ffi::ism_bh_disable() };
    let value = body();
    // SAFETY: As above.
    unsafe { ffi::ism_bh_enable() };
    value
}

/// Waits in process context.
pub(crate) fn sleep_ms(ms: u32) {
    // SAFETY: The caller may sleep.
    unsafe { ffi::ism_sleep_ms(ms) }
}

/// Waits until every move_data() that is under way has returned.
pub(crate) fn wait_for_readers() {
    // SAFETY: The caller may sleep.
    unsafe { ffi::ism_wait_for_readers() }
}

/// What only the polling thread calls.
pub(crate) mod thread {
    use super::ffi;

    pub(crate) fn should_stop() -> bool {
        // SAFETY: Called on a kernel thread.
        unsafe { ffi::ism_poller_should_stop() }
    }

    /// Sleeps until woken, unless `ready` says that the reason is there already.
    pub(crate) fn sleep_unless(ready: impl FnOnce() -> bool) {
        // SAFETY: The state is set back by one of the two calls below. A wake-up that comes
        // after the reason was looked for finds the state set, so it is not lost.
        unsafe { ffi::ism_poller_sleep_prepare() };
        if ready() {
            // SAFETY: As above.
            unsafe { ffi::ism_poller_sleep_cancel() };
        } else {
            // SAFETY: As above; kernel threads may sleep.
            unsafe { ffi::ism_poller_sleep() };
        }
    }

    /// Runs `body`, which must not sleep, without leaving the CPU.
    pub(crate) fn unpreempted<T>(body: impl FnOnce() -> T) -> T {
        // SAFETY: Paired with the call below, and nothing in between can unwind.
        unsafe { ffi::ism_preempt_disable() };
        let value = body();
        // SAFETY: As above.
        unsafe { ffi::ism_preempt_enable() };
        value
    }

    pub(crate) fn cpu_wanted() -> bool {
        // SAFETY: Has no conditions.
        unsafe { ffi::ism_cpu_wanted() }
    }

    pub(crate) fn cpu_yield() {
        // SAFETY: Kernel threads may sleep.
        unsafe { ffi::ism_cpu_yield() }
    }

    pub(crate) fn cpu_relax() {
        // SAFETY: Has no conditions.
        unsafe { ffi::ism_cpu_relax() }
    }
}
