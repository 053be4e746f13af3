// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A ping-pong of 14 bytes between two processes: over DMBs, spinning and asleep, and over TCP.
//!
//! Invariant: both sides run the same code; the TCP connection that is measured also carries what the two tell
//! one another.

use std::hint::spin_loop;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ism_client::{Device, Dmb, Remote};
use rustix::event::{PollFd, PollFlags, poll};
use smc_ring::{Area, Notice, Ring};

use crate::report::Row;

/// Bytes of a message, sockperf's.
const LEN: usize = 14;
/// Bytes of each DMB.
const DMB: u32 = 64 << 10;

/// One side.
pub struct Side {
    tcp: TcpStream,
    device: Device,
    own: Dmb,
    other: Remote,
    first: bool,
}

type Failure = Box<dyn std::error::Error>;

/// How a side waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It looks all the time.
    Spinning,
    /// It sleeps before each message.
    Asleep,
}

impl Side {
    /// Meets the other side over `tcp`; the `first` side sends first.
    ///
    /// # Errors
    /// The fabric refuses, or the other side is gone.
    pub fn meet(mut tcp: TcpStream, device: Device, first: bool) -> Result<Self, Failure> {
        tcp.set_nodelay(true)?;
        tcp.write_all(&device.gid())?;
        let mut gid = [0; 16];
        tcp.read_exact(&mut gid)?;
        let own = device.register(gid, DMB)?;
        tcp.write_all(&own.token().to_ne_bytes())?;
        let mut token = [0; 8];
        tcp.read_exact(&mut token)?;
        let other = device.remote(u64::from_ne_bytes(token))?;
        Ok(Self { tcp, device, own, other, first })
    }

    /// All rows; both sides call it.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn rows(&mut self, runs: u64) -> Result<Vec<Row>, Failure> {
        let mut start = 0;
        let mut rows = vec![self.tcp_row("TCP loopback, blocking", runs)?];
        for (wait, case) in [(Wait::Asleep, "DMBs, asleep"), (Wait::Spinning, "DMBs, spinning")] {
            let runs = if wait == Wait::Spinning { runs * 20 } else { runs };
            self.ready()?;
            let (took, sleeps) = self.ping_pong(start, runs, wait)?;
            start += runs;
            rows.push(Self::row(format!("{case} ({sleeps} sleeps)"), took, runs));
        }
        self.ready()?;
        if self.first {
            rows.push(self.registering(runs / 20)?);
        }
        self.ready()?;
        Ok(rows)
    }

    /// What a DMB costs that is made and ended again, while the peer looks at nothing.
    fn registering(&self, runs: u64) -> Result<Row, Failure> {
        let mut samples = Vec::new();
        for _ in 0..runs.min(100) {
            let start = Instant::now();
            drop(self.device.register(self.other.owner(), DMB)?);
            samples.push(start.elapsed());
        }
        Ok(Row::of_times("REGISTER and UNREGISTER", samples))
    }

    fn row(case: impl Into<String>, took: Duration, runs: u64) -> Row {
        let half = took.as_secs_f64() * 1e9 / (2.0 * runs as f64);
        Row::of_value(
            format!("ping-pong of {LEN} bytes, half a round trip: {}", case.into()),
            half,
            "ns",
        )
    }

    /// Waits until the other side is here too.
    fn ready(&mut self) -> io::Result<()> {
        self.tcp.write_all(&[0])?;
        self.tcp.read_exact(&mut [0])
    }

    fn tcp_row(&mut self, case: &str, runs: u64) -> Result<Row, Failure> {
        let mut bytes = [0; LEN];
        self.ready()?;
        let start = Instant::now();
        for _ in 0..runs {
            if self.first {
                self.tcp.write_all(&bytes)?;
            }
            self.tcp.read_exact(&mut bytes)?;
            if !self.first {
                self.tcp.write_all(&bytes)?;
            }
        }
        Ok(Self::row(case, start.elapsed(), runs))
    }

    /// `runs` rounds after `start` earlier ones; the time, and how often this side slept.
    fn ping_pong(&self, start: u64, runs: u64, wait: Wait) -> Result<(Duration, u64), Failure> {
        let (inbox, outbox) = (Area::of(self.own.memory())?, Area::of(self.other.memory())?);
        let (from, to) = (Ring::of(self.own.memory())?, Ring::of(self.other.memory())?);
        let mut bytes = [0; LEN];
        let mut sleeps = 0;
        if wait == Wait::Spinning {
            inbox.watch();
        }
        let began = Instant::now();
        for n in start + 1..=start + runs {
            let at = usize::try_from(n)? * LEN % to.len();
            let send = |bytes: &[u8]| -> Result<(), Failure> {
                to.write(at, bytes)?;
                if outbox.publish(n, n) == Notice::Signal {
                    self.other.signal()?;
                }
                Ok(())
            };
            if self.first {
                send(&bytes)?;
            }
            while inbox.read().0 < n {
                match wait {
                    Wait::Spinning => spin_loop(),
                    Wait::Asleep => sleeps += self.sleep(|| inbox.read().0 >= n)?,
                }
            }
            from.read(at, &mut bytes)?;
            if !self.first {
                send(&bytes)?;
            }
        }
        inbox.unwatch();
        Ok((began.elapsed(), sleeps))
    }

    fn sleep(&self, done: impl Fn() -> bool) -> Result<u64, Failure> {
        self.device.poll(&mut Vec::new())?;
        if !self.device.arm()? || done() {
            return Ok(0);
        }
        let mut fds = [PollFd::from_borrowed_fd(self.device.fd(), PollFlags::IN)];
        poll(&mut fds, None)?;
        self.device.woken();
        Ok(1)
    }
}
