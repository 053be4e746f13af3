// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `libsmc_preload.so`: loaded with LD_PRELOAD, it lets a program's TCP connections use SMC-D of
//! vhost-user-ism.
//!
//! Invariant: a call on a descriptor that is not an SMC socket is the next library's call with the same
//! arguments, result and errno.
//!
//! The application's descriptor stays the TCP socket it is; with SMC the bytes go another way.
//!
//! | Module | What |
//! |---|---|
//! | `entry` | the functions that C programs call, a module per group of calls |
//! | `real` | the functions that they stand in for |
//! | `arguments`, `signals`, `descriptor` | pointers, signals and numbers of C |
//! | `table`, `numbers` | what is known about the program's descriptors, and how they come and go |
//! | `upgrade`, `inherited` | which connections are looked at: listen, accept, connect; and exec |
//! | `passing`, `decline` | connections that other processes get, by SCM_RIGHTS and exec |
//! | `meeting` | finding the other end by the fabric's board, where no TCP option can be used |
//! | `sock` | one connection: its handshake, its data, its options, who waits for it |
//! | `touched`, `buffers` | which options the program has ever set; buffers' sizes |
//! | `alone` | a program that connects to itself |
//! | `poll`, `epoll`, `bell`, `instances` | waiting for many |
//! | `confined` | a process under seccomp |
//! | `process`, `minder` | the process's stack, and the thread for forgotten handshakes |
//! | `fallen`, `report` | why connections are plain TCP; telling `smcss` and `smcd` |
//! | `settings` | the environment |
//!
//! # The environment
//! | variable | effect |
//! |---|---|
//! | `SMC_DEBUG` | anything but empty and 0: say on stderr what becomes of connections |
//! | `SMC_MODE` | `tcp`: stay with TCP, all calls looked at nevertheless |
//! | `SMC_SPIN_US` | the longest that a thread looks by itself before it sleeps, in µs; 50 |
//! | `SMC_SOCKET` | the daemon's socket for processes; `/run/vhost-user-ism/apps.sock` |
//! | `SMC_POLICY` | the file of rules; `/etc/smc-policy.toml` if that exists |
//!
//! # A connection's way
//! connect and listen mark the socket (`smc-discovery`), or say on the fabric's board that they are there. If the
//! peer does so as well, the descriptor gets
//! an entry in the table; before, and for all others, a call costs one load more. connect sends the
//! proposal; the handshake is finished by the first call that needs its result, or by the minder. Then the
//! connection is SMC's, or it leaves the table and is TCP's for good.

#![cfg_attr(test, expect(dead_code, reason = "its users are entry points, which tests have not"))]

mod alone;
mod arguments;
mod bell;
mod buffers;
mod confined;
mod decline;
mod descriptor;
#[cfg(not(test))]
mod entry;
mod epoll;
mod fallen;
mod inherited;
mod instances;
mod meeting;
mod minder;
mod numbers;
mod passing;
mod poll;
mod process;
#[cfg(not(test))]
mod real;
mod report;
mod settings;
mod signals;
mod sock;
mod table;
mod touched;
mod upgrade;
