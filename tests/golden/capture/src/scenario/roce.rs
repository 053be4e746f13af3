// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-R over soft-RoCE (rxe) between two guests.
//!
//! Invariant: see `scenario`.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use ism_harness::Vm;

use super::declines::{attempt, forced};
use super::{Scenario, everywhere, talk, write};
use crate::lab::{Guests, Lab, Recording};

pub(super) const SCENARIOS: [Scenario; 15] = [
    ("tcp-option", "who sends the TCP option to whom, and PEERNOSMC", option),
    ("smcr-v2", "SMC-R v2.1, a port in each guest: contacts, data, endings", version_2),
    ("smcr-v2-link-life", "TEST_LINK, devices that are removed, SYNCERR", link_life),
    ("smcr-v2-idle", "a link group that nobody uses for (a hurried) 600 s: DELETE_LINK ALL", idle),
    ("smcr-v2-two-ports", "two ports in each guest: ADD_LINK, failover, DELETE_LINK", two_ports),
    ("smcr-v2-asymmetric", "two ports at one end, then at both: REQ_ADD_LINK", asymmetric),
    ("smcr-v2-limits", "connections and links limited differently at both ends", limits),
    ("smcr-v2-routed", "the guests in different subnets: indirect", routed),
    ("smcr-v2-refusals", "negative responses of link control", refusals),
    ("smcr-versions", "proposals of both versions and both kinds", versions),
    ("smcr-v2-declines", "declines of SMC-R v2", declines),
    ("smcr-v1", "SMC-R v1, which a forced GID choice permits: the same as smcr-v2", version_1),
    ("smcr-v1-idle", "SMC-R v1: TEST_LINK, DELETE_LINK ALL", version_1_idle),
    ("smcr-v1-two-ports", "SMC-R v1: ADD_LINK with ADD_LINK_CONT, failover", version_1_ports),
    ("smcr-v1-declines", "declines of SMC-R v1", version_1_declines),
];

/// Takes Linux's loopback device out of the proposal, by a PNETID that no network card has.
const NO_LOOPBACK: &str = "puppet pnet add NOWHERE dev lo";

/// One port in a guest, on its network card.
fn one_port(vm: &Vm) -> Result<()> {
    vm.run("rdma link add rxe0 type rxe netdev eth0").map(drop)?;
    ready(vm, "rxe0")
}

/// Two network devices of one subnet in a guest: its card behind a bridge, and a veth on the bridge.
/// A PNETID says that both reach the same network.
fn second_netdev(vm: &Vm) -> Result<()> {
    let [first, second] = addresses(vm);
    vm.run(&format!(
        "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
         ip addr flush dev eth0 && ip link add br0 address $(cat /sys/class/net/eth0/address) type bridge forward_delay 0 &&
         ip link set eth0 master br0 && ip link set br0 up && ip addr add {first}/24 dev br0 &&
         ip link add veth0 type veth peer name veth1 && ip link set veth0 master br0 up &&
         ip link set veth1 up && ip addr add {second}/24 dev veth1 &&
         puppet pnet add NET1 eth br0 && puppet pnet add NET1 dev rxe0 && puppet pnet add NET1 dev rxe1"
    ))
    .map(drop)
}

fn addresses(vm: &Vm) -> [String; 2] {
    let first = vm.ip();
    let second = first.replace("10.77.0.", "10.77.0.1");
    [first, second]
}

/// A port on each of the two, `rxe0` and `rxe1`.
fn port(vm: &Vm, n: usize) -> Result<()> {
    let netdev = ["br0", "veth1"].get(n).copied().unwrap_or_default();
    vm.run(&format!("rdma link add rxe{n} type rxe netdev {netdev}")).map(drop)?;
    ready(vm, &format!("rxe{n}"))
}

fn ready(vm: &Vm, device: &str) -> Result<()> {
    let state = format!("/sys/class/infiniband/{device}/ports/1/state");
    vm.run(&format!("until grep -q ACTIVE {state}; do sleep 0.05; done")).map(drop)?;
    sleep(Duration::from_millis(300)); // the kernel's SMC hears of it in a work queue
    Ok(())
}

fn boot() -> Result<Lab> {
    Lab::boot(&Guests::Plain)
}

