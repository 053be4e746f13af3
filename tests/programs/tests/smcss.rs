// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smcss` and `smcd` show the connections of programs under `smc-run`, and why others are TCP.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ism_programs::{Lab, Network, Running, need, programs, unused_port, wait_for_port};

/// Accepts one connection, says so, and holds it.
const SERVER: &str = "\
import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
connection, _ = listener.accept()
connection.recv(1)
connection.sendall(b'x')
connection.recv(1)";

/// Connects, exchanges a byte, makes a file, and holds the connection.
const CLIENT: &str = "\
import socket, sys
connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
connection.sendall(b'x')
connection.recv(1)
open(sys.argv[2], 'w').close()
connection.recv(1)";

/// How an end is started.
type Start<'a> = &'a dyn Fn(&str) -> Command;

/// A connection of two programs, which is held.
struct Pair {
    port: u16,
    _server: Running,
    _client: Running,
}

impl Pair {
    fn start(server: Start<'_>, client: Start<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("ready");
        let port = unused_port()?;
        let mut command = server("python3");
        let server = Running::start(command.args(["-c", SERVER, &port.to_string()]))?;
        wait_for_port(port)?;
        let mut command = client("python3");
        let client = Running::start(command.args(["-c", CLIENT, &port.to_string()]).arg(&ready))?;
        wait_for(&ready)?;
        Ok(Self { port, _server: server, _client: client })
    }

    /// One of SMC: on a busy machine it may be TCP's because the server is late, so it is tried again.
    fn of_smc(network: &Network, lab: &Lab) -> Result<Self> {
        let start = |program: &str| lab.command(program);
        for _ in 0..5 {
            let before = lab.log().matches(": SMC-D\n").count();
            let pair = network.inside(|| Self::start(&start, &start))??;
            if lab.log().matches(": SMC-D\n").count() == before + 2 {
                return Ok(pair);
            }
        }
        bail!("no connection is one of SMC");
    }

    /// The rows that `smcss` shows of it, split at blanks: the client's, then the server's.
    fn rows(&self, options: &str) -> Result<[Option<Vec<String>>; 2]> {
        let text = tool("smcss", options)?;
        let port = format!(":{}", self.port);
        let row = |at: usize| {
            let is_it = |row: &Vec<String>| row.get(at).is_some_and(|it| it.ends_with(&port));
            let rows = text.lines().skip(1);
            rows.map(|line| line.split_whitespace().map(str::to_owned).collect()).find(is_it)
        };
        Ok([row(4), row(3)])
    }
}

