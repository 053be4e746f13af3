// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The counters.

#![expect(clippy::indexing_slicing, reason = "a test that does not get what it expects shall fail")]

use super::*;

// smc_stats.h SMC_STAT_PAYLOAD_SUB
#[test]
fn sizes_fall_into_linuxs_classes() {
    let kib = 1024;
    let cases = [
        (1, 0),
        (8 * kib, 0),
        (8 * kib + 1, 1),
        (16 * kib, 1),
        (16 * kib + 1, 2),
        (64 * kib, 3),
        (1024 * kib, 7),
        (1024 * kib + 1, 8),
        (512 * 1024 * kib, 8),
        (usize::MAX, 8),
    ];
    for (bytes, class) in cases {
        let mut direction = Direction::default();
        direction.request(bytes, 1);
        let mut expected = [0; SIZE_CLASSES];
        expected[class] = 1;
        assert_eq!(direction.request_sizes, Histogram(expected), "{bytes}");
    }
}

#[test]
fn a_request_that_moved_nothing_is_counted_but_has_no_size() {
    let mut tx = Direction::default();
    tx.request(100, 0);
    tx.request(0, 0);
    assert_eq!((tx.requests, tx.bytes, tx.request_sizes), (2, 0, Histogram::default()));
    tx.request(20_000, 5);
    assert_eq!((tx.requests, tx.bytes, tx.request_sizes.0[2]), (3, 5, 1));
}

#[test]
fn buffers_in_use_are_the_taken_without_the_released() {
    let mut rx = Direction::default();
    let (small, large) = (BufferSize::MIN, BufferSize::MAX_SMCD);
    rx.buffer_allocated(small);
    rx.buffer_reused(small);
    rx.buffer_allocated(large);
    assert_eq!(rx.buffer_bytes, (32 << 10) + (1 << 20));
    rx.buffer_released(small);
    rx.buffer_released(large);
    assert_eq!(rx.buffer_bytes, 16 << 10);
    assert_eq!((rx.buffers_allocated, rx.buffers_reused), (2, 1));
    assert_eq!((rx.buffer_sizes.0[1], rx.buffer_sizes.0[7]), (2, 1));
}

#[test]
fn successes_and_errors_are_counted_by_side_and_version() {
    let mut stats = Stats::default();
    stats.smcd.handshake_success(Role::Client, Version::V1);
    stats.smcd.handshake_success(Role::Client, Version::V2);
    stats.smcr.handshake_success(Role::Server, Version::V1);
    stats.technology(false).handshake_success(Role::Server, Version::V2);
    stats.technology(true).handshake_success(Role::Client, Version::V2);
    stats.handshake_error(Role::Client);
    stats.handshake_error(Role::Server);
    stats.handshake_error(Role::Server);
    let (smcd, smcr) = (&stats.smcd, &stats.smcr);
    assert_eq!((smcd.client_v1, smcd.client_v2, smcd.server_v1, smcd.server_v2), (1, 2, 0, 0));
    assert_eq!((smcr.client_v1, smcr.client_v2, smcr.server_v1, smcr.server_v2), (0, 0, 1, 1));
    assert_eq!((stats.client_handshake_errors, stats.server_handshake_errors), (1, 2));
}

#[test]
fn each_side_counts_its_reasons() {
    let mut all = Fallbacks::default();
    all.record(Role::Server, 0x0303_0000);
    all.record(Role::Client, 0x0301_0000);
    all.record(Role::Server, 0x0500_0000);
    all.record(Role::Server, 0x0303_0000);
    assert_eq!(all.server.iter().collect::<Vec<_>>(), [(0x0303_0000, 2), (0x0500_0000, 1)]);
    assert_eq!(all.client.iter().collect::<Vec<_>>(), [(0x0301_0000, 1)]);
    assert_eq!((all.server.total(), all.client.total()), (3, 1));
}

// smc_stats.h SMC_MAX_FBACK_RSN_CNT
#[test]
fn the_37th_reason_is_in_the_total_only() {
    let mut all = Fallbacks::default();
    for code in 1..=37 {
        all.record(Role::Client, code);
    }
    all.record(Role::Client, 36);
    assert_eq!((all.client.iter().count(), all.client.total()), (36, 38));
    assert_eq!(all.client.iter().last(), Some((36, 2)));
}

#[test]
fn a_reasons_count_wraps_and_its_total_does_not() {
    let mut all = Fallbacks::default();
    for _ in 0..65_537 {
        all.record(Role::Server, 7);
    }
    assert_eq!((all.server.iter().next(), all.server.total()), (Some((7, 1)), 65_537));
}

#[test]
fn a_connections_counts_go_where_linux_has_them() {
    let mut smcd = Technology::default();
    let counts = Counts {
        send_full: 1,
        peer_full: 2,
        send_too_small: 3,
        peer_too_small: 4,
        receive_full: 5,
        receive_too_small: 6,
    };
    smcd.add_counts(&counts);
    smcd.add_counts(&counts);
    let Technology { tx, rx, .. } = &smcd;
    assert_eq!((tx.buffer_full, tx.peer_buffer_full), (2, 4));
    assert_eq!((tx.buffer_too_small, tx.peer_buffer_too_small), (6, 8));
    assert_eq!((rx.buffer_full, rx.buffer_too_small), (10, 12));
    assert_eq!((rx.peer_buffer_full, rx.peer_buffer_too_small), (0, 0));
}

#[test]
fn two_threads_counters_add_up() {
    let count = |times: u32| {
        let mut stats = Stats::default();
        for at in 0..times {
            for smcd in [true, false] {
                let technology = stats.technology(smcd);
                technology.tx.request(8192, 100);
                technology.rx.request(1 << 20, 7);
                technology.rx.buffer_allocated(BufferSize::MIN);
                technology.tx.buffer_reused(BufferSize::MIN);
                technology.rx.buffer_downgraded();
                technology.rx.buffer_full += 1;
                technology.rx.buffer_too_small += 2;
                technology.tx.peer_buffer_full += 3;
                technology.tx.peer_buffer_too_small += 4;
                technology.urgent += 5;
                technology.splice += 6;
                technology.cork += 7;
                technology.nodelay += 8;
                for role in [Role::Client, Role::Server] {
                    technology.handshake_success(role, Version::V1);
                    technology.handshake_success(role, Version::V2);
                }
            }
            stats.handshake_error(Role::Client);
            stats.handshake_error(Role::Server);
            stats.fallbacks.record(Role::Client, 1 + at % 3);
            stats.fallbacks.record(Role::Server, 1 + at % 3);
        }
        stats
    };
    let mut sum = count(3);
    sum.add(&count(6));
    assert_eq!(sum, count(9));
}
