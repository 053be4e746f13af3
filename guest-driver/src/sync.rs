// SPDX-License-Identifier: GPL-2.0

//! [`Spin`] and [`Admin`]: Rust values guarded by the C half's locks.
//!
//! Invariant: a value is reached only through a guard, and the guard holds the lock. Locks nest
//! in this order only, never two of one rank: Admin; Poll; Events or Control; Local, Signals or
//! Moves; Grants, Peers or Vlans. Under Events and Local also dibs's lock, and under that net/smc's
//! device lock, under which net/smc joins VLANs: so Vlans is never held when dibs is called.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};
use kernel::ffi::c_ulong;

use crate::{ffi, native::Native};

/// `enum ism_spin` of shim.h.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum SpinId {
    Control,
    Events,
    Local,
    Grants,
    Signals,
    Moves,
    Peers,
    Vlans,
    Poll,
}

/// A value behind a spinlock that is taken with interrupts off.
pub(crate) struct Spin<T> {
    native: Native,
    id: SpinId,
    value: UnsafeCell<T>,
}

// SAFETY: The lock lets one context at a time reach the value.
unsafe impl<T: Send> Sync for Spin<T> {}

impl<T> Spin<T> {
    /// Each `id` guards one value of a device (`Device::new` makes all of them).
    pub(crate) fn new(native: Native, id: SpinId, value: T) -> Self {
        Self {
            native,
            id,
            value: UnsafeCell::new(value),
        }
    }

    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        // SAFETY: The C half is valid as long as `native` exists.
        let flags = unsafe { ffi::ism_spin_lock(self.native.raw(), self.id as u32) };
        SpinGuard {
            spin: self,
            flags,
            not_send: PhantomData,
        }
    }
}

/// Holds the lock; stays on its CPU.
pub(crate) struct SpinGuard<'a, T> {
    spin: &'a Spin<T>,
    flags: c_ulong,
    not_send: PhantomData<*mut ()>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: The guard holds the lock.
        unsafe { &*self.spin.value.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The guard holds the lock, and is borrowed for writing.
        unsafe { &mut *self.spin.value.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        let (native, id) = (self.spin.native, self.spin.id as u32);
        // SAFETY: Taken by this guard with these flags.
        unsafe { ffi::ism_spin_unlock(native.raw(), id, self.flags) }
    }
}

/// A value behind the device's mutex: registering, unregistering and what follows from them, one
/// at a time.
pub(crate) struct Admin<T> {
    native: Native,
    value: UnsafeCell<T>,
}

// SAFETY: The mutex lets one context at a time reach the value.
unsafe impl<T: Send> Sync for Admin<T> {}

impl<T> Admin<T> {
    /// One for each device.
    pub(crate) fn new(native: Native, value: T) -> Self {
        Self {
            native,
            value: UnsafeCell::new(value),
        }
    }

    /// Sleeps.
    pub(crate) fn lock(&self) -> AdminGuard<'_, T> {
        // SAFETY: The C half is valid as long as `native` exists; the caller may sleep.
        unsafe { ffi::ism_admin_lock(self.native.raw()) };
        AdminGuard {
            admin: self,
            not_send: PhantomData,
        }
    }
}

/// Holds the mutex.
pub(crate) struct AdminGuard<'a, T> {
    admin: &'a Admin<T>,
    not_send: PhantomData<*mut ()>,
}

impl<T> Deref for AdminGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: The guard holds the mutex.
        unsafe { &*self.admin.value.get() }
    }
}

impl<T> DerefMut for AdminGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The guard holds the mutex, and is borrowed for writing.
        unsafe { &mut *self.admin.value.get() }
    }
}

impl<T> Drop for AdminGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Taken by this guard.
        unsafe { ffi::ism_admin_unlock(self.admin.native.raw()) }
    }
}