fn wait_for(file: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(120);
    while !file.exists() {
        ensure!(Instant::now() < end, "{} did not come", file.display());
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What a tool prints.
fn tool(name: &str, options: &str) -> Result<String> {
    let output = Command::new(programs().join(name)).args(options.split(' ')).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {options}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs `test` with a lab in a network namespace of its own; the tools look into it from outside.
fn in_lab(test: impl FnOnce(&Network, &Lab) -> Result<()>) {
    need("python3", "python3");
    programs();
    let network = Network::new().unwrap();
    let lab = network.inside(Lab::start).unwrap().unwrap();
    if let Err(error) = test(&network, &lab) {
        panic!("{error:?}\n{}", lab.log());
    }
}

#[test]
fn both_ends_of_a_connection_are_seen_with_their_memory() {
    in_lab(|network, lab| {
        let pair = Pair::of_smc(network, lab)?;
        let [client, server] = pair.rows("-D")?;
        let [client, server] = [client.context("no client")?, server.context("no server")?];
        for row in [&client, &server] {
            ensure!(row.len() == 12 && row[0] == "ACTIVE" && row[6] == "SMCD", "{row:?}");
            ensure!(row[2].parse::<u64>()? > 0, "an inode: {row:?}");
        }
        ensure!(client[3] == server[4] && client[4] == server[3], "{client:?} {server:?}");
        // GID, token, peer's GID and peer's token: each is the other's.
        let crossed = [&server[9], &server[10], &server[7], &server[8]];
        let own = [&client[7], &client[8], &client[9], &client[10]];
        ensure!(own == crossed, "{own:?} {crossed:?}");
        let whose = tool("smcss", "-p")?;
        ensure!(whose.matches("/python3").count() >= 2, "{whose}");
        // Of one's own network namespace, as the kernel's.
        ensure!(pair.rows("--here")? == [None, None], "shown from another one");
        let rows = network.inside(|| pair.rows("--here"))??;
        ensure!(rows.iter().all(Option::is_some), "not shown within: {rows:?}");
        Ok(())
    });
}

// row 4
#[test]
fn a_connection_that_is_tcp_says_why() {
    in_lab(|network, lab| {
        let smc = |program: &str| lab.command(program);
        let plain = |program: &str| Command::new(program);
        let launched = |options: &[&str], program: &str| {
            let mut command = Command::new(programs().join("smc-run"));
            let log = File::options().append(true).create(true).open(lab.log_file());
            command.args(options).arg(program).stderr(log.unwrap());
            command
        };
        let forced = |program: &str| launched(&["-dn"], program);
        let lonely = |program: &str| launched(&["-ds", "/no/such/socket"], program);
        let cases: [(Start<'_>, Start<'_>, usize, &str); 4] = [
            (&plain, &smc, 0, "TCP 0x03010000 (the peer does not speak SMC: "),
            (&smc, &plain, 1, "TCP 0x03010000 (the peer does not speak SMC: "),
            (&plain, &forced, 0, "(the program was started to stay on TCP (SMC_MODE=tcp))"),
            (
                &lonely,
                &plain,
                1,
                "(no device: the daemon was not there, or did not let this user in)",
            ),
        ];
        for (server, client, side, expected) in cases {
            let pair = network.inside(|| Pair::start(server, client))??;
            let rows = pair.rows("--reason")?;
            let [row, other] = if side == 0 { rows } else { [rows[1].clone(), rows[0].clone()] };
            let row = row.context(expected)?.join(" ");
            ensure!(row.starts_with("ACTIVE") && row.contains(expected), "{row}: not {expected}");
            ensure!(other.is_none(), "the other end is not ours: {other:?}");
        }
        // Each has said so once, in the same words.
        let log = lab.log();
        let said: Vec<_> = log.lines().filter_map(|line| line.split_once(": TCP: ")).collect();
        let told: Vec<_> = cases.iter().map(|case| case.3).collect();
        let same = said.iter().zip(&told).all(|(said, told)| told.contains(said.1));
        ensure!(same && said.len() == told.len(), "{said:#?} is not {told:#?}");
        Ok(())
    });
}

#[test]
fn a_listener_is_seen() {
    in_lab(|network, lab| {
        let start = |program: &str| lab.command(program);
        let pair = network.inside(|| Pair::start(&start, &start))??;
        let port = format!("127.0.0.1:{}", pair.port);
        let is_it = |line: &&str| line.starts_with("LISTEN") && line.contains(&port);
        for options in ["-l", "-a"] {
            let text = tool("smcss", options)?;
            ensure!(text.lines().filter(is_it).count() == 1, "{options}: {text}");
        }
        let text = tool("smcss", "-W")?;
        ensure!(text.lines().find(is_it).is_none(), "{text}");
        Ok(())
    });
}

#[test]
fn where_there_is_nothing_stdout_has_what_programs_expect_and_stderr_the_next_step() {
    programs();
    let network = Network::new().unwrap();
    for (name, options, stdout) in [
        ("smcss", "--here --json", "[]\n"),
        ("smcd", "--here link --json", "[]\n"),
        ("smcd", "socket --here --json", "[]\n"),
    ] {
        let mut command = Command::new(programs().join(name));
        let output = network.inside(|| command.args(options.split(' ')).output());
        let output = output.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        let expected = format!("{name}: no process under smc-run in this network namespace ");
        assert!(said.starts_with(&expected) && said.contains("smc-run PROGRAM"), "{said}");
    }
}

/// The entries of a JSON array, or of its field `field`, that are of a process with this name.
fn of_python(text: &str, field: &str) -> Result<Vec<serde_json::Value>> {
    let all: serde_json::Value = serde_json::from_str(text)?;
    let list = if all.is_array() { all } else { all.get(field).context("no such field")?.clone() };
    let is_it = |entry: &serde_json::Value| {
        let holder = entry.get("process").unwrap_or(entry);
        holder.get("name").and_then(|name| name.as_str()) == Some("python3")
    };
    Ok(list.as_array().context("no list")?.iter().filter(|it| is_it(it)).cloned().collect())
}

#[test]
fn smcd_tells_of_the_fabric_of_bytes_and_of_reasons() {
    in_lab(|network, lab| {
        let smc = |program: &str| lab.command(program);
        let plain = |program: &str| Command::new(program);
        let _smc = Pair::of_smc(network, lab)?;
        let _tcp = network.inside(|| Pair::start(&plain, &smc))??;
        let infos = of_python(&tool("smcd", "info --json")?, "processes")?;
        let gids: Vec<_> = infos.iter().filter_map(|it| it.get("gid")).cloned().collect();
        let groups = of_python(&tool("smcd", "linkgroup --json")?, "")?;
        let crossed = groups.iter().filter(|group| {
            let [gid, peer] = ["gid", "peer_gid"].map(|name| group.get(name).cloned());
            let known = |gid: &Option<_>| gid.as_ref().is_some_and(|gid| gids.contains(gid));
            known(&gid) && known(&peer) && gid != peer
        });
        ensure!(crossed.count() >= 2, "{groups:?} {infos:?}");
        let stats = of_python(&tool("smcd", "stats --json")?, "processes")?;
        let number = |stats: &serde_json::Value, at: &str| {
            stats.pointer(at).and_then(serde_json::Value::as_u64).unwrap_or(0)
        };
        for (handshakes, name) in [("/client_v2", "client"), ("/server_v2", "server")] {
            let found =
                stats.iter().find(|it| number(it, &format!("/stats/smcd{handshakes}")) == 1);
            let found = found.context(name)?;
            for at in ["/tx/bytes", "/tx/requests", "/rx/bytes", "/rx/requests"] {
                let count = number(found, &format!("/stats/smcd{at}"));
                ensure!(count == 1, "{name}: {at} is {count}");
            }
        }
        let text = tool("smcd", "fallback show")?;
        let line =
            text.lines().find(|line| line.contains("PEERNOSMC") && line.contains("/python3"));
        ensure!(line.is_some_and(|line| line.contains("does not speak SMC")), "{text}");
        ensure!(tool("smcd", "dev")?.contains("/python3"), "a device");
        ensure!(tool("smcd", "stats -d")?.contains("/python3"), "each process");
        Ok(())
    });
}
