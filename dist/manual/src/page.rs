// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One page for each program, and for each of its subcommands.
//!
//! Invariant: lines that are indented in `--help` (commands, examples) stay lines.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::{File, Program};

/// Writes the page of a program and those of its subcommands.
pub(crate) fn write(program: &Program, all: &mut Vec<File>) -> io::Result<()> {
    let mut command = program.command.clone().disable_help_subcommand(true);
    command.build();
    page(program, &command, all)
}

fn page(program: &Program, command: &Command, all: &mut Vec<File>) -> io::Result<()> {
    let version = program.command.get_version().unwrap_or_default();
    let man = Man::new(command.clone())
        .section(program.section)
        .source(format!("vhost-user-ism {version}"))
        .manual("vhost-user-ism");
    let path = format!("man{}/{}", program.section, man.get_filename());
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    let about = command.get_long_about().or_else(|| command.get_about());
    section("DESCRIPTION", &about.map(ToString::to_string).unwrap_or_default(), false, &mut text)?;
    if command.get_arguments().any(|it| !it.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    let shown = || command.get_subcommands().filter(|it| !it.is_hide_set());
    if shown().next().is_some() {
        man.render_subcommands_section(&mut text)?;
    }
    let more = command.get_after_long_help().or_else(|| command.get_after_help());
    if let Some(more) = more {
        section("EXAMPLES AND NOTES", &more.to_string(), true, &mut text)?;
    }
    section("SEE ALSO", program.see_also, false, &mut text)?;
    all.push(File { path, text });
    shown().try_for_each(|subcommand| page(program, subcommand, all))
}

/// Text under a heading: paragraphs are filled, indented lines are not. With `lines`, each line of a
/// paragraph begins anew.
fn section(heading: &str, text: &str, lines: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    let mut verbatim = false;
    let mut filled = false;
    for line in text.lines() {
        let is_filled = !line.is_empty() && !line.starts_with(' ');
        if filled && is_filled && lines {
            roff.control("br", []);
        }
        filled = is_filled;
        if line.starts_with(' ') != verbatim {
            verbatim = !verbatim;
            roff.control(if verbatim { "nf" } else { "fi" }, []);
        }
        match line {
            "" => roff.control("PP", []),
            _ => roff.text([roman(line)]),
        };
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff.to_writer(out)
}
