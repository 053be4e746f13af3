// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The launcher's own part: its library, the environment, and what to say when a program cannot be started.
//!
//! Invariant: it returns only if the program was not started.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::program;

/// What is to be started, and by whom.
pub struct Start<'a> {
    /// This program, for messages.
    pub name: &'a str,
    /// The library's file.
    pub library: &'a str,
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// Variables that are set as well, those that have a value.
    pub environment: &'a [(&'a str, Option<OsString>)],
}

impl Start<'_> {
    /// Does not return when all is well; else the exit status, as env(1) has it.
    pub fn start(&self) -> ExitCode {
        let (status, text) = self.become_it();
        eprintln!("{}: {text}", self.name);
        ExitCode::from(status)
    }

    fn become_it(&self) -> (u8, String) {
        let library = match find(self.library) {
            Ok(library) => library,
            Err(text) => return (125, text),
        };
        let Some((program, arguments)) = self.command.split_first() else {
            return (125, "no program is named".to_owned());
        };
        let shown = Path::new(program).display();
        if program::find(program).is_some_and(|path| program::ignores_preloads(&path)) {
            let name = self.name;
            eprintln!("{name}: {shown} is statically linked: its own connections stay TCP");
        }
        let mut command = Command::new(program);
        command.args(arguments);
        command.env("LD_PRELOAD", preload(&library, std::env::var_os("LD_PRELOAD").as_deref()));
        for (name, value) in self.environment {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let error = command.exec();
        let status = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        let is_option = program.as_encoded_bytes().starts_with(b"-");
        let hint = if is_option { "; it is no option either, see --help" } else { "" };
        (status, format!("cannot run {shown}: {error}{hint}"))
    }
}

/// Our library before those that are preloaded already, once.
fn preload(library: &Path, others: Option<&OsStr>) -> OsString {
    let mut list = library.as_os_str().to_owned();
    let others = others.unwrap_or_default();
    let separators = [b':', b' '];
    for other in others.as_encoded_bytes().split(|byte| separators.contains(byte)) {
        let other = std::os::unix::ffi::OsStrExt::from_bytes(other);
        if !OsStr::is_empty(other) && other != library.as_os_str() {
            list.push(":");
            list.push(other);
        }
    }
    list
}

/// The library beside this program, or in the lib directory beside its bin directory.
fn find(library: &str) -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places = [directory.join(library), directory.join("../lib").join(library)];
    places.iter().find(|place| place.exists()).cloned().ok_or_else(|| {
        let [beside, lib] = places.map(|place| place.display().to_string());
        format!("{library} is neither {beside} nor {lib}; it is built with this program, and stays with it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_preloads_stay_and_none_comes_twice() {
        let library = Path::new("/lib/x.so");
        assert_eq!(preload(library, None), "/lib/x.so");
        assert_eq!(preload(library, Some(OsStr::new(""))), "/lib/x.so");
        assert_eq!(preload(library, Some(OsStr::new("/a.so:/lib/x.so"))), "/lib/x.so:/a.so");
        assert_eq!(preload(library, Some(OsStr::new("/a.so /b.so"))), "/lib/x.so:/a.so:/b.so");
    }
}
