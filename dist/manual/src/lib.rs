// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Man pages and shell completions of all programs that users run.
//!
//! Invariant: they say what `--help` says, for they are made from the same definitions; only the page of
//! the policy file is written by hand.

#![forbid(unsafe_code)]

mod page;

// The launchers are no libraries that can be linked with.
#[path = "../../../smc/preload/src/launcher/cli.rs"]
mod smc_run_for_processes;
#[path = "../../../smc/kernel-run/src/launcher/cli.rs"]
mod smc_run_for_the_kernel;

use std::io;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

/// The shells that completions are made for.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A program.
pub struct Program {
    /// Its command line.
    pub command: Command,
    /// The section of its page.
    pub section: &'static str,
    /// What to read next.
    see_also: &'static str,
}

/// A file to be written.
pub struct File {
    /// Its path below where all of them go.
    pub path: String,
    /// What is in it.
    pub text: Vec<u8>,
}

/// All programs.
pub fn programs() -> Vec<Program> {
    let of = |command, section, see_also| Program { command, section, see_also };
    vec![
        of(vhost_user_ism::cli::Cli::command(), "1", "smc-run(1), smcss(8), smcd(8)"),
        of(
            smc_run_for_processes::Cli::command(),
            "1",
            "smcss(8), smcd(8), smc-discovery(8), smc-policy.toml(5), vhost-user-ism(1)",
        ),
        of(smc_run_for_the_kernel::Cli::command(), "1", "smcd(8), smcss(8), smc-run(1)"),
        of(smc_tools::cli::smcss::Cli::command(), "8", "smcd(8), smc-run(1)"),
        of(smc_tools::cli::smcd::Cli::command(), "8", "smcss(8), smc-run(1), smc_run(1)"),
        of(smc_discovery_helper::cli::Cli::command(), "8", "smc-run(1), smc-policy.toml(5)"),
    ]
}

/// All man pages, in a folder for each section.
///
/// # Errors
/// None, for it writes into memory.
pub fn pages() -> io::Result<Vec<File>> {
    let policy = include_bytes!("../smc-policy.toml.5").to_vec();
    let mut all = vec![File { path: "man5/smc-policy.toml.5".to_owned(), text: policy }];
    for program in programs() {
        page::write(&program, &mut all)?;
    }
    Ok(all)
}

/// All completions for a shell, by the names under which it looks for them.
pub fn completions(shell: Shell) -> Vec<File> {
    let file = |program: Program| {
        let mut command = program.command;
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut text);
        let path = match shell {
            Shell::Zsh => format!("zsh/_{name}"),
            Shell::Fish => format!("fish/{name}.fish"),
            other => format!("{other}/{name}"),
        };
        File { path, text }
    };
    programs().into_iter().map(file).collect()
}
