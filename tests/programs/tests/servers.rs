// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Servers with many connections in one event loop, or in several processes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ism_programs::{Running, Way, compare_strictly, need, output, unused_port, wait_for_port};

#[test]
fn redis_answers_fifty_and_five_hundred_clients() {
    need("redis-server", "redis-server");
    need("redis-benchmark", "redis-tools");
    compare_strictly(|way| {
        let port = unused_port()?.to_string();
        let mut server = way.command("redis-server");
        server.args(["--port", &port, "--save", "", "--appendonly", "no"]);
        let _server = Running::start(&mut server)?;
        wait_for_port(port.parse()?)?;
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

/// Starts nginx with two workers in a folder.
fn nginx(way: Way<'_>, folder: &Path, port: u16) -> Result<Running> {
    let place = folder.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|name| format!("{name}_temp_path {place};")).concat();
    let config = format!(
        "user root; worker_processes 2; daemon off; pid {place}/pid; error_log {place}/errors;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {paths}\n\
         server {{ listen 127.0.0.1:{port} reuseport; root {place}; sendfile on; }} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    let server = Running::start(way.command("nginx").arg("-c").arg(&file))?;
    wait_for_port(port)?;
    Ok(server)
}

#[test]
fn nginx_answers_wrk_and_sends_files() {
    need("nginx", "nginx-light");
    need("wrk", "wrk");
    need("curl", "curl");
    compare_strictly(|way| {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("index.html"), "hello\n")?;
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        fs::write(folder.path().join("file"), &bytes)?;
        let port = unused_port()?;
        let mut server = nginx(way, folder.path(), port)?;
        let url = format!("http://127.0.0.1:{port}/");
        let mut client = way.command("wrk");
        let report = output(client.args(["-t", "2", "-c", "50", "-d", "2", &url]))?;
        let report = String::from_utf8_lossy(&report).into_owned();
        let fetched = output(way.command("curl").args(["--silent", &format!("{url}file")]))?;
        ensure!(fetched == bytes, "{} bytes of {}", fetched.len(), bytes.len());
        server.end()?;
        let line = report.lines().find(|line| line.contains("requests in"));
        let requests = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let requests: u64 = requests.with_context(|| report.clone())?;
        Ok((requests > 1000, report.contains("errors"), report.contains("Non-2xx")))
    });
}
