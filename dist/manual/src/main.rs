// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Writes man pages or completions into a folder; `cargo xtask` runs it.
//!
//! Invariant: nothing outside that folder is touched.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Parser, Subcommand};
use ism_manual::{File, SHELLS, completions, pages};

/// Writes man pages or shell completions.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Man pages, a folder for each section.
    Man {
        /// Where to.
        folder: PathBuf,
    },
    /// Completions, a folder for each shell.
    Completions {
        /// Where to.
        folder: PathBuf,
    },
}

fn main() -> io::Result<()> {
    let (folder, files) = match Cli::parse().what {
        What::Man { folder } => (folder, pages()?),
        What::Completions { folder } => {
            (folder, SHELLS.into_iter().flat_map(completions).collect())
        }
    };
    files.iter().try_for_each(|file| write(&folder, file))?;
    println!("{} files in {}", files.len(), folder.display());
    Ok(())
}

fn write(folder: &Path, file: &File) -> io::Result<()> {
    let path = folder.join(&file.path);
    fs::create_dir_all(path.parent().unwrap_or(folder))?;
    fs::write(path, &file.text)
}
