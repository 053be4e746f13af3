// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can be in the way of attaching, and what to do about it.
//!
//! Invariant: each message names the next step.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::programs::ProgramError;
use rustix::system::uname;

/// Why the programs are not attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process may not load or attach.
    #[error(
        "{missing}: missing, and attaching a program to a cgroup takes both CAP_BPF and CAP_NET_ADMIN.\n\
         Run it as root, or by systemd with AmbientCapabilities=CAP_BPF CAP_NET_ADMIN; in a container, add both \
         (--cap-add BPF --cap-add NET_ADMIN)"
    )]
    Privileges {
        /// The capabilities that are not in the effective set.
        missing: &'static str,
    },
    /// The capabilities could not be read.
    #[error("this process's capabilities cannot be read: {0}")]
    Capabilities(io::Error),
    /// No cgroup file system of version 2.
    #[error(
        "no cgroup file system of version 2 is mounted.\n\
         Mount it (it works beside version 1): mount -t cgroup2 none /sys/fs/cgroup/unified; or name one by --cgroup"
    )]
    NoCgroup2,
    /// The path cannot be opened.
    #[error(
        "the cgroup {path} cannot be opened: {source}.\n\
         `findmnt -t cgroup2` shows where such folders are: make one there by mkdir, or name another by --cgroup"
    )]
    NoCgroup {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path is something else.
    #[error(
        "{path} is not in a cgroup file system of version 2, and programs attach to nothing else.\n\
         `findmnt -t cgroup2` shows where it is mounted; name a folder there by --cgroup"
    )]
    NotCgroup2 {
        /// As given.
        path: PathBuf,
    },
    /// The kernel does not take the object's maps.
    #[error(
        "Linux {release} does not take the maps: {}.\n\
         Linux 5.15 or newer is needed, with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_INET; with the right \
         kernel and privileges, look for a seccomp filter or lockdown mode that forbids bpf(2)",
        causes(source)
    )]
    Load {
        /// The running kernel's.
        release: String,
        /// What aya says.
        source: Box<EbpfError>,
    },
    /// The kernel does not take a program.
    #[error(
        "Linux {release} refuses the program {program}: {}.\n\
         Linux 5.15 or newer is needed, with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_INET. EPERM in spite of \
         CAP_BPF and CAP_NET_ADMIN means that a program above or below this cgroup allows no other beside it \
         (`bpftool cgroup tree` shows it)",
        causes(source)
    )]
    Program {
        /// Its name in the object.
        program: &'static str,
        /// The running kernel's.
        release: String,
        /// What aya says, with the verifier's log.
        source: Box<ProgramError>,
    },
    /// A map of an attached program cannot be read.
    #[error("the list of listeners cannot be read: {0}")]
    Map(aya::maps::MapError),
    /// The object in this binary lacks a program.
    #[error("this binary's BPF object lacks a program.\nCompile it anew: smc/discovery/bpf/build")]
    Object,
}

/// An error and what caused it, which aya's own messages leave out.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

impl Error {
    pub(crate) fn load(source: EbpfError) -> Self {
        Self::Load { release: release(), source: Box::new(source) }
    }

    pub(crate) fn program(program: &'static str, source: ProgramError) -> Self {
        Self::Program { program, release: release(), source: Box::new(source) }
    }
}
