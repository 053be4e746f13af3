// SPDX-License-Identifier: GPL-2.0

//! The functions that C calls (shim.h), each a translation into a method of `Device`.
//!
//! Invariant, and what every SAFETY comment refers to as "alive": C passes the pointer that
//! `ism_rust_probe` gave it, and none of these calls is under way when it calls `ism_rust_drop`
//! (driver.c: out of dibs, device reset, thread, timer and works ended).
//! They are unsafe to call for that reason, and nothing in Rust calls them.

use core::ptr::NonNull;
use kernel::{
    ffi::{c_int, c_uint, c_void},
    prelude::*,
};

use crate::{
    abi::{command, Gid, SignalEventRequest, QUEUE_CONTROL, QUEUE_EVENT, QUEUE_SIGNAL},
    device::{self, Device},
    dmb::Registered,
    ffi::{Ism, IsmDmb},
    memory::Payload,
    native::{Native, Work},
    peers,
};

/// # Safety
///
/// `device` must be alive.
unsafe fn device<'a>(device: *const c_void) -> &'a Device {
    // SAFETY: As the caller promises; only shared references exist until the drop.
    unsafe { &*device.cast::<Device>() }
}

fn errno(result: Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// `gid` must point to 16 readable bytes.
unsafe fn gid(gid: *const u8) -> Gid {
    // SAFETY: As the caller promises.
    unsafe { gid.cast::<Gid>().read_unaligned() }
}

/// # Safety
///
/// `to` must be writable.
unsafe fn give(result: Result<Registered>, to: *mut IsmDmb) -> c_int {
    errno(result.map(|dmb| {
        let dmb = IsmDmb {
            token: dmb.token,
            cpu_addr: dmb.address.as_ptr().cast(),
            dma_addr: dmb.dma_addr,
            len: dmb.len,
            index: dmb.index,
        };
        // SAFETY: As the caller promises.
        unsafe { to.write(dmb) }
    }))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_validate(ism: *mut Ism) -> c_int {
    // SAFETY: C keeps `ism` during the call, and nothing of it stays.
    let native = unsafe { Native::new(ism) };
    errno(native.ok_or(EINVAL).and_then(device::validate))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_probe(ism: *mut Ism, rust: *mut *mut c_void) -> c_int {
    // SAFETY: C keeps `ism` until after ism_rust_drop().
    let native = unsafe { Native::new(ism) };
    let made = native.ok_or(EINVAL).and_then(Device::new);
    let boxed = made.and_then(|device| Ok(KBox::new(device, GFP_KERNEL)?));
    errno(boxed.map(|device| {
        // SAFETY: `rust` is a field of the C structure.
        unsafe { rust.write(KBox::into_raw(device).cast()) }
    }))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_start(rust: *mut c_void) -> c_int {
    // SAFETY: Alive.
    errno(unsafe { device(rust) }.start())
}

#[no_mangle]
unsafe extern "C" fn ism_rust_quiesce(rust: *mut c_void) {
    // SAFETY: Alive.
    unsafe { device(rust) }.quiesce();
}

#[no_mangle]
unsafe extern "C" fn ism_rust_leave(rust: *mut c_void, pipes: bool) {
    // SAFETY: Alive.
    unsafe { device(rust) }.leave(pipes);
}

#[no_mangle]
unsafe extern "C" fn ism_rust_drop(rust: *mut c_void) {
    if let Some(device) = NonNull::new(rust.cast::<Device>()) {
        // SAFETY: Alive, from KBox::into_raw() in ism_rust_probe(), and not used any more.
        drop(unsafe { KBox::from_raw(device.as_ptr()) });
    }
}

/// The interrupt of a queue.
#[no_mangle]
unsafe extern "C" fn ism_rust_used(rust: *mut c_void, queue: c_uint) {
    // SAFETY: Alive.
    let device = unsafe { device(rust) };
    match u16::try_from(queue) {
        Ok(QUEUE_CONTROL) => device.control_used(),
        Ok(QUEUE_EVENT) => device.event_interrupt(),
        Ok(QUEUE_SIGNAL) => device.ring_the_late(),
        // The move queue's used buffers are taken back by its next user.
        _ => {}
    }
}

#[no_mangle]
unsafe extern "C" fn ism_rust_work(rust: *mut c_void, work: c_uint) {
    // SAFETY: Alive.
    let device = unsafe { device(rust) };
    const WATCHDOG: c_uint = Work::Watchdog as c_uint;
    const RESCAN: c_uint = Work::Rescan as c_uint;
    const REAP: c_uint = Work::Reap as c_uint;
    const VLAN: c_uint = Work::Vlan as c_uint;
    const HELD: c_uint = Work::Held as c_uint;
    const BURY: c_uint = Work::Bury as c_uint;
    match work {
        WATCHDOG => device.watchdog(),
        RESCAN => device.rescan(),
        REAP => device.reap(),
        VLAN => device.tell_vlans(),
        HELD => device.send_held(),
        BURY => device.bury_device(),
        _ => {}
    }
}

#[no_mangle]
unsafe extern "C" fn ism_rust_backstop(rust: *mut c_void) {
    // SAFETY: Alive.
    unsafe { device(rust) }.backstop();
}

#[no_mangle]
unsafe extern "C" fn ism_rust_poll(rust: *mut c_void) {
    // SAFETY: Alive.
    unsafe { device(rust) }.poll_thread();
}

#[no_mangle]
unsafe extern "C" fn ism_rust_counter(rust: *mut c_void, counter: c_uint) -> u64 {
    // SAFETY: Alive.
    unsafe { device(rust) }.counter(counter as usize)
}

#[no_mangle]
unsafe extern "C" fn ism_rust_fabric_id(rust: *mut c_void) -> u16 {
    // SAFETY: Alive.
    unsafe { device(rust) }.config.fabric_id
}

#[no_mangle]
unsafe extern "C" fn ism_rust_query(
    rust: *mut c_void,
    rgid: *const u8,
    vlan_valid: u32,
    vlan_id: u32,
) -> c_int {
    // SAFETY: Alive; dibs passes a uuid_t.
    let (device, rgid) = unsafe { (device(rust), gid(rgid)) };
    let vlan = peers::vlan(vlan_valid, vlan_id);
    errno(device.mode_of(&rgid, vlan).map(|_| ()))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_register(
    rust: *mut c_void,
    rgid: *const u8,
    len: u32,
    vlan_valid: u32,
    vlan_id: u32,
    client: u8,
    dmb: *mut IsmDmb,
) -> c_int {
    // SAFETY: Alive; dibs passes a uuid_t.
    let (device, rgid) = unsafe { (device(rust), gid(rgid)) };
    let result = device.register(&rgid, len, (vlan_valid, vlan_id), client);
    // SAFETY: C passes a local variable.
    unsafe { give(result, dmb) }
}

#[no_mangle]
unsafe extern "C" fn ism_rust_unregister(rust: *mut c_void, token: u64, index: u32) -> c_int {
    // SAFETY: Alive.
    errno(unsafe { device(rust) }.unregister(token, index))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_move(
    rust: *mut c_void,
    token: u64,
    signal: bool,
    offset: u32,
    data: *const c_void,
    len: u32,
) -> c_int {
    // SAFETY: Alive; dibs passes `len` readable bytes.
    let (device, data) = unsafe { (device(rust), Payload::new(data.cast(), len as usize)) };
    errno(device.move_data(token, signal, offset, data))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_vlan(rust: *mut c_void, vlan_id: u64, add: bool) -> c_int {
    // SAFETY: Alive.
    errno(unsafe { device(rust) }.vlan(vlan_id, add))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_signal_event(
    rust: *mut c_void,
    rgid: *const u8,
    code: u32,
    info: u64,
) -> c_int {
    // SAFETY: Alive; dibs passes a uuid_t.
    let (device, rgid) = unsafe { (device(rust), gid(rgid)) };
    let request = SignalEventRequest {
        gid: rgid,
        code,
        reserved: 0,
        info,
    };
    let result = device.call(command::SIGNAL_EVENT, &request.to_bytes(), &mut []);
    errno(result.map_err(Error::from))
}

#[no_mangle]
unsafe extern "C" fn ism_rust_attach(rust: *mut c_void, token: u64, dmb: *mut IsmDmb) -> c_int {
    // SAFETY: Alive.
    let result = unsafe { device(rust) }.attach(token);
    // SAFETY: C passes a local variable.
    unsafe { give(result, dmb) }
}

#[no_mangle]
unsafe extern "C" fn ism_rust_detach(rust: *mut c_void, token: u64) -> c_int {
    // SAFETY: Alive.
    errno(unsafe { device(rust) }.detach(token))
}
