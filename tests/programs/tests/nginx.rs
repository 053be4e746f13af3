// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! nginx with several workers: requests, files, and a reload under load.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ism_programs::nginx::{Nginx, Wrk, file};
use ism_programs::{Running, Way, accepted, compare_strictly, need, output, smc_ends, wait_until};

/// Closes each connection after its answer.
const CLOSE: [&str; 2] = ["-H", "Connection: close"];

fn needs() {
    need("nginx", "nginx-light");
    need("wrk", "wrk");
    need("curl", "curl");
}

/// A load of a second on both addresses: no request may fail.
fn load(way: Way<'_>, nginx: &Nginx, arguments: &[&str]) -> Result<()> {
    for host in ["127.0.0.1", "[::1]"] {
        let mut wrk = way.command("wrk");
        wrk.args(["-t", "2", "-c", "50", "-d", "1"]).args(arguments);
        let wrk = Wrk::read(&output(wrk.arg(format!("http://{host}:{}/", nginx.port())))?)?;
        ensure!(wrk.requests > 500 && wrk.errors == [0; 4] && !wrk.refused, "{host}: {wrk:?}");
    }
    Ok(())
}

#[test]
fn nginx_answers_wrk_over_lasting_and_closing_connections() {
    needs();
    compare_strictly(|way| {
        for listen in ["", "reuseport"] {
            let nginx = Nginx::start(way, listen)?;
            load(way, &nginx, &[])?;
            load(way, &nginx, &CLOSE)?;
            nginx.quit()?;
        }
        Ok(())
    });
}

#[test]
fn nginx_sends_files_whole() {
    needs();
    compare_strictly(|way| {
        let nginx = Nginx::start(way, "")?;
        for url in ["http://127.0.0.1", "http://[::1]"] {
            let url = format!("{url}:{}/file", nginx.port());
            // Twice over one connection.
            let mut curl = way.command("curl");
            let fetched = output(curl.args(["--silent", "--fail", "--globoff", &url, &url]))?;
            let whole = fetched == [file(), file()].concat();
            ensure!(whole, "{url}: {} bytes of {}", fetched.len(), 2 * file().len());
        }
        nginx.quit()
    });
}

/// Reloads twice under load; what wrk says of that.
fn reload(way: Way<'_>, arguments: &[&str]) -> Result<Wrk> {
    let nginx = Nginx::start(way, "")?;
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report");
    let mut wrk = way.command("wrk");
    let before = accepted()?;
    wrk.args(["-t", "1", "-c", "20", "-d", "3"]).args(arguments);
    wrk.arg(format!("http://127.0.0.1:{}/", nginx.port()));
    let wrk = Running::start(wrk.stdout(std::fs::File::create(&report)?))?;
    wait_until("wrk's connections", || accepted().is_ok_and(|now| now > before))?;
    let mut workers = BTreeSet::new();
    for _ in 0..2 {
        nginx.reload()?;
        workers.extend(nginx.workers());
    }
    wrk.finish()?;
    if let Way::Smc(lab) = way {
        let log = lab.log();
        let serve = workers.iter().filter(|worker| smc_ends(&log, **worker) > 0).count();
        ensure!(serve > 0, "none of the new workers {workers:?} has served over SMC-D");
    }
    nginx.quit()?;
    Wrk::read(&std::fs::read(report)?)
}

#[test]
fn nginx_reloads_and_no_request_of_a_connection_of_its_own_fails() {
    needs();
    compare_strictly(|way| {
        let wrk = reload(way, &CLOSE)?;
        ensure!(wrk.requests > 500 && wrk.errors == [0; 4] && !wrk.refused, "{wrk:?}");
        Ok(())
    });
}

#[test]
fn nginx_reloads_under_lasting_connections() {
    needs();
    compare_strictly(|way| {
        let wrk = reload(way, &[])?;
        let [connect, read, write, timeout] = wrk.errors;
        // A worker that ends closes connections that are idle at this moment, when the next request may
        // be on its way, as it does over TCP.
        let well = connect + write + timeout == 0 && read * 100 < wrk.requests && !wrk.refused;
        ensure!(well && wrk.requests > 500, "{wrk:?}");
        Ok(())
    });
}
