// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starting programs, and ending them.
//!
//! Invariant: nothing waits for ever.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longest time that a program of a test takes.
const LONGEST: Duration = Duration::from_secs(60);

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

/// Waits until somebody listens on a port, without connecting.
///
/// # Errors
/// Nobody does in time.
pub fn wait_for_port(port: u16) -> Result<()> {
    let entry = format!(":{port:04X} ");
    let listens = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        format!("{local} ").ends_with(&entry) && fields.nth(1) == Some("0A")
    };
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        for table in TABLES {
            if std::fs::read_to_string(table).unwrap_or_default().lines().any(listens) {
                return Ok(());
            }
        }
        sleep(Duration::from_millis(20));
    }
    bail!("nobody listens on port {port}");
}

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it; its output is the test's.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let command = command.stdin(Stdio::null());
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
        let id = self.0.id().to_string();
        let asked = Command::new("kill").arg(id).status()?;
        ensure!(asked.success(), "it cannot be asked to end");
        wait(&mut self.0).map(drop)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not, or not well.
    pub fn finish(mut self) -> Result<()> {
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

fn wait(child: &mut Child) -> Result<std::process::ExitStatus> {
    let end = Instant::now() + LONGEST;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("it did not end in {LONGEST:?}");
        }
        sleep(Duration::from_millis(10));
    }
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
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("output");
    run(command.stdout(std::fs::File::create(&file)?))?;
    Ok(std::fs::read(&file)?)
}
