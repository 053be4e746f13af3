// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Client and server in two network namespaces, two containers, or two user namespaces: the door is a path, memory knows
//! no network, and a user is the one outside.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use ism_programs::{
    Container, Network, Running, USER, Way, compare, compare_strictly, need, output, programs, run,
    unused_port, wait_for_port,
};

/// Addresses of the client's end and of the server's, in each family.
const ADDRESSES: [[&str; 2]; 2] = [["10.9.8.1/24", "10.9.8.2/24"], ["fd09::1/64", "fd09::2/64"]];

fn ip(line: &str) -> Result<()> {
    run(Command::new("ip").args(line.split(' ')))
}

/// Joins two network namespaces by a cable: the client's end first.
fn connect(client: u32, server: u32) -> Result<()> {
    ip(&format!("link add client netns {client} type veth peer name server netns {server}"))?;
    for ((name, owner), end) in [("client", client), ("server", server)].into_iter().zip(0..) {
        let inside = |line: &str| {
            let net = format!("--net=/proc/{owner}/ns/net");
            run(Command::new("nsenter").args([&net, "ip"]).args(line.split(' ')))
        };
        for addresses in ADDRESSES {
            let address = addresses.get(end).context("two ends")?;
            // Nobody else can have it.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            inside(&format!("address add {address} dev {name}{nodad}"))?;
        }
        inside(&format!("link set {name} up"))?;
    }
    Ok(())
}

/// The server's addresses, as programs take them.
fn servers() -> [String; 2] {
    ADDRESSES.map(|[_, server]| server.split('/').next().unwrap_or_default().to_owned())
}

#[test]
fn sockperf_and_redis_work_between_two_network_namespaces() {
    need("sockperf", "sockperf");
    need("redis-server", "redis-server");
    need("redis-benchmark", "redis-tools");
    compare_strictly(|way| {
        let (client, server) = (Network::new()?, Network::new()?);
        connect(client.owner(), server.owner())?;
        let [v4, _] = servers();
        let port = unused_port()?.to_string();
        // Debian's has no IPv6.
        let place = ["--tcp", "-i", &v4, "-p", &port];
        let _sockperf = server.inside(|| {
            let started = Running::start(way.command("sockperf").arg("server").args(place))?;
            wait_for_port(port.parse()?)?;
            anyhow::Ok(started)
        })??;
        let mut sockperf = way.command("sockperf");
        sockperf.arg("ping-pong").args(place).args(["--time", "1", "--mps", "20000"]);
        let report = client.inside(|| output(&mut sockperf))??;
        let report = String::from_utf8_lossy(&report).into_owned();
        let line = report.lines().find(|line| line.contains("dropped messages"));
        let mut said = vec![line.with_context(|| report.clone())?.to_owned()];
        let port = unused_port()?.to_string();
        let _redis = server.inside(|| {
            let mut redis = way.command("redis-server");
            redis.args(["--port", &port, "--save", "", "--protected-mode", "no"]);
            let started = Running::start(&mut redis)?;
            wait_for_port(port.parse()?)?;
            anyhow::Ok(started)
        })??;
        for address in servers() {
            let mut redis = way.command("redis-benchmark");
            redis.args(["-h", &address, "-p", &port, "-t", "set,get", "-n", "20000", "--csv"]);
            let report = client.inside(|| output(&mut redis))??;
            let report = String::from_utf8_lossy(&report).into_owned();
            let tests = report.lines().skip(1).filter_map(|line| line.split(',').next());
            said.extend(tests.map(str::to_owned));
        }
        Ok(said)
    });
}

/// Rows that `smcss` shows on the host of established connections of SMC-D to or from this port.
fn rows_of_host(port: &str) -> usize {
    let said = Command::new(programs().join("smcss")).output().map(|said| said.stdout);
    let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
    let port = format!(":{port} ");
    said.lines().filter(|row| row.contains(&port) && row.contains(" SMCD")).count()
}

#[test]
fn programs_of_two_containers_talk_over_the_socket_that_is_mounted_in() {
    need("sockperf", "sockperf");
    compare_strictly(|way| {
        let (client, server) = (Container::new(way)?, Container::new(way)?);
        connect(client.owner(), server.owner())?;
        let [v4, _] = servers();
        let port = unused_port()?.to_string();
        let place = ["--tcp", "-i", &v4, "-p", &port];
        let mut sockperf = server.command(way, "sockperf");
        let _server = Running::start(sockperf.arg("server").args(place))?;
        server.wait_for_port(port.parse()?)?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("report");
        // Longer and longer, until both ends were seen while they were there.
        for seconds in [2, 8, 32] {
            let mut sockperf = client.command(way, "sockperf");
            sockperf.arg("ping-pong").args(place).args(["--mps", "20000", "--time"]);
            sockperf.arg(seconds.to_string()).stdout(std::fs::File::create(&file)?);
            let mut running = Running::start(&mut sockperf)?;
            let mut seen = !matches!(way, Way::Smc(_));
            while !seen && !running.has_ended()? {
                seen = rows_of_host(&port) == 2;
            }
            running.finish()?;
            if seen {
                break;
            }
            ensure!(seconds < 32, "the host's smcss does not show both ends");
        }
        let report = std::fs::read_to_string(&file)?;
        let line = report.lines().find(|line| line.contains("dropped messages"));
        Ok(line.context(report.clone())?.to_owned())
    });
}

/// Gives back what each client says, one after the other.
const ECHO: &str = "
import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    with listener.accept()[0] as client:
        while some := client.recv(65536):
            client.sendall(some)
";
/// Says something, and something more after both have slept.
const CLIENT: &str = "
import os, socket, sys, time
server = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
for _ in range(3):
    server.sendall(b'x' * 50000)
    print(os.getuid(), len(server.recv(50000, socket.MSG_WAITALL)))
    time.sleep(0.1)
";

#[test]
fn who_is_root_in_a_user_namespace_is_who_they_are_outside() {
    need("python3", "python3");
    let stranger = USER + 1;
    compare(|way| {
        let port = unused_port()?.to_string();
        let _server = Running::start(way.command("python3").args(["-c", ECHO, &port]))?;
        wait_for_port(port.parse()?)?;
        let mut said = Vec::new();
        for user in [USER, stranger].map(|user| user.to_string()) {
            let mut client = way.command("setpriv");
            client.args(["--clear-groups", "--regid", &user, "--reuid", &user]);
            client.args(["unshare", "--user", "--map-root-user", "/usr/bin/python3"]);
            let echo = output(client.args(["-c", CLIENT, &port]))?;
            said.push(String::from_utf8_lossy(&echo).into_owned());
        }
        if let Way::Smc(lab) = way {
            // TCP, and says why.
            let refused = format!("user {stranger} (group {stranger}) is not let in");
            ensure!(lab.log().contains(&refused), "{}", lab.log());
        }
        Ok(said)
    });
}
