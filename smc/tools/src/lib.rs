// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What Linux's SMC tells about itself over netlink, and what processes under `smc-run` do, as typed values.
//!
//! Invariant: bytes from the kernel are parsed without panics and without guesses; an attribute
//! of an unexpected shape is an error that names it, an unknown one is skipped (newer kernels
//! add them).
//!
//! Numbers and names are those of `include/uapi/linux/smc.h` and `smc_diag.h` in Linux 7.3.
//!
//! | module | holds |
//! |---|---|
//! | [`netlink`] | messages and attributes, without I/O |
//! | [`cli`] | the command lines |
//! | [`client`] | requests to the kernel |
//! | [`eid`] | enterprise ids: UEIDs and the SEID |
//! | [`linkgroup`] | SMC-D link groups and devices |
//! | [`stats`] | counters |
//! | [`fallback`] | why connections fell back to TCP |
//! | [`socket`] | SMC sockets (sock_diag) |
//! | [`system`] | what the kernel's SMC can do |
//! | [`processes`] | asking processes |
//! | [`nothing`] | what to say where there is nothing to show |
//! | [`text`] | others' text, made fit to be shown |
//! | [`told`], [`view`] | their answers as the kernel's, and both together |

pub mod cli;
pub mod client;
pub mod eid;
pub mod fallback;
pub mod linkgroup;
pub mod netlink;
pub mod nothing;
pub mod processes;
pub mod socket;
pub mod stats;
pub mod system;
pub mod text;
pub mod told;
pub mod view;
