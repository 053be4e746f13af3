// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals: doorbell to event, coalesced, never lost, and only to the owner.
//!
//! Invariant: after the last signal of a DMB its owner gets an event that names it.

use ism_abi::{mode, signal_page};
use ism_frontend::signal_page::SignalPage;
use ism_frontend::{Driver, Event, Options};
use ism_tests::fabric::{
    DMB, MODES, all_zero, daemon, gid, grant, granted, join, no_event, pair, signalled, soon, write,
};

#[test]
fn a_signal_names_its_dmb() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let last = a.config().max_dmbs - 1;
        for index in [0, 1, 63, 64, 127, 1000, last] {
            let (_dmb, grant) = grant(&mut a, &mut b, index, DMB, mode);
            b.signal(grant.token).expect("signal");
            let signals = signalled(&mut a);
            assert_eq!(signals.base % 64, 0);
            assert_eq!((signals.base, signals.mask), (index / 64 * 64, 1 << (index % 64)));
        }
        no_event(&mut b);
    }
}

#[test]
fn the_data_is_there_before_the_signal() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let (dmb, grant) = grant(&mut a, &mut b, 4, DMB, mode);
        for round in 0u64..200 {
            let at = u32::try_from(round % 8).expect("small") * 8192;
            write(&mut b, &grant, at, &round.to_le_bytes());
            signalled(&mut a);
            let mut read = [0; 8];
            dmb.bytes.read(at.into(), &mut read).expect("read");
            assert_eq!(u64::from_le_bytes(read), round);
        }
    }
}

/// A pair whose receiver has 16 event buffers, all of them used and kept.
fn without_buffers(mode: u8) -> (ism_frontend::Daemon, Driver, Driver) {
    let daemon = daemon(mode, &["a", "b"]);
    let options = Options { queue_size: 16, ..Options::default() };
    let mut a = daemon.join("a", options).expect("a");
    let mut b = join(&daemon, "b");
    a.return_event_buffers(false).expect("keep buffers");
    let (_dmb, grant) = grant(&mut a, &mut b, 4000, DMB, mode);
    for _ in 0..16 {
        b.signal(grant.token).expect("signal");
        signalled(&mut a);
    }
    (daemon, a, b)
}

#[test]
fn signals_are_coalesced_while_the_receiver_has_no_buffer() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = without_buffers(mode);
        let indices = [0, 1, 63, 64, 200, 4095];
        let tokens = indices.map(|index| grant(&mut a, &mut b, index, DMB, mode).1.token);
        for _ in 0..500 {
            for token in tokens {
                b.signal(token).expect("signal");
            }
        }
        b.flush_signals().expect("flush");
        assert!(a.poll_event().expect("queue").is_none(), "an event without a buffer");
        a.return_event_buffers(true).expect("give buffers");
        let mut seen = Vec::new();
        let mut events = 0;
        while seen.len() < indices.len() {
            let signals = signalled(&mut a);
            events += 1;
            let bits = (0..64).filter(|bit| signals.mask >> bit & 1 == 1);
            seen.extend(bits.map(|bit| signals.base + bit));
        }
        seen.sort_unstable();
        assert_eq!(seen, indices);
        assert_eq!(events, 4, "one event for each group of 64");
        no_event(&mut a);
    }
}

