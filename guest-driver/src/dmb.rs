// SPDX-License-Identifier: GPL-2.0

//! Own DMBs: register, unregister; and peers' DMBs in place (attach, detach).
//!
//! Invariant: the memory of a DMB is known to `Local` before the device is asked to register it,
//! and is given up only after the device has answered that it is unregistered (or was reset).

use core::ptr::NonNull;
use kernel::prelude::*;

use crate::{
    abi::{
        command, mode, signal_page, status, AttachReply, Gid, RegisterReply, RegisterRequest,
        TokenRequest, MAX_DMB_LEN, MIN_DMB_LEN, WINDOW_ALIGN,
    },
    control::Failure,
    counters::Counter,
    device::Device,
    memory::{Pages, Place, Window},
    native::{self, ExtentPages, Work, NO_CLIENT},
    peers,
};

/// How often to look for lost signals, as long as there are DMBs. Two looks find one.
pub(crate) const RESCAN_MS: u32 = 250;

/// What dibs is told of a DMB.
pub(crate) struct Registered {
    pub(crate) token: u64,
    pub(crate) address: NonNull<u8>,
    /// Never 0: net/smc takes that for "not registered". Not used otherwise.
    pub(crate) dma_addr: u64,
    pub(crate) len: u32,
    pub(crate) index: u32,
}

/// An extent of the window with pages for own DMBs.
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) instance: u64,
    pub(crate) pages: ExtentPages,
}

impl Extent {
    fn is(&self, offset: u64, len: u64, instance: u64) -> bool {
        (self.offset, self.pages.len(), self.instance) == (offset, len, instance)
    }
}

/// What registering and its like need, one at a time.
pub(crate) struct AdminState {
    pub(crate) extents: KVec<Extent>,
}

impl AdminState {
    pub(crate) fn new() -> Self {
        Self {
            extents: KVec::new(),
        }
    }
}

impl Device {
    /// dibs: a new DMB of `len` bytes that `rgid` may write. Sleeps.
    pub(crate) fn register(
        &self,
        rgid: &Gid,
        len: u32,
        vlan: (u32, u32),
        client: u8,
    ) -> Result<Registered> {
        let longest = self.config.max_dmb_len.min(MAX_DMB_LEN);
        if len < MIN_DMB_LEN || len > longest || len % 4096 != 0 {
            return Err(EINVAL);
        }
        if self.peers.lock().is_shunned(rgid, native::now_ns()) {
            return Err(ENETUNREACH);
        }
        let vlan = peers::vlan(vlan.0, vlan.1);
        let mode = self.mode_of(rgid, vlan)?;
        let result = self.register_in(rgid, len, vlan, mode);
        if matches!(
            result,
            Err(Failure::Status(status::IO_ERROR) | Failure::Abandoned(ETIMEDOUT))
        ) {
            self.peers.lock().shun(rgid, native::now_ns());
        }
        let registered = match result {
            // The peer came back with another mode.
            Err(Failure::Status(status::WRONG_MODE | status::UNREACHABLE)) => {
                self.peers.lock().doubt(rgid);
                let mode = self.mode_of(rgid, vlan)?;
                self.register_in(rgid, len, vlan, mode)
            }
            other => other,
        }?;
        self.native.dibs_set_client(registered.index, client);
        self.counters.one(Counter::Registers);
        self.native.work_queue(Work::Rescan, RESCAN_MS);
        Ok(registered)
    }

    fn register_in(
        &self,
        rgid: &Gid,
        len: u32,
        vlan: Option<u16>,
        mode: u8,
    ) -> Result<Registered, Failure> {
        let mut admin = self.admin.lock();
        let index = self.local.lock().reserve(self.dmb_limit());
        let index = index.ok_or(Failure::Gone(ENOSPC))?;
        let mut request = RegisterRequest {
            rgid: *rgid,
            index,
            len,
            ram_addr: 0,
            vlan_id: vlan.unwrap_or(0),
            vlan_valid: u8::from(vlan.is_some()),
            mode,
            reserved: [0; 4],
        };
        let result = self.register_at(&mut admin, &mut request);
        if let Err(failure) = &result {
            let abandoned = matches!(failure, Failure::Abandoned(_));
            let place = self.local.lock().settle_failed(index, abandoned);
            drop(place);
        }
        result
    }

    fn register_at(
        &self,
        admin: &mut AdminState,
        request: &mut RegisterRequest,
    ) -> Result<Registered, Failure> {
        let index = request.index;
        if request.mode == mode::COPIED {
            self.prepare_moves().map_err(Failure::Gone)?;
            let pages = Pages::new(request.len as usize).map_err(Failure::Gone)?;
            request.ram_addr = pages.ram_addr();
            self.local
                .lock()
                .place(index, Place::Ram(pages), request.len);
        }
        let mut reply = [0; RegisterReply::SIZE];
        self.call_for(
            command::REGISTER,
            &request.to_bytes(),
            &mut reply,
            Some(index),
        )?;
        let reply = RegisterReply::from_bytes(&reply).ok_or(Failure::Gone(EIO))?;
        self.enter(admin, request, &reply).map_err(|error| {
            // It is registered, so its memory is the device's until that is undone.
            let mut local = self.local.lock();
            local.orphan_answered(index, Some(reply.token));
            self.native.work_queue(Work::Reap, 1);
            Failure::Abandoned(error)
        })
    }

