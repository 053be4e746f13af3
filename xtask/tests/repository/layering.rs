// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which folder may depend on which.
//!
//! Invariant: rules are by folder, so a new package is held to them without being named here; a new
//! top-level folder with a manifest must be given a rule.

use std::collections::BTreeMap;

use crate::files::{files, read, top};

/// Top-level folder, and the other folders whose packages its packages may use: dependencies run
/// down only. What ships stands first; `tests`, `fuzz` and `xtask` may look
/// at what is above them.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("spec", &[]),
    ("unix-peer", &[]),
    ("ism-emulator", &["spec"]),
    ("vhost-user-ism", &["ism-emulator", "spec", "unix-peer"]),
    ("guest-driver", &["spec"]),
    // Of `smc` only the ring, which is below it; the sockets of `smc` are above it.
    ("ism-client", &["spec", "ism-emulator", "smc"]),
    ("smc", &["spec", "ism-client", "unix-peer"]),
    // Man pages are made from the command lines.
    ("dist", &["vhost-user-ism", "smc"]),
    ("tests", &["spec", "ism-emulator", "vhost-user-ism", "ism-client", "smc"]),
    ("fuzz", &["tests"]),
    ("xtask", &["spec", "ism-emulator", "vhost-user-ism", "ism-client", "smc", "tests"]),
];

/// Packages of captures and the like, without dependencies of their own, which tests anywhere may use.
const FIXTURES: [&str; 1] = ["smc-golden"];

/// What a manifest says of itself and of others, by name.
#[derive(Default)]
struct Manifest {
    package: Option<String>,
    dependencies: Vec<String>,
    /// Those that are for its tests only; they are among `dependencies` too.
    for_tests: Vec<String>,
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
                let name = renamed.unwrap_or(name).to_owned();
                if table.ends_with("dev-dependencies") {
                    manifest.for_tests.push(name.clone());
                }
                manifest.dependencies.push(name);
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
            let fixture = FIXTURES.contains(&name.as_str()) && manifest.for_tests.contains(name);
            assert!(
                fixture || *used == folder || allowed.contains(&used.as_str()),
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
