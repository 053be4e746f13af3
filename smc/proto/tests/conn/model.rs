// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random scripts against what TCP would do: a stream of bytes each way, with urgent ones among them.
//!
//! Invariant: the channel between the ends may delay and coalesce (SMC-D) or delay, break and move
//! (SMC-R), and nothing of that is seen in the streams.

use std::time::Duration;

use proptest::prelude::*;
use smc_proto::Instant;
use smc_proto::conn::close::State;
use smc_proto::conn::{Error, Gone, How, LINGER, SendFlags};

use smc_wire::cdc::ConnectionState;

use crate::world::{A, B, Kind, World};

#[derive(Debug, Clone)]
enum Op {
    Send {
        end: usize,
        n: usize,
        oob: bool,
        more: bool,
    },
    Recv {
        end: usize,
        n: usize,
    },
    Peek {
        end: usize,
        skip: u32,
    },
    Urgent {
        end: usize,
        peek: bool,
    },
    ShutWr {
        end: usize,
    },
    ShutRdWr {
        end: usize,
    },
    Close {
        end: usize,
    },
    /// The end's group is terminated, or the way between the two is gone.
    Kill {
        end: usize,
        told: bool,
    },
    /// A second goes by.
    Tick,
    /// SMC-D: the end looks at its area. SMC-R: some of what it posted is delivered.
    Channel {
        end: usize,
        n: usize,
    },
    Complete {
        end: usize,
        n: usize,
    },
    Break {
        delivered: [usize; 2],
    },
    Slots {
        end: usize,
        free: bool,
    },
}

fn traffic() -> impl Strategy<Value = Op> {
    let end = 0..2usize;
    prop_oneof![
        24 => (end.clone(), 1..40usize, prop::bool::weighted(0.1), prop::bool::weighted(0.2))
            .prop_map(|(end, n, oob, more)| Op::Send { end, n, oob, more }),
        24 => (end.clone(), 1..60usize).prop_map(|(end, n)| Op::Recv { end, n }),
        4 => (end.clone(), 0..20u32).prop_map(|(end, skip)| Op::Peek { end, skip }),
        4 => (end.clone(), any::<bool>()).prop_map(|(end, peek)| Op::Urgent { end, peek }),
        24 => (end.clone(), 1..4usize).prop_map(|(end, n)| Op::Channel { end, n }),
        8 => (end.clone(), 1..4usize).prop_map(|(end, n)| Op::Complete { end, n }),
        2 => (0..5usize, 0..5usize).prop_map(|(a, b)| Op::Break { delivered: [a, b] }),
        2 => (end, any::<bool>()).prop_map(|(end, free)| Op::Slots { end, free }),
    ]
}

fn ending() -> impl Strategy<Value = Op> {
    let end = 0..2usize;
    prop_oneof![
        end.clone().prop_map(|end| Op::ShutWr { end }),
        end.clone().prop_map(|end| Op::ShutRdWr { end }),
        end.clone().prop_map(|end| Op::Close { end }),
        (end, any::<bool>()).prop_map(|(end, told)| Op::Kill { end, told }),
        Just(Op::Tick),
    ]
}

/// One direction, as its sender's and its receiver's application see it.
#[derive(Default)]
struct Direction {
    /// What the receiver has to read, in order.
    stream: Vec<u8>,
    read: usize,
    /// The urgent bytes, in order, and how many the receiver knows of.
    urgent: Vec<u8>,
    known: usize,
}

struct Model {
    world: World,
    smcr: bool,
    inline: [bool; 2],
    /// By sender.
    ways: [Direction; 2],
    /// Bytes that were ever sent, to make them different.
    count: usize,
    closed: [bool; 2],
    /// An end was killed, or closed with unread bytes.
    broken: bool,
}

impl Model {
    fn new(kinds: [Kind; 2], rings: (u32, u32), inline: [bool; 2]) -> Self {
        let mut world = World::new(kinds, rings);
        world.prompt = false;
        for end in [A, B] {
            world.conn(end).set_oob_inline(inline[end]);
        }
        let smcr = matches!(kinds[A], Kind::Rdma(_));
        let ways = <[Direction; 2]>::default();
        Self { world, smcr, inline, ways, count: 0, closed: [false; 2], broken: false }
    }

    fn send(&mut self, end: usize, n: usize, oob: bool, more: bool) {
        if self.closed[end] {
            return;
        }
        let bytes: Vec<u8> = (self.count..self.count + n).map(|at| (at % 253) as u8).collect();
        let sent = self.world.send(end, &bytes, SendFlags { more, oob });
        self.count += sent;
        let way = &mut self.ways[end];
        way.stream.extend(&bytes[..sent]);
        if oob && sent == n {
            way.urgent.extend(bytes.last());
            if !self.inline[1 - end] {
                way.stream.pop();
            }
        }
    }

    fn recv(&mut self, end: usize, n: usize) -> usize {
        if self.closed[end] {
            return 0;
        }
        let got = self.world.recv(end, n);
        let way = &mut self.ways[1 - end];
        let expected = &way.stream[way.read..];
        assert!(expected.starts_with(&got), "{got:?} instead of {expected:?}");
        way.read += got.len();
        got.len()
    }

    fn peek(&mut self, end: usize, skip: u32) {
        let got = self.world.peek(end, skip);
        let way = &self.ways[1 - end];
        let expected = &way.stream[way.read..];
        assert!(got.is_empty() || expected[skip as usize..].starts_with(&got));
    }