/// SMC-R v1 in both guests: no UEID, no loopback, and the RoCE v2 GID shown as a v1 one.
fn only_version_1(lab: &Lab) -> Result<()> {
    everywhere(lab, &format!("smcd ueid flush && {NO_LOOPBACK}"))?;
    for vm in lab.guests() {
        vm.run(&format!("insmod /golden_force.ko roce_v1={}", vm.ip()))?;
    }
    Ok(())
}

fn option(name: &str) -> Result<usize> {
    let lab = boot()?;
    let recording = lab.record()?;
    talk::listen(&lab)?;
    lab.step("both ends speak SMC, but have no common device")?;
    attempt(&lab, 1)?;
    lab.step("the client does not speak SMC, the server does")?;
    lab.client().run(&format!("echo | socat -u - TCP:{}:7000", lab.address()))?;
    let plain = lab.server().spawn("exec socat -u TCP-LISTEN:7002,reuseaddr -")?;
    lab.server().wait_listening(7002)?;
    lab.step("the client speaks SMC, the server does not")?;
    lab.ask(lab.client(), &format!("connect c2 {}:7002", lab.address()))?;
    lab.ask(lab.client(), "close c2")?;
    drop(plain);
    write(name, &lab, &recording.finish()?, &["decline-v2-03030007", "syn-without-option"])
}

fn version_2(name: &str) -> Result<usize> {
    let lab = boot()?;
    lab.guests().try_for_each(one_port)?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    talk::everything(&lab)?;
    write(name, &lab, &recording.finish()?, &["accept-r-v2-first-contact", "cdc-abort"])
}

fn link_life(name: &str) -> Result<usize> {
    let lab = boot()?;
    everywhere(&lab, &format!("{NO_LOOPBACK}; echo 2 >/proc/sys/net/smc/smcr_testlink_time"))?;
    lab.guests().try_for_each(one_port)?;
    let (client, server) = (lab.client(), lab.server());
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    lab.step("nothing happens for longer than net.smc.smcr_testlink_time, 2 s")?;
    sleep(Duration::from_secs(5));
    lab.step("both connections are closed")?;
    talk::close(&lab, 1)?;
    talk::close(&lab, 2)?;

    let lose = "ip link set eth0 down; rdma link del rxe0; ip link set eth0 up";
    lab.step("the client network is cut, its RoCE device removed and made again")?;
    client.run(lose)?;
    one_port(client)?;
    lab.step("the client, which has lost its link group, connects again: c3")?;
    attempt(&lab, 3)?;
    lab.step("a new link group: c4")?;
    attempt(&lab, 4)?;

    lab.step("another connection in it: c5")?;
    talk::connect(&lab, 5)?;
    lab.step("the server's RoCE device is removed while c5 is open")?;
    let removing = server.spawn("rdma link del rxe0")?;
    sleep(Duration::from_secs(4));
    lab.step("c5 is closed")?;
    talk::close(&lab, 5)?;
    removing.succeed(Duration::from_secs(60))?;
    one_port(server)?;
    lab.step("the server, which has lost its link group, has a RoCE device again: c6")?;
    attempt(&lab, 6)?;

    server.run("insmod /golden_force.ko answer=smcr_lgr_reg_rmbs:0")?;
    lab.step("the client network is cut again, its RoCE device removed and made again")?;
    client.run(lose)?;
    one_port(client)?;
    lab.step("the server believes its RMB confirmed (forced: smcr_lgr_reg_rmbs returns 0): c7")?;
    // The server kills its connection with the link group, so nothing is there to accept (accept()
    // hangs), while the client has fallen back to TCP.
    lab.ask(client, &format!("connect c7 {}:7000", lab.address()))?;
    lab.ask(client, "close c7")?;
    let proves = ["test-link-v2-response", "decline-v2-04000000-out-of-sync"];
    write(name, &lab, &recording.finish()?, &proves)
}

fn idle(name: &str) -> Result<usize> {
    let lab = boot()?;
    everywhere(&lab, &format!("{NO_LOOPBACK}; insmod /golden_force.ko hurry=1"))?;
    lab.guests().try_for_each(one_port)?;
    let recording = lab.record()?;
    idle_life(name, &lab, recording, "delete-link-v2-request-all-orderly")
}

