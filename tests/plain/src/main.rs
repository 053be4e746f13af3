// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `ism-plain`: blocking clients and servers as anybody writes them, to be measured over TCP, AF_UNIX and
//! under `smc-run`.
//!
//! Invariant: the standard library's sockets, one thread a connection, no option set, no word of SMC.
//!
//! An address is `127.0.0.1:PORT`, or the path of a socket if it has a slash. Servers run until they
//! are killed.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: ism-plain serve ADDRESS BYTES          echo messages of so many bytes
       ism-plain ping ADDRESS BYTES SECONDS   send one, await it, and so on
       ism-plain answer ADDRESS               echo a byte of each connection and close
       ism-plain connect ADDRESS SECONDS      connect, send a byte, await it and the end, and so on
       ism-plain hold ADDRESS                 send a byte, await it, and keep the connection";

type Failure = Box<dyn std::error::Error>;

/// What TCP's and AF_UNIX's connections have in common here.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["serve", address, bytes] => serve(address, bytes),
        ["ping", address, bytes, seconds] => ping(address, bytes, seconds),
        ["answer", address] => answer(address),
        ["connect", address, seconds] => connect_often(address, seconds),
        ["hold", address] => hold(address),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn connect(address: &str) -> io::Result<Box<dyn Stream>> {
    Ok(if address.contains('/') {
        Box::new(UnixStream::connect(address)?)
    } else {
        Box::new(TcpStream::connect(address)?)
    })
}

/// Hands each connection to `each`, for ever.
fn listen(address: &str, each: impl Fn(Box<dyn Stream>)) -> Result<(), Failure> {
    if address.contains('/') {
        let listener = UnixListener::bind(address)?;
        loop {
            each(Box::new(listener.accept()?.0));
        }
    }
    let listener = TcpListener::bind(address)?;
    loop {
        each(Box::new(listener.accept()?.0));
    }
}

fn serve(address: &str, bytes: &str) -> Result<(), Failure> {
    let bytes: usize = bytes.parse()?;
    listen(address, |mut stream| {
        std::thread::spawn(move || {
            let mut message = vec![0; bytes];
            // The client's end, or its failure, which it tells itself.
            while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
        });
    })
}

fn ping(address: &str, bytes: &str, seconds: &str) -> Result<(), Failure> {
    let mut stream = connect(address)?;
    let mut message = vec![7; bytes.parse()?];
    let (seconds, start) = (Duration::from_secs(seconds.parse()?), Instant::now());
    let mut messages: u64 = 0;
    while start.elapsed() < seconds {
        // So few that a slow transport is not measured longer, so many that the clock costs nothing.
        for _ in 0..100 {
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
        }
        // There and back.
        messages += 200;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("messages {messages} seconds {seconds} sleeps {}", sleeps()?);
    Ok(())
}

/// How often this thread has slept, as the kernel counts.
fn sleeps() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(count.ok_or("the kernel counts no sleeps")?.trim().parse()?)
}

fn answer(address: &str) -> Result<(), Failure> {
    listen(address, |mut stream| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() {
            // The client tells of a failure.
            let _ = stream.write_all(&byte);
        }
    })
}

fn connect_often(address: &str, seconds: &str) -> Result<(), Failure> {
    let (seconds, start) = (Duration::from_secs(seconds.parse()?), Instant::now());
    let mut connections: u64 = 0;
    while start.elapsed() < seconds {
        let mut stream = connect(address)?;
        stream.write_all(&[7])?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer != [7] {
            return Err(format!("connection {connections} was answered with {answer:?}").into());
        }
        connections += 1;
    }
    println!("connections {connections} seconds {}", start.elapsed().as_secs_f64());
    Ok(())
}

fn hold(address: &str) -> Result<(), Failure> {
    let mut stream = connect(address)?;
    let mut byte = [7];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)?;
    println!("open");
    // Until the server's end.
    stream.read_exact(&mut byte)?;
    Ok(())
}
