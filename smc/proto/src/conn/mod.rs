// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One connection after its handshake: cursors, windows, urgent data, the close states, failover.
//!
//! Invariant: what the peer writes is copied once and validated before it changes anything.
//!
//! # Grammar
//! A [`Connection`] owns no bytes. The caller has two rings: *ours*, which the peer writes (in SMC-D a
//! DMB from its byte 32 on), and the *send ring*; see [`Sender`].
//!
//! | Who | Says | Then |
//! |---|---|---|
//! | application sends | [`send_room`](Connection::send_room), copy bytes there, [`commit`](Connection::commit) | wishes |
//! | application receives | [`readable`](Connection::readable), copy bytes out, [`consume`](Connection::consume) | wishes |
//! | application closes | [`shutdown`](Connection::shutdown), [`close`](Connection::close), [`abort`](Connection::abort) | wishes, [`poll_timeout`](Connection::poll_timeout) |
//! | the peer (SMC-D) | [`handle_cdc_smcd`](Connection::handle_cdc_smcd) on a signal, or whenever one looks | wishes |
//! | the peer (SMC-R) | [`handle_cdc_smcr`](Connection::handle_cdc_smcr) for each message | wishes |
//! | the link (SMC-R) | [`handle_completion`](Connection::handle_completion), [`handle_flushed`](Connection::handle_flushed), [`handle_slots`](Connection::handle_slots), [`switch_link`](Connection::switch_link) | wishes |
//! | the group or device | [`handle_gone`](Connection::handle_gone) | wishes |
//! | the statistics | [`count_send`](Connection::count_send), [`count_receive`](Connection::count_receive), [`await_room`](Connection::await_room) | [`take_counts`](Connection::take_counts) |
//!
//! "wishes" is [`poll_wish`](Connection::poll_wish) until `None`, each carried out before the next is
//! asked for. Everything is absolute: a signal that is lost, late or comes twice costs nothing once
//! the area is read again.
//!
//! # Reading an SMC-D area
//! First the consumer half, then the producer half, each with one 8-byte load of acquire order: the
//! flags in the consumer half ("done writing") then never come without the bytes before them.
//!
//! # Before the connection is established
//! The client may write before the server has read its Confirm. In SMC-D the server looks at the area
//! right after [`Connection::new`]; in SMC-R it keeps CDC messages that came early and hands them in
//! then. A consumer cursor that has moved by then is a [`Lie`], as nothing was sent (the kernel
//! dereferences a null pointer there, `smc_cdc.c:356`).
//!
//! # Map
//! | Module | What | Kernel |
//! |---|---|---|
//! | `cursor` | arithmetic in a ring | `smc_cdc.h` |
//! | `tx`, `rx` | the two directions | `smc_tx.c`, `smc_rx.c` |
//! | `urgent` | the urgent byte of each direction | `smc_tx.c`, `smc_cdc.c` |
//! | [`close`] | the table of states | `smc_close.c` |
//! | `data` | the application's side: send, receive | `smc_tx.c`, `smc_rx.c` |
//! | `inbound` | what the peer says | `smc_cdc.c` |
//! | `outbound` | wishes in their order | `smc_cdc.c`, `smc_tx.c` |
//! | `ending` | shutdown, close, abort, gone | `smc_close.c`, `smc_core.c` |
//! | `link` | completions and failover | `smc_cdc.c`, `smc_core.c` |
//! | `counts` | full and small buffers | `smc_stats.h` |
//! | `info` | getters | `smc_diag.c`, `af_smc.c` |

pub mod close;
mod counts;
mod cursor;
mod data;
mod ending;
mod error;
mod inbound;
mod info;
mod link;
mod outbound;
mod params;
mod rx;
mod tx;
mod urgent;
mod wish;

use smc_wire::cdc::{ConnectionState, ProducerFlags};

