// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs commands in a guest for its host over a virtio-serial port: the tests' hands in a VM.
//!
//! Invariant: one connection of the host is one session; when it ends, however it ends, the
//! commands it started are killed (except detached ones), and the next session begins clean.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | frames on a byte stream, without I/O |
//! | [`message`] | what host and guest say, without I/O |
//! | [`port`] | the guest's end of the stream |
//! | [`guest`] | the agent: sessions |
//! | [`command`] | one command of a session, in the guest |
//! | [`host`] | the client that tests and the command line use |

pub mod command;
pub mod frame;
pub mod guest;
pub mod host;
pub mod message;
pub mod port;
