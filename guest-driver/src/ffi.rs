// SPDX-License-Identifier: GPL-2.0

//! The prototypes of shim.h, as Rust sees them. Keep both in the same order.
//!
//! Invariant: each declaration's types are those of the C prototype; nothing else is here.

use kernel::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};

/// `struct ism`, only ever pointed to.
#[repr(C)]
pub(crate) struct Ism {
    _opaque: [u8; 0],
}

/// `struct ism_dmb`.
#[repr(C)]
pub(crate) struct IsmDmb {
    pub(crate) token: u64,
    pub(crate) cpu_addr: *mut c_void,
    pub(crate) dma_addr: u64,
    pub(crate) len: u32,
    pub(crate) index: u32,
}

extern "C" {
    pub(crate) fn ism_log(ism: *mut Ism, level: c_int, text: *const c_char, len: c_uint);
    pub(crate) fn ism_poll_max_us() -> c_uint;

    pub(crate) fn ism_spin_lock(ism: *mut Ism, spin: c_uint) -> c_ulong;
    pub(crate) fn ism_spin_unlock(ism: *mut Ism, spin: c_uint, flags: c_ulong);
    pub(crate) fn ism_admin_lock(ism: *mut Ism);
    pub(crate) fn ism_admin_unlock(ism: *mut Ism);

    pub(crate) fn ism_answer_prepare(ism: *mut Ism, slot: c_uint);
    pub(crate) fn ism_answer_complete(ism: *mut Ism, slot: c_uint);
    pub(crate) fn ism_answer_wait(ism: *mut Ism, slot: c_uint, timeout_ms: c_uint) -> c_long;
    pub(crate) fn ism_slot_get(ism: *mut Ism, timeout_ms: c_uint) -> c_int;
    pub(crate) fn ism_slot_try_get(ism: *mut Ism) -> bool;
    pub(crate) fn ism_slot_put(ism: *mut Ism);

    pub(crate) fn ism_alloc(len: usize) -> *mut c_void;
    pub(crate) fn ism_free(memory: *mut c_void);
    pub(crate) fn ism_alloc_pages(len: usize) -> *mut c_void;
    pub(crate) fn ism_free_pages(memory: *mut c_void);
    pub(crate) fn ism_ram_addr(memory: *const c_void) -> u64;

    pub(crate) fn ism_config_read(ism: *mut Ism, to: *mut c_void, len: c_uint);
    pub(crate) fn ism_has_feature(ism: *mut Ism, bit: c_uint) -> bool;
    pub(crate) fn ism_drop_feature(ism: *mut Ism, bit: c_uint);
    pub(crate) fn ism_queues_find(ism: *mut Ism) -> c_int;

    pub(crate) fn ism_queue_size(ism: *mut Ism, queue: c_uint) -> c_uint;
    pub(crate) fn ism_queue_broken(ism: *mut Ism, queue: c_uint) -> bool;
    pub(crate) fn ism_queue_add(
        ism: *mut Ism,
        queue: c_uint,
        head: *mut c_void,
        head_len: c_uint,
        body: *mut c_void,
        body_len: c_uint,
        reply: *mut c_void,
        reply_len: c_uint,
        cookie: c_ulong,
    ) -> c_int;
    pub(crate) fn ism_queue_used(ism: *mut Ism, queue: c_uint, len: *mut c_uint) -> c_ulong;
    pub(crate) fn ism_queue_kick_prepare(ism: *mut Ism, queue: c_uint) -> bool;
    pub(crate) fn ism_queue_notify(ism: *mut Ism, queue: c_uint);
    pub(crate) fn ism_queue_callbacks_off(ism: *mut Ism, queue: c_uint);
    pub(crate) fn ism_queue_callbacks_on(ism: *mut Ism, queue: c_uint) -> bool;

    pub(crate) fn ism_window_find(ism: *mut Ism, len: *mut u64) -> bool;
    pub(crate) fn ism_window_map(ism: *mut Ism) -> *mut c_void;
    pub(crate) fn ism_pages_possible() -> bool;
    pub(crate) fn ism_extent_map(
        ism: *mut Ism,
        offset: u64,
        len: u64,
        va: *mut *mut c_void,
    ) -> *mut c_void;
    pub(crate) fn ism_extent_unmap(extent: *mut c_void);
    pub(crate) fn ism_pages_held(memory: *const c_void, len: usize) -> bool;

    pub(crate) fn ism_work_queue(ism: *mut Ism, work: c_uint, delay_ms: c_uint);
    pub(crate) fn ism_backstop_start(ism: *mut Ism, ns: u64);
    pub(crate) fn ism_poller_start(ism: *mut Ism) -> c_int;
    pub(crate) fn ism_poller_wake(ism: *mut Ism);
    pub(crate) fn ism_poller_should_stop() -> bool;
    pub(crate) fn ism_poller_sleep_prepare();
    pub(crate) fn ism_poller_sleep_cancel();
    pub(crate) fn ism_poller_sleep();
    pub(crate) fn ism_preempt_disable();
    pub(crate) fn ism_preempt_enable();
    pub(crate) fn ism_cpu_wanted() -> bool;
    pub(crate) fn ism_cpu_yield();
    pub(crate) fn ism_cpu_relax();
    pub(crate) fn ism_now_ns() -> u64;
    pub(crate) fn ism_bh_disable();
    pub(crate) fn ism_bh_enable();
    pub(crate) fn ism_sleep_ms(ms: c_uint);
    pub(crate) fn ism_wait_for_readers();

    pub(crate) fn ism_dibs_add(ism: *mut Ism, gid: *const u8) -> c_int;
    pub(crate) fn ism_dibs_del(ism: *mut Ism);
    pub(crate) fn ism_dibs_set_client(ism: *mut Ism, index: u32, client: u8);
    pub(crate) fn ism_dibs_signal(ism: *mut Ism, base: u32, mask: u64);
    pub(crate) fn ism_dibs_event(
        ism: *mut Ism,
        kind: u32,
        subtype: u32,
        gid: *const u8,
        token: u64,
        data: u64,
    );
}
