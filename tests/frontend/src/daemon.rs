// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A daemon of one's own: started with a configuration, watched, and ended with its owner.
//!
//! Invariant: the process, its sockets and its folder are gone when the [`Daemon`] is, and its log
//! is shown if the owner panics.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::connection::{Connection, Options};
use crate::driver::{Driver, PATIENCE};
use crate::error::{Error, Result};

/// Name of the daemon's program.
const PROGRAM: &str = "vhost-user-ism";
/// Path of the daemon's program, if it is not beside the running one.
pub const PROGRAM_VARIABLE: &str = "ISM_DAEMON";

/// The configuration of a daemon: what stands in its file.
#[derive(Clone, Debug, Default)]
pub struct Fabric {
    settings: String,
    groups: String,
    vms: Vec<(String, String)>,
    doors: Vec<(String, String)>,
}

impl Fabric {
    /// Defaults and no VM.
    pub fn new() -> Self {
        Self::default()
    }

    /// A setting of the whole fabric, as a line of the file.
    #[must_use]
    pub fn set(mut self, line: &str) -> Self {
        self.settings.push_str(line);
        self.settings.push('\n');
        self
    }

    /// A group with settings of its own, as lines of the file.
    #[must_use]
    pub fn group(mut self, name: &str, lines: &str) -> Self {
        self.groups.push_str(&format!("[group.{name}]\n{lines}\n"));
        self
    }

    /// A VM in these groups.
    #[must_use]
    pub fn vm(self, name: &str, groups: &[&str]) -> Self {
        self.vm_with(name, groups, "")
    }

    /// A VM in these groups, with further lines of the file.
    #[must_use]
    pub fn vm_with(mut self, name: &str, groups: &[&str], lines: &str) -> Self {
        let mut text = format!("groups = {groups:?}\n");
        text.push_str(lines);
        self.vms.push((name.to_owned(), text));
        self
    }

    /// A door for processes, with further lines of the file.
    #[must_use]
    pub fn processes(mut self, name: &str, lines: &str) -> Self {
        self.doors.push((name.to_owned(), lines.to_owned()));
        self
    }

    /// The file's text, with sockets in `folder`.
    fn text(&self, folder: &Path) -> String {
        let mut text = format!("control-socket = {:?}\n", folder.join("control"));
        text.push_str(&self.settings);
        text.push_str(&self.groups);
        let vms = self.vms.iter().map(|vm| ("vm", vm));
        for (table, (name, lines)) in vms.chain(self.doors.iter().map(|door| ("processes", door))) {
            let socket = socket_path(folder, name);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[[{table}]]\nname = {name:?}\nsocket = {socket:?}\n{lines}");
        }
        text
    }

    /// Starts a daemon with this configuration.
    pub fn start(&self) -> Result<Daemon> {
        Daemon::start(self)
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    folder: PathBuf,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    watchdog: Option<Watchdog>,
}

/// Kills the daemon when its time is up: whoever waits for an answer then gets an error.
#[derive(Debug)]
struct Watchdog {
    /// Dropping it ends the thread.
    alive: Sender<()>,
    thread: JoinHandle<()>,
}

/// Lines of the log, and whether there will be more.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// What a process has of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Mappings.
    pub mappings: usize,
    /// Resident anonymous KiB.
    pub anonymous_kib: u64,
    /// Resident KiB of files (the program itself, mostly).
    pub file_kib: u64,
    /// Resident KiB of shared memory: guests' RAM and arenas.
    pub shared_kib: u64,
    /// CPU time used by all threads that live.
    pub cpu: Duration,
}

