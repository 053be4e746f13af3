// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration file (TOML).
//!
//! Invariant: an error names the file, line and column of the value it is about.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{Bytes, FabricId, Gid, Mode, Name, WindowSize};
use super::{Config, FabricConfig, GroupConfig, Listen, ProcessesConfig, QuotaConfig, VmConfig};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    fabric_id: Option<FabricId>,
    mode: Option<Mode>,
    check_cdc: Option<bool>,
    window_size: Option<WindowSize>,
    poll_us: Option<u32>,
    control_socket: Option<PathBuf>,
    allow_unsealed_memory: Option<bool>,
    #[serde(default)]
    group: BTreeMap<Name, Group>,
    #[serde(default)]
    vm: Vec<Vm>,
    #[serde(default)]
    processes: Vec<Processes>,
}

/// A `[[processes]]` table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Processes {
    name: Name,
    socket: PathBuf,
    groups: Option<Vec<Name>>,
    #[serde(default)]
    uids: Vec<u32>,
    #[serde(default)]
    gids: Vec<u32>,
    max: Option<u32>,
    bytes: Option<Bytes>,
    dmbs: Option<u32>,
    peers: Option<u32>,
    board: Option<u32>,
    signal_rate: Option<u32>,
    control_rate: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Group {
    mode: Option<Mode>,
    check_cdc: Option<bool>,
}

/// A `[[vm]]` table; the control socket's `add-vm` carries the same one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vm {
    name: Name,
    /// Where its front-end connects.
    pub socket: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Name>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<Gid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dmbs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    board: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal_rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_rate: Option<u32>,
}

/// Why a configuration file cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be read.
    Read(PathBuf, std::io::Error),
    /// It is wrong at a place.
    Wrong {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong and what is allowed.
        message: String,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(file, error) => write!(
                f,
                "the configuration {} cannot be read: {error}; --config names another, --vm and --processes do \
                 without, and dist/vhost-user-ism.toml is one with all settings",
                file.display()
            ),
            Self::Wrong { file, line, column, message } => {
                write!(f, "{}:{line}:{column}: {message}", file.display())
            }
        }
    }
}

impl std::error::Error for FileError {}

/// What options say of all groups; it goes before what the file says of all groups.
#[derive(Debug, Clone, Copy, Default)]
pub struct GroupOptions {
    /// `--mode`
    pub mode: Option<Mode>,
    /// `--check-cdc`
    pub check_cdc: bool,
}

/// Reads the configuration file at `path`; a group has what
/// its table says, else `options`, else the file's head.
///
/// # Errors
/// That it cannot be read, or where it is wrong.
pub fn read(path: &Path, options: GroupOptions) -> Result<Config, FileError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| FileError::Read(path.to_owned(), error))?;
    parse(path, &text, options)
}

fn parse(path: &Path, text: &str, options: GroupOptions) -> Result<Config, FileError> {
    let mut file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = line_and_column(text, at);
        let message = error.message().trim().replace('\n', "; ");
        FileError::Wrong { file: path.to_owned(), line, column, message }
    })?;
    file.mode = options.mode.or(file.mode);
    file.check_cdc = if options.check_cdc { Some(true) } else { file.check_cdc };
    Ok(file.into())
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

impl From<File> for Config {
    fn from(file: File) -> Self {
        let default = FabricConfig::default();
        let group = GroupConfig {
            mode: file.mode.unwrap_or(default.group.mode),
            check_cdc: file.check_cdc.unwrap_or(default.group.check_cdc),
        };
        let own = |settings: Group| GroupConfig {
            mode: settings.mode.unwrap_or(group.mode),
            check_cdc: settings.check_cdc.unwrap_or(group.check_cdc),
        };
        Self {
            fabric: FabricConfig {
                id: file.fabric_id.unwrap_or(default.id),
                group,
                window_size: file.window_size.unwrap_or(default.window_size),
                poll: file.poll_us.map_or(default.poll, |us| Duration::from_micros(us.into())),
                allow_unsealed_memory: file.allow_unsealed_memory.unwrap_or_default(),
            },
            groups: file.group.into_iter().map(|(name, settings)| (name, own(settings))).collect(),
            vms: file.vm.into_iter().map(VmConfig::from).collect(),
            processes: file.processes.into_iter().map(ProcessesConfig::from).collect(),
            control_socket: file.control_socket,
        }
    }
}

