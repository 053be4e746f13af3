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
    write("man", options)?;
    println!("Read them: man -M FOLDER smcss. Install them: cp -r FOLDER/* /usr/local/share/man/");
    Ok(())
}

/// Completions, in `bash`, `zsh` and `fish` of the folder.
pub(crate) fn completions(options: Options) -> Result<()> {
    write("completions", options)?;
    println!(
        "Install them: FOLDER/bash/* into /usr/share/bash-completion/completions, FOLDER/zsh/* into \
         a folder of $fpath, FOLDER/fish/* into /etc/fish/completions"
    );
    Ok(())
}

fn write(what: &str, options: Options) -> Result<()> {
    let folder = options.folder.unwrap_or_else(|| repo::target().join(what));
    // The program runs in the repository's folder, and the user may be elsewhere.
    let folder = std::path::absolute(folder)?;
    run(cargo(&["run", "--package", "ism-manual", "--", what]).arg(folder))
}
