// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What refers to documents: links lead somewhere, and requirements that are named exist.
//!
//! Invariant: a link is checked as a reader's browser resolves it, the heading after `#` included.

use std::collections::BTreeSet;
use std::path::Path;

use crate::files::{files_ending, read, root};

/// The device's chapter, which numbers its requirements.
const CHAPTER: &str = "spec/virtio-ism.md";

/// The document without its fenced code, in which brackets mean something else.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of `[text](target)` but for those of the web.
fn links(prose: &str) -> Vec<&str> {
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

/// What a heading's anchor is called.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for document in files_ending("md") {
        let text = prose(&read(&document));
        for link in links(&text) {
            seen += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.clone(),
                file => document.parent().expect("a file has a folder").join(file),
            };
            let place = format!("{}: the link to {link}", document.display());
            assert!(root().join(&target).exists(), "{place}: there is no such file");
            if !heading.is_empty() {
                let text = prose(&read(&target));
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(anchors.any(|it| it == heading), "{place}: there is no such heading");
            }
        }
    }
    assert!(seen > 10, "only {seen} links were found");
}

/// The names of requirements (ISM-DEV-1) in a text.
fn requirements(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for kind in ["ISM-DRV-", "ISM-DEV-"] {
        for rest in text.split(kind).skip(1) {
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() {
                found.insert(format!("{kind}{number}"));
            }
        }
    }
    found
}

#[test]
fn requirements_that_are_named_exist() {
    let chapter = read(Path::new(CHAPTER));
    let stated: String = chapter.lines().filter(|line| line.starts_with("- **ISM-")).collect();
    let stated = requirements(&stated);
    assert!(stated.len() > 50, "only {} requirements were found", stated.len());
    for path in ["rs", "c", "h", "md"].into_iter().flat_map(files_ending) {
        for name in requirements(&read(&path)) {
            assert!(stated.contains(&name), "{}: {CHAPTER} has no {name}", path.display());
        }
    }
}

#[test]
fn anchors_are_named_as_on_the_web() {
    assert_eq!(anchor("Device operation: event queue"), "device-operation-event-queue");
    assert_eq!(anchor("What is answered to virtio's rule"), "what-is-answered-to-virtios-rule");
}