impl Vm {
    /// The table that says the same as `vm`, if its socket is a path.
    pub fn from_config(vm: VmConfig) -> Option<Self> {
        let Listen::Path(socket) = vm.listen else { return None };
        Some(Self {
            name: vm.name,
            socket,
            groups: Some(vm.groups),
            gid: Some(vm.gid),
            bytes: vm.quota.bytes.map(Bytes),
            dmbs: vm.quota.dmbs,
            peers: vm.quota.peers,
            board: vm.quota.board,
            signal_rate: vm.quota.signal_rate,
            control_rate: vm.quota.control_rate,
        })
    }
}

impl From<Vm> for VmConfig {
    fn from(vm: Vm) -> Self {
        Self {
            gid: vm.gid.unwrap_or_else(|| Gid::of_name(&vm.name)),
            name: vm.name,
            listen: Listen::Path(vm.socket),
            groups: vm.groups.unwrap_or_else(|| vec![Name::default_group()]),
            quota: QuotaConfig {
                bytes: vm.bytes.map(|bytes| bytes.0),
                dmbs: vm.dmbs,
                peers: vm.peers,
                board: vm.board,
                signal_rate: vm.signal_rate,
                control_rate: vm.control_rate,
            },
        }
    }
}

impl From<Processes> for ProcessesConfig {
    fn from(door: Processes) -> Self {
        Self {
            name: door.name,
            socket: door.socket,
            groups: door.groups.unwrap_or_else(|| vec![Name::default_group()]),
            uids: door.uids,
            gids: door.gids,
            max: door.max.unwrap_or(Self::DEFAULT_MAX),
            quota: QuotaConfig {
                bytes: door.bytes.map(|bytes| bytes.0),
                dmbs: door.dmbs,
                peers: door.peers,
                board: door.board,
                signal_rate: door.signal_rate,
                control_rate: door.control_rate,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &Path, text: &str) -> Result<Config, FileError> {
        parse(path, text, GroupOptions::default())
    }

    const EXAMPLE: &str = r#"
fabric-id = 0xff07
poll-us = 0
check-cdc = true
window-size = "1G"

[group.untrusted]
mode = "copied"

[[vm]]
name = "a"
socket = "/run/a.sock"
groups = ["web", "untrusted"]
bytes = "64M"

[[vm]]
name = "b"
socket = "/run/b.sock"
bytes = 1048576
"#;

    #[test]
    fn an_example_is_read() {
        let config = parsed(Path::new("x.toml"), EXAMPLE).expect("valid");
        assert_eq!(config.fabric.id.get(), 0xff07);
        assert_eq!(config.fabric.poll, Duration::ZERO);
        assert_eq!(config.fabric.window_size.bytes(), 1 << 30);
        assert_eq!(config.fabric.group, GroupConfig { mode: Mode::Mapped, check_cdc: true });
        let untrusted = &config.groups[&"untrusted".parse::<Name>().expect("name")];
        assert_eq!(*untrusted, GroupConfig { mode: Mode::Copied, check_cdc: true });
        assert_eq!(config.vms.len(), 2);
        assert_eq!(config.vms[0].groups.len(), 2);
        assert_eq!(config.vms[0].quota.bytes, Some(64 << 20));
        assert_eq!(config.vms[1].quota.bytes, Some(1 << 20));
        assert_eq!(config.vms[1].groups, [Name::default_group()]);
    }

    /// The file that is packaged: it shows every default, and its examples are valid.
    const PACKAGED: &str = include_str!("../../../dist/vhost-user-ism.toml");

    #[test]
    fn the_packaged_file_is_the_defaults() {
        let packaged = parsed(Path::new("x.toml"), PACKAGED).expect("valid");
        let empty = parsed(Path::new("x.toml"), "").expect("valid");
        assert_eq!(format!("{packaged:?}"), format!("{empty:?}"));
    }

    #[test]
    fn the_packaged_examples_are_valid() {
        let uncommented =
            PACKAGED.replace("\n# [", "\n[").lines().fold(String::new(), |text, line| {
                let setting = line.strip_prefix("# ").filter(|rest| rest.contains(" = "));
                text + setting.unwrap_or(line) + "\n"
            });
        let config = parsed(Path::new("x.toml"), &uncommented).expect("valid");
        assert_eq!(config.vms.len(), 1);
        assert_eq!(config.processes.len(), 1);
        assert_eq!(config.groups.len(), 1);
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parsed(Path::new("x.toml"), "").expect("valid");
        assert!(config.vms.is_empty());
        assert_eq!(config.fabric.id, FabricId::DEFAULT);
    }

    #[test]
    fn options_reach_groups_that_leave_the_choice() {
        let text =
            "mode = \"mapped\"\n[group.open]\n[group.own]\nmode = \"mapped\"\ncheck-cdc = false";
        let options = GroupOptions { mode: Some(Mode::Copied), check_cdc: true };
        let config = parse(Path::new("x.toml"), text, options).expect("valid");
        let group = |name: &str| config.groups[&name.parse::<Name>().expect("name")];
        assert_eq!(config.fabric.group, GroupConfig { mode: Mode::Copied, check_cdc: true });
        assert_eq!(group("open"), GroupConfig { mode: Mode::Copied, check_cdc: true });
        assert_eq!(group("own"), GroupConfig { mode: Mode::Mapped, check_cdc: false });
    }

    #[test]
    fn settings_that_protect_nobody_are_doubted() {
        let table = [
            (EXAMPLE.to_owned(), 0),
            (EXAMPLE.replace("[group.untrusted]", "[group.untrustd]"), 1),
            (EXAMPLE.replace("mode = \"copied\"", "mode = \"mapped\""), 1),
            ("check-cdc = true".to_owned(), 1),
            ("check-cdc = true\nmode = \"copied\"".to_owned(), 0),
        ];
        for (text, expected) in table {
            let doubts = parsed(Path::new("x.toml"), &text).expect("valid").doubts();
            assert_eq!(doubts.len(), expected, "{text}: {doubts:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_what_to_do() {
        let error = read(Path::new("/nonexist"), GroupOptions::default()).expect_err("none");
        let text = error.to_string();
        assert!(text.starts_with("the configuration /nonexist cannot be read: "), "{text}");
        assert!(text.contains("--config") && text.contains("dist/vhost-user-ism.toml"), "{text}");
    }

    #[test]
    fn errors_say_where_and_what_is_allowed() {
        let table = [
            ("\nfabric-id = 1\n", "x.toml:2:13: ", "0xff00 to 0xfffe"),
            ("mode = \"fast\"", "x.toml:1:8: ", "`mapped` or `copied`"),
            ("\n\nwindow-size = \"3G\"", "x.toml:3:15: ", "a power of two"),
            ("a = 1", "x.toml:1:1: ", "expected one of `fabric-id`"),
            ("[[vm]]\nname = \"a\"\n", "x.toml:1:1: ", "missing field `socket`"),
            ("[[vm]]\nname = \"a b\"\nsocket=\"s\"", "x.toml:2:8: ", "1 to 64 of"),
            ("[[vm]]\nname = \"a\"\nsocket=\"s\"\nbytes = -1", "x.toml:4:9: ", "not negative"),
            ("[group.g]\nmod = 1", "x.toml:2:1: ", "expected `mode` or `check-cdc`"),
            ("poll-us = ", "x.toml:1:11: ", ""),
        ];
        for (text, place, allowed) in table {
            let error = parsed(Path::new("x.toml"), text).expect_err(text).to_string();
            assert!(error.starts_with(place), "{text:?}: {error}");
            assert!(error.contains(allowed), "{text:?}: {error}");
        }
    }
}
