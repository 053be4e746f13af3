// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Golden bytes: messages of Linux's SMC, captured from two guests (README.md says how).
//!
//! Invariant: a file's bytes are the kernel's, unchanged; what provoked them stands above them.
//!
//! ```
//! // A message by its name, `scenario/NN-what`; `names` lists them.
//! for name in smc_golden::names("smcd-pair/") {
//!     let message = smc_golden::get(&name);
//!     assert!(!message.bytes.is_empty(), "{name}: {:?}", message.note("step"));
//! }
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A captured message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Golden {
    /// `scenario/NN-what`.
    pub name: String,
    /// What is known about it, as `key: value`: `step` (what provoked it), `from`, `carried by`.
    pub notes: Vec<(String, String)>,
    /// The message, from its first byte to its last.
    pub bytes: Vec<u8>,
}

impl Golden {
    /// The note under this key.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.notes.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Reads the format of the files: `# key: value` lines, then bytes in hexadecimal.
    ///
    /// # Errors
    /// The first word that is no byte.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut golden = Self { name: name.to_owned(), notes: Vec::new(), bytes: Vec::new() };
        for line in text.lines() {
            if let Some(note) = line.strip_prefix("# ") {
                let (key, value) = note.split_once(": ").unwrap_or((note, ""));
                golden.notes.push((key.to_owned(), value.to_owned()));
                continue;
            }
            for word in line.split_whitespace() {
                let byte = u8::from_str_radix(word, 16)
                    .map_err(|_| format!("{name}: '{word}' is no byte in hexadecimal"))?;
                golden.bytes.push(byte);
            }
        }
        Ok(golden)
    }

    /// Writes the same format, 16 bytes a row.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.notes {
            let _ = writeln!(text, "# {key}: {value}");
        }
        for row in self.bytes.chunks(16) {
            let row: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "{}", row.join(" "));
        }
        text
    }
}

/// Where the captures are: one folder a scenario.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures")
}

/// The names of all messages that begin with `prefix`, in the order of their capture.
///
/// # Panics
/// When there is no folder of captures.
pub fn names(prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    assert!(folder().is_dir(), "{}: no captures", folder().display());
    for scenario in entries(&folder()) {
        for file in entries(&scenario) {
            if file.extension().is_some_and(|extension| extension == "hex") {
                let stem = |path: &Path| {
                    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
                };
                names.push(format!("{}/{}", stem(&scenario), stem(&file)));
            }
        }
    }
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    names
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// One message with what is known about it.
///
/// # Panics
/// When there is no such file, or it is no capture: a test cannot go on.
pub fn get(name: &str) -> Golden {
    let path = folder().join(format!("{name}.hex"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("no golden bytes {name}: {}: {error}", path.display());
    });
    Golden::parse(name, &text).unwrap_or_else(|error| panic!("{error}"))
}

/// One message's bytes.
///
/// # Panics
/// As [`get`].
pub fn load(name: &str) -> Vec<u8> {
    get(name).bytes
}

/// All messages, sorted by name.
///
/// # Panics
/// As [`get`].
pub fn all() -> Vec<Golden> {
    names("").iter().map(|name| get(name)).collect()
}

/// What the two ends of a scenario were configured with (`inputs.txt`): addresses, GIDs, UEIDs.
///
/// # Panics
/// When the scenario has no such file.
pub fn inputs(scenario: &str) -> BTreeMap<String, String> {
    let path = folder().join(scenario).join("inputs.txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("no inputs of {scenario}: {}: {error}", path.display());
    });
    let pairs = text.lines().filter_map(|line| line.split_once(" = "));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_reads_back_what_it_writes() {
        let golden = Golden {
            name: "a/01-b".into(),
            notes: vec![("step".into(), "the client connects: twice".into())],
            bytes: (0..40).collect(),
        };
        assert_eq!(Golden::parse("a/01-b", &golden.render()), Ok(golden));
        assert!(Golden::parse("a/01-b", "00 0g").is_err());
    }

    #[test]
    fn every_capture_is_readable_and_says_what_provoked_it() {
        let all = all();
        assert!(!all.is_empty(), "no captures in {}", folder().display());
        for golden in all {
            assert!(!golden.bytes.is_empty(), "{} is empty", golden.name);
            assert!(golden.note("step").is_some(), "{} does not say what provoked it", golden.name);
            let scenario = golden.name.split('/').next().unwrap_or_default();
            assert!(!inputs(scenario).is_empty(), "{scenario} has no inputs");
        }
    }

    #[test]
    fn the_readme_tells_of_every_scenario_and_of_no_other() {
        let readme = include_str!("../README.md");
        let scenarios: Vec<String> = entries(&folder())
            .iter()
            .filter_map(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
            .collect();
        for scenario in &scenarios {
            assert!(readme.contains(&format!("`{scenario}`")), "{scenario} is not in README.md");
        }
        for word in readme.split('`').filter(|word| {
            let name = |c: char| c.is_ascii_alphanumeric() || c == '-';
            (word.starts_with("smcd-") || word.starts_with("smcr-")) && word.chars().all(name)
        }) {
            assert!(scenarios.iter().any(|scenario| scenario == word), "there is no {word}");
        }
    }
}
