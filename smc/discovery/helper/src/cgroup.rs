// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Finds the cgroup file system of version 2.
//!
//! Invariant: what it returns is a mount point of type cgroup2 in this process's mount namespace.

use std::path::PathBuf;

use crate::Error;

/// The root of the first cgroup file system of version 2: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside
/// version 1.
///
/// # Errors
///
/// If none is mounted.
pub fn root() -> Result<PathBuf, Error> {
    std::fs::read_to_string("/proc/self/mountinfo")
        .ok()
        .and_then(|mounts| find(&mounts))
        .ok_or(Error::NoCgroup2)
}

/// The mount point of the first line of type cgroup2 (proc(5): the type follows a lone hyphen).
fn find(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        (kind.split(' ').next() == Some("cgroup2")).then(|| PathBuf::from(unescaped(point)))
    })
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::find;

    const V1: &str =
        "29 24 0:25 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu\n";

    #[test]
    fn version_2_is_found_beside_version_1() {
        let v2 =
            "37 24 0:32 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 none rw\n";
        let found = find(&format!("{V1}{v2}")).map(|path| path.display().to_string());
        assert_eq!(found.as_deref(), Some("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn without_optional_fields_and_with_a_blank() {
        let v2 = "37 24 0:32 / /mnt/of\\040mine rw - cgroup2 none rw\n";
        assert_eq!(
            find(v2).map(|path| path.display().to_string()).as_deref(),
            Some("/mnt/of mine")
        );
    }

    #[test]
    fn version_1_alone_is_none() {
        assert_eq!(find(V1), None);
        assert_eq!(find(""), None);
    }
}