fn version_1_idle(name: &str) -> Result<usize> {
    let lab = boot()?;
    lab.guests().try_for_each(one_port)?;
    everywhere(&lab, &format!("smcd ueid flush && {NO_LOOPBACK}"))?;
    for vm in lab.guests() {
        vm.run(&format!("insmod /golden_force.ko roce_v1={} hurry=1", vm.ip()))?;
    }
    everywhere(&lab, "echo 2 >/proc/sys/net/smc/smcr_testlink_time")?;
    let recording = lab.record()?;
    idle_life(name, &lab, recording, "delete-link-v1-request-all-orderly")
}

fn idle_life(name: &str, lab: &Lab, recording: Recording<'_>, proves: &str) -> Result<usize> {
    talk::contacts(lab)?;
    lab.step("nothing happens for 5 s")?;
    sleep(Duration::from_secs(5));
    lab.step("c1 and c2 are closed, and nothing happens for 600 s (forced to 3 s)")?;
    talk::close(lab, 1)?;
    talk::close(lab, 2)?;
    sleep(Duration::from_secs(5));
    write(name, lab, &recording.finish()?, &[proves])
}

fn two_ports(name: &str) -> Result<usize> {
    let lab = boot()?;
    for vm in lab.guests() {
        second_netdev(vm)?;
        port(vm, 0)?;
        port(vm, 1)?;
    }
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    lab.step("the client connects twice more, so that both links carry two: c3, c4")?;
    talk::connect(&lab, 3)?;
    talk::connect(&lab, 4)?;
    fail_over(&lab, &[1, 2, 3, 4])?;
    write(
        name,
        &lab,
        &recording.finish()?,
        &["add-link-v2-response", "delete-link-v2-request-orderly", "cdc-failover"],
    )
}

/// Cuts the second port at the client, lets it come back, removes it at the server. Data goes over
/// every connection before and after, so that the switched one shows.
fn fail_over(lab: &Lab, connections: &[u32]) -> Result<()> {
    let (client, server) = (lab.client(), lab.server());
    let chat = |what: &str| {
        connections.iter().try_for_each(|n| {
            lab.step(&format!("c{n}: the client sends 10 bytes, the server answers 12 ({what})"))?;
            lab.ask(client, &format!("send c{n} 10"))?;
            lab.ask(server, &format!("recv s{n} 10"))?;
            lab.ask(server, &format!("send s{n} 12"))?;
            lab.ask(client, &format!("recv c{n} 12"))
        })
    };
    chat("two links")?;
    lab.step("the client's second port goes down")?;
    client.run("ip link set veth1 down")?;
    sleep(Duration::from_secs(4));
    chat("one link")?;
    lab.step("the client's second port comes up")?;
    client.run("ip link set veth1 up")?;
    sleep(Duration::from_secs(4));
    chat("two links again")?;
    lab.step("the server's second port is removed")?;
    let removing = server.spawn("rdma link del rxe1")?;
    sleep(Duration::from_secs(4));
    chat("one link again")?;
    for n in connections {
        lab.step(&format!("c{n}: the client closes, then the server"))?;
        talk::close(lab, *n)?;
    }
    removing.succeed(Duration::from_secs(60)).map(drop)
}

fn asymmetric(name: &str) -> Result<usize> {
    let lab = boot()?;
    let (client, server) = (lab.client(), lab.server());
    lab.guests().try_for_each(second_netdev)?;
    port(server, 0)?;
    port(server, 1)?;
    port(client, 0)?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    lab.step("the client gets a second port: it asks for a link")?;
    port(client, 1)?;
    sleep(Duration::from_secs(4));
    lab.step("c1, c2: the client closes, then the server")?;
    talk::close(&lab, 1)?;
    talk::close(&lab, 2)?;
    write(name, &lab, &recording.finish()?, &["req-add-link-v2-request"])
}

fn limits(name: &str) -> Result<usize> {
    let lab = boot()?;
    everywhere(&lab, NO_LOOPBACK)?;
    lab.guests().try_for_each(one_port)?;
    let net = "/proc/sys/net/smc";
    lab.server().run(&format!("echo 32 >{net}/smcr_max_conns_per_lgr"))?;
    lab.client().run(&format!(
        "echo 64 >{net}/smcr_max_conns_per_lgr; echo 1 >{net}/smcr_max_links_per_lgr"
    ))?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    write(name, &lab, &recording.finish()?, &["accept-r-v2-first-contact"])
}

