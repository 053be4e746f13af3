// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A C compiler's opinion of the header: sizes, offsets and values are Rust's.
//!
//! Invariant: every structure, field and constant of the catalogue is asserted.

use crate::c_header::{self, constant_name, structure_name};
use crate::catalogue;
use std::fmt::Write;
use std::process::Command;

/// A C file whose compilation is the test.
fn program() -> String {
    let mut out = format!("#include <stddef.h>\n#include \"{}\"\n", c_header::PATH);
    let mut assert = |condition: String| {
        let _ = writeln!(out, "_Static_assert({condition}, \"{condition}\");");
    };
    for it in catalogue::constants() {
        assert(format!("{} == {}u", constant_name(it.module, it.name), it.value));
    }
    for it in catalogue::structures() {
        let name = structure_name(it.name);
        assert(format!("sizeof(struct {name}) == {}", it.size));
        for field in it.fields {
            assert(format!("offsetof(struct {name}, {}) == {}", field.name, field.offset));
            assert(format!("sizeof(((struct {name} *)0)->{}) == {}", field.name, field.size));
        }
    }
    out
}

#[test]
fn c_compiler_agrees() {
    let source = concat!(env!("CARGO_TARGET_TMPDIR"), "/virtio_ism_layout.c");
    std::fs::write(source, program()).expect("write the C file");
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpadded", "-Werror", "-fsyntax-only", source])
        .output()
        .expect("run cc: a C compiler and linux-libc-dev are needed");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cc does not agree:\n{messages}");
}
