// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `ism-iceoryx2`: a spinning ping-pong of 14 bytes between two processes over iceoryx2's
//! publish-subscribe, without copies beyond its own.
//!
//! Invariant: each round trip is one message each way; the time is of all of them, divided.
//!
//! `ism-iceoryx2 answer NAME` answers one who asks; `ism-iceoryx2 ask NAME SECONDS` prints half
//! a round trip in µs.

use std::error::Error;
use std::hint::spin_loop;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

/// sockperf's smallest.
type Message = [u8; 14];
type Failure = Box<dyn Error>;

/// The last one.
const END: Message = [255; 14];
/// Messages before the first is timed: the first ones map memory.
const WARM_UP: u64 = 10_000;
/// Messages between two looks at the clock.
const BATCH: u64 = 1000;
/// A message sent before the other end is there is lost, and sent again after this.
const PATIENCE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["answer", name] => answer(name),
        ["ask", name, seconds] => ask(name, seconds),
        _ => Err("usage: ism-iceoryx2 answer NAME | ask NAME SECONDS".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ism-iceoryx2: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One direction: both ends name it, and the first to come makes it.
macro_rules! direction {
    ($node:expr, $name:expr) => {
        $node
            .service_builder(&ServiceName::new(&$name)?)
            .publish_subscribe::<Message>()
            .max_publishers(1)
            .max_subscribers(1)
            .history_size(0)
            .subscriber_max_buffer_size(1)
            .enable_safe_overflow(true)
            .open_or_create()?
    };
}

fn answer(name: &str) -> Result<(), Failure> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let (there, back) =
        (direction!(node, format!("{name}-there")), direction!(node, format!("{name}-back")));
    let publisher = back.publisher_builder().create()?;
    let subscriber = there.subscriber_builder().create()?;
    println!("ready");
    loop {
        let message = receive(&subscriber, || true)?.unwrap_or_default();
        // Killed it would leave its files behind.
        if message == END {
            return Ok(());
        }
        send(&publisher, message)?;
    }
}

fn ask(name: &str, seconds: &str) -> Result<(), Failure> {
    let seconds = Duration::from_secs(seconds.parse()?);
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let (there, back) =
        (direction!(node, format!("{name}-there")), direction!(node, format!("{name}-back")));
    let subscriber = back.subscriber_builder().create()?;
    let publisher = there.publisher_builder().create()?;
    meet(&publisher, &subscriber)?;
    round_trips(&publisher, &subscriber, WARM_UP)?;
    let (start, mut trips) = (Instant::now(), 0_u32);
    while start.elapsed() < seconds {
        round_trips(&publisher, &subscriber, BATCH)?;
        trips += 1;
    }
    let batch = start.elapsed() / trips;
    send(&publisher, END)?;
    println!("half a round trip: {} us", batch.as_secs_f64() * 1e6 / (2 * BATCH) as f64);
    Ok(())
}

/// Sends until the other end answers.
fn meet(
    publisher: &Publisher<ipc::Service, Message, ()>,
    subscriber: &Subscriber<ipc::Service, Message, ()>,
) -> Result<(), Failure> {
    loop {
        send(publisher, Message::default())?;
        let start = Instant::now();
        if receive(subscriber, || start.elapsed() < PATIENCE)?.is_some() {
            break;
        }
    }
    // The answers to those that were only late.
    let start = Instant::now();
    while receive(subscriber, || start.elapsed() < PATIENCE)?.is_some() {}
    Ok(())
}

fn round_trips(
    publisher: &Publisher<ipc::Service, Message, ()>,
    subscriber: &Subscriber<ipc::Service, Message, ()>,
    count: u64,
) -> Result<(), Failure> {
    for _ in 0..count {
        send(publisher, [7; 14])?;
        receive(subscriber, || true)?;
    }
    Ok(())
}

fn send(publisher: &Publisher<ipc::Service, Message, ()>, message: Message) -> Result<(), Failure> {
    publisher.loan_uninit()?.write_payload(message).send()?;
    Ok(())
}

/// Spins for a message, as long as `go_on` says so.
fn receive(
    subscriber: &Subscriber<ipc::Service, Message, ()>,
    go_on: impl Fn() -> bool,
) -> Result<Option<Message>, Failure> {
    loop {
        if let Some(sample) = subscriber.receive()? {
            return Ok(Some(*sample));
        }
        if !go_on() {
            return Ok(None);
        }
        spin_loop();
    }
}