#[test]
fn events_wait_for_buffers_in_their_order() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = without_buffers(mode);
        let ga = gid(&a);
        for code in 0..10 {
            b.signal_event(ga, code, u64::from(code) << 40).expect("signal event");
        }
        a.return_event_buffers(true).expect("give buffers");
        for code in 0..10 {
            match a.next_event(soon()).expect("event") {
                Event::Software(event) => {
                    assert_eq!((event.gid, event.code), (gid(&b), code));
                    assert_eq!(event.info, u64::from(code) << 40);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Two writers count up in their DMBs and signal at each step; the reader sleeps between events
/// and must see both final values. A lost signal leaves it asleep.
fn counted(mode: u8, options: &Options) {
    const STEPS: u64 = 3000;
    let daemon = daemon(mode, &["reader", "w1", "w2"]);
    let mut reader = daemon.join("reader", options.clone()).expect("reader");
    let mut own = Vec::new();
    let mut writers = Vec::new();
    for (index, name) in [(7, "w1"), (300, "w2")] {
        let mut writer = daemon.join(name, options.clone()).expect("writer");
        let (dmb, grant) = grant(&mut reader, &mut writer, index, DMB, mode);
        own.push(dmb);
        writers.push(std::thread::spawn(move || {
            for step in 1..=STEPS {
                write(&mut writer, &grant, 0, &step.to_le_bytes());
            }
            writer.flush_signals().expect("flush");
            writer
        }));
    }
    let mut values = [0; 2];
    while values != [STEPS; 2] {
        signalled(&mut reader);
        for (value, dmb) in values.iter_mut().zip(&own) {
            let mut read = [0; 8];
            dmb.bytes.read(0, &mut read).expect("read");
            *value = u64::from_le_bytes(read);
        }
    }
    for writer in writers {
        writer.join().expect("writer");
    }
}

#[test]
fn no_signal_is_lost_between_two_writers() {
    for mode in MODES {
        counted(mode, &Options::default());
    }
}

#[test]
fn no_signal_is_lost_without_event_idx_in_small_rings() {
    for mode in MODES {
        counted(mode, &Options { event_idx: false, queue_size: 4, ..Options::default() });
    }
}

#[test]
fn a_token_that_is_not_the_senders_wakes_nobody() {
    for mode in MODES {
        let daemon = daemon(mode, &["a", "b", "c"]);
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| join(&daemon, name));
        let (_dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode);
        for token in [0, 1, u64::MAX, grant.token ^ 1] {
            b.signal(token).expect("sent");
        }
        c.signal(grant.token).expect("sent");
        a.signal(grant.token).expect("sent");
        for driver in [&mut a, &mut b, &mut c] {
            driver.flush_signals().expect("flush");
        }
        no_event(&mut a);
        assert_eq!(c.stats().expect("stats").errors, 1, "a refused signal is counted");
        assert_eq!(b.stats().expect("stats").errors, 4);
        b.signal(grant.token).expect("signal");
        assert_eq!(signalled(&mut a).mask, 1);
    }
}

#[test]
fn both_drivers_share_the_signal_pages() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let (dmb, to_a) = grant(&mut a, &mut b, 70, DMB, mode::MAPPED);
    let (_other, to_b) = grant(&mut b, &mut a, 0, DMB, mode::MAPPED);
    let size = signal_page::SIZE as u64;
    let page = |driver: &Driver, at| {
        let bytes = driver.window(at, size).expect("mapped");
        all_zero(&bytes);
        SignalPage::new(&bytes).expect("a page")
    };
    let receiver = page(&a, dmb.reply.signal_offset);
    let sender = page(&b, to_a.signal_offset);
    assert!(sender.set(70).expect("set"), "fresh memory means: always ring");
    assert_eq!(receiver.take().expect("take"), [70]);
    receiver.silence().expect("silence");
    assert!(!sender.set(70).expect("set"), "silent");
    assert!(!sender.set(4095).expect("set"), "silent");
    receiver.arm().expect("arm");
    assert_eq!(receiver.take().expect("take"), [70, 4095], "set before arming");
    assert!(sender.set(1).expect("set"), "armed: the first rings");
    assert!(!sender.set(2).expect("set"), "the second need not");
    b.signal(to_a.token).expect("signal");
    signalled(&mut a);
    assert_eq!(receiver.take().expect("take"), [1, 2]);
    // The other direction has a page of its own.
    assert_ne!(to_b.signal_offset, dmb.reply.signal_offset);
    all_zero(&a.window(to_b.signal_offset, size).expect("mapped"));
}

#[test]
fn a_grant_in_the_other_direction_changes_nothing() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let ga = gid(&a);
        let dmb = b.register(ga, 0, DMB, mode).expect("register");
        let grant = granted(&mut a);
        no_event(&mut b);
        a.signal(grant.token).expect("signal");
        assert_eq!(signalled(&mut b).mask, 1);
        b.unregister(dmb).expect("unregister");
    }
}
