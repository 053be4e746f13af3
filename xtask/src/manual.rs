// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask man` and `cargo xtask completions`.
//!
//! Invariant: made by a program of its own, so that no other chore has to build all command lines.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::repo::{self, cargo};
use crate::steps::run;

/// Where to.
#[derive(Args)]
pub(crate) struct Options {
    /// The folder; target/man or target/completions without.
    folder: Option<PathBuf>,
}

/// Man pages, in `man1`, `man5` and `man8` of the folder.
pub(crate) fn man(options: Options) -> Result<()> {
    let folder = write("man", options)?;
    let folder = folder.display();
    println!("Read them: man -M {folder} smcss");
    println!("Install them: mkdir -p /usr/local/share/man; cp -r {folder}/* /usr/local/share/man/");
    Ok(())
}

/// Completions, in `bash`, `zsh` and `fish` of the folder.
pub(crate) fn completions(options: Options) -> Result<()> {
    let folder = write("completions", options)?;
    let folder = folder.display();
    println!(
        "Install them: {folder}/bash/* into /usr/share/bash-completion/completions, {folder}/zsh/* into \
         a folder of $fpath, {folder}/fish/* into /etc/fish/completions"
    );
    Ok(())
}

/// Has them written; where they are.
fn write(what: &str, options: Options) -> Result<PathBuf> {
    let folder = options.folder.unwrap_or_else(|| repo::target().join(what));
    // The program runs in the repository's folder, and the user may be elsewhere.
    let folder = std::path::absolute(folder)?;
    run(cargo(&["run", "--package", "ism-manual", "--", what]).arg(&folder))?;
    Ok(folder)
}
