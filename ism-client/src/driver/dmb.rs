// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DMBs as their owner and as their writer hold them.
//!
//! Invariant: memory is reachable through them as long as they live, dead or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ism_abi::Gid;
use smc_ring::View;

use super::Device;
use super::peer::Peer;
use crate::error::Result;
use crate::port::Registered;

/// An own DMB; unregistered when dropped.
#[derive(Debug)]
pub struct Dmb {
    device: Device,
    /// Held as long as the DMB, so that the fabric is not told to forget it before.
    _peer: Arc<Peer>,
    index: u32,
    registered: Registered,
}

impl Dmb {
    pub(super) fn new(device: Device, peer: Arc<Peer>, index: u32, registered: Registered) -> Self {
        Self { device, _peer: peer, index, registered }
    }

    /// What the writer names it by.
    pub fn token(&self) -> u64 {
        self.registered.token
    }

    /// What signals name it by.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its bytes, which the writer may change at any time.
    pub fn memory(&self) -> &View {
        &self.registered.memory
    }
}

impl Drop for Dmb {
    fn drop(&mut self) {
        self.device.0.unregister(self.registered.token, self.index);
    }
}

/// A granted DMB, in the writer's table.
#[derive(Debug)]
pub(super) struct Grant {
    token: u64,
    index: u32,
    memory: View,
    peer: Arc<Peer>,
    dead: AtomicBool,
}

impl Grant {
    pub(super) fn new(token: u64, index: u32, memory: View, peer: Arc<Peer>) -> Self {
        Self { token, index, memory, peer, dead: AtomicBool::new(false) }
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Its owner ended it, or is gone.
    pub(super) fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

/// A peer's DMB that this member may write.
#[derive(Debug)]
pub struct Remote {
    device: Device,
    grant: Arc<Grant>,
    attached: bool,
}

impl Remote {
    pub(super) fn new(device: Device, grant: Arc<Grant>) -> Self {
        Self { device, grant, attached: false }
    }

    /// Its name.
    pub fn token(&self) -> u64 {
        self.grant.token
    }

    /// Its owner.
    pub fn owner(&self) -> Gid {
        self.grant.peer.gid()
    }

    /// Its bytes. Those written after its owner ended it are lost, or fall into a later DMB of the same
    /// two members, unless it is attached.
    pub fn memory(&self) -> &View {
        &self.grant.memory
    }

    /// Its owner ended it, or is gone.
    pub fn is_dead(&self) -> bool {
        self.grant.dead.load(Ordering::Relaxed) || self.device.is_gone()
    }

    /// Keeps its memory from being used again as long as this lives. A request to the fabric.
    ///
    /// # Errors
    /// It is dead.
    pub fn attach(&mut self) -> Result<()> {
        if !self.attached {
            self.device.0.port.attach(self.token())?;
            self.attached = true;
        }
        Ok(())
    }

    /// Whether its owner can be rung without the fabric.
    pub fn has_bell(&self) -> bool {
        self.grant.peer.bell().is_some()
    }

    /// This process is a child of fork of the one that joined: from now on its device rings bells only, and that of
    /// a peer that has not been heard yet too. To be called before anything else.
    pub fn in_child(&self) {
        self.device.0.in_child.store(true, Ordering::Relaxed);
    }

    /// Tells the owner that it was written: sets its bit, and rings if the owner sleeps. A dead one's owner
    /// is not told.
    ///
    /// # Errors
    /// The device is gone.
    pub fn signal(&self) -> Result<()> {
        let grant = &self.grant;
        // Asked first: whom `raise` finds asleep is marked as rung, for all DMBs of the pair.
        if !self.is_dead() && grant.peer.raise(grant.index) {
            self.device.0.ring(&grant.peer, grant.token)?;
        }
        Ok(())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.attached {
            // Fails if the device is gone, and then nothing is left to undo.
            let _ = self.device.0.port.detach(self.grant.token);
        }
    }
}
