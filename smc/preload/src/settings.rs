// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the environment says, and what becomes of connections on stderr.
//!
//! Invariant: read once, before the program can change its environment.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use smc_discovery::policy::Policy;
use smc_socket::Config;

/// The policy file, if SMC_POLICY does not say; it need not exist.
const POLICY: &str = "/etc/smc-policy.toml";

/// Longer than this nobody looks who could sleep: a peer that does not answer is at work.
const LONGEST_SPIN: Duration = Duration::from_secs(1);

/// What the environment says.
#[derive(Debug)]
pub(crate) struct Settings {
    debug: bool,
    /// SMC_MODE=tcp: every connection is decided to be TCP.
    pub(crate) forced_tcp: bool,
    /// SMC_SOCKET.
    pub(crate) socket: PathBuf,
    /// SMC_SPIN_US: the longest that a thread looks by itself before it sleeps.
    pub(crate) spin: Duration,
    /// `None`: the file cannot be used, so everything is TCP.
    pub(crate) policy: Option<Policy>,
}

/// The process's settings.
pub(crate) static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::read);

impl Settings {
    fn read() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let debug = variable("SMC_DEBUG").is_some_and(|value| value != "0");
        let socket =
            variable("SMC_SOCKET").map_or_else(|| ism_client::vhost::SOCKET.into(), PathBuf::from);
        let spin = Config::SPIN;
        let mut settings = Self { debug, forced_tcp: false, socket, spin, policy: None };
        if let Some(text) = variable("SMC_SPIN_US") {
            match text.to_str().and_then(|text| text.trim().parse().ok()) {
                Some(us) => settings.spin = Duration::from_micros(us).min(LONGEST_SPIN),
                None => settings.say(format_args!("SMC_SPIN_US is no number: {}", text.display())),
            }
        }
        settings.forced_tcp = variable("SMC_MODE").is_some_and(|mode| mode == "tcp");
        let named = variable("SMC_POLICY").map(PathBuf::from);
        settings.policy = settings.read_policy(named.as_deref());
        settings
    }

    fn read_policy(&self, named: Option<&Path>) -> Option<Policy> {
        let file = named.unwrap_or(Path::new(POLICY));
        if named.is_none() && !file.exists() {
            return Some(Policy::default());
        }
        let program = std::env::current_exe().unwrap_or_default();
        match Policy::read(file) {
            Ok(policy) => Some(policy.for_program(&program.to_string_lossy())),
            Err(error) => {
                let next = "mend it, or name another by SMC_POLICY";
                self.say(format_args!("all connections are TCP: {error}; {next}"));
                None
            }
        }
    }

    /// With SMC_DEBUG, writes a line to stderr.
    pub(crate) fn say(&self, text: fmt::Arguments<'_>) {
        if self.debug {
            let mut line = [0; 512];
            let mut rest = &mut line[..];
            // A line that is too long is cut.
            let _ = writeln!(rest, "libsmc_preload[{}]: {text}", std::process::id());
            let left = rest.len();
            let line = line.get(..line.len() - left).unwrap_or(&line);
            // The program's stderr is the program's: a failure to write there is not ours.
            let stderr = rustix::stdio::stderr();
            let _ = rustix::io::write(stderr, line);
        }
    }
}
