// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Loads the discovery programs and attaches them to a cgroup.
//!
//! Invariant: what is attached ends with its [`Attached`]: nothing is pinned.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod cli;
mod error;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::HashMap;
use aya::programs::{CgroupAttachMode, CgroupSockopt, SockOps};
use aya::{Ebpf, include_bytes_aligned};
use rustix::fs::{FlockOperation, flock, fstatfs};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};

pub use error::Error;

/// The three programs and two maps of `../bpf/discovery.bpf.c`, compiled by `../bpf/build`.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/discovery.bpf.o");

#[cfg(target_endian = "big")]
compile_error!("discovery.bpf.o is little-endian: compile it with `-target bpfeb` as well");

/// Its programs.
const SOCKOPS: &str = "discovery_sockops";
const SET: &str = "discovery_set";
const GET: &str = "discovery_get";

/// Beside whatever else is attached: a link is so by itself, and takes no flag that says it.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

/// `CGROUP2_SUPER_MAGIC`, by which statfs names the file system.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// `struct place`, of which only the number is of interest here.
type Place = [u8; 32];

/// The programs, at work for every socket that was made in a cgroup or in those below it.
#[derive(Debug)]
pub struct Attached {
    /// Owns the maps, the programs and their links to the cgroup.
    object: Ebpf,
    /// Locked, for others to see that somebody serves it.
    _cgroup: File,
    /// Nobody served it before.
    is_first: bool,
}

impl Attached {
    /// Loads the programs and attaches them to the cgroup at `path`, beside whatever else is there.
    ///
    /// # Errors
    ///
    /// Without the privileges, on a path that is no cgroup of version 2, and if the kernel refuses a program: each
    /// says what to do next.
    pub fn attach(path: &Path) -> Result<Self, Error> {
        let cgroup = cgroup2(path)?;
        privileges()?;
        let is_first = lock(&cgroup);
        let mut object = Ebpf::load(OBJECT).map_err(Error::load)?;
        // Those that are asked last, so that nobody learns of a service that is not complete.
        sockops(&mut object, &cgroup)?;
        sockopt(&mut object, GET, &cgroup)?;
        sockopt(&mut object, SET, &cgroup)?;
        Ok(Self { object, _cgroup: cgroup, is_first })
    }

    /// Whether nobody served this very cgroup when this one began. Two do no harm, and one is enough.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// At how many places (network namespace, address, port) marked sockets listen.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn listeners(&self) -> Result<usize, Error> {
        let map = self.object.map("listeners").ok_or(Error::Object)?;
        let map: HashMap<_, Place, u32> = map.try_into().map_err(Error::Map)?;
        map.keys().try_fold(0, |count, key| key.map(|_| count + 1).map_err(Error::Map))
    }
}

fn cgroup2(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::NoCgroup { path: path.into(), source };
    let cgroup = File::open(path).map_err(failed)?;
    if fstatfs(&cgroup).map_err(|errno| failed(errno.into()))?.f_type != CGROUP2_MAGIC {
        return Err(Error::NotCgroup2 { path: path.into() });
    }
    Ok(cgroup)
}

/// Locks the cgroup for as long as it is open; whether nobody else had. Who serves it has a shared lock, which a
/// process that wants the whole is refused. Whoever may read the folder can have it too, so this is good for a word to
/// the user and for nothing else.
fn lock(cgroup: &File) -> bool {
    let whole = flock(cgroup, FlockOperation::NonBlockingLockExclusive);
    // Fails if another has just begun and holds the whole: then the next one is not told of this one.
    let _ = flock(cgroup, FlockOperation::NonBlockingLockShared);
    whole != Err(Errno::WOULDBLOCK)
}

/// Says what is missing before the kernel says only EPERM.
fn privileges() -> Result<(), Error> {
    let has = capabilities(None).map_err(|errno| Error::Capabilities(errno.into()))?.effective;
    let may_load = has.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    let may_attach = has.intersects(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN);
    match (may_load, may_attach) {
        (true, true) => Ok(()),
        (false, true) => Err(Error::Privileges { missing: "CAP_BPF" }),
        (true, false) => Err(Error::Privileges { missing: "CAP_NET_ADMIN" }),
        (false, false) => Err(Error::Privileges { missing: "CAP_BPF and CAP_NET_ADMIN" }),
    }
}

fn sockops(object: &mut Ebpf, cgroup: impl AsFd) -> Result<(), Error> {
    let refused = |source| Error::program(SOCKOPS, source);
    let program: &mut SockOps =
        object.program_mut(SOCKOPS).ok_or(Error::Object)?.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    program.attach(cgroup, MODE).map_err(refused)?;
    Ok(())
}

fn sockopt(object: &mut Ebpf, name: &'static str, cgroup: impl AsFd) -> Result<(), Error> {
    let refused = |source| Error::program(name, source);
    let program: &mut CgroupSockopt =
        object.program_mut(name).ok_or(Error::Object)?.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    program.attach(cgroup, MODE).map_err(refused)?;
    Ok(())
}
