// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the program passes on to other processes, by SCM_RIGHTS or to a program that it executes.
//!
//! Invariant: whose listener has said in TCP's handshake that it speaks SMC sees to it that nobody else reads the
//! proposal that comes of it. A child of vfork changes nothing that its parent knows of connections, and takes no lock.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use rustix::fs::{Mode, OFlags, RawDir, fstat, open};
use rustix::io::{Errno, FdFlags, fcntl_getfd};

use crate::decline::decline;
use crate::descriptor::borrow;
use crate::{inherited, minder, process, table};

/// Bytes of a `struct cmsghdr`, and what the next one is aligned to.
const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGNED: usize = align_of::<libc::cmsghdr>();

/// Before a message with this control data is sent.
///
/// # Errors
/// One of the descriptors cannot be passed on.
pub(crate) fn sends(control: &[u8]) -> Result<(), Errno> {
    let mut result = Ok(());
    rights(control, |fd| {
        let passed = table::get(fd).map(|file| match &*file {
            table::File::Sock(sock) => {
                if sock.is_server() {
                    // Those that it accepts later are left alone until it passes them on as well.
                    minder::has_forked();
                }
                sock.pass_on(&file)
            }
            table::File::Epoll(_) => Ok(()),
        });
        result = result.and(passed.unwrap_or(Ok(())));
    });
    result
}

/// The descriptors in control data. What is not well formed is the kernel's to refuse.
fn rights(mut control: &[u8], mut each: impl FnMut(c_int)) {
    let number = |at: usize, bytes: &[u8]| {
        bytes.get(at..).and_then(|it| it.first_chunk()).map(|it| c_int::from_ne_bytes(*it))
    };
    while let Some(len) = control.first_chunk().map(|it| usize::from_ne_bytes(*it)) {
        let Some(data) = control.get(HEADER..len) else { return };
        if number(8, control) == Some(libc::SOL_SOCKET)
            && number(12, control) == Some(libc::SCM_RIGHTS)
        {
            data.as_chunks().0.iter().for_each(|it| each(c_int::from_ne_bytes(*it)));
        }
        control = control.get(len.next_multiple_of(ALIGNED)..).unwrap_or_default();
    }
}

/// Before another program is executed that this library will not be in: connections that were accepted, and that
/// nobody has used, are its own.
pub(crate) fn executes() {
    let Ok(folder) = open("/proc/self/fd", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return;
    };
    let mut room = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(folder, &mut room);
    let mut declined = Sockets::default();
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_str().ok();
        let Some(fd) = name.and_then(|name| name.parse().ok()) else { continue };
        let is_kept = fcntl_getfd(borrow(fd)).is_ok_and(|it| !it.contains(FdFlags::CLOEXEC));
        // Often it is standard input and output at once, and a client that is silent is waited for once.
        if is_kept && inherited::is_proposed(fd) && declined.is_new(fd) {
            if process::is_borrowed() {
                minder::has_forked();
            }
            decline(borrow(fd));
        }
    }
}

/// Sockets, by their inodes, without memory of the heap's: no more than it has room for.
#[derive(Default)]
struct Sockets {
    inodes: [u64; 16],
    len: usize,
}

impl Sockets {
    /// Whether a descriptor is one of a socket that was not asked for before.
    fn is_new(&mut self, fd: c_int) -> bool {
        let Ok(inode) = fstat(borrow(fd)).map(|stat| stat.st_ino) else { return true };
        if self.inodes.iter().take(self.len).any(|it| *it == inode) {
            return false;
        }
        if let Some(room) = self.inodes.get_mut(self.len) {
            (*room, self.len) = (inode, self.len + 1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn descriptors_of_one_socket_are_new_once() {
        let mut sockets = Sockets::default();
        let all: Vec<_> = (0..20).filter_map(|_| UdpSocket::bind("127.0.0.1:0").ok()).collect();
        assert_eq!(all.len(), 20);
        assert!(all.iter().all(|it| sockets.is_new(it.as_raw_fd())));
        let copies: Vec<_> = all.iter().filter_map(|it| it.try_clone().ok()).collect();
        let again = copies.iter().map(|it| sockets.is_new(it.as_raw_fd()));
        // What there is no room for is asked for again.
        assert_eq!(again.filter(|is_new| !is_new).count(), 16);
    }

    fn control(parts: &[(c_int, &[c_int])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, fds) in parts {
            bytes.extend((HEADER + 4 * fds.len()).to_ne_bytes());
            bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            fds.iter().for_each(|fd| bytes.extend(fd.to_ne_bytes()));
            bytes.resize(bytes.len().next_multiple_of(ALIGNED), 0);
        }
        bytes
    }

    fn found(control: &[u8]) -> Vec<c_int> {
        let mut found = Vec::new();
        rights(control, |fd| found.push(fd));
        found
    }

    #[test]
    fn descriptors_are_found_among_other_control_data_and_lies_end_it() {
        let rights = libc::SCM_RIGHTS;
        let all =
            control(&[(rights, &[1, 2, 3]), (libc::SCM_CREDENTIALS, &[4, 5, 6]), (rights, &[7])]);
        assert_eq!(found(&all), [1, 2, 3, 7]);
        // As C programs have it, without what would align the next one.
        assert_eq!(found(&all[..all.len() - 4]), [1, 2, 3, 7]);
        assert!(found(&[]).is_empty());
        let mut lie = all.clone();
        lie[..8].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert!(found(&lie).is_empty());
        lie[..8].copy_from_slice(&0_usize.to_ne_bytes());
        assert!(found(&lie).is_empty());
    }
}
