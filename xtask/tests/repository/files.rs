// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The repository's files.
//!
//! Invariant: paths are relative to the repository's root; nothing built, cached or git's is one.

use std::fs;
use std::path::{Path, PathBuf};

const NOT_OURS: [&str; 5] = ["target", ".git", ".build", "corpus", "artifacts"];

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository")
}

/// Every file, sorted.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("read a folder of the repository") {
            let entry = entry.expect("read a folder's entry");
            let name = entry.file_name().into_string().expect("file names are UTF-8");
            let kind = entry.file_type().expect("a file's type");
            let path = entry.path();
            if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() {
                files.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    files.sort();
    files
}

/// Every file whose name ends so, without the dot.
pub(crate) fn files_ending(extension: &str) -> impl Iterator<Item = PathBuf> {
    files().into_iter().filter(move |path| path.extension() == Some(extension.as_ref()))
}

/// The top-level folder of a path, or its name if it is in none.
pub(crate) fn top(path: &Path) -> &str {
    path.iter().next().and_then(|part| part.to_str()).unwrap_or_default()
}

/// A file's text.
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}
