// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What SMC-D between two processes takes: the daemon, discovery in a cgroup, and for proofs a network
//! namespace, whose lo nobody else uses, or that of the caller.
//!
//! Invariant: all of it, and what was started in it, is gone after this program, however this program
//! ends.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::repo;

/// Longest time that something takes to start.
const LONGEST: Duration = Duration::from_secs(20);

/// Waits for the end of its input, which is that of this program; ends what is still in the cgroup
/// `$0`, removes it, and the folder `$1`.
const JANITOR: &str = r#"cat >/dev/null
i=0
until rmdir "$0" || [ $i -ge 100 ]; do
    echo 1 > "$0/cgroup.kill"; i=$((i + 1)); sleep 0.1
done
rm -rf -- "$1""#;

/// Joins the cgroup `$0`, appends stderr to `$1`, and becomes the rest.
const JOIN: &str = r#"echo $$ > "$0/cgroup.procs" && exec 2>> "$1" && shift && exec "$@""#;

/// Makes lo usable, says so, and keeps the namespace.
const NAMESPACE: &str = "ip link set lo up && echo up && exec sleep infinity";

/// How a program's TCP connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without the preload.
    Plain,
    /// Over SMC-D, if the other end does so too.
    Smc,
}

/// A lab to be started.
#[derive(Clone, Debug, Default)]
pub struct LabSpec {
    here: bool,
    unserved: bool,
    users: Vec<u32>,
    lines: String,
}

impl LabSpec {
    /// For programs of root, in a network namespace of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// In the network namespace that the starting thread is in.
    pub fn here(self) -> Self {
        Self { here: true, ..self }
    }

    /// Without the daemon and discovery, which [`Lab::start_daemon`] and [`Lab::start_discovery`] start later.
    pub fn unserved(self) -> Self {
        Self { unserved: true, ..self }
    }

    /// For programs of these users.
    pub fn users(self, users: &[u32]) -> Self {
        Self { users: users.to_vec(), ..self }
    }

    /// The daemon's configuration of its processes has these lines as well.
    pub fn lines(self, lines: &str) -> Self {
        Self { lines: lines.to_owned(), ..self }
    }

    /// Builds the programs and starts them.
    ///
    /// # Errors
    /// They cannot be built or started: they need root.
    pub fn start(&self) -> Result<Lab> {
        // Not after minutes of building.
        ensure!(
            fs::metadata("/proc/self")?.uid() == 0,
            "it needs root: for a network namespace, a cgroup and BPF programs; try sudo"
        );
        let programs = repo::programs()?;
        let mut lab = Lab::empty(programs, if self.users.is_empty() { 0o700 } else { 0o755 })?;
        if !self.here {
            lab.start_namespace()?;
        }
        if !self.unserved {
            lab.start_daemon(self)?;
            lab.start_discovery()?;
        }
        Ok(lab)
    }

    fn config(&self, door: &Path) -> String {
        let users = match &self.users[..] {
            [] => String::new(),
            users => format!("uids = {users:?}\n"),
        };
        format!("[[processes]]\nname = \"apps\"\nsocket = {door:?}\n{users}{}\n", self.lines)
    }
}

/// A daemon with a door for processes, discovery, and a network namespace.
#[derive(Debug)]
pub struct Lab {
    programs: PathBuf,
    folder: PathBuf,
    cgroup: PathBuf,
    /// Who keeps the namespace, if it is the lab's own.
    owner: Option<Process>,
    daemon: Option<Process>,
    discovery: Option<Process>,
    janitor: Child,
}

impl Lab {
    /// As [`LabSpec`] has it without more words.
    ///
    /// # Errors
    /// As [`LabSpec::start`].
    pub fn start() -> Result<Self> {
        LabSpec::new().start()
    }

