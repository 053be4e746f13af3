// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Makes the golden bytes again: boots guests with Linux's own SMC, provokes messages step by step,
//! records them, and writes one file a message.
//!
//! Invariant: bytes are taken from recordings unchanged; a scenario in which a step fails writes
//! nothing.
//!
//! | Module | What |
//! |---|---|
//! | `scenario` | what is provoked, in which guests |
//! | `lab` | guests that do one step at a time while they are recorded |
//! | `packet`, `stream` | a recording's packets, and what TCP carried |
//! | `roce` | what RoCE v2 carried |
//! | `area` | what was written into DMBs |
//! | `name` | a message's name, from its bytes |
//! | `files` | writes a scenario's folder |

mod area;
mod files;
mod lab;
mod name;
mod packet;
mod roce;
mod scenario;
mod stream;

use anyhow::{Result, bail};
use clap::Parser;

/// Captures golden bytes from Linux's SMC.
#[derive(Parser)]
struct Cli {
    /// List the scenarios and what they provoke.
    #[arg(long)]
    list: bool,
    /// The scenarios to capture; all of them if none is named.
    scenarios: Vec<String>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let all = scenario::all();
    if cli.list {
        for (name, about, _) in &all {
            println!("{name:28} {about}");
        }
        return Ok(());
    }
    for wanted in &cli.scenarios {
        if !all.iter().any(|(name, ..)| name == wanted) {
            bail!("there is no scenario {wanted}; --list shows them");
        }
    }
    let mut failed = Vec::new();
    for (name, _, run) in all {
        if !cli.scenarios.is_empty() && !cli.scenarios.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("{name}: ...");
        match run(name) {
            Ok(count) => eprintln!("{name}: {count} messages"),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not captured: {}", failed.join(", "));
    }
    Ok(())
}
