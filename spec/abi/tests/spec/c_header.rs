// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Writes `include/virtio_ism.h` from `layout.rs`, and holds the committed file to it.
//!
//! Invariant: the header has no content of its own. To renew it:
//! `UPDATE_C_HEADER=1 cargo test -p ism-abi c_header`.

use crate::catalogue;
use crate::source::{self, Item};
use std::fmt::Write;

/// Where the header is committed.
pub(crate) const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/virtio_ism.h");

const PROLOGUE: &str = "\
/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0 */
/*
 * The virtio-ism device's layouts and numbers, as spec/virtio-ism.md states
 * them. Integers are little-endian; no structure has padding.
 *
 * Generated from spec/abi/src/layout.rs; do not edit. To renew it:
 * UPDATE_C_HEADER=1 cargo test -p ism-abi c_header
 */
#ifndef _LINUX_VIRTIO_ISM_H
#define _LINUX_VIRTIO_ISM_H

#include <linux/types.h>
";

/// Columns of a comment's line.
const WIDTH: usize = 80;

/// The C name of a constant.
pub(crate) fn constant_name(module: &str, name: &str) -> String {
    match module {
        "root" if name.starts_with("VIRTIO_ID_") => name.into(),
        "root" => format!("VIRTIO_ISM_{name}"),
        "command" => format!("VIRTIO_ISM_CMD_{name}"),
        "status" => format!("VIRTIO_ISM_S_{name}"),
        other => format!("VIRTIO_ISM_{}_{name}", other.to_uppercase()),
    }
}

/// The C name of a structure, without the word `struct`.
pub(crate) fn structure_name(name: &str) -> String {
    let mut out = String::from("virtio_ism");
    for letter in name.chars() {
        if letter.is_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// The C name of what a doc comment has in backticks.
fn reference(path: &str) -> String {
    if let Some((low, high)) = path.split_once("..=") {
        return format!("{} to {}", reference(low), reference(high));
    }
    if let Some((low, high)) = path.split_once("..") {
        return format!("{} to {} - 1", reference(low), reference(high));
    }
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    if let Some(known) = catalogue::structures().iter().find(|it| it.name == first) {
        let name = structure_name(known.name);
        return if rest.is_empty() { format!("struct {name}") } else { format!("{name}.{rest}") };
    }
    let constants = catalogue::constants();
    if constants.iter().any(|it| it.module == path) {
        return match path {
            "signal_page" => "signal page".into(),
            _ => constant_name(path, "*"),
        };
    }
    let named = constants.iter().find(|it| it.name == path);
    named.map_or_else(|| path.into(), |it| constant_name(it.module, it.name))
}

/// A Rust doc comment as C readers want it: no link syntax, C names, ASCII.
fn prose(doc: &str) -> String {
    let mut out = String::new();
    for (at, part) in doc.split('`').enumerate() {
        if at % 2 == 1 {
            out.push_str(&reference(part));
            continue;
        }
        // `[` before and `](target)` or `]` behind a name belong to a link.
        let part = match (at, part.strip_prefix(']')) {
            (1.., Some(rest)) => match rest.strip_prefix('(').and_then(|it| it.split_once(')')) {
                Some((_, behind)) => behind,
                None => rest,
            },
            _ => part,
        };
        out.push_str(part.strip_suffix('[').unwrap_or(part));
    }
    out.replace('–', " to ").replace('×', "*")
}

/// Adds `text` broken into lines that begin with `first`, then `next`.
fn wrap(out: &mut String, first: &str, next: &str, text: &str) {
    let mut line = String::from(first);
    let mut begun = false;
    for word in text.split_whitespace() {
        if begun && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = next.into();
        } else if begun {
            line.push(' ');
        }
        line.push_str(word);
        begun = true;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// A comment of its own lines.
fn comment(out: &mut String, text: &str) {
    if text.len() + 6 <= WIDTH {
        let _ = writeln!(out, "/* {text} */");
    } else {
        let _ = writeln!(out, "/*");
        wrap(out, " * ", " * ", text);
        let _ = writeln!(out, " */");
    }
}

fn constant(out: &mut String, constant: &source::Constant, value: u64) {
    comment(out, &prose(&constant.doc));
    let name = constant_name(&constant.module, &constant.name);
    // Numbers and shifts stand as they are in Rust; what only Rust can compute becomes a number.
    let plain = |letter: char| letter.is_ascii_hexdigit() || "x <".contains(letter);
    let written = match constant.expression.as_str() {
        shift if shift.contains('<') && shift.chars().all(plain) => format!("({shift})"),
        number if number.chars().all(plain) => number.into(),
        _ => format!("{value:#x}"),
    };
    if constant.name == "VIRTIO_ID_ISM" {
        // Some day <linux/virtio_ids.h> will have it.
        let _ = writeln!(out, "#ifndef {name}\n#define {name} {written}\n#endif");
    } else {
        let _ = writeln!(out, "#define {name} {written}");
    }
}

fn structure(out: &mut String, structure: &source::Structure) {
    let name = structure_name(&structure.name);
    let _ = writeln!(out, "\n/**");
    wrap(out, &format!(" * struct {name} - "), " *   ", &prose(&structure.doc));
    for field in &structure.fields {
        wrap(out, &format!(" * @{}: ", field.name), " *   ", &prose(&field.doc));
    }
    let _ = writeln!(out, " */\nstruct {name} {{");
    for field in &structure.fields {
        let ty = field.spec_type();
        let (ty, count) = ty.split_once('[').unwrap_or((&ty, ""));
        let bracket = if count.is_empty() { "" } else { "[" };
        let _ = writeln!(out, "\t__{ty} {}{bracket}{count};", field.name);
    }
    let _ = writeln!(out, "}};");
}

/// The header's text.
fn header() -> String {
    let mut out = String::from(PROLOGUE);
    let values = catalogue::constants();
    for item in source::items() {
        match item {
            Item::Section(title) => {
                let _ = writeln!(out, "\n/* ---- {title} ---- */");
            }
            Item::Module { doc } => {
                out.push('\n');
                comment(&mut out, &prose(&doc));
            }
            Item::Constant(it) => {
                out.push('\n');
                let known = values.iter().find(|v| v.module == it.module && v.name == it.name);
                let known = known.unwrap_or_else(|| panic!("catalogue.rs lacks {}", it.name));
                constant(&mut out, &it, known.value);
            }
            Item::Structure(it) => structure(&mut out, &it),
        }
    }
    out.push_str("\n#endif /* _LINUX_VIRTIO_ISM_H */\n");
    out
}

#[test]
fn c_header_is_what_the_generator_writes() {
    let expected = header();
    if std::env::var_os("UPDATE_C_HEADER").is_some() {
        std::fs::write(PATH, &expected).expect("write the header");
    }
    let committed = std::fs::read_to_string(PATH).expect("read the header");
    assert!(
        committed == expected,
        "{PATH} is not what layout.rs gives; run UPDATE_C_HEADER=1 cargo test -p ism-abi c_header"
    );
}
