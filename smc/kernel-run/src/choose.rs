// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which sockets become SMC sockets.
//!
//! Invariant: only what is a TCP socket for certain; everything else is left alone.

use std::ffi::c_int;

/// include/linux/socket.h; newer than the libc crate.
const AF_SMC: c_int = 43;
/// include/net/smc.h: SMC over IPv4 and over IPv6.
const SMCPROTO_SMC: c_int = 0;
const SMCPROTO_SMC6: c_int = 1;
/// The type without SOCK_NONBLOCK and SOCK_CLOEXEC (include/linux/net.h).
const SOCK_TYPE_MASK: c_int = 0xf;

/// What to ask the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// What the program asked for.
    Unchanged,
    /// An SMC socket, with the program's type.
    Smc { domain: c_int, protocol: c_int },
}

/// Decides by the arguments of socket(2).
pub(crate) fn choose(domain: c_int, kind: c_int, protocol: c_int) -> Choice {
    let stream = kind & SOCK_TYPE_MASK == libc::SOCK_STREAM;
    if !stream || !matches!(protocol, 0 | libc::IPPROTO_TCP) {
        return Choice::Unchanged;
    }
    match domain {
        libc::AF_INET => Choice::Smc { domain: AF_SMC, protocol: SMCPROTO_SMC },
        libc::AF_INET6 => Choice::Smc { domain: AF_SMC, protocol: SMCPROTO_SMC6 },
        _ => Choice::Unchanged,
    }
}

/// Whether an error says that the kernel has no SMC (or none over IPv6), as against one that a
/// TCP socket would have met too, such as too many open files.
pub(crate) fn falls_back(errno: c_int) -> bool {
    matches!(errno, libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{
        AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK,
        SOCK_STREAM,
    };

    #[test]
    fn tcp_sockets_become_smc_sockets() {
        let v4 = Choice::Smc { domain: 43, protocol: 0 };
        let v6 = Choice::Smc { domain: 43, protocol: 1 };
        assert_eq!(choose(AF_INET, SOCK_STREAM, 0), v4);
        assert_eq!(choose(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP), v4);
        assert_eq!(choose(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), v6);
        assert_eq!(choose(AF_INET6, SOCK_STREAM, IPPROTO_TCP), v6);
    }

    #[test]
    fn everything_else_is_left_alone() {
        const IPPROTO_SCTP: c_int = 132;
        const IPPROTO_MPTCP: c_int = 262;
        for (domain, kind, protocol) in [
            (AF_UNIX, SOCK_STREAM, 0),
            (AF_INET, SOCK_DGRAM, 0),
            (AF_INET, libc::SOCK_RAW, IPPROTO_TCP),
            (AF_INET, libc::SOCK_SEQPACKET, IPPROTO_SCTP),
            (AF_INET, SOCK_STREAM, IPPROTO_SCTP),
            (AF_INET6, SOCK_STREAM, IPPROTO_MPTCP),
            (AF_SMC, SOCK_STREAM, 0),
            (-1, -1, -1),
        ] {
            assert_eq!(choose(domain, kind, protocol), Choice::Unchanged);
        }
    }

    #[test]
    fn only_a_missing_smc_is_worth_a_second_try() {
        assert!(falls_back(libc::EAFNOSUPPORT));
        assert!(!falls_back(libc::EMFILE));
        assert!(!falls_back(libc::ENOMEM));
    }
}
