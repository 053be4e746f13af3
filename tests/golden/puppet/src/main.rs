// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Holds SMC sockets in a guest and does with them one thing at a time, when told.
//!
//! Invariant: `ask` returns when the system call has returned, so that the steps of two guests keep
//! the order they were written in.
//!
//! `puppet serve PATH` holds the sockets; `puppet ask PATH WORD…` tells it what to do; `puppet pnet
//! WORD…` changes the kernel's PNET table.

mod pnet;
mod sockets;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use sockets::Sockets;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", path] => serve(path),
        ["ask", path, order @ ..] => ask(path, order),
        ["pnet", order @ ..] => pnet::change(order),
        _ => Err(io::Error::other("serve PATH, ask PATH WORD..., or pnet WORD...")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("puppet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &str) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    println!("puppet: ready");
    let sockets = Arc::new(Sockets::default());
    for asker in listener.incoming() {
        let (asker, sockets) = (asker?, Arc::clone(&sockets));
        thread::spawn(move || answer(&asker, &sockets));
    }
    Ok(())
}

fn answer(mut asker: &UnixStream, sockets: &Sockets) -> io::Result<()> {
    let mut order = String::new();
    BufReader::new(asker).read_line(&mut order)?;
    let words: Vec<&str> = order.split_whitespace().collect();
    match sockets.obey(&words) {
        Ok(()) => writeln!(asker, "done"),
        Err(error) => writeln!(asker, "{order}: {error}"),
    }
}

fn ask(path: &str, order: &[&str]) -> io::Result<()> {
    let mut puppet = UnixStream::connect(path)?;
    writeln!(puppet, "{}", order.join(" "))?;
    puppet.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    puppet.read_to_string(&mut answer)?;
    if answer.trim() == "done" { Ok(()) } else { Err(io::Error::other(answer.trim().to_owned())) }
}
