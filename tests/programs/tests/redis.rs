// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! redis: many clients in one event loop, and values that come back as they were sent.

use std::fs;

use anyhow::{Result, ensure};
use ism_programs::{
    Running, Way, compare_strictly, need, output, output_of, run, unused_port, wait_for_port,
};

/// A server on 127.0.0.1 and ::1, and its port.
fn server(way: Way<'_>) -> Result<(Running, String)> {
    let port = unused_port()?.to_string();
    let mut server = way.command("redis-server");
    server.args(["--port", &port, "--bind", "127.0.0.1", "::1", "--save", ""]);
    server.args(["--appendonly", "no", "--enable-debug-command", "yes"]);
    let server = Running::start(&mut server)?;
    wait_for_port(port.parse()?)?;
    Ok((server, port))
}

// row 76: without a kernel
#[test]
fn redis_answers_fifty_and_five_hundred_clients() {
    need("redis-server", "redis-server");
    need("redis-benchmark", "redis-tools");
    compare_strictly(|way| {
        let (_server, port) = server(way)?;
        let mut lines = Vec::new();
        for arguments in [["-c", "50", "-P", "1"], ["-c", "500", "-P", "16"]] {
            let mut client = way.command("redis-benchmark");
            client.args(["-p", &port, "-t", "set,get", "-n", "50000", "--csv"]).args(arguments);
            let report = output(&mut client)?;
            let report = String::from_utf8_lossy(&report).into_owned();
            let tests = report.lines().skip(1).filter_map(|line| line.split(',').next());
            lines.extend(tests.map(str::to_owned));
        }
        Ok(lines)
    });
}

/// Values: the shortest has one byte, the longest more than all buffers on the way.
const VALUES: usize = 12;

fn value(number: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(1 << (2 * number)).collect()
}

#[test]
fn values_come_back_from_redis_as_they_were_sent() {
    need("redis-server", "redis-server");
    need("redis-cli", "redis-tools");
    compare_strictly(|way| {
        let (_server, port) = server(way)?;
        let folder = tempfile::tempdir()?;
        // Thousands of commands in one go, while the answers come back.
        let mut commands = Vec::new();
        for number in 0..VALUES {
            let value = value(number);
            commands.extend(format!("*3\r\n$3\r\nSET\r\n$4\r\nk{number:03}\r\n").bytes());
            commands.extend(format!("${}\r\n", value.len()).bytes());
            commands.extend([&value[..], b"\r\n"].concat());
        }
        for number in 0..20_000 {
            commands
                .extend(format!("*3\r\n$3\r\nSET\r\n$5\r\n{number:05}\r\n$2\r\nab\r\n").bytes());
        }
        let file = folder.path().join("commands");
        fs::write(&file, commands)?;
        let cli = |host: &str| {
            let mut cli = way.command("redis-cli");
            cli.args(["-h", host, "-p", &port]);
            cli
        };
        let said = output_of(cli("::1").arg("--pipe").stdin(fs::File::open(&file)?))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(said.contains("errors: 0, replies: 20012"), "{said}");
        for (number, host) in (0..VALUES).zip(["127.0.0.1", "::1"].into_iter().cycle()) {
            let said = output(cli(host).args(["GET", &format!("k{number:03}")]))?;
            let expected = [value(number), b"\n".to_vec()].concat();
            ensure!(said == expected, "{} bytes of {}", said.len(), expected.len());
        }
        // A SHA-1 over all keys and values.
        let digest = output(cli("127.0.0.1").args(["DEBUG", "DIGEST"]))?;
        run(cli("127.0.0.1").args(["SHUTDOWN", "NOSAVE"]))?;
        ensure!(digest.len() > 40, "no digest");
        Ok(String::from_utf8(digest)?)
    });
}
