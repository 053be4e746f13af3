// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What needs no privileges and no program attached; the helper's tests have the rest.
//!
//! Invariant: the numbers are those of the BPF program.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use smc_discovery::sockopt::{LEVEL, MARK, STATE, mark, namespace, peer_speaks_smc};

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf"))
}

/// The value of `#define NAME VALUE`.
fn defined(name: &str) -> i32 {
    let source = std::fs::read_to_string(here().join("discovery.bpf.c")).expect("the source");
    let line = source.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
    let value = line.and_then(|rest| rest.split_whitespace().next()).expect("a value").to_owned();
    match value.strip_prefix("0x") {
        Some(hexadecimal) => i32::from_str_radix(hexadecimal, 16).expect("a number"),
        None => value.parse().expect("a number"),
    }
}

#[test]
fn the_options_have_the_programs_numbers() {
    assert_eq!(LEVEL, defined("DISCOVERY_LEVEL"));
    assert_eq!(MARK, defined("DISCOVERY_MARK"));
    assert_eq!(STATE, defined("DISCOVERY_STATE"));
}

/// That the object is its source's is checked by `bpf/build --check`, which takes the compiler; this takes nothing.
#[test]
fn the_checked_in_object_is_of_this_source() {
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "discovery.sums"])
        .current_dir(here())
        .output();
    let sums = sums.expect("run sha256sum, of coreutils");
    assert!(
        sums.status.success(),
        "smc/discovery/bpf has changed: run smc/discovery/bpf/build and check the object in\n{}",
        String::from_utf8_lossy(&sums.stdout)
    );
}

#[test]
fn a_socket_that_the_kernel_does_not_answer_for_has_no_answer() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    assert!(!mark(&udp).expect("a socket"));
    assert_eq!(peer_speaks_smc(&udp).expect("a socket"), None);
}

#[test]
fn what_is_no_socket_is_an_error() {
    let file = std::fs::File::open("/dev/null").expect("a file");
    assert_eq!(mark(&file).expect_err("no socket").raw_os_error(), Some(libc::ENOTSOCK));
    assert_eq!(peer_speaks_smc(&file).expect_err("no socket").raw_os_error(), Some(libc::ENOTSOCK));
    assert_eq!(namespace(&file).expect_err("no socket").raw_os_error(), Some(libc::ENOTSOCK));
}

#[test]
fn sockets_of_one_namespace_say_so() {
    let sockets = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a socket"));
    let [one, other] =
        sockets.map(|socket| namespace(socket.as_fd()).expect("SO_NETNS_COOKIE, of Linux 5.14"));
    assert_eq!(one, other);
}
