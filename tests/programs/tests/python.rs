// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Python's own suites, as Debian packages them: each test ends the same way in all three.
//!
//! Invariant: what is compared is every test's name with its result, so one that is skipped or not found
//! in only one of the ways is a difference.
//!
//! What is not run says why where it is left out.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ism_programs::{Parts, Way, compare_at_once, compare_but_late, need, output};

/// Debian's, which the suites are of; another one may be first in PATH.
const PYTHON: &str = "/usr/bin/python3";
/// Of test_asyncio: streams, servers, TLS, sendfile, and sockets by themselves. The rest has mock sockets or none;
/// [`EVENTS`] are asked for.
const ASYNCIO: [&str; 6] = [
    "test.test_asyncio.test_streams.*",
    "test.test_asyncio.test_server.*",
    "test.test_asyncio.test_sendfile.*",
    "test.test_asyncio.test_sock_lowlevel.*",
    "test.test_asyncio.test_buffered_proto.*",
    "test.test_asyncio.test_ssl.*",
];

/// Of test_asyncio: event loops with each selector.
const EVENTS: &str = "test.test_asyncio.test_events.*";
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
fn results(report: &Path) -> Result<Parts> {
    let text = fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let mut all = Parts::new();
    for case in text.split("<testcase ").skip(1) {
        let name =
            attribute(&format!(" {case}"), "name").context("a test without a name")?.to_owned();
        let case = case.split("</testcase>").next().unwrap_or_default();
        let kinds = ["error", "failure", "skipped", "expected-failure"];
        let found = kinds.into_iter().find(|kind| case.contains(&format!("<{kind}")));
        all.insert(name, found.unwrap_or("ok"));
    }
    ensure!(!all.is_empty(), "{} has no tests", report.display());
    Ok(all)
}

/// Runs the tests of a suite with these names, or matching these patterns, and none of `without`; without names all.
fn suite(way: Way<'_>, name: &str, only: &[&str], without: &[&str]) -> Result<Parts> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.xml");
    let mut command = way.command(PYTHON);
    // Its own limit of the time would be one more thread in a program that has one. Ours asks it for its stacks.
    command.args(["-X", "faulthandler", "-m", "test"]);
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

/// Those of these names that are of a suite.
fn of_suite<'a>(name: &str, only: &[&'a str]) -> Vec<&'a str> {
    let begin = format!("test.{name}.");
    only.iter().copied().filter(|it| it.starts_with(&begin)).collect()
}

#[test]
fn test_socket_ends_the_same() -> Result<()> {
    need_suites()?;
    // VSOCK is no TCP, and hangs where the kernel has it without a host.
    compare_at_once(|way, only| suite(way, "test_socket", only, &["*VSOCK*"]));
    Ok(())
}

#[test]
fn test_selectors_and_test_epoll_end_the_same() -> Result<()> {
    need_suites()?;
    compare_at_once(|way, only| {
        let mut all = Parts::new();
        // It fills the table of descriptors, of which none is a connection, and takes minutes.
        let suites: [(_, &[_]); 2] =
            [("test_selectors", &["test_above_fd_setsize"]), ("test_epoll", &[])];
        for (name, without) in suites {
            let those = of_suite(name, only);
            if only.is_empty() || !those.is_empty() {
                all.extend(suite(way, name, &those, without)?);
            }
        }
        Ok(all)
    });
    Ok(())
}

#[test]
fn test_httplib_ends_the_same() -> Result<()> {
    need_suites()?;
    compare_at_once(|way, only| suite(way, "test_httplib", only, &[]));
    Ok(())
}

#[test]
fn test_ssl_ends_the_same() -> Result<()> {
    need_suites()?;
    // They have no connection.
    let without =
        ["*ContextTests*", "*BasicSocketTests*", "*TestEnumerations*", "*MemoryBIOTests*"];
    compare_at_once(|way, only| suite(way, "test_ssl", only, &without));
    Ok(())
}

#[test]
fn test_asyncio_ends_the_same() -> Result<()> {
    need_suites()?;
    compare_at_once(|way, only| {
        if !only.is_empty() {
            return suite(way, "test_asyncio", only, &[]);
        }
        // One by one: each test collects garbage, which takes the longer the more is loaded.
        let mut all = Parts::new();
        for part in ASYNCIO {
            all.extend(suite(way, "test_asyncio", &[part], &[])?);
        }
        Ok(all)
    });
    Ok(())
}

#[test]
#[ignore = "more of a CPU than the others together"]
fn test_asyncios_events_end_the_same() -> Result<()> {
    need_suites()?;
    compare_at_once(|way, only| {
        suite(way, "test_asyncio", if only.is_empty() { &[EVENTS] } else { only }, &[])
    });
    Ok(())
}

#[test]
#[ignore = "100 times what hung once, long ago"]
fn test_ssls_servers_in_threads_end_the_same_a_hundred_times() -> Result<()> {
    need_suites()?;
    compare_but_late(|way| {
        let times = if matches!(way, Way::Smc(_)) { 100 } else { 1 };
        let once = |_| suite(way, "test_ssl", &["*SimpleBackgroundTests*"], &[]);
        let mut all = (0..times).map(once).collect::<Result<Vec<_>>>()?;
        all.dedup();
        Ok(all)
    });
    Ok(())
}