    fn urgent(&mut self, end: usize, peek: bool) {
        let Ok(byte) = self.world.conn(end).take_urgent(peek) else { return };
        let way = &mut self.ways[1 - end];
        let at = way.urgent.iter().rposition(|&known| known == byte);
        let at = at.unwrap_or_else(|| panic!("{byte} was never urgent"));
        assert!(at >= way.known, "an older urgent byte again");
        way.known = at + usize::from(!peek);
    }

    fn close(&mut self, end: usize) {
        if !std::mem::replace(&mut self.closed[end], true) {
            // Whether bytes are unread is decided when the bytes to be sent are sent.
            self.world.close(end);
        }
    }

    fn kill(&mut self, end: usize, told: bool) {
        self.broken = true;
        if told {
            self.world.conn(end).handle_gone(Gone::Group);
        } else {
            self.world.conn(A).handle_gone(Gone::Unreachable);
            self.world.conn(B).handle_gone(Gone::Unreachable);
        }
        self.world.run(A);
        self.world.run(B);
    }

    fn apply(&mut self, op: &Op) {
        let now = self.world.now;
        match *op {
            Op::Send { end, n, oob, more } => self.send(end, n, oob, more),
            Op::Recv { end, n } => drop(self.recv(end, n)),
            Op::Peek { end, skip } => self.peek(end, skip),
            Op::Urgent { end, peek } => self.urgent(end, peek),
            Op::ShutWr { end } | Op::ShutRdWr { end } => {
                let how = if matches!(op, Op::ShutWr { .. }) { How::Write } else { How::Both };
                let _ = self.world.conn(end).shutdown(now, how, LINGER);
                self.world.run(end);
            }
            Op::Close { end } => self.close(end),
            Op::Kill { end, told } => self.kill(end, told),
            Op::Tick => {
                self.world.now = now.after(Duration::from_secs(1));
                for end in [A, B] {
                    self.world.ends[end].conn.handle_timeout(self.world.now);
                    self.world.run(end);
                }
            }
            Op::Channel { end, n } if self.smcr => drop(self.world.deliver(end, n)),
            Op::Channel { end, .. } => self.world.look(end),
            Op::Complete { end, n } => self.world.complete(end, n),
            Op::Break { delivered } if self.smcr => self.world.break_link(delivered),
            Op::Break { .. } => {}
            Op::Slots { end, free } if self.smcr => {
                self.world.conn(end).handle_slots(free);
                self.world.run(end);
            }
            Op::Slots { .. } => {}
        }
        for end in [A, B] {
            if let Some(Error::Protocol(lie)) = self.world.conn(end).error() {
                panic!("a correct peer lied: {lie}");
            }
            // A final with unread bytes is an abort, and then anything may be lost.
            let info = self.world.conn(end).info();
            self.broken |= info.tx_state.contains(ConnectionState::ABORTED);
        }
    }

    /// Lets everything arrive and reads it all.
    fn drain(&mut self) {
        for end in [A, B] {
            self.world.conn(end).handle_slots(true);
        }
        loop {
            for end in [A, B] {
                self.world.conn(end).flush();
            }
            self.world.settle();
            if self.recv(A, usize::MAX) + self.recv(B, usize::MAX) == 0 {
                break;
            }
        }
        self.apply(&Op::Channel { end: A, n: 0 });
    }

    fn check(&mut self) {
        self.drain();
        for end in [A, B] {
            let way = &self.ways[1 - end];
            let info = self.world.conn(end).info();
            let over = self.broken || info.tx_state.contains(ConnectionState::CLOSED);
            let missing = &way.stream[way.read..];
            assert!(over || self.closed[end] || missing.is_empty(), "end {end} misses {missing:?}");
            assert!(self.broken || self.world.conn(end).error().is_none());
        }
        for end in [A, B] {
            self.urgent(end, true);
            self.close(end);
        }
        self.world.settle();
        // Two ends that closed may both wait for the other one to read.
        for end in [A, B] {
            self.world.conn(end).handle_timeout(Instant(u64::MAX));
        }
        self.world.settle();
        for end in [A, B] {
            assert_eq!(self.world.conn(end).state(), State::Closed);
            assert!(self.world.ends[end].released, "end {end} is not released");
        }
    }
}

fn kinds() -> impl Strategy<Value = [Kind; 2]> {
    let smcd = || prop_oneof![(1..80u32).prop_map(Kind::Copied), Just(Kind::Mapped)];
    let rdma = || (1..80u32).prop_map(Kind::Rdma);
    prop_oneof![
        (smcd(), smcd()).prop_map(|(a, b)| [a, b]),
        (rdma(), rdma()).prop_map(|(a, b)| [a, b]),
    ]
}

fn run(kinds: [Kind; 2], rings: (u32, u32), inline: [bool; 2], ops: &[Op]) {
    let mut model = Model::new(kinds, rings, inline);
    for op in ops {
        model.apply(op);
    }
    model.check();
}

proptest! {
    // rows 43, 45
    #[test]
    fn a_connection_is_two_streams(
        kinds in kinds(),
        rings in (1..80u32, 1..80u32),
        inline in any::<[bool; 2]>(),
        ops in prop::collection::vec(traffic(), 1..200),
    ) {
        run(kinds, rings, inline, &ops);
    }

    // rows 54, 56, 57, 68
    #[test]
    fn whatever_ends_it_a_connection_ends(
        kinds in kinds(),
        rings in (1..80u32, 1..80u32),
        inline in any::<[bool; 2]>(),
        ops in prop::collection::vec(prop_oneof![20 => traffic(), 1 => ending()], 1..120),
    ) {
        run(kinds, rings, inline, &ops);
    }
}
