// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of `spec/virtio-ism.md` against the code, in both directions.
//!
//! Invariant: a table is found by the marker before it, `<!-- struct Name -->` or
//! `<!-- consts module -->`; the line before a structure's marker states its size.

use crate::{catalogue, source};
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = include_str!("../../../virtio-ism.md");

/// A marked table: the marker's two words, the text before it and the rows' cells.
struct Table {
    kind: String,
    name: String,
    before: String,
    rows: Vec<Vec<String>>,
}

/// Every marked table, in order.
fn tables() -> Vec<Table> {
    let lines: Vec<&str> = DOCUMENT.lines().collect();
    let mut tables = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let marker = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some((kind @ ("struct" | "consts"), name)) =
            marker.and_then(|words| words.split_once(' '))
        else {
            continue;
        };
        let rows: Vec<_> = lines[at + 1..]
            .iter()
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().into()).collect())
            .collect();
        assert!(rows.len() > 2, "line {}: no table follows {line}", at + 1);
        tables.push(Table {
            kind: kind.into(),
            name: name.into(),
            before: lines[..at]
                .iter()
                .rev()
                .find(|line| !line.is_empty())
                .unwrap_or(&"")
                .to_string(),
            rows: rows[2..].to_vec(), // after the heading and the rule
        });
    }
    tables
}

/// The word between backticks, which is a table's way to write a name.
fn code(cell: &str) -> &str {
    cell.strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'))
        .unwrap_or_else(|| panic!("{cell:?} is not a name in backticks"))
}

fn number(cell: &str) -> u64 {
    let parsed = match cell.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => cell.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{cell:?} is not a number"))
}

#[test]
fn constants_are_those_of_the_code() {
    let mut text = BTreeMap::new();
    for table in tables().iter().filter(|table| table.kind == "consts") {
        for row in &table.rows {
            let name = format!("{}::{}", table.name, code(&row[0]));
            let twice = text.insert(name.clone(), number(&row[1]));
            assert_eq!(twice, None, "the text has {name} twice");
        }
    }
    let code: BTreeMap<_, _> = catalogue::constants()
        .iter()
        .map(|it| (format!("{}::{}", it.module, it.name), it.value))
        .collect();
    assert_eq!(text, code, "left: the text, right: layout.rs");
}

#[test]
fn structures_are_those_of_the_code() {
    let items = source::items();
    let mut text = BTreeMap::new();
    for table in tables().iter().filter(|table| table.kind == "struct") {
        let stated = table.before.rsplit_once(&format!("`{}`: ", table.name));
        let size = stated
            .and_then(|(_, rest)| rest.split_once(" bytes."))
            .unwrap_or_else(|| panic!("no \"`{}`: N bytes.\" before its table", table.name));
        let fields: Vec<_> = table
            .rows
            .iter()
            .map(|row| {
                (number(&row[0]), number(&row[1]), row[2].clone(), code(&row[3]).to_string())
            })
            .collect();
        let twice = text.insert(table.name.clone(), (number(size.0), fields));
        assert_eq!(twice, None, "the text has {} twice", table.name);
    }
    let mut code = BTreeMap::new();
    for structure in catalogue::structures() {
        let in_source = source::structures(&items).find(|it| it.name == structure.name);
        let types = in_source.iter().flat_map(|it| it.fields.iter().map(source::Field::spec_type));
        let fields: Vec<_> = structure
            .fields
            .iter()
            .zip(types)
            .map(|(field, ty)| (field.offset as u64, field.size as u64, ty, field.name.to_string()))
            .collect();
        code.insert(structure.name.to_string(), (structure.size as u64, fields));
    }
    assert_eq!(
        text.keys().collect::<Vec<_>>(),
        code.keys().collect::<Vec<_>>(),
        "left: the text, right: layout.rs"
    );
    for (name, stated) in &text {
        assert_eq!(stated, &code[name], "{name}; left: the text, right: layout.rs");
    }
}

/// Commands name their request and reply bodies, events their body: each must have a table.
#[test]
fn bodies_are_structures_of_the_text() {
    let tables = tables();
    let structures: BTreeSet<_> =
        tables.iter().filter(|it| it.kind == "struct").map(|it| it.name.as_str()).collect();
    let mut named = 0;
    for (module, columns) in [("command", 2..4), ("event", 2..3)] {
        for table in tables.iter().filter(|it| it.kind == "consts" && it.name == module) {
            for cell in table.rows.iter().flat_map(|row| &row[columns.clone()]) {
                if cell != "–" {
                    assert!(structures.contains(code(cell)), "{cell} has no table");
                    named += 1;
                }
            }
        }
    }
    assert!(named > 10, "the tables of commands and events were not found");
}

/// Requirements are numbered from 1 without gaps, and those that the text refers to exist.
#[test]
fn requirements_are_numbered_in_order() {
    for kind in ["ISM-DRV-", "ISM-DEV-"] {
        let stated: Vec<u64> = DOCUMENT
            .lines()
            .filter_map(|line| line.strip_prefix("- **")?.strip_prefix(kind)?.split_once("**"))
            .map(|(digits, _)| number(digits))
            .collect();
        let expected: Vec<u64> = (1..=stated.len() as u64).collect();
        assert!(!stated.is_empty(), "no {kind} requirement");
        assert_eq!(stated, expected, "{kind}");
        for rest in DOCUMENT.split(kind).skip(1) {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            // "ISM-DRV-n" in the introduction has none.
            assert!(digits.is_empty() || number(&digits) <= stated.len() as u64, "{kind}{digits}");
        }
    }
}