    /// Makes a registered DMB usable.
    fn enter(
        &self,
        admin: &mut AdminState,
        request: &RegisterRequest,
        reply: &RegisterReply,
    ) -> Result<Registered> {
        if reply.token == 0 {
            return Err(EIO);
        }
        let mut page = None;
        if request.mode == mode::MAPPED {
            let window = self.window.as_ref().ok_or(EIO)?;
            let address = self.place_in(admin, window, request.len, reply)?;
            let mut local = self.local.lock();
            local.place(request.index, Place::Window(address), request.len);
            local.add_page(window, reply.signal_offset, reply.instance)?;
            page = Some(reply.signal_offset);
        }
        let mut local = self.local.lock();
        local
            .activate(request.index, reply.token, reply.instance, page)
            .ok_or(EIO)?;
        let address = local.address(request.index).ok_or(EIO)?;
        Ok(Registered {
            token: reply.token,
            address,
            dma_addr: address.as_ptr() as u64,
            len: request.len,
            index: request.index,
        })
    }

    /// Checks what the device says of a DMB's place, and gives the address of its pages.
    fn place_in(
        &self,
        admin: &mut AdminState,
        window: &Window,
        len: u32,
        reply: &RegisterReply,
    ) -> Result<NonNull<u8>> {
        let len = u64::from(len);
        let (extent, extent_len) = (reply.extent_offset, reply.extent_len);
        let inside = reply.window_offset.checked_sub(extent);
        let inside = inside.filter(|at| at.checked_add(len).is_some_and(|end| end <= extent_len));
        let align = len.checked_next_power_of_two().ok_or(EINVAL)?;
        let sound = extent % WINDOW_ALIGN == 0
            && extent_len % WINDOW_ALIGN == 0
            && reply.window_offset % align == 0
            && reply.signal_offset % signal_page::SIZE as u64 == 0
            && window.contains(extent, extent_len)
            && window.contains(reply.signal_offset, signal_page::SIZE as u64);
        let Some(inside) = inside.filter(|_| sound) else {
            crate::device::log_err!(self, "the device placed a DMB outside of its window");
            return Err(EIO);
        };
        // Both ends are inside the window, so the sums do not overflow.
        let overlaps = |known: &&Extent| {
            known.offset < extent.wrapping_add(extent_len)
                && extent < known.offset.wrapping_add(known.pages.len())
        };
        let base = match admin.extents.iter().find(overlaps) {
            // Of its own pair only: an extent goes with its pair (reap.rs).
            Some(known) if known.is(extent, extent_len, reply.instance) => known.pages.va,
            Some(_) => {
                crate::device::log_err!(self, "the device placed a DMB in another pair's extent");
                return Err(EIO);
            }
            None => {
                admin.extents.reserve(1, GFP_KERNEL)?;
                let pages = ExtentPages::map(self.native, extent, extent_len)?;
                let base = pages.va;
                let extent = Extent {
                    offset: extent,
                    instance: reply.instance,
                    pages,
                };
                admin.extents.push(extent, GFP_KERNEL)?;
                base
            }
        };
        NonNull::new(base.as_ptr().wrapping_add(inside as usize)).ok_or(EIO)
    }

    /// dibs: the DMB is no longer needed. Sleeps.
    pub(crate) fn unregister(&self, token: u64, index: u32) -> Result {
        // First, so that nobody is told of a DMB that is on its way out.
        if !self.local.lock().bury(index, token) {
            return Err(EINVAL);
        }
        self.native.dibs_set_client(index, NO_CLIENT);
        if !self.is_dead() {
            self.reap();
        }
        Ok(())
    }

    /// dibs: the address at which `token`'s DMB can be written in place. Sleeps.
    pub(crate) fn attach(&self, token: u64) -> Result<Registered> {
        let mut reply = [0; AttachReply::SIZE];
        let request = TokenRequest { token }.to_bytes();
        self.call(command::ATTACH, &request, &mut reply)?;
        let reply = AttachReply::from_bytes(&reply).ok_or(EIO)?;
        let window = self.window.as_ref();
        let address = window.and_then(|w| w.address(reply.window_offset, reply.len.into()));
        let Some(address) = address else {
            // Copied mode: there is nothing to write into.
            self.detach(token)?;
            return Err(EOPNOTSUPP);
        };
        Ok(Registered {
            token,
            address,
            dma_addr: address.as_ptr() as u64,
            len: reply.len,
            index: reply.index,
        })
    }

    /// dibs: the end of [`Self::attach`]. Sleeps.
    pub(crate) fn detach(&self, token: u64) -> Result {
        let request = TokenRequest { token }.to_bytes();
        Ok(self.call(command::DETACH, &request, &mut [])?)
    }
}
