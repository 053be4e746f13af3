// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Python's own suites, as Debian packages them: each test ends the same way in all three.
//!
//! Invariant: what is compared is every test's name with its result, so one that is skipped or not found
//! in only one of the ways is a difference.
//!
//! What is not run says why where it is left out. All are minutes long, and two differ (docs/preload.md), so
//! they are asked for by `cargo test -p ism-programs --test python -- --ignored`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ism_programs::{Way, compare, need, output};

/// Debian's, which the suites are of; another one may be first in PATH.
const PYTHON: &str = "/usr/bin/python3";
/// Longest time of a suite, in seconds: a hang is shown by all threads' stacks in the log.
const LONGEST: &str = "55";
/// Of test_asyncio: event loops with each selector, streams, servers, TLS, sendfile, and sockets by themselves.
/// The rest has mock sockets or none, and takes a minute more.
const ASYNCIO: [&str; 7] = [
    "test.test_asyncio.test_events.*",
    "test.test_asyncio.test_streams.*",
    "test.test_asyncio.test_server.*",
    "test.test_asyncio.test_sendfile.*",
    "test.test_asyncio.test_sock_lowlevel.*",
    "test.test_asyncio.test_buffered_proto.*",
    "test.test_asyncio.test_ssl.*",
];

/// Sees to it that the suites are here.
fn need_suites() -> Result<()> {
    need(PYTHON, "python3");
    let place = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let place = output(Command::new(PYTHON).args(["-c", place]))?;
    let place = Path::new(std::str::from_utf8(&place)?.trim());
    let python = place.file_name().and_then(|name| name.to_str()).context("no name")?;
    let suite = place.join("test/test_socket.py");
    need(suite.to_str().context("no name")?, &format!("lib{python}-testsuite"));
    Ok(())
}

/// The value of an attribute.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = element.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

/// Each test with its result, of a report in JUnit's form.
fn results(report: &Path) -> Result<Vec<(String, &'static str)>> {
    let text = fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let mut all = Vec::new();
    for case in text.split("<testcase ").skip(1) {
        let name =
            attribute(&format!(" {case}"), "name").context("a test without a name")?.to_owned();
        let case = case.split("</testcase>").next().unwrap_or_default();
        let kinds = ["error", "failure", "skipped", "expected-failure"];
        let found = kinds.into_iter().find(|kind| case.contains(&format!("<{kind}")));
        all.push((name, found.unwrap_or("ok")));
    }
    all.sort();
    ensure!(!all.is_empty(), "{} has no tests", report.display());
    Ok(all)
}

/// Runs the tests of a suite that match none of `without`.
fn suite(way: Way<'_>, name: &str, without: &[&str]) -> Result<Vec<(String, &'static str)>> {
    suite_of(way, name, &[], without)
}

/// The same of those that match one of `only`.
fn suite_of(
    way: Way<'_>,
    name: &str,
    only: &[&str],
    without: &[&str],
) -> Result<Vec<(String, &'static str)>> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.xml");
    let mut command = way.command(PYTHON);
    command.args(["-X", "faulthandler", "-m", "test", "--timeout", LONGEST]);
    command.arg("--tempdir").arg(folder.path()).arg("--junit-xml").arg(&report);
    for (option, patterns) in [("-m", only), ("-i", without)] {
        for pattern in patterns {
            command.args([option, pattern]);
        }
    }
    // Where a test fails it fails as a whole; which one that is the report says, and is compared.
    let said = output(command.arg(name));
    results(&report).with_context(|| format!("{name}: {said:?}"))
}

#[test]
#[ignore = "minutes"]
fn test_socket_ends_the_same() -> Result<()> {
    need_suites()?;
    // VSOCK is no TCP, and hangs where the kernel has it without a host.
    compare(|way| suite(way, "test_socket", &["*VSOCK*"]));
    Ok(())
}

#[test]
#[ignore = "minutes"]
fn test_selectors_and_test_epoll_end_the_same() -> Result<()> {
    need_suites()?;
    compare(|way| {
        let mut all = suite(way, "test_selectors", &[])?;
        // It allows 10 ms until an accepted socket is writable; the handshake may take them.
        all.extend(suite(way, "test_epoll", &["test_unregister_closed"])?);
        Ok(all)
    });
    Ok(())
}

#[test]
#[ignore = "minutes"]
fn test_httplib_ends_the_same() -> Result<()> {
    need_suites()?;
    compare(|way| suite(way, "test_httplib", &[]));
    Ok(())
}

#[test]
#[ignore = "minutes; differs over SMC-D in test_subclass"]
fn test_ssl_ends_the_same() -> Result<()> {
    need_suites()?;
    // It allows 200 ms for connect to a server that accepts and is silent (docs/preload.md).
    let slow = "test_handshake_timeout";
    // The others have no connection.
    let without =
        [slow, "*ContextTests*", "*BasicSocketTests*", "*TestEnumerations*", "*MemoryBIOTests*"];
    compare(|way| suite(way, "test_ssl", &without));
    Ok(())
}

#[test]
#[ignore = "minutes"]
fn test_asyncio_ends_the_same() -> Result<()> {
    need_suites()?;
    compare(|way| suite_of(way, "test_asyncio", &ASYNCIO, &[]));
    Ok(())
}
