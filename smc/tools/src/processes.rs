// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes under `smc-run`: finding them, and asking them.
//!
//! Invariant: what a process says is believed of its own sockets only; one that does not answer, or
//! answers nonsense, costs [`PATIENCE`] and is named, and the others are shown.
//!
//! Each listens on an abstract socket of its network namespace (`smc_snapshot`). Other namespaces are
//! looked into where this program may (root): abstract names are a namespace's own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use smc_snapshot::{Decoder, Snapshot};

/// How long one process is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The process that something belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// A process that has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub holder: Holder,
    /// What it has told.
    pub snapshot: Snapshot,
}

/// All processes that could be asked, and what went wrong with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Those that answered, by their numbers.
    pub told: Vec<Told>,
    /// What to tell the user.
    pub problems: Vec<String>,
}

/// A listening socket of the abstract name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listening {
    inode: u64,
    name: String,
}

/// Finds and asks all processes.
pub fn ask_all() -> Processes {
    let mut all = Processes::default();
    for (pid, listening) in holders() {
        let holder = Holder { pid, name: name(pid) };
        match ask(pid, &listening.name) {
            Ok(mut snapshot) => {
                let own = sockets_of(pid);
                snapshot.connections.retain(|connection| own.contains(&connection.inode));
                all.told.push(Told { holder, snapshot });
            }
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => all.problems.push(format!("process {pid} ({}): {error}", holder.name)),
        }
    }
    all
}

/// The processes with a socket that can be asked at. Of one which several have, the first is taken: a
/// child of fork has it for a moment.
fn holders() -> BTreeMap<u32, Listening> {
    let pids: Vec<u32> = pids().collect();
    let mut seen = BTreeSet::new();
    let mut listening = BTreeMap::new();
    for pid in &pids {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/net"));
        if namespace.is_ok_and(|namespace| seen.insert(namespace)) {
            let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
            listening.extend(names(&table).map(|it| (it.inode, it)));
        }
    }
    let mut holders = BTreeMap::new();
    for pid in pids {
        if listening.is_empty() {
            break;
        }
        let found = sockets_of(pid).into_iter().find_map(|inode| listening.remove(&inode));
        if let Some(found) = found {
            holders.insert(pid, found);
        }
    }
    holders
}

fn pids() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> =
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter()
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The inodes of the sockets that a process has; none if this program may not see them.
fn sockets_of(pid: u32) -> HashSet<u64> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    all.filter_map(|entry| socket_inode(fs::read_link(entry.path()).ok()?.to_str()?)).collect()
}

/// `socket:[123]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Our names in `/proc/net/unix`: of each line the fields are number, references, protocol, flags, type,
/// state, inode and name, an abstract one with `@` before it.
fn names(table: &str) -> impl Iterator<Item = Listening> {
    /// `__SO_ACCEPTCON`: it listens.
    const LISTENS: u32 = 0x1_0000;
    table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, _, _, flags, _, _, inode, name] = fields.as_slice() else { return None };
        let name = name.strip_prefix('@').filter(|it| it.starts_with(smc_snapshot::PREFIX))?;
        let listens = u32::from_str_radix(flags, 16).ok()? & LISTENS != 0;
        let inode = inode.parse().ok()?;
        listens.then(|| Listening { inode, name: name.to_owned() })
    })
}

fn namespace(pid: &str) -> io::Result<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net"))
}

/// Asks in the network namespace of the process.
fn ask(pid: u32, name: &str) -> io::Result<Snapshot> {
    if namespace(&pid.to_string())? == namespace("self")? {
        return ask_here(name);
    }
    let there = File::open(format!("/proc/{pid}/ns/net"))?;
    let asked = thread::scope(|scope| {
        let ask = || {
            move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
            ask_here(name)
        };
        // A thread of its own, which then ends: the namespace is a thread's.
        scope.spawn(ask).join()
    });
    asked.unwrap_or_else(|_| Err(io::Error::other("it could not be asked")))
}

fn ask_here(name: &str) -> io::Result<Snapshot> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    let slow = |_| io::Error::other("it does not answer (stopped, or busy with another question?)");
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?).map_err(|error| {
        let again = error == rustix::io::Errno::AGAIN;
        if again { slow(error) } else { error.into() }
    })?;
    read(&socket)
}

fn read(socket: &OwnedFd) -> io::Result<Snapshot> {
    let end = Instant::now() + PATIENCE;
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 << 10];
    let mut silent = true;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        set_socket_timeout(socket, Timeout::Recv, Some(left))?;
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) if silent => {
                return Err(io::Error::other("it does not answer this user"));
            }
            Ok((0, _)) => return decoder.finish().map_err(io::Error::other),
            Ok((n, _)) => {
                silent = false;
                let bytes = buffer.get(..n).unwrap_or_default();
                decoder.feed(bytes).map_err(io::Error::other)?;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                return Err(io::Error::other("it does not answer (stopped?)"));
            }
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= end {
            return Err(io::Error::other("it takes too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_kernels_table() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 4711 @smc-user/12.abc
0000000000000000: 00000003 00000000 00000000 0001 03 4712 @smc-user/12.abc
0000000000000000: 00000002 00000000 00010000 0001 01 4713 smc-user/13.abc
0000000000000000: 00000002 00000000 00010000 0001 01 4714 @other/13.abc
0000000000000000: 00000002 00000000 00000000 0002 01 4715
0000000000000000: 00000002 00000000 zzzz 0001 01 4716 @smc-user/12.abc
";
        let found: Vec<_> = names(table).collect();
        assert_eq!(found, [Listening { inode: 4711, name: "smc-user/12.abc".into() }]);
        assert_eq!(names("").count(), 0);
    }

    #[test]
    fn inodes_are_read_from_links() {
        assert_eq!(socket_inode("socket:[123]"), Some(123));
        for other in ["socket:[]", "socket:[12", "pipe:[12]", "/dev/null", ""] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }

    /// Whoever listens on such a name is asked, and what he may not say is not believed.
    #[test]
    fn a_process_is_believed_of_its_own_sockets_only() {
        use std::io::Write;
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};
        let name = smc_snapshot::address(std::process::id(), 1);
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let own = *sockets_of(std::process::id()).iter().next().unwrap();
        let text = format!(
            "{{\"record\":\"process\",\"version\":1}}\n\
             {{\"record\":\"connection\",\"inode\":{own}}}\n\
             {{\"record\":\"connection\",\"inode\":1}}\n{{\"record\":\"end\"}}\n"
        );
        let found = thread::scope(|scope| {
            scope.spawn(|| {
                listener.accept().unwrap().0.write_all(text.as_bytes()).unwrap();
            });
            ask_all()
        });
        let of = |told: &&Told| told.holder.pid == std::process::id();
        let told = found.told.iter().find(of).expect("it answered");
        let inodes: Vec<_> = told.snapshot.connections.iter().map(|it| it.inode).collect();
        assert_eq!(inodes, [own]);
    }
}
