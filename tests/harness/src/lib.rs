// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Boots fabrics, networks and VMs, and labs for processes, for tests, the demo and the benchmarks.
//!
//! Invariant: what a value of this crate started ends with it: processes, sockets, folders, network
//! namespaces, also after a panic or the death of this program.
//!
//! ```no_run
//! use ism_harness::{Fabric, Mode, Net, Vm, VmSpec};
//! # fn main() -> anyhow::Result<()> {
//! let fabric = Fabric::new(Mode::Mapped).member("a", &["lab"]).member("b", &["lab"]).start()?;
//! let net = Net::create()?;
//! let [a, b] = Vm::boot([VmSpec::new("a"), VmSpec::new("b")].map(|vm| vm.on(&fabric, &net)))?;
//! let server = a.spawn("smc_run iperf3 --server --one-off")?;
//! a.wait_listening(5201)?;
//! b.run(&format!("smc_run iperf3 --client {}", a.ip()))?;
//! # drop(server); Ok(())
//! # }
//! ```

mod fabric;
mod lab;
mod net;
mod process;
mod repo;
mod running;
mod vm;

pub use fabric::{Fabric, FabricSpec, Mode};
pub use lab::{Lab, LabSpec, Way};
pub use net::Net;
pub use process::Process;
pub use repo::programs;
pub use running::{Output, Running};
pub use vm::{Vm, VmSpec};
