// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a program takes LD_PRELOAD at all: a user must not believe in SMC that is not there.
//!
//! Invariant: only a warning hangs on it, so whatever is not understood is taken to be fine.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Enough for the ELF header and the program headers, which linkers put right behind it.
const HEAD: u64 = 4096;

/// Program headers (elf(5)): the interpreter's name, which is the dynamic loader.
const PT_INTERP: u32 = 3;

/// The file that executing `program` starts.
pub(crate) fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// True for an ELF program without a dynamic loader.
pub(crate) fn ignores_preloads(path: &Path) -> bool {
    let mut head = Vec::new();
    match File::open(path).map(|file| file.take(HEAD).read_to_end(&mut head)) {
        Ok(Ok(_)) => is_static_elf(&head).unwrap_or(false),
        _ => false,
    }
}

/// `None` for what is no 64-bit ELF file of this machine's byte order, or not in `head`.
fn is_static_elf(head: &[u8]) -> Option<bool> {
    const CLASS_64: u8 = 2;
    let little_endian = if cfg!(target_endian = "little") { 1 } else { 2 };
    if !head.starts_with(&[0x7f, b'E', b'L', b'F', CLASS_64, little_endian]) {
        return None;
    }
    let offset = usize::try_from(u64::from_ne_bytes(array_at(head, 0x20)?)).ok()?;
    let size = usize::from(u16::from_ne_bytes(array_at(head, 0x36)?));
    let count = usize::from(u16::from_ne_bytes(array_at(head, 0x38)?));
    for index in 0..count {
        let at = offset.checked_add(index.checked_mul(size)?)?;
        if u32::from_ne_bytes(array_at(head, at)?) == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF head with these program headers.
    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut head = vec![0; 64];
        let order = if cfg!(target_endian = "little") { 1 } else { 2 };
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, order]);
        head[0x20..0x28].copy_from_slice(&64_u64.to_ne_bytes());
        head[0x36..0x38].copy_from_slice(&56_u16.to_ne_bytes());
        head[0x38..0x3a].copy_from_slice(&u16::try_from(kinds.len()).unwrap().to_ne_bytes());
        for kind in kinds {
            head.extend_from_slice(&kind.to_ne_bytes());
            head.extend_from_slice(&[0; 52]);
        }
        head
    }

    #[test]
    fn a_loader_makes_the_difference() {
        assert_eq!(is_static_elf(&elf(&[6, PT_INTERP, 1, 1])), Some(false));
        assert_eq!(is_static_elf(&elf(&[1, 1, 2])), Some(true));
    }

    #[test]
    fn what_is_not_understood_is_not_judged() {
        assert_eq!(is_static_elf(b"#!/bin/sh\n"), None);
        assert_eq!(is_static_elf(b""), None);
        let whole = elf(&[1, 1, 2]);
        for cut in 0..whole.len() - 52 {
            assert_eq!(is_static_elf(&whole[..cut]), None, "{cut}");
        }
        let mut far = elf(&[1]);
        far[0x20..0x28].fill(0xff);
        assert_eq!(is_static_elf(&far), None);
    }

    #[test]
    fn this_program_is_found_and_judged() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(find(own.as_os_str()).as_deref(), Some(own.as_path()));
        let sh = find(OsStr::new("sh")).unwrap();
        assert!(sh.ends_with("sh") && sh.is_absolute(), "{}", sh.display());
        assert_eq!(find(OsStr::new("no-such-program")), None);
        assert!(!ignores_preloads(Path::new("/no/such/file")));
    }
}
