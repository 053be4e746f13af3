// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every program has a page and completions, and they leave no option out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use ism_manual::{File, SHELLS, completions, pages, programs};

fn text(file: &File) -> String {
    String::from_utf8(file.text.clone()).unwrap()
}

/// Roff's text without its markup.
fn plain(roff: &str) -> String {
    roff.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
}

/// What is under a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, after) = text.split_once(&format!(".SH {heading}\n")).expect(heading);
    // Each section has roff's preamble before it.
    let end = ["\n.SH ", "\n.ie "].iter().filter_map(|it| after.find(it)).min();
    end.map_or(after, |end| &after[..end])
}

/// A command and its subcommands, as far as `--help` shows them.
fn all(command: &Command) -> Vec<Command> {
    let subcommands = command.get_subcommands().filter(|it| !it.is_hide_set());
    std::iter::once(command.clone()).chain(subcommands.flat_map(all)).collect()
}

/// `--all`, `-a`.
fn options(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|it| !it.is_hide_set());
    let names = |it: &clap::Arg| {
        let long = it.get_long().map(|long| format!("--{long}"));
        long.into_iter().chain(it.get_short().map(|short| format!("-{short}"))).collect::<Vec<_>>()
    };
    shown.flat_map(names).collect()
}

#[test]
fn each_programs_pages_mention_each_option_and_each_subcommand() {
    let pages = pages().unwrap();
    for program in programs() {
        let mut command = program.command.disable_help_subcommand(true);
        command.build();
        for command in all(&command) {
            let name = command.get_display_name().unwrap_or(command.get_name());
            let path = format!("man{0}/{name}.{0}", program.section);
            let page = pages.iter().find(|it| it.path == path).expect(&path);
            let text = plain(&text(page));
            assert!(text.contains(&format!(".TH {name} {} ", program.section)), "{text}");
            let short = section(&text, "NAME").strip_prefix(&format!("{name} - ")).expect(&path);
            let is_phrase = !short.contains('\n') && !short.contains(". ") && !short.ends_with('.');
            assert!(is_phrase && (1..=100).contains(&short.len()), "{path}: {short}");
            assert!(!section(&text, "SYNOPSIS").contains("[]"), "{text}");
            // Above that is the synopsis, which has the options too, but not what they mean.
            let (_, described) = text.split_once(".SH DESCRIPTION").expect(&path);
            for option in options(&command) {
                assert!(described.contains(&option), "{path} does not tell of {option}:\n{text}");
            }
            for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
                let page = format!("{name}-{}({})", subcommand.get_name(), program.section);
                assert!(text.contains(&page), "{path} does not mention {page}:\n{text}");
            }
        }
    }
}

#[test]
fn each_shell_completes_each_long_option_of_each_program() {
    for shell in SHELLS {
        for (program, file) in programs().into_iter().zip(completions(shell)) {
            let name = program.command.get_name();
            assert!(file.path.contains(name) && file.path.starts_with(&shell.to_string()));
            let text = text(&file);
            let mut command = program.command.clone();
            command.build();
            let long = options(&command).into_iter().filter(|it| it.starts_with("--"));
            for option in long {
                let name = option.trim_start_matches('-');
                assert!(text.contains(name), "{} does not know {option}", file.path);
            }
        }
    }
}

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            manifests(&path, found);
        } else if path.ends_with("Cargo.toml") {
            found.push(path);
        }
    }
}

/// The names of the programs of a package.
fn binaries(manifest: &Path) -> Vec<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let name = |table: &str| -> Option<String> {
        let line = table.lines().find_map(|line| line.strip_prefix("name = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let mut tables: Vec<_> = text.split("[[bin]]").collect();
    let package = tables.remove(0);
    let named: Vec<_> = tables.into_iter().filter_map(name).collect();
    let has_main = manifest.with_file_name("src").join("main.rs").exists();
    if named.is_empty() && has_main { name(package).into_iter().collect() } else { named }
}

#[test]
fn each_program_that_users_run_is_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for folder in ["smc", "ism-client", "ism-emulator", "vhost-user-ism"] {
        manifests(&root.join(folder), &mut found);
    }
    let there: BTreeSet<_> = found.iter().flat_map(|it| binaries(it)).collect();
    let known = programs().into_iter().map(|it| it.command.get_name().to_owned()).collect();
    assert_eq!(there, known);
}

#[test]
fn the_page_of_the_policy_file_has_all_its_keys_and_a_file_that_is_taken() {
    let pages = pages().unwrap();
    let page = pages.iter().find(|it| it.path == "man5/smc-policy.toml.5").unwrap();
    let text = plain(&text(page));
    let shipped = include_str!("../../smc-policy.toml");
    let keys = shipped.lines().filter_map(|line| line.trim_start_matches("# ").split_once(" = "));
    let keys: BTreeSet<_> = keys.map(|(key, _)| key).collect();
    assert!(keys.len() >= 6, "{keys:?}");
    for key in keys {
        assert!(text.contains(&format!("\n{key} = ")), "{key}");
    }
    let (_, example) = text.split_once(".nf\n").unwrap();
    let (example, _) = example.split_once(".fi").unwrap();
    let file = Path::new("smc-policy.toml");
    smc_discovery::policy::Policy::parse(example, file).unwrap();
    smc_discovery::policy::Policy::parse(&example.replace("unique", "lonely"), file).unwrap_err();
}