/// Each guest is in a subnet of its own, and the other guest is its gateway.
fn routed(name: &str) -> Result<usize> {
    let mut lab = boot()?;
    for (vm, own, other) in [(lab.server(), "78", "79"), (lab.client(), "79", "78")] {
        let host = if own == "78" { "1" } else { "2" };
        vm.run(&format!(
            "ip addr flush dev eth0 && ip addr add 10.{own}.0.{host}/24 dev eth0 &&
             ip addr add 10.{other}.0.254/32 dev lo && ip route add 10.{other}.0.0/24 via 10.{own}.0.254"
        ))?;
    }
    lab.readdress("10.78.0.1", "10.79.0.2");
    lab.guests().try_for_each(one_port)?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    write(name, &lab, &recording.finish()?, &["accept-r-v2-first-contact"])
}

fn refusals(name: &str) -> Result<usize> {
    let lab = boot()?;
    let (client, server) = (lab.client(), lab.server());
    lab.guests().try_for_each(second_netdev)?;
    port(server, 0)?;
    port(server, 1)?;
    port(client, 0)?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    forced(&lab, 3, "server", "smc_rtoken_add", -28, "has no room for the rkey in CONFIRM_RKEY")?;
    server.run("insmod /golden_force.ko answer=smc_rtoken_delete:-2")?;
    lab.step("c2 is closed, the server does not know the rkey in DELETE_RKEY (forced: smc_rtoken_delete returns -2)")?;
    talk::close(&lab, 2)?;
    sleep(Duration::from_secs(3));
    server.run("rmmod golden_force; insmod /golden_force.ko answer=smcr_buf_map_lgr:-12")?;
    lab.step("the client gets a second port, the server cannot add a link (forced: smcr_buf_map_lgr returns -12)")?;
    port(client, 1)?;
    sleep(Duration::from_secs(4));
    server.run("rmmod golden_force")?;
    let proves = [
        "confirm-rkey-v2-response-negative-retry",
        "delete-rkey-v2-response-negative",
        "req-add-link-v2-response",
    ];
    write(name, &lab, &recording.finish()?, &proves)
}

fn versions(name: &str) -> Result<usize> {
    let lab = boot()?;
    lab.guests().try_for_each(one_port)?;
    for vm in lab.guests() {
        vm.run(&format!("insmod /golden_force.ko roce_v1={}", vm.ip()))?;
    }
    let recording = lab.record()?;
    talk::listen(&lab)?;
    lab.step("the client offers SMC-R in both versions and the loopback in version 2: c1")?;
    attempt(&lab, 1)?;
    everywhere(
        &lab,
        "puppet pnet add NET1 eth eth0; puppet pnet add NET1 dev lo; puppet pnet add NET1 dev rxe0",
    )?;
    lab.step("one PNETID makes the loopback a device of version 1: c2")?;
    attempt(&lab, 2)?;
    everywhere(&lab, "smcd ueid flush")?;
    lab.step("without a UEID: c3")?;
    attempt(&lab, 3)?;
    write(name, &lab, &recording.finish()?, &["proposal-v1r-v2b", "proposal-v1b-v2b"])
}

/// What may go wrong at either end, and the function that is made to say so.
const FAULTS: [(&str, i64, &str); 5] = [
    ("smc_buf_create", -12, "has no memory for buffers"),
    ("smc_rmb_rtoken_handling", -1, "has no room for the peer's rkey"),
    ("smc_ib_ready_link", -1, "cannot make the queue pair ready"),
    ("smc_llc_eval_conf_link", -1, "does not like CONFIRM_LINK"),
    ("smc_llc_wait", 0, "waits in vain for CONFIRM_LINK"),
];

