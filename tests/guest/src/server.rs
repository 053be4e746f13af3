// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The server: sends back what it receives, until the client has closed its side.
//!
//! Invariant: one connection's end, however it ends, does not touch another.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use rustix::pipe::{SpliceFlags, pipe, splice};

use crate::socket::{self, Family};

/// Bytes moved at a time; a pipe's size.
const PIECE: usize = 64 << 10;

/// Serves until killed.
pub(crate) fn serve(family: Family, address: SocketAddr, by_splice: bool) -> io::Result<()> {
    let listener = socket::listen(family, address)?;
    eprintln!("ism-stream: listening on {address}");
    loop {
        let connection = socket::accept(&listener)?;
        let echo = if by_splice { echo_by_splice } else { echo_by_copy };
        thread::spawn(move || match echo(&connection) {
            Ok(bytes) => eprintln!("ism-stream: sent back {bytes} bytes"),
            Err(error) => eprintln!("ism-stream: a connection ended with: {error}"),
        });
    }
}

fn echo_by_copy(mut connection: &TcpStream) -> io::Result<usize> {
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        let length = connection.read(&mut buffer)?;
        if length == 0 {
            return Ok(total);
        }
        connection.write_all(buffer.get(..length).unwrap_or_default())?;
        total += length;
    }
}

fn echo_by_splice(connection: &TcpStream) -> io::Result<usize> {
    let (outlet, inlet) = pipe()?;
    let mut total = 0;
    loop {
        let length = splice(connection, None, &inlet, None, PIECE, SpliceFlags::MOVE)?;
        if length == 0 {
            return Ok(total);
        }
        let mut left = length;
        while left > 0 {
            left -= splice(&outlet, None, connection, None, left, SpliceFlags::MOVE)?;
        }
        total += length;
    }
}
