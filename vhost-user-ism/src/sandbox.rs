// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the process gives up before it serves a guest: privileges, files, the network.
//!
//! Invariant: entered by the main thread before it makes another one, because each thread has its
//! own credentials and Landlock domain and inherits those of its maker.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// The newest Landlock that the rules below are written for; older kernels enforce a part.
const LANDLOCK: ABI = ABI::V6;

/// What could not be given up.
#[derive(Debug)]
pub enum Error {
    /// Capabilities or no_new_privs.
    Privileges(rustix::io::Errno),
    /// The Landlock rules.
    Rules(landlock::RulesetError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privileges(error) => write!(f, "sandbox: dropping privileges: {error}"),
            Self::Rules(error) => write!(f, "sandbox: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// Gives up every capability, every way to get one back, TCP, and all files but for making and
/// removing sockets in `socket_directories`. Descriptors that are open stay usable.
///
/// # Errors
/// What could not be given up. A kernel without Landlock is no error, and is logged.
pub fn enter(socket_directories: &BTreeSet<PathBuf>) -> Result<(), Error> {
    drop_privileges().map_err(Error::Privileges)?;
    let status = restrict_files(socket_directories).map_err(Error::Rules)?;
    match status {
        RulesetStatus::FullyEnforced => log::debug!("sandbox: complete"),
        RulesetStatus::PartiallyEnforced => log::debug!("sandbox: as far as this kernel goes"),
        RulesetStatus::NotEnforced => log::warn!("sandbox: this kernel has no Landlock"),
    }
    Ok(())
}

fn drop_privileges() -> Result<(), rustix::io::Errno> {
    set_no_new_privs(true)?;
    for capability in CapabilitySet::all().iter() {
        // Without CAP_SETPCAP, or for a capability the kernel does not know, there is nothing to
        // give up: no_new_privs already keeps a program that is run from gaining it.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn restrict_files(
    socket_directories: &BTreeSet<PathBuf>,
) -> Result<RulesetStatus, landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let sockets: BitFlags<AccessFs> = AccessFs::MakeSock | AccessFs::RemoveFile;
    for directory in socket_directories {
        match PathFd::new(directory) {
            Ok(opened) => rules = rules.add_rule(PathBeneath::new(opened, sockets))?,
            Err(error) => log::warn!("sandbox: no sockets in {}: {error}", directory.display()),
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What a thread that entered the sandbox can still do.
    #[test]
    fn files_and_network_are_out_of_reach_and_sockets_are_not() {
        let dir = std::env::temp_dir().join(format!("vui-sandbox-{}", std::process::id()));
        let other = dir.join("other");
        std::fs::create_dir_all(&other).expect("directories");
        let allowed = dir.join("allowed");
        std::fs::create_dir_all(&allowed).expect("directory");
        let (inside, outside) = (allowed.join("s"), other.join("s"));
        // The domain is this thread's alone, so the test runner keeps its rights.
        let thread = std::thread::spawn(move || {
            enter(&BTreeSet::from([allowed])).expect("sandbox");
            let landlocked = std::fs::File::open("/etc/passwd").is_err();
            let sockets =
                UnixListener::bind(&inside).is_ok() && std::fs::remove_file(&inside).is_ok();
            let elsewhere = UnixListener::bind(&outside).is_err();
            let tcp = std::net::TcpListener::bind("127.0.0.1:0").is_err();
            let program = std::process::Command::new("/bin/true").spawn().is_err();
            let extent = crate::memory::Extent::new("test", 1 << 20);
            let punched = extent.and_then(|extent| extent.punch(0, 4096)).is_ok();
            let links = std::fs::read_link("/proc/self/fd/0").is_ok();
            [landlocked, sockets, elsewhere, tcp, program, punched, links]
        });
        let results = thread.join().expect("thread");
        let _ = std::fs::remove_dir_all(&dir);
        assert_eq!(results, [true; 7], "open, sockets, elsewhere, tcp, exec, memory, proc");
    }
}
