// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One page for each program, and for each of its subcommands.
//!
//! Invariant: lines that are indented in `--help` (commands, examples) stay lines; a name section is one line, as
//! whatis(1) wants it.

use std::io::{self, Write};

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::{File, Program};

/// Writes the page of a program and those of its subcommands.
pub(crate) fn write(program: &Program, all: &mut Vec<File>) -> io::Result<()> {
    let mut command = program.command.clone().disable_help_subcommand(true);
    command.build();
    page(program, &command, "", all)
}

/// `about`: what the command is about that this is a subcommand's action of.
fn page(program: &Program, command: &Command, about: &str, all: &mut Vec<File>) -> io::Result<()> {
    let version = program.command.get_version().unwrap_or_default();
    let man = Man::new(command.clone())
        .section(program.section)
        .source(format!("vhost-user-ism {version}"))
        .manual("vhost-user-ism");
    let path = format!("man{}/{}", program.section, man.get_filename());
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    let long = command.get_long_about().or_else(|| command.get_about());
    let long = long.map(ToString::to_string).unwrap_or_default();
    name(command, &format!("{about}{}", phrase(&long)), &mut text)?;
    synopsis(command, &mut text)?;
    section("DESCRIPTION", &long, false, &mut text)?;
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
    // What the actions of an object are done to.
    let is_program = command.get_name() == program.command.get_name();
    let of = phrase(&long);
    let of = of.split([':', ',', ';', '(']).next().unwrap_or_default().trim();
    let about = if is_program { String::new() } else { format!("{of}: ") };
    shown().try_for_each(|subcommand| page(program, subcommand, &about, all))
}

/// The first sentence or line of a description, as a phrase.
fn phrase(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let first = first.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let mut letters = first.chars();
    let (initial, second) = (letters.next(), letters.next());
    // But not that of SMC-D.
    let is_word = second.is_none_or(|it| it.is_lowercase() || it == ' ');
    match initial.filter(|_| is_word) {
        Some(initial) => initial.to_lowercase().chain(first.chars().skip(1)).collect(),
        None => first.to_owned(),
    }
}

fn name(command: &Command, phrase: &str, out: &mut dyn Write) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {phrase}"))]);
    roff.to_writer(out)
}

/// `smc-run [-d] [-s FILE] COMMAND...`; help and version are everywhere.
fn synopsis(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut line = vec![bold(name)];
    let shown = |it: &&Arg| {
        let is_text = [ArgAction::Help, ArgAction::HelpShort, ArgAction::HelpLong]
            .iter()
            .chain(&[ArgAction::Version])
            .any(|action| {
                std::mem::discriminant(action) == std::mem::discriminant(it.get_action())
            });
        !it.is_hide_set() && !is_text
    };
    let shown: Vec<_> = command.get_arguments().filter(shown).collect();
    let (positional, options): (Vec<_>, Vec<_>) =
        shown.into_iter().partition(|it| it.is_positional());
    options.into_iter().chain(positional).for_each(|it| line.extend(argument(it)));
    if command.get_subcommands().any(|it| !it.is_hide_set()) {
        let required = command.is_subcommand_required_set();
        line.extend(part(vec![italic("COMMAND")], required, ""));
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    // Names are not hyphenated, and blanks mean something.
    roff.control("nh", []).control("ad", ["l"]);
    roff.text(line);
    roff.control("ad", []).control("hy", []);
    roff.to_writer(out)
}

fn argument(argument: &Arg) -> Vec<Inline> {
    let values = argument.get_value_names().unwrap_or_default();
    let values = values.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(" ");
    // The keys are told of below.
    let values = if values.contains('=') { "KEY=VALUE[,...]".to_owned() } else { values };
    let takes_values = argument.get_action().takes_values();
    let short = argument.get_short().map(|short| format!("-{short}"));
    let flag = short.or_else(|| argument.get_long().map(|long| format!("--{long}")));
    let is_several = matches!(argument.get_action(), ArgAction::Append)
        || argument.get_num_args().is_some_and(|it| it.max_values() > 1);
    let inner = match flag {
        Some(flag) if takes_values => vec![bold(flag), roman(" "), italic(values)],
        Some(flag) => vec![bold(flag)],
        None => vec![italic(values)],
    };
    part(inner, argument.is_required_set(), if is_several { "..." } else { "" })
}

/// With brackets around what may be left out.
fn part(inner: Vec<Inline>, is_required: bool, end: &str) -> Vec<Inline> {
    let [open, close] = if is_required { [" ", ""] } else { [" [", "]"] };
    let mut all = vec![roman(open)];
    all.extend(inner);
    all.push(roman(format!("{close}{end}")));
    all
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
