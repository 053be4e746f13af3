// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The Markdown documents: every link into the repository leads somewhere.
//!
//! Invariant: a link is checked as a reader's browser resolves it, the heading after `#` included.

use crate::files::{files_ending, read, root};

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

#[test]
fn anchors_are_named_as_on_the_web() {
    assert_eq!(anchor("Device operation: event queue"), "device-operation-event-queue");
    assert_eq!(anchor("What is answered to virtio's rule"), "what-is-answered-to-virtios-rule");
}