impl Daemon {
    fn start(fabric: &Fabric) -> Result<Self> {
        let folder = new_folder()?;
        let file = folder.join("fabric.toml");
        fs::write(&file, fabric.text(&folder)).map_err(Error::io("writing the configuration"))?;
        let mut child = Command::new(program()?)
            .arg("--config")
            .arg(&file)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io("starting the daemon"))?;
        let log: Arc<Log> = Arc::default();
        let reader = child.stderr.take().map(|stderr| {
            let log = log.clone();
            std::thread::spawn(move || log.collect(BufReader::new(stderr)))
        });
        let daemon = Self { child, folder, log, reader, watchdog: None };
        daemon.wait_for_socket(&daemon.control_socket())?;
        for (name, _) in fabric.vms.iter().chain(&fabric.doors) {
            daemon.wait_for_socket(&daemon.socket(name))?;
        }
        Ok(daemon)
    }

    /// Has the daemon killed after `limit`, so that a test which waits for it ends.
    pub fn limit(&mut self, limit: Duration) -> Result<()> {
        let id = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let id = id.ok_or(Error::Timeout("process id"))?;
        let (alive, end) = channel();
        let thread = std::thread::spawn(move || {
            if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("the daemon is killed after {limit:?}");
                // Not reaped before the watchdog has ended, so the id is still the daemon's.
                let _ = kill_process(id, Signal::KILL);
            }
        });
        self.watchdog = Some(Watchdog { alive, thread });
        Ok(())
    }

    /// Path of a VM's socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        socket_path(&self.folder, name)
    }

    /// Path of the control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// A folder that is gone with the daemon.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A VM's connection, not started.
    pub fn open(&self, name: &str, options: Options) -> Result<Connection> {
        Connection::open(&self.socket(name), options)
    }

    /// A VM's driver after HELLO.
    pub fn join(&self, name: &str, options: Options) -> Result<Driver> {
        Driver::join(&self.socket(name), options)
    }

    /// A VM's bare socket, connected.
    pub fn connect(&self, name: &str) -> Result<UnixStream> {
        UnixStream::connect(self.socket(name)).map_err(Error::io("connecting to the daemon"))
    }

    /// Runs `vhost-user-ism ctl` with these arguments against this daemon.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(program()?);
        command.arg("ctl").arg("--control-socket").arg(self.control_socket()).args(args);
        command.output().map_err(Error::io("running ctl"))
    }

    /// Waits until `path` is a socket that somebody listens at, without connecting to it.
    pub fn wait_for_socket(&self, path: &Path) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // The kernel lists a socket at this path as listening with flag 0x10000 (SO_ACCEPTCON).
        let listening = || {
            // Anybody's socket can have a name that is no text.
            fs::read("/proc/net/unix").is_ok_and(|table| {
                String::from_utf8_lossy(&table).lines().any(|line| {
                    let mut words = line.split_whitespace().skip(3);
                    words.next() == Some("00010000") && line.ends_with(&*path.to_string_lossy())
                })
            })
        };
        while !listening() {
            if Instant::now() >= deadline || self.has_ended() {
                eprintln!("{}", self.log());
                return Err(Error::Timeout("listening socket of the daemon"));
            }
            std::thread::sleep(Duration::from_millis(1)); // The pace of looking, not a wait.
        }
        Ok(())
    }

    /// Whether the process has closed its log, as it does only at its end.
    pub fn has_ended(&self) -> bool {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// The log so far.
    pub fn log(&self) -> String {
        let lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.join("\n")
    }

    /// Waits until a line of the log contains `text`; that line.
    pub fn wait_for_log(&self, text: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = state.0.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.1 {
                return Err(Error::Timeout("line in the daemon's log"));
            }
            let waited = self.log.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the process has of its host now.
    pub fn resources(&self) -> Result<Resources> {
        Resources::of(self.pid()).map_err(Error::io("reading /proc of the daemon"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(Watchdog { alive, thread }) = self.watchdog.take() {
            drop(alive);
            let _ = thread.join();
        }
        // Both fail only if the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}\n---", self.log());
        }
        // What is left over is in the system's folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Log {
    fn collect(&self, stderr: impl BufRead) {
        for line in stderr.lines().map_while(io::Result::ok) {
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
            self.changed.notify_all();
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}

impl Resources {
    /// Those of process `pid`, from /proc.
    pub fn of(pid: u32) -> io::Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(folder.join("status"))?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            descriptors: fs::read_dir(folder.join("fd"))?.count(),
            threads: fs::read_dir(folder.join("task"))?.count(),
            mappings: fs::read_to_string(folder.join("maps"))?.lines().count(),
            anonymous_kib: kib("RssAnon:"),
            file_kib: kib("RssFile:"),
            shared_kib: kib("RssShmem:"),
            cpu: cpu_time(&folder)?,
        })
    }
}

/// Nanoseconds on a CPU of all threads that live: first field of each schedstat.
fn cpu_time(folder: &Path) -> io::Result<Duration> {
    let mut nanos = 0u64;
    for task in fs::read_dir(folder.join("task"))? {
        // A thread may end while the folder is read.
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let first = stat.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanos = nanos.saturating_add(first.unwrap_or(0));
    }
    Ok(Duration::from_nanos(nanos))
}

fn socket_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

fn new_folder() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("ism-{}-{n}", std::process::id()));
    // A process of the same id that was killed may have left it.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(Error::io("making a folder for the daemon"))?;
    Ok(folder)
}

/// The daemon's program: what [`PROGRAM_VARIABLE`] says, else in the folder of the running program
/// or the one above (tests run in `deps`).
fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM_VARIABLE) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(Error::io("finding the running program"))?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(PROGRAM));
    found.into_iter().find(|path| path.is_file()).ok_or_else(|| Error::Io {
        what: "looking for the daemon (run cargo build --package vhost-user-ism, or set ISM_DAEMON)",
        source: io::ErrorKind::NotFound.into(),
    })
}
