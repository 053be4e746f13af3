// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A CDC round of both ends: one publishes bytes, the other receives them, the first gets its credit.
//!
//! Invariant: after a round both ends are as before it but for their cursors; only the protocol is
//! measured, no byte is copied and nothing is signalled.

use std::hint::black_box;

use smc_proto::conn::{AUTOCORK, Connection, Params, Ring, SendFlags, Sender, Wish};
use smc_wire::cdc::Smcr;
use smc_wire::id::AlertToken;

use super::Case;

/// What a round of both ends may take.
const TARGET_NS: u64 = 60;
/// Bytes of each ring.
const RING: u32 = 64 << 10;
/// More than half of a ring: the receiver gives the credit at once.
const LARGE: u32 = 40 << 10;
/// The credit is given when half of the ring is used up: every 512 rounds.
const SMALL: u32 = 64;

/// Two ends of a connection.
struct Pair {
    sender: Connection,
    receiver: Connection,
    /// SMC-R's messages on their way.
    message: [u8; Smcr::LEN],
}

/// Rounds in each way of sending.
pub fn cases() -> Result<Vec<Case>, String> {
    let ring = Ring::new(RING).ok_or("a ring of no length")?;
    let rdma = Sender::Rdma { ring, token: AlertToken(1), autocork: AUTOCORK };
    let ways = [("SMC-D copied", Sender::Copied { ring }), ("SMC-D mapped", Sender::Mapped)];
    let mut cases = Vec::new();
    for (way, sender) in ways.into_iter().chain([("SMC-R", rdma)]) {
        let params = Params { ring, peer_ring: ring, sender };
        cases.push(round(format!("CDC round, {way}, 40 KiB"), &params, LARGE)?.within(TARGET_NS));
        cases.push(round(format!("CDC round, {way}, 64 B"), &params, SMALL)?.within(TARGET_NS));
    }
    Ok(cases)
}

fn round(name: String, params: &Params, bytes: u32) -> Result<Case, String> {
    let [sender, receiver] = [Connection::new(params), Connection::new(params)];
    let mut pair = Pair { sender, receiver, message: [0; Smcr::LEN] };
    for _ in 0..2 * RING / bytes {
        pair.round(bytes);
        let Pair { sender, receiver, .. } = &pair;
        if receiver.unread() > 0 || sender.unsent() > 0 || sender.error().is_some() {
            return Err(format!("{name}: a round leaves {pair:?}", pair = (sender, receiver)));
        }
    }
    Ok(Case::new(name, move || pair.round(bytes)))
}

impl Pair {
    fn round(&mut self, bytes: u32) {
        let Self { sender, receiver, message } = self;
        if let Ok(room) = sender.send_room() {
            black_box(room.ranges());
        }
        sender.commit(bytes, SendFlags::default());
        carry_out(sender, receiver, message);
        let ready = receiver.readable(0);
        black_box(ready.ranges());
        receiver.consume(ready.total());
        carry_out(receiver, sender, message);
        // The first end wakes whoever waits for room.
        carry_out(sender, receiver, message);
    }
}

/// Does what `from` wishes; SMC-R's messages pass through `bytes`.
fn carry_out(from: &mut Connection, to: &mut Connection, bytes: &mut [u8]) {
    while let Some(wish) = from.poll_wish() {
        match wish {
            Wish::PublishSmcd(cdc) => {
                let (prod, cons) = black_box(cdc.to_halves());
                to.handle_cdc_smcd(prod, cons);
            }
            Wish::PublishSmcr(message, receipt) => {
                // The network is between them: what was emitted is not known where it is parsed.
                let emitted = message.emit(bytes);
                if let (Ok(_), Ok(message)) = (emitted, Smcr::parse(black_box(bytes))) {
                    to.handle_cdc_smcr(&message);
                }
                from.handle_completion(receipt);
            }
            other => {
                black_box(&other);
            }
        }
    }
}
