// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which behaviours of SMC are shown by which test: docs/smc-conformance.md against the tests.
//!
//! Invariant: the column "shown by" is what the lines `// row N` above tests say, no more and no
//! less; a row that nothing shows says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::files::{files_ending, read, root};

const TABLE: &str = "docs/smc-conformance.md";
/// Set to rewrite the column instead of checking it.
const UPDATE: &str = "UPDATE_CONFORMANCE";

/// Row → the tests that show it, as `file` and `function`.
type Shown = BTreeMap<u32, BTreeSet<(String, String)>>;

/// The numbers in `// row 9`, `// rows 9, 10` or `// rows 12-14: why`; `None` if it is no such line.
fn cited(line: &str) -> Option<Vec<u32>> {
    let rest = line.trim().strip_prefix("// row")?;
    let rest = rest.strip_prefix('s').unwrap_or(rest).strip_prefix(' ')?;
    let list = rest.split(':').next().unwrap_or(rest);
    let mut rows = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse::<u32>()) else {
            return None;
        };
        rows.extend(first..=last);
    }
    Some(rows)
}

/// The tests of one file; a citation without a test below it is an error.
fn tests_of(path: &Path, text: &str, shown: &mut Shown) {
    let mut rows = Vec::new();
    let mut is_test = false;
    for (number, line) in text.lines().enumerate() {
        let code = line.trim();
        if let Some(more) = cited(code) {
            rows.extend(more);
        } else if code.starts_with("#[test]") {
            is_test = true;
        } else if let Some((_, name)) = code.split_once("fn ") {
            let name = name.split(['(', '<']).next().unwrap_or(name);
            assert!(
                is_test || rows.is_empty(),
                "{}:{}: a row is cited above {name}, which is no #[test]",
                path.display(),
                number + 1
            );
            for row in rows.drain(..) {
                let file = path.display().to_string();
                shown.entry(row).or_default().insert((file, name.to_owned()));
            }
            is_test = false;
        }
    }
    assert!(rows.is_empty(), "{}: rows {rows:?} are cited above nothing", path.display());
}

/// What all tests say; the code of this check is not one of them.
fn shown() -> Shown {
    let mut shown = Shown::new();
    for path in files_ending("rs").filter(|path| !path.ends_with("repository/conformance.rs")) {
        tests_of(&path, &read(&path), &mut shown);
    }
    shown
}

/// `| 9 | … |`: the row's number and its cells.
fn row(line: &str) -> Option<(u32, Vec<&str>)> {
    let cells: Vec<_> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let number = cells.first()?.trim().parse().ok()?;
    (cells.len() == 5).then_some((number, cells))
}

/// The cell "shown by".
fn cell(tests: Option<&BTreeSet<(String, String)>>) -> String {
    let tests = tests.into_iter().flatten();
    let links = tests.map(|(file, name)| format!("[{name}](../{file})"));
    links.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_table_says_what_the_tests_show() {
    let shown = shown();
    let old = read(Path::new(TABLE));
    let mut rows = BTreeSet::new();
    let mut new = String::new();
    for line in old.lines() {
        if let Some((number, cells)) = row(line) {
            let tests = cell(shown.get(&number));
            let why = cells.get(4).map_or("", |why| why.trim());
            assert!(
                !tests.is_empty() || !why.is_empty(),
                "{TABLE}: nothing shows row {number}, and the last column does not say why"
            );
            let [about, source] = [1, 2].map(|at| cells.get(at).map_or("", |cell| cell.trim()));
            new += &format!("| {number} | {about} | {source} | {tests} | {why} |\n");
            rows.insert(number);
        } else {
            new += &format!("{line}\n");
        }
    }
    let unknown: Vec<_> = shown.keys().filter(|row| !rows.contains(row)).collect();
    assert!(unknown.is_empty(), "{TABLE} has no rows {unknown:?}, which tests cite");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(root().join(TABLE), new).expect("write the table");
    } else {
        assert!(old == new, "{TABLE} is not what the tests say: run the command at its head");
    }
}

#[test]
fn citations_are_read_in_every_form() {
    assert_eq!(cited("    // row 9"), Some(vec![9]));
    assert_eq!(cited("// rows 9, 12-14: the limits"), Some(vec![9, 12, 13, 14]));
    assert_eq!(cited("// rows of the table"), None);
    assert_eq!(cited("/// row 9"), None);
    let mut shown = Shown::new();
    tests_of(Path::new("a.rs"), "// row 3\n#[test]\nfn one() {}\nfn two() {}\n", &mut shown);
    assert_eq!(cell(shown.get(&3)), "[one](../a.rs)");
}
