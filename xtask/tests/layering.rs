// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The repository's own rules: which folder may depend on which, and how a source file begins.
//!
//! Invariant: rules are by folder, so a new package or file is held to them without being named
//! here; a new top-level folder with a manifest must be given a rule.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Top-level folder, and the other folders whose packages its packages may use: dependencies run
/// down only. What ships stands first; `fuzz`, `tests` and `xtask` may look at all above them.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("spec", &[]),
    ("ism-emulator", &["spec"]),
    ("vhost-user-ism", &["ism-emulator", "spec"]),
    ("guest-driver", &["spec"]),
    ("smc", &["spec"]),
    ("fuzz", &["spec", "ism-emulator", "vhost-user-ism", "smc"]),
    ("tests", &["spec", "ism-emulator", "vhost-user-ism", "smc"]),
    ("xtask", &["spec", "ism-emulator", "vhost-user-ism", "smc", "tests"]),
];

const OURS: &str = "Apache-2.0 OR BSD-3-Clause";
/// The ABI's files are compiled into the kernel module too.
const OURS_OR_GPL: &str = "Apache-2.0 OR BSD-3-Clause OR GPL-2.0";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository")
}

/// Paths relative to the repository of all files that are not built, cached or git's.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("read a folder of the repository") {
            let entry = entry.expect("read a folder's entry");
            let name = entry.file_name().into_string().expect("file names are UTF-8");
            let kind = entry.file_type().expect("a file's type");
            if kind.is_dir() {
                let skipped = ["target", ".git", ".build", "corpus", "artifacts"];
                if !skipped.contains(&name.as_str()) {
                    folders.push(entry.path());
                }
            } else if kind.is_file() {
                let path = entry.path();
                files.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    files.sort();
    files
}

fn top(path: &Path) -> &str {
    path.iter().next().and_then(|part| part.to_str()).unwrap_or_default()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// What a manifest says of itself and of others, by name.
#[derive(Default)]
struct Manifest {
    package: Option<String>,
    dependencies: Vec<String>,
}

/// The text between the first two quotation marks of a TOML value.
fn quoted(value: &str) -> Option<&str> {
    value.split('"').nth(1)
}

/// Reads the tables `[package]` and `[*dependencies]`; a renamed dependency counts as what it is.
fn manifest(text: &str) -> Manifest {
    let mut manifest = Manifest::default();
    let mut table = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = name.trim_matches('[').to_owned();
            // [dependencies.name] has the dependency in the table's own name.
            if let Some((_, name)) = table.split_once("dependencies.") {
                manifest.dependencies.push(name.to_owned());
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().trim_matches('"');
            if table == "package" && key == "name" {
                manifest.package = quoted(value).map(str::to_owned);
            } else if table.contains("dependencies.") && key == "package" {
                manifest.dependencies.extend(quoted(value).map(str::to_owned));
            } else if table.ends_with("dependencies") && !table.starts_with("workspace") {
                let name = key.split('.').next().unwrap_or(key);
                let renamed = value.split_once("package").and_then(|(_, rest)| quoted(rest));
                manifest.dependencies.push(renamed.unwrap_or(name).to_owned());
            }
        }
    }
    manifest
}

#[test]
fn dependencies_run_down_only() {
    let manifests: Vec<_> = files()
        .into_iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .map(|path| (top(&path).to_owned(), manifest(&read(&path))))
        .collect();
    let folder_of: BTreeMap<_, _> = manifests
        .iter()
        .filter_map(|(folder, manifest)| Some((manifest.package.as_ref()?, folder)))
        .collect();
    assert!(folder_of.len() >= 5, "the packages were not found: {folder_of:?}");
    for (folder, manifest) in &manifests {
        let Some(package) = &manifest.package else { continue };
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| name == folder)
            .unwrap_or_else(|| panic!("layering.rs has no rule for the folder {folder}"));
        for name in &manifest.dependencies {
            let Some(used) = folder_of.get(name) else { continue };
            assert!(
                *used == folder || allowed.contains(&used.as_str()),
                "{package} depends on {name}: {folder} may use {allowed:?}, not {used}"
            );
        }
    }
}

/// The module is built by Kbuild, not by cargo: what it takes from elsewhere shows in paths.
#[test]
fn guest_driver_takes_only_the_abi() {
    for path in files().iter().filter(|path| top(path) == "guest-driver") {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let code = ["rs", "c", "h"].iter().any(|end| path.extension() == Some(end.as_ref()));
        if !code && !["Kbuild", "Makefile"].contains(&name) {
            continue;
        }
        for (number, line) in read(path).lines().enumerate() {
            let outside = line.contains("../") && !line.trim_start().starts_with("//");
            assert!(
                !outside || line.contains("spec/abi"),
                "{}:{}: the module may take only spec/abi: {line}",
                path.display(),
                number + 1
            );
        }
    }
}

/// The licences that a source file may state; `None` if the file is not a source file.
fn licences(path: &Path, text: &str) -> Option<&'static [&'static str]> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let source = match extension {
        Some("rs" | "c" | "h" | "sh") => true,
        Some(_) => false,
        None => text.starts_with("#!") || path.ends_with("Kbuild") || path.ends_with("Makefile"),
    };
    source.then_some(match top(path) {
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
    for path in files().iter().filter(|path| path.extension() == Some("rs".as_ref())) {
        let text = read(path);
        let first = text.lines().find(|line| {
            !line.is_empty() && !line.starts_with("#!/") && !line.starts_with("// SPDX")
        });
        if !first.is_some_and(|line| line.starts_with("//! ")) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "no //! documentation after the licence: {wrong:#?}");
}

#[test]
fn manifests_are_read_in_every_form() {
    let text = "\
        [package]\nname = \"one\"\n[dependencies]\ntwo = \"1\" # why\n\
        three.workspace = true\nalias = { package = \"four\", path = \"../four\" }\n\
        [target.'cfg(loom)'.dev-dependencies]\nfive = \"1\"\n\
        [build-dependencies.six]\nversion = \"1\"\n[features]\nseven = []\n";
    let manifest = manifest(text);
    assert_eq!(manifest.package.as_deref(), Some("one"));
    assert_eq!(manifest.dependencies, ["two", "three", "four", "five", "six"]);
}
