// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that carry a file: every byte arrives, and the ends are seen.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use ism_programs::{Running, Way, compare_strictly, need, output, run, unused_port, wait_for_port};

/// Bytes of the file: more than all buffers on the way.
const SIZE: usize = 8 << 20;

/// A file without two equal pieces.
fn make_file(path: &Path) -> Result<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_ne_bytes());
    }
    fs::write(path, &bytes)?;
    Ok(bytes)
}

#[test]
fn curl_fetches_from_pythons_http_server() {
    need("curl", "curl");
    need("python3", "python3");
    compare_strictly(|way| {
        let folder = tempfile::tempdir()?;
        let bytes = make_file(&folder.path().join("file"))?;
        let port = unused_port()?;
        let mut server = way.command("python3");
        server.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
        let _server = Running::start(server.current_dir(folder.path()))?;
        wait_for_port(port)?;
        let url = format!("http://127.0.0.1:{port}/file");
        for _ in 0..3 {
            let fetched = output(way.command("curl").args(["--silent", "--fail", &url]))?;
            ensure!(fetched == bytes, "{} bytes of {}", fetched.len(), bytes.len());
        }
        let missing = format!("{url}-that-is-not-there");
        let status = way.command("curl").args(["--silent", "--fail", &missing]).status()?;
        Ok(status.code())
    });
}

/// Sends a file through socat, to a server that listens this way.
fn socat(way: Way<'_>, listen: &str, connect: &str) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let bytes = make_file(&from)?;
    let port = unused_port()?;
    let mut server = way.command("socat");
    server.args(["-u", &format!("{listen}:{port},reuseaddr"), &format!("CREATE:{}", to.display())]);
    let server = Running::start(&mut server)?;
    wait_for_port(port)?;
    let mut client = way.command("socat");
    run(client.args(["-u", &format!("OPEN:{}", from.display()), &format!("{connect}:{port}")]))?;
    server.finish()?;
    Ok(fs::read(&to)? == bytes)
}

#[test]
fn socat_sends_a_file_over_ipv4_and_ipv6() {
    need("socat", "socat");
    compare_strictly(|way| {
        let v4 = socat(way, "TCP4-LISTEN", "TCP4:127.0.0.1")?;
        let v6 = socat(way, "TCP6-LISTEN", "TCP6:[::1]")?;
        ensure!(v4 && v6, "the file arrived changed: IPv4 {}, IPv6 {}", !v4, !v6);
        Ok(())
    });
}

#[test]
fn socat_answers_after_the_clients_half_close() {
    need("socat", "socat");
    compare_strictly(|way| {
        let folder = tempfile::tempdir()?;
        let from = folder.path().join("from");
        let bytes = make_file(&from)?;
        let port = unused_port()?;
        let mut server = way.command("socat");
        // A process of its own for each connection.
        server.args([&format!("TCP4-LISTEN:{port},reuseaddr,fork"), "EXEC:sha256sum"]);
        let _server = Running::start(&mut server)?;
        wait_for_port(port)?;
        let mut client = way.command("socat");
        client.args(["-t", "10", &format!("OPEN:{}!!STDOUT", from.display())]);
        let sum = output(client.arg(format!("TCP4:127.0.0.1:{port}")))?;
        ensure!(sum.len() > 64, "no sum of {} bytes: {sum:?}", bytes.len());
        Ok(sum)
    });
}
