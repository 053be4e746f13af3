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
//! Stack::new(device: impl Device, config: Config) -> Result<Stack, SetUpError>      // Stack: Clone
//! stack.begin(tcp: Box<dyn Tcp>, role: Role, peer_speaks_smc: bool) -> Arc<Socket>
//! socket.advance() -> Handshake            // never blocks; again when TCP is readable, or at next_timeout
//! socket.finish_handshake(timeout) -> io::Result<Handshake>                          // blocks
//!
//! socket.send(&[IoSlice], SendFlags { more, oob }) -> io::Result<usize>             // EWOULDBLOCK
//! socket.recv(&mut [IoSliceMut], RecvFlags { peek, oob }) -> io::Result<usize>      // EWOULDBLOCK
//! socket.send_all(..., timeout) / recv_some(..., wait_all, timeout): the same, blocking as TCP does
//! socket.readiness() -> Ready              // Ready: smc_proto::conn::Ready
//! socket.wait(want: Ready, timeout: Option<Duration>) -> io::Result<Ready>          // EINTR; empty: time out
//! socket.observe(Some(Arc<dyn Observe>))   // told of each event; needed for epoll
//! socket.shutdown(How) / close(linger) / abort() / set_cork / set_oob_inline / flush (nodelay)
//! socket.set_low_water(bytes)              // SO_RCVLOWAT
//! socket.pending_in() / pending_out() / at_mark() / take_error() / info()
//!
//! stack.dispatch()                         // takes signals, events and timers; observers are told
//! stack.wake_fd() -> BorrowedFd            // readable: dispatch has something to do
//! stack.prepare_sleep() -> bool            // true: sleep on wake_fd now; false: dispatched, look again
//! stack.wake_up()                          // after each prepare_sleep that gave true
//! stack.next_timeout() -> Option<Duration> // dispatch no later than in this time
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
//! # The TCP connection
//! [`Tcp`] is anything with a file descriptor: a `TcpStream`, or a preload's own type that knows under
//! which number the application's socket is now. The engine shuts TCP down when SMC says so, resets it
//! after a failure (`connect(AF_UNSPEC)`), and drops its `Tcp` in [`Socket::close`].

pub mod types;

pub use types::{Observe, RecvFlags, Role, SendFlags, Tcp};
