// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The client: sends a pattern and checks that the same comes back.
//!
//! Invariant: sending and checking run side by side, so no size deadlocks on full buffers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use clap::Args;

use crate::pattern::Pattern;
use crate::socket::{self, Family};

/// Bytes sent or checked at a time.
const PIECE: usize = 64 << 10;

/// What to send.
#[derive(Args)]
pub(crate) struct Options {
    /// The server.
    address: SocketAddr,
    /// Connections one after another, in each of the parallel rows.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Connections at the same time.
    #[arg(long, default_value_t = 1)]
    parallel: u64,
    /// Bytes to send over each connection.
    #[arg(long, default_value_t = 1 << 20)]
    bytes: u64,
    /// Send with sendfile(2) from a file in /tmp.
    #[arg(long)]
    sendfile: bool,
}

/// Runs all connections; the first error ends it.
pub(crate) fn run(family: Family, options: &Options) -> io::Result<()> {
    thread::scope(|scope| {
        let rows: Vec<_> = (0..options.parallel)
            .map(|row| {
                scope.spawn(move || {
                    (0..options.count)
                        .try_for_each(|n| one(family, options, row * options.count + n))
                })
            })
            .collect();
        rows.into_iter().try_for_each(|row| {
            row.join().unwrap_or_else(|_| Err(io::Error::other("a row of connections panicked")))
        })
    })?;
    let connections = options.count * options.parallel;
    eprintln!("ism-stream: {connections} connections of {} bytes intact", options.bytes);
    Ok(())
}

fn one(family: Family, options: &Options, seed: u64) -> io::Result<()> {
    let connection = socket::connect(family, options.address)?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = if options.sendfile {
                send_file(&connection, seed, options.bytes)
            } else {
                send(&connection, seed, options.bytes)
            };
            sent.and_then(|()| connection.shutdown(Shutdown::Write))
        });
        let checked = check(&connection, seed, options.bytes);
        let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
        // A receiver that failed is the cause of a sender that failed.
        checked.and(sent)
    })
}

fn send(mut to: impl Write, seed: u64, bytes: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; PIECE];
    let mut left = usize::try_from(bytes).map_err(io::Error::other)?;
    while left > 0 {
        let piece = buffer.get_mut(..left.min(PIECE)).unwrap_or_default();
        pattern.fill(piece);
        to.write_all(piece)?;
        left -= piece.len();
    }
    Ok(())
}

fn send_file(to: &TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    let path = format!("/tmp/ism-stream-{}-{seed}", std::process::id());
    send(File::create(&path)?, seed, bytes)?;
    let file = File::open(&path)?;
    std::fs::remove_file(&path)?;
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).map_err(io::Error::other)?;
        if rustix::fs::sendfile(to, &file, Some(&mut offset), left)? == 0 {
            return Err(io::Error::other("sendfile sent nothing"));
        }
    }
    Ok(())
}

fn check(mut from: &TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; PIECE];
    let mut total: u64 = 0;
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        if let Some(at) = pattern.check(buffer.get(..length).unwrap_or_default()) {
            let place = total + at as u64;
            return Err(io::Error::other(format!("stream {seed}: byte {place} is wrong")));
        }
        total += length as u64;
    }
    if total != bytes {
        let text = format!("stream {seed}: {total} of {bytes} bytes came back");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(())
}