    /// A folder of this mode, a cgroup, and who cleans up.
    fn empty(programs: PathBuf, mode: u32) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vhost-user-ism-lab-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        let cgroup = cgroups()?.join(&name);
        let new = || DirBuilder::new().mode(mode).create(&folder);
        new().with_context(|| format!("cannot make {}", folder.display()))?;
        let janitor = janitor(&cgroup, &folder)?;
        let (owner, daemon, discovery) = (None, None, None);
        let lab = Self { programs, folder, cgroup, owner, daemon, discovery, janitor };
        fs::create_dir(&lab.cgroup)
            .with_context(|| format!("cannot make {}; it needs root", lab.cgroup.display()))?;
        Ok(lab)
    }

    fn start_namespace(&mut self) -> Result<()> {
        let argv = ["unshare", "--net", "sh", "-c", NAMESPACE].map(str::to_owned);
        self.owner = Some(self.start_one("namespace", &argv, |said| said.starts_with("up"))?);
        Ok(())
    }

    /// Starts the daemon of the lab that `spec` has started.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_daemon(&mut self, spec: &LabSpec) -> Result<()> {
        let (config, door) = (self.config(), self.door());
        fs::write(&config, spec.config(&door))?;
        let argv = [self.program("vhost-user-ism"), "--config".to_owned(), text(&config)];
        self.daemon = Some(self.start_one("vhost-user-ism", &argv, |_| door.exists())?);
        Ok(())
    }

    /// Ends the daemon as a crash would, and starts it again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart_daemon(&mut self, spec: &LabSpec) -> Result<()> {
        self.daemon = None;
        // Whose being there says that the next one serves.
        fs::remove_file(self.door())?;
        self.start_daemon(spec)
    }

    /// Starts what a process finds out by that its peer speaks SMC too: an option of TCP.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_discovery(&mut self) -> Result<()> {
        let argv = [self.program("smc-discovery"), "--cgroup".to_owned(), text(&self.cgroup)];
        let serves = |said: &str| said.starts_with("serves");
        self.discovery = Some(self.start_one("smc-discovery", &argv, serves)?);
        Ok(())
    }

    /// Starts something that stays, and waits until it is ready by what it has said.
    fn start_one(
        &self,
        name: &str,
        argv: &[String],
        is_ready: impl Fn(&str) -> bool,
    ) -> Result<Process> {
        let log = self.folder.join(name);
        let mut process = Process::start(name, argv, log.clone())?;
        process.wait_until("it is ready", LONGEST, || {
            is_ready(&fs::read_to_string(&log).unwrap_or_default())
        })?;
        Ok(process)
    }

    /// What stands before a program's own name and arguments, to start it in here. What it and the
    /// preload write to stderr is appended to `log`.
    ///
    /// # Errors
    /// The lab did not start.
    pub fn prefix(&self, way: Way, log: &Path) -> Result<Vec<String>> {
        let mut argv = Vec::new();
        if self.owner.is_some() {
            let network = format!("--net=/proc/{}/ns/net", self.owner()?);
            argv.extend(["nsenter", &network, "--"].map(str::to_owned));
        }
        argv.extend(["sh", "-c", JOIN].map(str::to_owned));
        argv.extend([text(&self.cgroup), text(log)]);
        if way == Way::Smc {
            argv.extend([self.program("smc-run"), "-ds".to_owned(), text(&self.door())]);
        }
        Ok(argv)
    }

    /// A file of the lab's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Bytes that the namespace's lo has carried, headers included.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn lo_bytes(&self) -> Result<u64> {
        let devices = fs::read_to_string(format!("/proc/{}/net/dev", self.owner()?))?;
        let lo = devices.lines().find_map(|line| line.trim().strip_prefix("lo:"));
        let bytes = lo.and_then(|lo| lo.split_whitespace().next());
        bytes.and_then(|bytes| bytes.parse().ok()).context("no counter of the namespace's lo")
    }

    /// Waits until somebody in the namespace listens on a TCP port of IPv4; `server` is to.
    ///
    /// # Errors
    /// It ends before, or does not in time.
    pub fn wait_listening(&self, server: &mut Process, port: u16) -> Result<()> {
        let table = format!("/proc/{}/net/tcp", self.owner()?);
        let entry = format!(":{port:04X}");
        let listens = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&entry))
                && fields.get(3) == Some(&"0A")
        };
        server.wait_until("it listens", LONGEST, || {
            fs::read_to_string(&table).unwrap_or_default().lines().any(listens)
        })
    }

    /// The daemon's configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("daemon.toml")
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// There is none.
    pub fn daemon(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().context("no daemon")?.pid())
    }

    fn owner(&self) -> Result<u32> {
        Ok(self.owner.as_ref().context("no network namespace")?.pid())
    }

    /// The daemon's socket for processes.
    pub fn door(&self) -> PathBuf {
        self.folder.join("apps.sock")
    }

    fn program(&self, name: &str) -> String {
        text(&self.programs.join(name))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        (self.discovery, self.daemon, self.owner) = (None, None, None);
        drop(self.janitor.stdin.take());
        // It could not be waited for only if somebody else had.
        let _ = self.janitor.wait();
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Starts who cleans up, in a process group of its own: ^C is not for it.
fn janitor(cgroup: &Path, folder: &Path) -> io::Result<Child> {
    let mut janitor = Command::new("sh");
    janitor.args(["-c", JANITOR]).args([cgroup, folder]).process_group(0);
    janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// The cgroups' file system of version 2.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"));
    let place = mount.as_ref().and_then(|fields| fields.get(1)).copied();
    ensure!(place.is_some(), "discovery needs a cgroup file system of version 2");
    Ok(PathBuf::from(place.unwrap_or_default()))
}
