// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs every target with every file of its corpus, on any toolchain.
//!
//! Invariant: a thread that panics anywhere in this process fails the test.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use ism_fuzz_targets::TARGETS;

static PANICS: AtomicU32 = AtomicU32::new(0);

#[test]
fn every_corpus_runs_through() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(info);
    }));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, run) in TARGETS {
        let folder = std::fs::read_dir(corpus.join(name)).expect("a corpus for each target");
        let mut files: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        assert!(files.len() > 3, "{name} has no corpus to speak of");
        for file in files {
            let data = std::fs::read(&file).expect("a readable file");
            run(&data);
            let panics = PANICS.load(Ordering::Relaxed);
            assert_eq!(panics, 0, "a thread panicked at {}", file.display());
        }
    }
}
