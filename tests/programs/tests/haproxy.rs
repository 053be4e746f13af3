// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! haproxy in front of nginx: each of its connections is SMC's on both sides.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use ism_programs::nginx::{Nginx, Wrk, file};
use ism_programs::{
    Running, Way, compare_strictly, need, output, smc_ends, unused_port, wait_for_port,
};

/// Starts haproxy with two threads: bytes as they come at the first port, HTTP at the second.
fn haproxy(way: Way<'_>, folder: &Path, ports: [u16; 2], nginx: u16) -> Result<Running> {
    let [tcp, http] = ports;
    // It may splice where the kernel lets it, and asks nginx's health by connections of its own.
    let config = format!(
        "global\n maxconn 1000\n nbthread 2\n\
         defaults\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n\
         option splice-auto\n default-server check inter 200\n\
         listen bytes\n mode tcp\n bind 127.0.0.1:{tcp}\n bind [::1]:{tcp}\n\
         server a 127.0.0.1:{nginx}\n server b [::1]:{nginx}\n\
         listen http\n mode http\n bind 127.0.0.1:{http}\n bind [::1]:{http}\n\
         option forwardfor\n http-reuse always\n\
         server a 127.0.0.1:{nginx}\n server b [::1]:{nginx}\n"
    );
    let path = folder.join("haproxy.cfg");
    fs::write(&path, config)?;
    let haproxy = Running::start(way.command("haproxy").args(["-db", "-f"]).arg(&path))?;
    ports.into_iter().try_for_each(wait_for_port)?;
    Ok(haproxy)
}

// row 76: without a kernel
#[test]
fn haproxy_passes_bytes_and_http_on_to_nginx() {
    need("haproxy", "haproxy");
    need("nginx", "nginx-light");
    need("wrk", "wrk");
    need("curl", "curl");
    compare_strictly(|way| {
        let folder = tempfile::tempdir()?;
        let nginx = Nginx::start(way, "")?;
        let ports = [unused_port()?, unused_port()?];
        let mut haproxy = haproxy(way, folder.path(), ports, nginx.port())?;
        for (host, port) in
            ["127.0.0.1", "[::1]"].into_iter().flat_map(|host| ports.map(|port| (host, port)))
        {
            let url = format!("http://{host}:{port}/");
            let mut curl = way.command("curl");
            curl.args(["--silent", "--fail", "--globoff"]).args([&format!("{url}file"); 2]);
            let fetched = output(&mut curl)?;
            let whole = fetched == [file(), file()].concat();
            ensure!(whole, "{url}: {} bytes of {}", fetched.len(), 2 * file().len());
            for header in ["Accept: */*", "Connection: close"] {
                let mut wrk = way.command("wrk");
                wrk.args(["-t", "1", "-c", "30", "-d", "1", "-H", header, &url]);
                let mut requests = 0;
                for _ in 0..60 {
                    let wrk = Wrk::read(&output(&mut wrk)?)?;
                    ensure!(wrk.errors == [0; 4] && !wrk.refused, "{url}, {header}: {wrk:?}");
                    requests += wrk.requests;
                    if requests > 100 {
                        break;
                    }
                }
                ensure!(requests > 100, "{url}, {header}: {requests} requests");
            }
        }
        if let Way::Smc(lab) = way {
            ensure!(smc_ends(&lab.log(), haproxy.id()) > 100, "haproxy's connections were TCP's");
        }
        // It ends at once.
        haproxy.signal("USR1")?;
        haproxy.wait()?;
        nginx.quit()
    });
}