fn declines(name: &str) -> Result<usize> {
    let lab = boot()?;
    let (client, server) = (lab.client(), lab.server());
    everywhere(&lab, NO_LOOPBACK)?;
    one_port(client)?;
    let recording = lab.record()?;
    talk::listen(&lab)?;
    lab.step("the server has no RoCE device")?;
    attempt(&lab, 1)?;
    one_port(server)?;
    server.run("smcd ueid flush")?;
    lab.step("the server has no UEID")?;
    attempt(&lab, 2)?;
    server.run("smcd ueid add OTHER")?;
    lab.step("the server has another UEID than the client")?;
    attempt(&lab, 3)?;
    server.run("smcd ueid flush && smcd ueid add VHOST-USER-ISM")?;
    let mut n = 4;
    for side in ["server", "client"] {
        for (function, value, why) in FAULTS {
            forced(&lab, n, side, function, value, why)?;
            n += 1;
        }
    }
    for (function, value, why) in [
        ("smc_vlan_by_tcpsk", -19, "does not find the network device"),
        ("smc_clc_srv_v2x_features_validate", 0x0303_000a, "is offered too few connections"),
        ("smc_clc_srv_v2x_features_validate", 0x0303_000b, "is offered too few links"),
        ("smc_clc_v2x_features_confirm_check", 0x0303_0009, "sees a wrong Confirm"),
    ] {
        forced(&lab, n, "server", function, value, why)?;
        n += 1;
    }
    lab.step("the client connects, so that there is a link group")?;
    talk::connect(&lab, 90)?;
    for side in ["server", "client"] {
        let why = "cannot register a buffer";
        forced(&lab, n, side, "smcr_lgr_reg_rmbs", -1, why)?;
        n += 1;
    }
    write(
        name,
        &lab,
        &recording.finish()?,
        &["decline-v2-03030002", "decline-v2-02010000", "accept-r-v2"],
    )
}

fn version_1(name: &str) -> Result<usize> {
    let lab = boot()?;
    lab.guests().try_for_each(one_port)?;
    only_version_1(&lab)?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    talk::everything(&lab)?;
    lab.step("the client connects over IPv6: c6")?;
    lab.ask(lab.server(), "listen l6 [::]:7006")?;
    lab.ask(lab.client(), &format!("connect c6 [{}]:7006", lab.server().ip6()))?;
    lab.ask(lab.server(), "accept s6 l6")?;
    lab.step("c6 is closed")?;
    talk::close(&lab, 6)?;
    write(name, &lab, &recording.finish()?, &["accept-r-v1-first-contact", "cdc-abort"])
}

fn version_1_ports(name: &str) -> Result<usize> {
    let lab = boot()?;
    for vm in lab.guests() {
        second_netdev(vm)?;
        port(vm, 0)?;
    }
    only_version_1(&lab)?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    lab.step("a third connection, so that three RMBs are in use: c3")?;
    talk::connect(&lab, 3)?;
    lab.step("the client gets a second port, the server has none")?;
    port(lab.client(), 1)?;
    sleep(Duration::from_secs(4));
    lab.step("the server gets a second port too")?;
    port(lab.server(), 1)?;
    sleep(Duration::from_secs(4));
    lab.step("a fourth connection, on the new link: c4")?;
    talk::connect(&lab, 4)?;
    fail_over(&lab, &[1, 2, 3, 4])?;
    write(name, &lab, &recording.finish()?, &["add-link-cont-v1-response", "cdc-failover"])
}

fn version_1_declines(name: &str) -> Result<usize> {
    let lab = boot()?;
    lab.guests().try_for_each(one_port)?;
    only_version_1(&lab)?;
    let (client, server) = (lab.client(), lab.server());
    let recording = lab.record()?;
    talk::listen(&lab)?;
    // A port's GIDs follow its addresses only when they come, so the port is made again.
    let replace = |from: &str, to: &str| {
        let ip = client.ip();
        client.run(&format!(
            "rdma link del rxe0; ip addr del {ip}/{from} dev eth0; ip addr add {ip}/{to} dev eth0"
        ))?;
        one_port(client)
    };
    replace("24", "16")?;
    lab.step("the client's prefix has another length than the server's")?;
    attempt(&lab, 1)?;
    replace("16", "24")?;
    server.run("rmmod golden_force && rdma link del rxe0")?;
    lab.step("the server has no RoCE device")?;
    attempt(&lab, 2)?;
    one_port(server)?;
    server.run(&format!("insmod /golden_force.ko roce_v1={}", server.ip()))?;
    for (n, (function, value, why)) in (3..).zip(FAULTS) {
        client.run("rmmod golden_force")?;
        let gid = client.ip();
        client.run(&format!("insmod /golden_force.ko roce_v1={gid} answer={function}:{value}"))?;
        lab.step(&format!("the client {why} (forced: {function} returns {value})"))?;
        attempt(&lab, n)?;
    }
    write(name, &lab, &recording.finish()?, &["decline-v1-01010000"])
}
