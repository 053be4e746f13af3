// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--keep`: a console that types into either VM.
//!
//! Invariant: it ends at the end of its input, so a script that keeps nothing open does not hang.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::Result;
use ism_harness::Vm;

/// Long enough to look at something that runs for a while.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Reads lines «a COMMAND» or «b COMMAND» and runs them until «quit».
pub(crate) fn keep(vms: [&Vm; 2]) -> Result<()> {
    println!("Both VMs stay up. Type «a COMMAND» or «b COMMAND», for instance");
    println!("  a smc_run iperf3 -s -D");
    println!("  b smc_run iperf3 -c {} -t 3", vms[0].ip());
    println!("  b smcd linkgroup show");
    println!("and «quit» to end.");
    for line in prompts() {
        let line = line?;
        let (name, command) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match (name, vms.iter().find(|vm| vm.name() == name)) {
            ("quit" | "exit", _) => break,
            ("", _) => {}
            (_, None) => println!("there are a and b, not «{name}»"),
            (_, Some(vm)) => match vm.spawn(command).and_then(|running| running.wait(PATIENCE)) {
                Ok(output) => println!("{}{}[{}]", output.stdout, output.stderr, output.exit),
                Err(error) => println!("{error:#}"),
            },
        }
    }
    Ok(())
}

/// The lines of standard input, with a prompt before each.
fn prompts() -> impl Iterator<Item = io::Result<String>> {
    let mut lines = io::stdin().lock().lines();
    std::iter::from_fn(move || {
        print!("> ");
        // A terminal that cannot be written to cannot be typed into either.
        let _ = io::stdout().flush();
        lines.next()
    })
}
