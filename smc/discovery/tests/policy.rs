// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the policy file's rules decide, and what it may not say.
//!
//! Invariant: pure: no socket, no file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use proptest::prelude::*;
use smc_discovery::policy::{Error, Policy, Prefix, Transport};

fn policy(text: &str) -> Policy {
    Policy::parse(text, Path::new("policy.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(
        r#"
        default = "tcp"
        [[rule]]
        transport = "tcp"
        peer-port = 22
        [[rule]]
        transport = "smc"
        peer = "192.0.2.0/24"
        [[rule]]
        transport = "tcp"
        peer = "192.0.2.7"
        [[rule]]
        transport = "smc"
        local = "2001:db8::/32"
        local-port = "8000-8099"
        "#,
    );
    for (local, peer, transport) in [
        ("192.0.2.1:40000", "192.0.2.7:22", Transport::Tcp),
        ("192.0.2.1:40000", "192.0.2.7:80", Transport::Smc), // the third rule comes too late
        ("192.0.2.1:40000", "192.0.3.7:80", Transport::Tcp),
        ("[2001:db8::1]:8000", "[2001:db8:1::]:9", Transport::Smc),
        ("[2001:db8::1]:8099", "[::1]:9", Transport::Smc),
        ("[2001:db8::1]:8100", "[::1]:9", Transport::Tcp),
        ("[2001:db9::1]:8000", "[::1]:9", Transport::Tcp),
        ("192.0.2.1:40000", "[::ffff:192.0.2.7]:80", Transport::Smc), // a dual-stack socket's IPv4
    ] {
        assert_eq!(policy.decides(at(local), at(peer)), transport, "{local} to {peer}");
    }
}

#[test]
fn without_a_rule_the_default_decides_and_that_is_smc() {
    let (local, peer) = (at("127.0.0.1:40000"), at("127.0.0.1:80"));
    assert_eq!(policy("").decides(local, peer), Transport::Smc);
    assert_eq!(policy(""), Policy::default());
    assert_eq!(policy("default = \"tcp\"").decides(local, peer), Transport::Tcp);
}

#[test]
fn a_rule_for_a_program_is_for_that_program() {
    let policy = policy("[[rule]]\ntransport = \"tcp\"\nprogram = \"sshd\"\n");
    let (local, peer) = (at("127.0.0.1:40000"), at("127.0.0.1:80"));
    assert_eq!(policy.for_program("/usr/sbin/sshd").decides(local, peer), Transport::Tcp);
    assert_eq!(policy.for_program("sshd").decides(local, peer), Transport::Tcp);
    assert_eq!(policy.for_program("/usr/sbin/nginx").decides(local, peer), Transport::Smc);
    assert_eq!(policy.decides(local, peer), Transport::Smc);
}

#[test]
fn a_client_that_does_not_know_its_own_address_offers_only_what_is_sure() {
    let rules = "[[rule]]\ntransport = \"tcp\"\nlocal = \"192.0.2.0/24\"\n";
    let policy = policy(rules);
    let peer = at("192.0.2.7:80");
    assert!(!policy.may_offer(None, peer), "the kernel may choose an address of that rule");
    assert!(policy.may_offer(Some(at("198.51.100.1:0")), peer));
    assert!(!policy.may_offer(Some(at("192.0.2.1:0")), peer));

    let policy = self::policy(
        "default = \"tcp\"\n[[rule]]\ntransport = \"smc\"\nlocal-port = \"4000-4999\"\n",
    );
    assert!(!policy.may_offer(Some(at("192.0.2.1:0")), peer), "the kernel may choose another port");
    assert!(policy.may_offer(Some(at("192.0.2.1:4000")), peer));
}

#[test]
fn a_listener_answers_if_any_client_may_have_smc() {
    let some = policy(
        "default = \"tcp\"\n[[rule]]\ntransport = \"smc\"\npeer = \"192.0.2.0/24\"\nlocal-port = 80\n",
    );
    assert!(some.may_answer(at("0.0.0.0:80")));
    assert!(!some.may_answer(at("0.0.0.0:81")));
    let none = policy("[[rule]]\ntransport = \"tcp\"\nlocal-port = 80\n");
    assert!(!none.may_answer(at("[::]:80")));
    assert!(none.may_answer(at("[::]:81")));
    let by_address = policy("[[rule]]\ntransport = \"tcp\"\nlocal = \"192.0.2.1\"\n");
    assert!(by_address.may_answer(at("0.0.0.0:80")), "it has other addresses");
    assert!(!by_address.may_answer(at("192.0.2.1:80")));
}

#[test]
fn loopback_is_nowhere_unique() {
    let policy = policy("[rendezvous]\nunique = [\"0.0.0.0/0\", \"::/0\"]\n");
    assert!(policy.is_unique(IpAddr::from([192, 0, 2, 1])));
    assert!(!policy.is_unique(IpAddr::from([127, 1, 2, 3])));
    assert!(!policy.is_unique("::1".parse().expect("an address")));
    assert!(!Policy::default().is_unique(IpAddr::from([192, 0, 2, 1])));
}

#[test]
fn a_complaint_names_the_file_the_line_and_what_is_allowed() {
    for (text, line, expected) in [
        ("default = \"udp\"\n", 1, "expected `smc` or `tcp`"),
        ("\n[[rule]]\nprogram = \"a\"\n", 2, "missing field `transport`"),
        ("[[rule]]\ntransport = \"tcp\"\npeers = \"::1\"\n", 3, "expected one of"),
        ("[[rule]]\ntransport = \"tcp\"\npeer = \"localhost\"\n", 3, "write `192.0.2.1`"),
        ("[[rule]]\ntransport = \"tcp\"\npeer = \"192.0.2.1/33\"\n", 3, "0 to 32 are allowed"),
        (
            "[[rule]]\ntransport = \"tcp\"\npeer = \"192.0.2.1/24\"\n",
            3,
            "bits set behind the first 24",
        ),
        ("[[rule]]\ntransport = \"tcp\"\npeer = \"::ffff:192.0.2.1\"\n", 3, "write `192.0.2.1`"),
        ("[[rule]]\ntransport = \"tcp\"\npeer-port = 65536\n", 3, "from 1 to 65535"),
        ("[[rule]]\ntransport = \"tcp\"\npeer-port = \"9-8\"\n", 3, "from 1 to 65535"),
        ("[[rule]]\ntransport = \"tcp\"\npeer-port = 0\n", 3, "from 1 to 65535"),
        ("[[rule]\n", 1, ""),
    ] {
        let error = Policy::parse(text, Path::new("policy.toml")).expect_err(text);
        assert!(error.to_string().starts_with(&format!("policy.toml:{line}: ")), "{text}: {error}");
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let error = Policy::read(Path::new("/nowhere/policy.toml")).expect_err("no such file");
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

#[test]
fn the_example_in_dist_is_taken() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/smc-policy.toml");
    let policy = Policy::read(Path::new(path)).unwrap_or_else(|error| panic!("{error}"));
    let ssh = (at("192.0.2.1:22"), at("192.0.2.2:40000"));
    assert_eq!(policy.decides(ssh.0, ssh.1), Transport::Tcp);
}

/// A rule of few addresses and ports, so that rules overlap.
fn rule() -> impl Strategy<Value = String> {
    let transport = prop::sample::select(vec!["smc", "tcp"]);
    let address =
        || prop::option::of(prop::sample::select(vec!["192.0.2.0/30", "192.0.2.2", "::/0"]));
    let ports = || prop::option::of(prop::sample::select(vec!["1-2", "2-3"]));
    (transport, address(), ports(), address(), ports()).prop_map(
        |(transport, local, local_port, peer, peer_port)| {
            let line = |key: &str, value: Option<&str>| {
                value.map_or(String::new(), |value| format!("{key} = {value:?}\n"))
            };
            format!(
                "[[rule]]\ntransport = {transport:?}\n{}{}{}{}",
                line("local", local),
                line("local-port", local_port),
                line("peer", peer),
                line("peer-port", peer_port)
            )
        },
    )
}

fn end() -> impl Strategy<Value = SocketAddr> {
    (0_u8..6, 1_u16..5).prop_map(|(last, port)| SocketAddr::from(([192, 0, 2, last], port)))
}

proptest! {
    #[test]
    fn what_is_offered_and_answered_fits_what_is_decided(
        rules in prop::collection::vec(rule(), 0..5),
        local in end(),
        peer in end(),
    ) {
        let policy = policy(&rules.concat());
        let smc = policy.decides(local, peer) == Transport::Smc;
        prop_assert_eq!(policy.may_offer(Some(local), peer), smc);
        for known in [None, Some(SocketAddr::new(local.ip(), 0))] {
            prop_assert!(!policy.may_offer(known, peer) || smc, "offered, and then decided for TCP");
        }
        for address in [local, SocketAddr::new(IpAddr::from([0, 0, 0, 0]), local.port())] {
            prop_assert!(!smc || policy.may_answer(address), "decided for SMC, and the listener is not marked");
        }
    }

    #[test]
    fn a_prefix_holds_what_shares_its_bits(ip: u32, other: u32, len in 0_u32..=32) {
        let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
        let text = format!("{}/{len}", Ipv4Addr::from_bits(ip & mask));
        let prefix = Prefix::try_from(text).expect("a prefix");
        prop_assert!(prefix.contains(Ipv4Addr::from_bits(ip).into()));
        let near = (ip & mask) | (other & !mask);
        prop_assert!(prefix.contains(Ipv4Addr::from_bits(near).into()));
        prop_assert_eq!(prefix.contains(Ipv4Addr::from_bits(other).into()), other & mask == ip & mask);
    }

    #[test]
    fn any_text_is_taken_or_complained_about(text in "\\PC{0,80}") {
        let _ = Policy::parse(&text, Path::new("policy.toml"));
    }
}
