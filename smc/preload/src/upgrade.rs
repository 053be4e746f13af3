// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which TCP connections are looked at: at listen, accept and connect.
//!
//! Invariant: a connection whose peer has not said that it speaks SMC is left alone from the start.

use std::ffi::c_int;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{getsockname, ipproto, sockopt};
use smc_snapshot::reason;
use smc_socket::Role;

use crate::descriptor::borrow;
use crate::fallen;
use crate::meeting::Meeting;
use crate::process;
use crate::settings::SETTINGS;
use crate::sock::{Sock, Stage, is_nonblocking};
use crate::table::{self, File};

/// Whether a descriptor is a TCP socket.
pub(crate) fn is_tcp(fd: c_int) -> bool {
    sockopt::socket_protocol(borrow(fd)).is_ok_and(|it| it == Some(ipproto::TCP))
}

/// The address in the bytes of a `sockaddr_in` or `sockaddr_in6`.
pub(crate) fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match c_int::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some((Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            Some((Ipv6Addr::from(ip).to_canonical(), port).into())
        }
        _ => None,
    }
}

fn local(fd: c_int) -> Option<SocketAddr> {
    let address = SocketAddr::try_from(getsockname(borrow(fd)).ok()?).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn watch(fd: c_int, sock: Sock) -> Arc<File> {
    let file = Arc::new(File::Sock(sock));
    table::set(fd, Some(Arc::clone(&file)));
    file
}

/// Before listen(2), or when more may have become possible since.
pub(crate) fn listen(fd: c_int) {
    if let Some(local) = local(fd).filter(|_| is_tcp(fd)) {
        let answered = process::answer(borrow(fd), local);
        fallen::listener(fd, answered.err().unwrap_or(0));
    }
}

/// `fd` was accepted from `listener`.
pub(crate) fn accepted(listener: c_int, fd: c_int, nonblocking: bool) {
    let known = fallen::listener_at(listener);
    if known.is_none() && !is_tcp(fd) {
        return;
    }
    process::look_for_daemon();
    let is_proposed = || !SETTINGS.forced_tcp && process::peer_speaks_smc(borrow(fd));
    if !process::listens() && is_proposed() {
        // Who has passed it on has marked it, or another process that has it did so later: the peer proposes.
        process::has_listener();
    }
    if process::listens() && process::peer_speaks_smc(borrow(fd)) {
        let file = watch(fd, Sock::new(fd, Role::Server, Stage::Fresh, nonblocking));
        return process::mind(&file, false);
    }
    let is_called =
        || local(fd).is_some_and(|local| process::is_called(borrow(fd), listener, local));
    if process::listens() && is_called() {
        let sock = Sock::new(fd, Role::Server, Stage::Fresh, nonblocking);
        return process::mind(&watch(fd, sock.with_meeting(Meeting::of_server())), false);
    }
    let why = match known {
        Some(0) => process::why_not(borrow(fd)),
        Some(why) => why,
        None => reason::LATE,
    };
    fallen::connection(fd, Role::Server, why.into());
    if known.is_some_and(|why| process::is_served_by_now(borrow(fd), listener, why)) {
        // The next client's connection may be SMC's.
        listen(listener);
    }
}

/// `fd` was accepted, and not used, by the program that executed this one.
pub(crate) fn inherited(fd: c_int) -> Arc<File> {
    watch(fd, Sock::new(fd, Role::Server, Stage::Fresh, is_nonblocking(fd)))
}

/// `fd` is a further descriptor of it.
pub(crate) fn inherited_again(fd: c_int, file: &Arc<File>) {
    if let File::Sock(sock) = &**file {
        sock.add_number(fd);
        table::set(fd, Some(Arc::clone(file)));
    }
}

/// connect(2) to an address, if it is one of IP.
///
/// # Errors
/// What `real` says.
pub(crate) fn connect(
    fd: c_int,
    peer: Option<SocketAddr>,
    real: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    if table::is_known(fd) {
        return real();
    }
    let peer = peer.filter(|_| table::may_be_tcp(fd) || is_tcp(fd));
    let Some(peer) = peer else { return real() };
    process::look_for_daemon();
    let local = process::has_rules().then(|| local(fd)).flatten();
    let local = local.filter(|it| it.port() != 0 && !it.ip().is_unspecified());
    let offered = process::offer(borrow(fd), local, peer);
    let result = real();
    let errno = result.as_ref().err().map(|error| Errno::from_io_error(error).unwrap_or(Errno::IO));
    let asked = offered.as_ref().is_err_and(|refused| refused.asked);
    let (offered, meeting) = match offered {
        Ok(call) => (Ok(()), call.map(Meeting::of_client)),
        Err(refused) => (Err(refused.why), None),
    };
    // Where nobody is at all, somebody may listen soon. Of others nothing is asked: they may be what keeps this process
    // from having anything of the library's.
    if errno.is_none()
        && asked
        && let Some(meetings) = process::meetings()
    {
        meetings.is_stranger(peer);
    }
    let speaks = || meeting.is_some() || process::peer_speaks_smc(borrow(fd));
    let stage = match (errno, offered) {
        (None, Ok(())) if speaks() => Stage::Fresh,
        (Some(Errno::INPROGRESS | Errno::INTR), Ok(())) => Stage::Connecting,
        (None, Ok(())) => {
            fallen::connection(fd, Role::Client, process::why_not(borrow(fd)).into());
            return result;
        }
        // Counted even if it is not connected in the end: nobody would look again.
        (None | Some(Errno::INPROGRESS | Errno::INTR), Err(why)) => {
            fallen::connection(fd, Role::Client, why.into());
            return result;
        }
        (Some(_), _) => return result,
    };
    let mut sock = Sock::new(fd, Role::Client, stage, is_nonblocking(fd));
    if let Some(meeting) = meeting {
        sock = sock.with_meeting(meeting);
    }
    let file = watch(fd, sock);
    let mut searches = false;
    if let File::Sock(sock) = &*file {
        // The proposal goes out while the program does what it does next.
        match stage {
            Stage::Fresh => sock.go_on(&file),
            _ => sock.begin_soon(&file),
        }
        searches = sock.is_searched();
    }
    process::mind(&file, stage == Stage::Connecting && searches);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read_and_others_are_not() {
        let mut v4 = [0; 16];
        v4[..2].copy_from_slice(&2_u16.to_ne_bytes());
        v4[2..8].copy_from_slice(&[0x1f, 0x90, 192, 0, 2, 1]);
        assert_eq!(address(&v4), Some("192.0.2.1:8080".parse().unwrap()));
        let mut v6 = [0; 28];
        v6[..2].copy_from_slice(&10_u16.to_ne_bytes());
        v6[2..4].copy_from_slice(&[0, 80]);
        v6[23] = 1;
        assert_eq!(address(&v6), Some("[::1]:80".parse().unwrap()));
        v6[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(address(&v6), Some("192.0.2.1:80".parse().unwrap()));
        assert_eq!(address(&v6[..20]), None);
        assert_eq!(address(&[1, 0, b'/', b'x']), None);
        assert_eq!(address(&[]), None);
    }
}
