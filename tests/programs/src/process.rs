// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starting programs, and ending them.
//!
//! Invariant: nothing waits for ever.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longest time that a program of a test takes, of which all may share two cores with others.
const LONGEST: Duration = Duration::from_secs(300);
/// How long one that has taken longer may say where it is.
const LAST: Duration = Duration::from_secs(5);

/// Sockets of the network namespace that the calling thread is in.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// Sees to it that `program` is here. With `ISM_INSTALL` set, Debian's `package` is installed if it is
/// not.
///
/// # Panics
/// It is not, or cannot be installed: nothing is skipped.
pub fn need(program: &str, package: &str) {
    let is_here = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
        folders.any(|folder| folder.join(program).is_file())
    };
    if !is_here() && std::env::var_os("ISM_INSTALL").is_some() {
        apt_get(&["update"]);
        apt_get(&["install", "--yes", "--no-install-recommends", package]);
    }
    assert!(is_here(), "{program} is not installed; ISM_INSTALL=1 installs {package}");
}

fn apt_get(arguments: &[&str]) {
    let mut command = Command::new("apt-get");
    // Other tests may be installing.
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    let status = command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} failed");
}

/// A TCP port that nobody listens on.
///
/// # Errors
/// There is none.
pub fn unused_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until something is so.
///
/// # Errors
/// It is not in time.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + LONGEST;
    while !is_so() {
        ensure!(Instant::now() < end, "in vain for {LONGEST:?} waited for {what}");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sockets of TCP with this local port, in a state that /proc/net/tcp gives this number.
fn sockets(port: u16, state: &str) -> usize {
    let entry = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&entry)) && fields.nth(1) == Some(state)
    };
    let count =
        |table| std::fs::read_to_string(table).unwrap_or_default().lines().filter(is_one).count();
    TABLES.into_iter().map(count).sum()
}

/// Waits until somebody listens on a port, without connecting.
///
/// # Errors
/// Nobody does in time.
pub fn wait_for_port(port: u16) -> Result<()> {
    wait_until(&format!("a listener on port {port}"), || sockets(port, "0A") > 0)
}

/// Connections that were accepted so far in the network namespace of the calling thread. The table of sockets takes
/// seconds to read while thousands of connections come and go.
///
/// # Errors
/// The kernel does not say.
pub fn accepted() -> Result<u64> {
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut tcp = counters.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = tcp.next().zip(tcp.next()).context("no counters of TCP")?;
    let mut counters = names.split(' ').zip(values.split(' '));
    let found = counters.find(|(name, _)| *name == "PassiveOpens").context("no PassiveOpens")?;
    Ok(found.1.parse()?)
}

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it, without input; its output is the test's.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::fed(command.stdin(Stdio::null()))
    }

    /// Starts it, with the input that was set.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fed(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("{command:?}"))?))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, so that it ends its own processes too, and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub fn end(&mut self) -> Result<()> {
        self.signal("TERM")?;
        wait(&mut self.0).map(drop)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(&self.0, name)
    }

    /// The processes that it has started and not yet waited for.
    pub fn children(&self) -> BTreeSet<u32> {
        let id = self.0.id();
        let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        list.unwrap_or_default().split_whitespace().filter_map(|it| it.parse().ok()).collect()
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// The system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not, or not well.
    pub fn finish(mut self) -> Result<()> {
        self.wait()
    }

    /// The same.
    ///
    /// # Errors
    /// It does not, or not well.
    pub fn wait(&mut self) -> Result<()> {
        let status = wait(&mut self.0)?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    if let Some(status) = wait_for(child, LONGEST)? {
        return Ok(status);
    }
    // Python with its faulthandler says what each thread was doing.
    signal(child, "ABRT")?;
    if wait_for(child, LAST)?.is_none() {
        child.kill()?;
        child.wait()?;
    }
    bail!("it did not end in {LONGEST:?}");
}

/// How it ends, if it does so within this time.
fn wait_for(child: &mut Child, time: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + time;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > end {
            return Ok(status);
        }
        sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, name: &str) -> Result<()> {
    let id = child.id().to_string();
    ensure!(Command::new("kill").args(["-s", name, &id]).status()?.success(), "it has ended");
    Ok(())
}

/// Runs a program to its end.
///
/// # Errors
/// It ends with a failure, or not at all.
pub fn run(command: &mut Command) -> Result<()> {
    Running::start(command)?.finish().with_context(|| format!("{command:?}"))
}

/// What a program writes to its standard output.
///
/// # Errors
/// It ends with a failure, or not at all.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    output_of(command.stdin(Stdio::null()))
}

/// The same of a program with the input that was set.
///
/// # Errors
/// It ends with a failure, or not at all.
pub fn output_of(command: &mut Command) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("output");
    let running = Running::fed(command.stdout(std::fs::File::create(&file)?))?;
    running.finish().with_context(|| format!("{command:?}"))?;
    Ok(std::fs::read(&file)?)
}
