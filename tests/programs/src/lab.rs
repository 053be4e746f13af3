// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What SMC-D between two programs takes: the daemon, and discovery in a cgroup of the test's own.
//!
//! Invariant: it is gone when the test ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::build::programs;
use crate::process::Running;

/// Longest time that something takes to start.
const LONGEST: Duration = Duration::from_secs(20);

/// Who is let in: root, www-data, and the one that tests let programs run as.
const USERS: [u32; 3] = [0, 33, USER];
/// A user who is not root.
pub const USER: u32 = 1234;

/// Joins the cgroup `$0`, appends stderr to `$1`, and becomes the rest.
const JOIN: &str = r#"echo $$ > "$0/cgroup.procs" && exec 2>> "$1" && shift && exec "$@""#;

/// A daemon and a cgroup with discovery.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
    cgroup: PathBuf,
    /// The daemon and discovery, until the end.
    running: Vec<Running>,
}

/// The cgroups' file system of version 2.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"));
    let place = mount.and_then(|fields| fields.get(1).copied());
    Ok(PathBuf::from(place.context("no cgroup file system of version 2")?))
}

/// Waits until a file has something in it, or is there at all if it is no file.
fn wait_for(path: &Path) -> Result<()> {
    let end = Instant::now() + LONGEST;
    let is_there = || fs::metadata(path).is_ok_and(|it| !it.is_file() || it.len() > 0);
    while !is_there() {
        ensure!(Instant::now() < end, "{} did not come", path.display());
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

impl Lab {
    /// Starts them.
    ///
    /// # Errors
    /// They cannot be started: they need root.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// The same; the daemon's configuration of its processes has these lines as well.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_with(lines: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ism-programs-{}-{number}", std::process::id());
        let cgroup = cgroups()?.join(name);
        fs::create_dir(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        let mut lab = Self { folder: tempfile::tempdir()?, cgroup, running: Vec::new() };
        // The socket is for others than root too.
        fs::set_permissions(lab.folder.path(), fs::Permissions::from_mode(0o755))?;
        let (config, socket) = (lab.config(), lab.socket());
        let own = format!(
            "[[processes]]\nname = \"apps\"\nsocket = {socket:?}\nuids = {USERS:?}\n{lines}\n"
        );
        fs::write(&config, own)?;
        let mut daemon = Command::new(programs().join("vhost-user-ism"));
        lab.running.push(Running::start(daemon.arg("--config").arg(&config))?);
        let said = lab.folder.path().join("discovery");
        let mut discovery = Command::new(programs().join("smc-discovery"));
        discovery.arg("--cgroup").arg(&lab.cgroup).stdout(fs::File::create(&said)?);
        lab.running.push(Running::start(&mut discovery)?);
        wait_for(&socket)?;
        wait_for(&said)?;
        Ok(lab)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("apps.sock")
    }

    /// The daemon's configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("daemon.toml")
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// There is none.
    pub fn daemon(&self) -> Result<u32> {
        Ok(self.running.first().context("no daemon")?.id())
    }

    /// Where [`Lab::log`] comes from.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The command that starts `program` with the preload, which says what becomes of connections.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(&self.cgroup).arg(self.log_file());
        command.arg(programs().join("smc-run")).arg("-ds").arg(self.socket()).arg(program);
        command
    }

    /// What the programs and the preload have said.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.running.clear();
        let end = Instant::now() + LONGEST;
        // It is busy until the last process in it has been waited for.
        while fs::remove_dir(&self.cgroup).is_err() && Instant::now() < end {
            sleep(Duration::from_millis(10));
        }
    }
}
