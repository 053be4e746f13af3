// SPDX-License-Identifier: GPL-2.0

//! What can only be finished later: DMBs whose pages a pipe still holds, DMBs that were
//! registered after their caller had gone, and peers that are gone.
//!
//! Invariant: the device is told "unregistered" only when nobody can read the DMB's memory any
//! more, and "forgotten" only when nobody can write a peer's.

use crate::{
    abi::{command, status, ForgetPeerRequest, TokenRequest},
    control::Failure,
    device::Device,
    dmb::AdminState,
    native::{self, Work},
    peers::Gone,
};

/// Pipes are read by programs; there is no way to be told.
const AGAIN_MS: u32 = 50;

/// How long remove() waits for pipes, in steps of `AGAIN_MS`.
const REMOVE_STEPS: u32 = 100;

impl Device {
    /// Does what can be done now, and comes back for the rest. Sleeps.
    pub(crate) fn reap(&self) {
        if self.is_dead() {
            return;
        }
        let mut admin = self.admin.lock();
        let mut again = self.reap_dmbs();
        again |= self.reap_peers(&mut admin);
        drop(admin);
        if again {
            self.native.work_queue(Work::Reap, AGAIN_MS);
        }
    }

    /// True: some DMBs must wait.
    fn reap_dmbs(&self) -> bool {
        let mut again = false;
        let mut from: u32 = 0;
        loop {
            let Some((index, token, held)) = self.local.lock().next_dying(from) else {
                return again;
            };
            from = index.saturating_add(1);
            if held || (token != 0 && !self.unregistered(token)) {
                again = true;
                continue;
            }
            let place = self.local.lock().free(index);
            drop(place);
        }
    }

    /// Whether the device has forgotten the DMB.
    fn unregistered(&self, token: u64) -> bool {
        let request = TokenRequest { token }.to_bytes();
        match self.call(command::UNREGISTER, &request, &mut []) {
            // NO_TOKEN: an earlier request was carried out, but nobody waited for its answer.
            Ok(()) | Err(Failure::Status(status::NO_TOKEN)) => true,
            Err(_) => false,
        }
    }

    /// True: some peers must wait.
    fn reap_peers(&self, admin: &mut AdminState) -> bool {
        let mut number: usize = 0;
        loop {
            let Some(gone) = self.peers.lock().gone(number) else {
                return number != 0;
            };
            if self.forget(admin, &gone) {
                self.peers.lock().forgotten(&gone);
            } else {
                number = number.saturating_add(1);
            }
        }
    }

    fn forget(&self, admin: &mut AdminState, gone: &Gone) -> bool {
        if self.local.lock().pair_in_use(gone.instance) {
            return false;
        }
        let of_pair = |extent: &crate::dmb::Extent| extent.instance == gone.instance;
        let mut extents = admin.extents.iter();
        if extents.any(|extent| of_pair(extent) && extent.pages.held()) {
            return false;
        }
        self.local.lock().remove_pages(gone.instance);
        admin.extents.retain(|extent| !of_pair(extent));
        // The grants are gone since the event; now also those who had looked one up before.
        native::wait_for_readers();
        let request = ForgetPeerRequest {
            gid: gone.gid,
            instance: gone.instance,
        };
        let result = self.call(command::FORGET_PEER, &request.to_bytes(), &mut []);
        match result {
            Err(Failure::Status(status::BUSY)) => false,
            // "No" means that there is nothing to forget.
            Ok(()) | Err(Failure::Status(_)) => true,
            Err(_) => false,
        }
    }

    /// After the device has forgotten all DMBs, and their clients were told. Sleeps.
    pub(crate) fn forget_dmbs(&self) {
        drop(self.local.lock().take_pages());
        self.release_extents();
        let mut from = 0;
        loop {
            let mut local = self.local.lock();
            let Some(index) = local.next_used(from) else {
                return;
            };
            let place = local.free(index);
            drop(local);
            drop(place);
            from = index;
        }
    }

    /// Before the device is reset for good: waits a while for pipes, and drops the pages made
    /// for the window. Those that are held still are leaked, with a message. Sleeps.
    pub(crate) fn release_extents(&self) {
        let held = |admin: &AdminState| admin.extents.iter().any(|extent| extent.pages.held());
        for _ in 0..REMOVE_STEPS {
            if !held(&self.admin.lock()) {
                break;
            }
            native::sleep_ms(AGAIN_MS);
        }
        let mut admin = self.admin.lock();
        if held(&admin) {
            crate::device::log_err!(
                self,
                "pipes still hold pages of the window; their memory map stays until reboot"
            );
        }
        // The slow look and the reaper still run, and must not look where no pages are.
        self.local.lock().leave_window();
        admin.extents.clear();
    }
}
