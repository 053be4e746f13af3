// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What to say where there is nothing to show, and what to do about it.
//!
//! Invariant: for stderr alone. A table's head, or JSON's empty list, stays all that stdout has.

use smc_snapshot::Joined;

use crate::client::{Client, Error};
use crate::processes::{Processes, Where};

/// Why nothing is shown, as far as can be told: who was looked at.
pub fn why(processes: &Processes, place: Where) -> String {
    let has_kernel = !matches!(Client::open(), Err(Error::NoSmc));
    let is_root = rustix::process::geteuid().is_root();
    let told: Vec<_> = processes.told.iter().map(|told| told.snapshot.process.joined).collect();
    words(&told, place, has_kernel, is_root)
}

fn words(told: &[Joined], place: Where, has_kernel: bool, is_root: bool) -> String {
    let here = if place == Where::Here { " in this network namespace" } else { "" };
    let kernel = if has_kernel { "" } else { ", and this kernel has no SMC" };
    let (has, next) = match told {
        [] if is_root => ("answers", "start both ends of a connection with smc-run PROGRAM"),
        [] => (
            "answers this user",
            "start both ends of a connection with smc-run PROGRAM, or look as root",
        ),
        all if all.contains(&Joined::Member) => {
            ("has any", "smcss -a has listeners too, and smcd fallback what is closed")
        }
        all if all.iter().all(|it| *it == Joined::Untried) => {
            ("has any", "none of them has needed the daemon yet")
        }
        _ => ("has any", "none of them has the daemon; smcd info says where they look for it"),
    };
    format!("no process under smc-run{here} {has}{kernel}: {next}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_next_step() {
        let table: [(&[Joined], Where, bool, bool, &str); 6] = [
            (&[], Where::Anywhere, false, true, "and this kernel has no SMC: start both ends"),
            (&[], Where::Here, true, true, "smc-run in this network namespace answers: start"),
            (&[], Where::Anywhere, true, false, "or look as root"),
            (&[Joined::Failed, Joined::Member], Where::Anywhere, true, true, "smcss -a"),
            (&[Joined::Untried, Joined::Failed], Where::Anywhere, true, true, "smcd info"),
            (&[Joined::Untried], Where::Anywhere, true, true, "needed the daemon yet"),
        ];
        for (told, place, has_kernel, is_root, expected) in table {
            let text = words(told, place, has_kernel, is_root);
            assert!(text.contains(expected), "{text}");
        }
    }
}
