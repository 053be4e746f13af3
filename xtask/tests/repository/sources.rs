// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a source file begins: its licence, and in Rust what it is.
//!
//! Invariant: every file that is compiled or run is a source file.

use std::fs;
use std::path::Path;

use crate::files::{files, files_ending, read, root, top};

const OURS: &str = "Apache-2.0 OR BSD-3-Clause";
/// The ABI's files are compiled into the kernel module too.
const OURS_OR_GPL: &str = "Apache-2.0 OR BSD-3-Clause OR GPL-2.0";

/// Loaded into guests to make their kernels say what they seldom do.
const KERNEL_MODULE_OF_TESTS: &str = "tests/golden/force";

/// The licences that a source file may state; `None` if the file is not a source file.
fn licences(path: &Path, text: &str) -> Option<&'static [&'static str]> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let source = match extension {
        Some("rs" | "c" | "h" | "sh") => true,
        Some(_) => false,
        None => text.starts_with("#!") || path.ends_with("Kbuild") || path.ends_with("Makefile"),
    };
    source.then_some(match top(path) {
        _ if path.starts_with(KERNEL_MODULE_OF_TESTS) => &["GPL-2.0", "GPL-2.0-only"],
        "guest-driver" => &["GPL-2.0", "GPL-2.0-only"],
        "spec" => &[OURS, OURS_OR_GPL],
        _ => &[OURS],
    })
}

#[test]
fn source_files_state_their_licence() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue }; // not text
        let Some(allowed) = licences(&path, &text) else { continue };
        seen += 1;
        let stated = text.lines().take(3).find_map(|line| {
            let (_, rest) = line.split_once("SPDX-License-Identifier: ")?;
            Some(rest.trim_end_matches("*/").trim())
        });
        if !stated.is_some_and(|stated| allowed.contains(&stated)) {
            wrong.push(format!("{}: {stated:?}, not one of {allowed:?}", path.display()));
        }
    }
    assert!(seen > 10, "only {seen} source files were found");
    assert!(wrong.is_empty(), "SPDX-License-Identifier in the first 3 lines: {wrong:#?}");
}

#[test]
fn rust_files_begin_with_what_they_are() {
    let mut wrong = Vec::new();
    for path in files_ending("rs") {
        let text = read(&path);
        let first = text.lines().find(|line| {
            !line.is_empty() && !line.starts_with("#!/") && !line.starts_with("// SPDX")
        });
        if !first.is_some_and(|line| line.starts_with("//! ")) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "no //! documentation after the licence: {wrong:#?}");
}
