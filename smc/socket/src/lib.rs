// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets over SMC-D without a kernel that knows SMC: the engine below the preload, and for Rust
//! programs.
//!
//! Invariant: the TCP connection stays the application's; what is not upgraded is plain TCP with every
//! byte in its place, and a byte that `send` accepted is in the peer's memory and published when it
//! returns (but what the application corked).
//!
//! # Use
//! One [`Stack`] a process, over a device of `ism-client`.
//!
//! ```text
//! Stack::new(device: ism_client::Device, config: &Config) -> Result<Stack, SetUpError>    // Stack: Clone
//! stack.begin(tcp: Box<dyn Tcp>, role: Role, peer_speaks_smc: bool) -> Arc<Socket>
//! socket.advance() -> Handshake            // never blocks; again when TCP is readable, or at next_timeout
//! socket.finish_handshake(timeout) -> io::Result<Handshake>                               // blocks
//! socket.withdraw()                        // a client that knows that nobody can accept now
//! socket.late_word() -> Option<&Arc<LateWord>>   // on TCP: to be taken out before the data
//!
//! socket.send(&[IoSlice], SendFlags { more, oob }) -> io::Result<usize>                   // EAGAIN
//! socket.recv(&mut [IoSliceMut], RecvFlags { peek, oob, discard }) -> io::Result<usize>   // EAGAIN
//! socket.transmit(buffers, flags, timeout)          // blocks, as TCP does: all, or part and a reason
//! socket.receive(buffers, flags, wait_all, timeout) // blocks, as TCP does
//! socket.readiness() -> Ready                       // levels
//! socket.wait(want, timeout) -> io::Result<Ready>   // EINTR; NOTHING: the time is over
//! socket.observe(Some(Arc<dyn Observe>))            // told of each event; for epoll and poll
//! socket.tcp_stands(events)                         // poll says RDHUP, HUP, ERR on the TCP fd
//! socket.shutdown(How) / close(linger)
//! socket.set_cork / flush (nodelay) / set_oob_inline / set_low_water (SO_RCVLOWAT)
//! socket.pending_in / pending_out / held_back / at_mark / take_error / info
//!
//! stack.dispatch()                         // takes signals, events and timers; observers are told
//! stack.wake_fd() -> BorrowedFd            // readable: dispatch has something to do
//! stack.prepare_sleep() -> bool            // true: sleep on wake_fd now; false: dispatched, look again
//! stack.wake_up(rung: bool)                // after each prepare_sleep that gave true; dispatches if rung
//! stack.next_timeout() -> Option<Duration> // dispatch no later than in this time
//! stack.is_gone()                          // the daemon died: poll wake_fd no more
//! stack.look_for_end()                     // for who does not sleep on wake_fd: is_gone soon says so; dispatches
//! ```
//!
//! # Who looks when
//! Nobody but the application's own threads: there is no helper thread. A thread that waits for one
//! socket ([`Socket::wait`]) looks at that socket's memory by itself and then sleeps on the device; a
//! thread that waits for many (epoll, poll) calls `dispatch`, and its sockets have an [`Observe`]r, which
//! is called by whatever thread finds the event, holding no lock of this crate. Before a thread sleeps
//! in a call of its own it calls `prepare_sleep`, and `wake_up` afterwards: as long as one thread sleeps,
//! whoever dispatches arms the doorbells again.
//!
//! A wake-up that TCP has and memory has not is the end of a peer's process. A thread that sleeps in
//! [`Socket::wait`] polls the TCP connection too; who sleeps in a call of its own either does the same and
//! calls [`Socket::tcp_stands`], or leaves it to the fabric, which says so to `dispatch`.
//!
//! # Fork and exit
//! Connections can be shared with a child of fork (spec/decisions/0007). A [`Birth`] before the fork says which;
//! the child makes its sockets out of that, must not use or drop its parent's (`std::mem::forget` them), and
//! connects its stack to a device when it needs connections of its own. The parent serves its children:
//!
//! ```text
//! Birth::begin() -> Birth                   // before each fork; the parent drops it after that
//! birth.share(&socket) -> Option<Heir>      // before the fork; then the parent drops both
//! birth.in_child() -> Inheritance           // in the child: .stack(), .socket(heir, tcp)
//! stack.connect(device, config)             // in the child, once
//! stack.has_children() -> bool              // in the parent: then a thread sleeps on wake_fd and children_fd
//! stack.serve_children()                    // children_fd was readable
//! ```
//!
//! The words of the modules for it:
//!
//! | Word | Where | What it is |
//! |---|---|---|
//! | family | `family` | a process that made a stack, its children and theirs: memory that they share, and their numbers |
//! | root | `family` | the first process of a family, which made the stack; the only one that asks the fabric |
//! | member | `family` | a process of a family: its number, and its turn among those that had the number |
//! | life | `life` | who of a family lives: each process has a byte of a file locked |
//! | place | `smc_ring::Place` | a connection's state in the shared memory, with its lock |
//! | kept | `smc_ring::Kept` | a place, and the part of it that is this process's own |
//! | seat | `seat` | a place as one process has it: which processes have the connection open |
//! | home | `home` | what a socket is part of: this process's stack, or a parent's |
//! | core | `core` | the middle of a process's own stack |
//! | kin | `kin` | what a child has of a parent's stack |
//! | hub | `hub` | in the root: passes signals on to children, and hears of their ends |
//! | link | `links` | a socket pair between root and child |
//! | cradle | `hub` | what a child is given of its family before the fork |
//! | birth, heir, inheritance | `birth` | a fork; a connection in it; what the child has after it |
//! | alone | `kin`, `seat` | a child that nobody wakes any more; a connection that no other process has |
//! | lost | `seat` | a process that was given up though it may live: it looks at nothing shared any more |
//! | own | `own` | a descriptor of this library's, told from the program's by its file |
//!
//! A child may also begin handshakes on TCP connections that the parent has accepted and left alone. A process that
//! exits without `close` is to its peer as one that was killed: what it sent is read to its end, then comes the end
//! of the stream, or a reset if it left bytes unread; unless another process has the connection too.
//!
//! # The TCP connection
//! [`Tcp`] is anything with a file descriptor: a `TcpStream`, or a preload's own type that knows under
//! which number the application's socket is now. The engine shuts TCP down when SMC says so, resets it
//! after a failure (`connect(AF_UNSPEC)`), and drops its `Tcp` in [`Socket::close`].

mod birth;
mod blocking;
mod channel;
mod chores;
mod clock;
mod config;
mod control;
mod core;
mod doze;
mod error;
mod family;
pub mod few;
mod handshake;
mod home;
mod hub;
mod info;
mod inside;
mod kin;
mod late;
mod life;
mod links;
mod machine;
mod own;
mod pace;
mod parked;
mod seat;
mod shared;
mod socket;
pub mod spin;
mod stack;
mod state;
mod table;
mod tally;
mod tcp;
mod transfer;
mod types;
mod wait;
mod wakeup;

pub use birth::{Birth, Heir, Inheritance};
pub use config::Config;
pub use error::SetUpError;
pub use info::{Info, Smc};
pub use late::LateWord;
pub use socket::{Handshake, Socket};
pub use stack::Stack;
pub use tcp::has_come;
pub use types::{How, Observe, Ready, RecvFlags, Role, SendFlags, Tcp};
