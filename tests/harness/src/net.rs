// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The VMs' ordinary network: a bridge in a namespace of its own, or a socket between two VMs.
//!
//! Invariant: the namespace and all in it goes when the value is dropped.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::repo;

/// A network for VMs.
pub struct Net {
    dir: TempDir,
    bridge: bool,
    cards: RefCell<Vec<String>>,
}

/// How one VM is attached.
pub(crate) struct Attachment {
    /// Goes before QEMU's command line.
    pub(crate) prefix: Vec<String>,
    /// `qemu-scripts/vm --net`.
    pub(crate) argument: String,
    /// The VM's number in the network, from 1.
    pub(crate) number: usize,
}

impl Net {
    /// Tap devices on a bridge where this host permits it, else a stream netdev (two VMs only).
    pub fn create() -> Result<Self> {
        let dir = tempfile::tempdir().context("no temporary folder")?;
        let probe = Command::new(repo::script("net")).arg("probe").stderr(Stdio::null()).status();
        let bridge = probe.context("cannot start qemu-scripts/net")?.success();
        let net = Self { dir, bridge, cards: RefCell::default() };
        if bridge {
            net.script(&["create".into(), net.place()])?;
        }
        Ok(net)
    }

    /// How packets travel, for people.
    pub fn describe(&self) -> &'static str {
        if self.bridge { "virtio-net, tap + bridge" } else { "virtio-net, stream netdev" }
    }

    fn place(&self) -> String {
        self.dir.path().join("net").display().to_string()
    }

    fn script(&self, arguments: &[String]) -> Result<()> {
        let script = repo::script("net");
        let output = Command::new(script).args(arguments).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!("qemu-scripts/net {}: {why}", arguments.join(" "));
        }
        Ok(())
    }

    pub(crate) fn attach(&self, name: &str) -> Result<Attachment> {
        let known = self.cards.borrow().iter().position(|card| card == name);
        let number = known.map_or_else(|| self.cards.borrow().len() + 1, |index| index + 1);
        let attachment = if self.bridge {
            self.attach_tap(number, known.is_none())?
        } else {
            self.attach_stream(number)?
        };
        if known.is_none() {
            self.cards.borrow_mut().push(name.to_owned());
        }
        Ok(attachment)
    }

    /// A tap outlives its VM, for the next one of that name.
    fn attach_tap(&self, number: usize, new: bool) -> Result<Attachment> {
        let tap = format!("tap{number}");
        if new {
            self.script(&["tap".into(), self.place(), tap.clone()])?;
        }
        let net = repo::script("net").display().to_string();
        let prefix = vec![net, "run".into(), self.place(), "--".into()];
        Ok(Attachment { prefix, argument: format!("tap:{tap}"), number })
    }

    fn attach_stream(&self, number: usize) -> Result<Attachment> {
        let socket: PathBuf = self.dir.path().join("stream.sock");
        let end = match number {
            1 => "listen",
            2 => "connect",
            _ => bail!("no tap devices here, and a stream netdev joins only two VMs"),
        };
        let argument = format!("stream:{end}:{}", socket.display());
        Ok(Attachment { prefix: Vec::new(), argument, number })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.bridge {
            // An error leaves the namespace to the end of its holder; nothing more can be done.
            let _ = self.script(&["destroy".into(), self.place()]);
        }
    }
}
