// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! stress-ng's stressors of sockets: all that they are asked to do is done, and found right.
//!
//! Invariant: what is compared is what stress-ng counts and says; its times are not.

use anyhow::{Context, Result};
use ism_programs::{Way, compare, need, output};

/// Runs stressors, one process each, until each has done as much as it is told; what stress-ng says of them
/// but the times.
fn stress(way: Way<'_>, stressors: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut command = way.command("stress-ng");
    // Without an end of its own, so that one that is stuck does not look as one that is done.
    command.args(["--verify", "--metrics-brief", "--stdout", "--timeout", "0"]);
    // Else it is that of AF_UNIX.
    command.args(["--epoll-domain", "ipv4"]);
    for (name, times) in stressors {
        command.args([&format!("--{name}"), "1", &format!("--{name}-ops"), *times]);
    }
    let said = output(&mut command)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let counted = |(name, _): &(&str, &str)| {
        let words = said.lines().map(|line| line.split_whitespace().skip(3).collect::<Vec<_>>());
        let mut lines = words.filter(|words| words.first() == Some(name));
        let count = lines.find_map(|words| words.get(1).copied().map(str::to_owned));
        count.map(|count| format!("{name} {count}")).with_context(|| said.clone())
    };
    let mut all: Vec<String> = stressors.iter().map(counted).collect::<Result<_>>()?;
    let bad = said.lines().filter(|line| line.contains("fail") || line.contains("error"));
    all.extend(bad.map(str::to_owned));
    Ok(all)
}

#[test]
fn a_client_gets_what_its_server_sends() {
    need("stress-ng", "stress-ng");
    compare(|way| stress(way, &[("sock", "200")]));
}

#[test]
fn a_hundred_clients_get_what_their_server_sends() {
    need("stress-ng", "stress-ng");
    // The file's bytes go into /dev/null: what has no connection is left alone.
    compare(|way| stress(way, &[("sockmany", "500"), ("sendfile", "200")]));
}

#[test]
fn epoll_finds_what_many_clients_send() {
    need("stress-ng", "stress-ng");
    compare(|way| stress(way, &[("epoll", "500")]));
}
