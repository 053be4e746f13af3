// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! nginx with wrk, and redis-server with redis-benchmark.
//!
//! Invariant: one worker, one client thread, nothing written to a disk for a request.

use std::fs;

use anyhow::Result;

use crate::figure::Transport;
use crate::host::proof::Traffic;
use crate::host::{GRACE, Measured, Run, parse};

/// Connections of wrk at the same time, and of redis-benchmark.
const WRK_CLIENTS: u32 = 32;
const REDIS_CLIENTS: u32 = 50;
/// nginx's own index page has 612 bytes.
const PAGE: usize = 612;
/// redis-benchmark counts requests, not time: two or three seconds' over TCP.
const REDIS_REQUESTS: u32 = 200_000;
/// A GET of redis-benchmark and its answer have at least so many bytes.
const REDIS_BYTES: u64 = 40;

/// Requests a second over connections that stay open.
pub(super) fn wrk_keepalive(run: &Run<'_>) -> Result<Measured> {
    let (requests, rate) = wrk(run, 100_000_000, 75)?;
    Ok(Measured { value: rate, traffic: Traffic::of(requests * PAGE as u64) })
}

/// Requests a second with a connection each.
pub(super) fn wrk_close(run: &Run<'_>) -> Result<Measured> {
    let (requests, rate) = wrk(run, 1, 0)?;
    // When its time is over wrk ends at once, in the middle of whatever its connections do.
    let traffic = Traffic::of_connections(requests * PAGE as u64, requests);
    let traffic = traffic.leaving(WRK_CLIENTS.into());
    Ok(Measured { value: rate, traffic })
}

/// nginx closes after so many requests of a connection, or when it has been idle for so many seconds.
fn wrk(run: &Run<'_>, requests: u32, timeout: u32) -> Result<(u64, f64)> {
    let folder = run.file("nginx");
    fs::create_dir(&folder)?;
    fs::write(folder.join("index.html"), "x".repeat(PAGE))?;
    let (port, place) = (run.port, folder.display());
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|name| format!("{name}_temp_path {place};")).concat();
    let config = format!(
        "user root; worker_processes 1; daemon off; pid {place}/pid; error_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {paths} keepalive_requests {requests};\n\
         server {{ listen 127.0.0.1:{port}; root {place}; sendfile on;\n\
         keepalive_timeout {timeout}; }} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    // Its workers' stderr is the error log, where the preload's lines would be missed.
    let mut server = run.server(&format!("nginx -e stderr -c {}", file.display()))?;
    let (seconds, address) = (run.seconds, format!("http://127.0.0.1:{port}/"));
    let client = format!("wrk -t 1 -c {WRK_CLIENTS} -d {seconds} {address}");
    let output = run.client(&client)?;
    // Asked, not killed, it ends its worker too.
    server.signal("TERM")?;
    server.finish(GRACE)?;
    parse::wrk_requests(&output)
}

/// GETs a second.
pub(super) fn redis_get(run: &Run<'_>) -> Result<Measured> {
    let (port, socket) = (run.port, run.file("socket").display().to_string());
    let command = format!(
        "redis-server --bind 127.0.0.1 --port {port} --unixsocket {socket} --save  --appendonly no"
    );
    let _server = run.server(&command)?;
    let place = if run.transport == Transport::Unix {
        format!("-s {socket}")
    } else {
        format!("-p {port}")
    };
    // So that what is got is there.
    run.client(&format!("redis-benchmark {place} -t set -n 1 -c 1 --csv"))?;
    let requests = REDIS_REQUESTS * run.seconds;
    let client = format!("redis-benchmark {place} -t get -n {requests} -c {REDIS_CLIENTS} --csv");
    let value = parse::redis_get(&run.client(&client)?)?;
    Ok(Measured { value, traffic: Traffic::of(REDIS_BYTES * u64::from(requests)) })
}
