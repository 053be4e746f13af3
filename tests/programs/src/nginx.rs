// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! nginx with several workers, of another user than their master.
//!
//! Invariant: it serves `/` (6 bytes) and `/file` ([`file`]) and says what is wrong on its stderr.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{Running, unused_port, wait_for_port, wait_until};
use crate::way::Way;

/// Its workers.
const WORKERS: usize = 3;

/// What `/file` is.
pub fn file() -> Vec<u8> {
    (0..5_000_000_u32).map(|n| (n % 251) as u8).collect()
}

/// A master with its workers.
#[derive(Debug)]
pub struct Nginx {
    master: Running,
    _folder: TempDir,
    port: u16,
}

impl Nginx {
    /// Starts it, with listening sockets as `listen` says (`reuseport`: one a worker, else all share one).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(way: Way<'_>, listen: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        fs::write(folder.path().join("index.html"), "hello\n")?;
        fs::write(folder.path().join("file"), file())?;
        let port = unused_port()?;
        let place = folder.path().display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let paths = paths.map(|name| format!("{name}_temp_path {place};")).concat();
        let config = format!(
            "user www-data; worker_processes {WORKERS}; daemon off; pid {place}/pid;\n\
             error_log stderr; events {{ worker_connections 1024; }}\n\
             http {{ access_log off; {paths} server {{\n\
             listen 127.0.0.1:{port} {listen}; listen [::1]:{port} {listen};\n\
             root {place}; sendfile on; }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config)?;
        // Its own file comes after its arguments: before, it writes to the one it was built with.
        let mut command = way.command("nginx");
        let master = Running::start(command.args(["-e", "stderr", "-c"]).arg(&file))?;
        wait_for_port(port)?;
        let nginx = Self { master, _folder: folder, port };
        wait_until("nginx's workers", || nginx.workers().len() == WORKERS)?;
        Ok(nginx)
    }

    /// Where it listens, on 127.0.0.1 and on ::1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its workers' process ids.
    pub fn workers(&self) -> BTreeSet<u32> {
        self.master.children()
    }

    /// Has the master start new workers and the old ones end, and waits until they have.
    ///
    /// # Errors
    /// They do not.
    pub fn reload(&self) -> Result<()> {
        let old = self.workers();
        self.master.signal("HUP")?;
        wait_until("only new workers", || {
            let now = self.workers();
            now.len() == WORKERS && now.is_disjoint(&old)
        })
    }

    /// Ends it when its connections have.
    ///
    /// # Errors
    /// It does not end.
    pub fn quit(mut self) -> Result<()> {
        self.master.signal("QUIT")?;
        self.master.wait()
    }
}

/// What wrk says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrk {
    /// Answers.
    pub requests: u64,
    /// Connections that could not be made; reads and writes that failed; requests without an answer.
    pub errors: [u64; 4],
    /// Answers that were no success.
    pub refused: bool,
}

impl Wrk {
    /// Reads its report.
    ///
    /// # Errors
    /// It is none.
    pub fn read(report: &[u8]) -> Result<Self> {
        let report = String::from_utf8_lossy(report);
        let line = |what: &str| report.lines().find(|line| line.contains(what));
        let requests = line("requests in").and_then(|it| it.split_whitespace().next());
        let requests = requests.with_context(|| report.clone().into_owned())?.parse()?;
        let mut errors = [0; 4];
        if let Some(line) = line("Socket errors:") {
            for (error, name) in errors.iter_mut().zip(["connect ", "read ", "write ", "timeout "])
            {
                let number = line.split(name).nth(1).and_then(|rest| rest.split(',').next());
                let Some(number) = number else { bail!("{report}") };
                *error = number.trim().parse()?;
            }
        }
        Ok(Self { requests, errors, refused: report.contains("Non-2xx") })
    }
}
