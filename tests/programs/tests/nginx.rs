// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! nginx with several workers: requests, files, and a reload under load.

use anyhow::{Result, ensure};
use ism_programs::nginx::{Nginx, Wrk, file};
use ism_programs::{
    Running, Way, accepted, compare_but_late, compare_strictly, need, output, smc_ends, wait_until,
};

/// Closes each connection after its answer.
const CLOSE: [&str; 2] = ["-H", "Connection: close"];

fn needs() {
    need("nginx", "nginx-light");
    need("wrk", "wrk");
    need("curl", "curl");
}

/// A load on both addresses for a second, or until it is one: no request may fail.
fn load(way: Way<'_>, nginx: &Nginx, arguments: &[&str]) -> Result<()> {
    for host in ["127.0.0.1", "[::1]"] {
        let mut requests = 0;
        for _ in 0..60 {
            let mut wrk = way.command("wrk");
            wrk.args(["-t", "2", "-c", "50", "-d", "1"]).args(arguments);
            let wrk = Wrk::read(&output(wrk.arg(format!("http://{host}:{}/", nginx.port())))?)?;
            ensure!(wrk.errors == [0; 4] && !wrk.refused, "{host}: {wrk:?}");
            requests += wrk.requests;
            if requests > 500 {
                break;
            }
        }
        ensure!(requests > 500, "{host}: {requests} requests");
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

/// Requests, each by a connection of its own, until one was answered over SMC-D by a worker that is there now. New ones
/// become members of the fabric while they serve, and at first clients may not have the time to wait for that.
fn ask(way: Way<'_>, nginx: &Nginx) -> Result<()> {
    let workers = nginx.workers();
    let mut asked = Ok(());
    let url = format!("http://127.0.0.1:{}/", nginx.port());
    wait_until(&format!("one of the new workers {workers:?} to serve over SMC-D"), || {
        let mut wrk = way.command("wrk");
        asked = output(wrk.args(["-t", "1", "-c", "1", "-d", "1"]).args(CLOSE).arg(&url)).map(drop);
        let Way::Smc(lab) = way else { return true };
        let log = lab.log();
        asked.is_err() || workers.iter().any(|worker| smc_ends(&log, *worker) > 0)
    })?;
    asked
}

/// Reloads twice under load; what wrk says of that.
fn reload(way: Way<'_>, arguments: &[&str]) -> Result<Wrk> {
    let nginx = Nginx::start(way, "")?;
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report");
    let mut wrk = way.command("wrk");
    let before = accepted()?;
    // Until it is told to end.
    wrk.args(["-t", "1", "-c", "20", "-d", "1000", "--timeout", "20"]).args(arguments);
    wrk.arg(format!("http://127.0.0.1:{}/", nginx.port()));
    let wrk = Running::start(wrk.stdout(std::fs::File::create(&report)?))?;
    wait_until("wrk's connections", || accepted().is_ok_and(|now| now > before))?;
    for _ in 0..2 {
        nginx.reload()?;
        ask(way, &nginx)?;
    }
    wrk.signal("INT")?;
    wrk.finish()?;
    nginx.quit()?;
    Wrk::read(&std::fs::read(report)?)
}

#[test]
fn nginx_reloads_and_no_request_of_a_connection_of_its_own_fails() {
    needs();
    compare_but_late(|way| {
        let wrk = reload(way, &CLOSE)?;
        ensure!(wrk.requests > 100 && wrk.errors == [0; 4] && !wrk.refused, "{wrk:?}");
        Ok(())
    });
}

#[test]
fn nginx_reloads_under_lasting_connections() {
    needs();
    compare_but_late(|way| {
        let wrk = reload(way, &[])?;
        let [connect, read, write, timeout] = wrk.errors;
        // A worker that ends closes connections that are idle at this moment, when the next request may
        // be on its way, as it does over TCP: at most one for each connection, reload and worker, since who connects
        // again may get one that has not heard of it yet.
        let well = connect + write + timeout == 0 && read <= 2 * 3 * 20 && !wrk.refused;
        ensure!(well && wrk.requests > 100, "{wrk:?}");
        Ok(())
    });
}