use close::State;
pub use counts::Counts;
pub use cursor::{Chunks, Ring};
pub use data::SendFlags;
use ending::Closing;
pub use ending::{Gone, LINGER};
pub use error::{Error, Lie, NoUrgent, NotConnected, SendError};
pub use info::Info;
use link::Link;
pub use params::{AUTOCORK, Params, Sender};
use rx::Rx;
use tx::Tx;
use wish::Due;
pub use wish::{How, Ready, Receipt, Wish, Write};

/// One connection after its handshake; see the [module](self) for its grammar.
///
/// At most 256 bytes; no input, command or wish allocates.
#[derive(Debug)]
pub struct Connection {
    tx: Tx,
    rx: Rx,
    /// SMC-R only; SMC-D has it and does not use it.
    link: Link,
    state: State,
    /// How far this side has closed, as CDC says it.
    sent_state: ConnectionState,
    /// A close or shutdown that waits for bytes to be sent.
    closing: Option<Closing>,
    /// What ended the connection before its time, until the application has seen it.
    error: Option<Error>,
    due: Due,
    wake: Ready,
    options: Options,
    counts: Counts,
    /// A sender found no room.
    awaits_room: bool,
    /// The application has closed.
    released: bool,
    /// The receiving direction is over: by the peer or by SHUT_RD.
    read_shut: bool,
    /// The sending direction is over.
    write_shut: bool,
    /// Aborted by this side: nothing goes out but the CDC that says so.
    killed: bool,
    /// The peer closed while it waited for space: bytes may still come.
    trailing: bool,
    /// The CDC that closes or aborts was published.
    said_final: bool,
    /// [`Wish::Release`] was given.
    finished: bool,
}

/// What the application chose.
#[derive(Debug, Clone, Copy, Default)]
struct Options {
    oob_inline: bool,
    cork: bool,
}

impl Connection {
    /// A connection in ACTIVE, with empty rings.
    pub fn new(params: &Params) -> Self {
        Self {
            tx: Tx::new(params),
            rx: Rx::new(params.ring),
            link: Link::new(params),
            state: State::Active,
            sent_state: ConnectionState::EMPTY,
            closing: None,
            error: None,
            due: Due::default(),
            wake: Ready::NOTHING,
            options: Options::default(),
            counts: Counts::default(),
            awaits_room: false,
            released: false,
            read_shut: false,
            write_shut: false,
            killed: false,
            trailing: false,
            said_final: false,
            finished: false,
        }
    }

    /// Asks for bytes to be sent, if there are some.
    fn want_transmit(&mut self) {
        if self.tx.unsent > 0 && !self.is_mute() {
            self.due.insert(Due::TRANSMIT);
        }
    }

    /// Asks for a CDC.
    ///
    /// After the one that closes there is none, but for those behind bytes that had to wait: the peer
    /// may have closed as well, and then its ring serves another connection. Linux goes on with
    /// updates after SHUT_RDWR.
    fn want_publish(&mut self) {
        let over = self.said_final && self.tx.unsent == 0;
        if !self.is_mute() && !over {
            self.due.insert(Due::PUBLISH);
        }
    }

    /// Whether bytes and cursors must not be told to the peer any more: one of the two has aborted, or
    /// both have closed, and then the peer's ring may serve another connection.
    fn is_mute(&self) -> bool {
        self.killed
            || self.rx.state.contains(ConnectionState::ABORTED)
            || (self.said_final && self.peer_closed())
    }

    /// The flags beside our producer cursor.
    ///
    /// Write-blocked is what the kernel has after `to_send >= free`: nothing is free now. It holds
    /// when the bytes just fit too, which a mapped sender needs, whose application can never give
    /// more than that.
    ///
    /// A peer does not count by our limit, and says nothing of bytes too few by its own measure: a
    /// limited sender asks.
    fn producer_flags(&self) -> ProducerFlags {
        let mut flags = self.tx.urgent.flags();
        let limited = self.tx.is_limited();
        flags.set(ProducerFlags::WRITE_BLOCKED, self.tx.free() == 0 || limited);
        flags.set(ProducerFlags::CONSUMER_UPDATE_REQUESTED, limited);
        flags
    }
}
