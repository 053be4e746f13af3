// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `/proc` says: network namespaces, the names in them, and a process's user and sockets.
//!
//! Invariant: bytes, not text, for any user may bind a socket to a name of any bytes, a line's end among
//! them. So a line here is no more than a place where it may be worth asking.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;
use std::{io, str};

/// Bytes that are read of one namespace's table: half a million sockets.
const MOST_OF_TABLE: u64 = 64 << 20;

/// A network namespace.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// A process in it.
    pub(super) pid: u32,
    /// Whether it is this program's.
    pub(super) here: bool,
    /// Names on which somebody may answer.
    pub(super) names: BTreeSet<String>,
}

/// The network namespaces that may be looked into, with the names in each.
pub(super) fn places() -> Vec<Place> {
    let mut seen = BTreeSet::new();
    let own = namespace("self").ok();
    let mut places = Vec::new();
    for pid in pids() {
        let Ok(namespace) = namespace(&pid.to_string()) else { continue };
        if seen.contains(&namespace) {
            continue;
        }
        // If the process has ended, another one in its namespace is tried.
        let Ok(table) = table(pid) else { continue };
        let here = Some(&namespace) == own.as_ref();
        seen.insert(namespace);
        places.push(Place { pid, here, names: names(&table).collect() });
    }
    places
}

fn namespace(pid: &str) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net"))
}

fn pids() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn table(pid: u32) -> io::Result<Vec<u8>> {
    let mut table = Vec::new();
    File::open(format!("/proc/{pid}/net/unix"))?.take(MOST_OF_TABLE).read_to_end(&mut table)?;
    Ok(table)
}

/// Our names in `/proc/net/unix`: of each line the fields are number, references, protocol, flags, type,
/// state, inode and name, an abstract one with `@` before it.
fn names(table: &[u8]) -> impl Iterator<Item = String> {
    /// `__SO_ACCEPTCON`: it listens.
    const LISTENS: u32 = 0x1_0000;
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        let flags = str::from_utf8(fields.nth(3)?).ok()?;
        let name = str::from_utf8(fields.nth(3)?).ok()?.strip_prefix('@')?;
        let listens = u32::from_str_radix(flags, 16).ok()? & LISTENS != 0;
        (listens && fields.next().is_none() && is_ours(name)).then(|| name.to_owned())
    })
}

/// As `smc_snapshot::address` makes them.
fn is_ours(name: &str) -> bool {
    let parts = name.strip_prefix(smc_snapshot::PREFIX).and_then(|name| name.split_once('.'));
    parts.is_some_and(|(pid, distinct)| {
        pid.parse::<u32>().is_ok() && u64::from_str_radix(distinct, 16).is_ok()
    })
}

/// What a process calls itself.
pub(super) fn name(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned()
}

/// Whether a process is, or was, a user's: real, effective, saved, and for files.
pub(super) fn is_of(pid: u32, uid: u32) -> bool {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    users(&String::from_utf8_lossy(&status)).any(|user| user == uid)
}

/// The users in `/proc/PID/status`, in which the kernel lets no name end a line.
fn users(status: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.into_iter().flat_map(str::split_whitespace).filter_map(|uid| uid.parse().ok())
}

/// The inodes of the sockets that a process has.
///
/// # Errors
/// It has ended, this program may not see them, or there are more than can be looked at until `end`.
pub(super) fn sockets_of(pid: u32, end: Instant) -> io::Result<HashSet<u64>> {
    let mut sockets = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        if Instant::now() >= end {
            return Err(io::Error::other("it has too many descriptors to be looked at in time"));
        }
        let link = entry.and_then(|entry| fs::read_link(entry.path()));
        sockets.extend(link.ok().and_then(|link| socket_inode(link.to_str()?)));
    }
    Ok(sockets)
}

/// `socket:[123]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(table: &[u8]) -> Vec<String> {
        names(table).collect()
    }

    #[test]
    fn names_are_found_in_the_kernels_table() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 4711 @smc-user/12.abc
0000000000000000: 00000003 00000000 00000000 0001 03  412 @smc-user/13.abc
0000000000000000: 00000002 00000000 00010000 0001 01   13 @smc-user/14.abc
0000000000000000: 00000002 00000000 00010000 0001 01 4713 smc-user/15.abc
0000000000000000: 00000002 00000000 00010000 0001 01 4714 @other/16.abc
0000000000000000: 00000002 00000000 00000000 0002 01 4715
0000000000000000: 00000002 00000000 zzzz 0001 01 4716 @smc-user/17.abc
";
        assert_eq!(found(table.as_bytes()), ["smc-user/12.abc", "smc-user/14.abc"]);
        assert_eq!(found(b""), [""; 0]);
    }

    /// One that nobody can read hides nothing, and one like ours is no name of ours.
    #[test]
    fn strange_names_hide_no_other() {
        let listens = b"0: 00000002 00000000 00010000 0001 01 4711 @";
        let line = |name: &[u8]| [listens, name, b"\n"].concat();
        let table = [
            line(b"\xff\xfe"),
            line(b"smc-user/1.\xff"),
            line(b"smc-user/1.a b"),
            line(b"smc-user/\x1b[2J.a"),
            line(b"smc-user/1"),
            line(b"smc-user/1.g"),
            line(b"smc-user/2.abc"),
        ];
        assert_eq!(found(&table.concat()), ["smc-user/2.abc"]);
    }

    #[test]
    fn inodes_are_read_from_links() {
        assert_eq!(socket_inode("socket:[123]"), Some(123));
        for other in ["socket:[]", "socket:[12", "pipe:[12]", "/dev/null", ""] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }

    #[test]
    fn users_are_read_from_the_status() {
        let status = "Name:\tUid:\\n7\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        assert_eq!(users(status).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(users("").count(), 0);
        assert!(is_of(std::process::id(), rustix::process::getuid().as_raw()));
    }
}
