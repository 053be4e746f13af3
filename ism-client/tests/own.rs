// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which descriptors are not the program's.
//!
//! Invariant: one test, as numbers and limits are the process's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ism_client::own::{Own, around, is_own, keep_apart};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn own() -> Own {
    Own::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap())
}

#[test]
fn own_descriptors_are_high_and_known_until_they_are_closed() {
    keep_apart();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(400), ..limits }).unwrap();
    let one = own();
    let number = one.as_raw_fd();
    assert!(number >= 300, "{number}");
    assert!(is_own(number) && !is_own(number - 1) && !is_own(-1) && !is_own(RawFd::MAX));

    let other = own();
    let [low, high] = [number, other.as_raw_fd()].map(RawFd::cast_unsigned);
    let parts: Vec<_> = around(3, u32::MAX).collect();
    let is_in = |number| parts.iter().any(|part| (part.0..=part.1).contains(&number));
    assert!(!is_in(low) && !is_in(high) && is_in(3) && is_in(u32::MAX));
    assert!(parts.iter().all(|part| part.0 <= part.1));
    assert_eq!(around(low, low).next(), None);
    assert_eq!(around(low - 1, low).next(), Some((low - 1, low - 1)));
    assert_eq!(around(5, 3).next(), None);

    // Without room up there it is known where it is.
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limits }).unwrap();
    assert!(Own::copy(&one).is_err());
    setrlimit(Resource::Nofile, limits).unwrap();
    let theirs = OwnedFd::from(other);
    assert!(!is_own(high.cast_signed()));
    drop(theirs);
    drop(one);
    assert!(!is_own(number));

    // A number is given out again as soon as it is closed.
    std::thread::scope(|scope| {
        let churn = || (0..20_000).for_each(|_| assert!(is_own(own().as_raw_fd())));
        (0..4).for_each(|_| drop(scope.spawn(churn)));
    });
    assert!((0..1024).all(|number| !is_own(number)));
}
