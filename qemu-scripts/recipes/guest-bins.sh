#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: our own programs for the guest, linked statically so that they run on
# any root file system: the agent that runs commands, and the SMC tools.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

TARGET=x86_64-unknown-linux-gnu
PACKAGES=(ism-agent ism-stream smc-tools smc-kernel-run)

inputs() {
    rustc --version
    echo "${PACKAGES[*]}"
    # Every crate of the workspace that these could be made from.
    tree_hash "$REPO/Cargo.toml" "$REPO/Cargo.lock" "$REPO/smc" "$REPO/unix-peer" \
        "$REPO/tests/agent" "$REPO/tests/guest"
}

# compile DIRECTORY PATTERN CARGO-ARGUMENT...: builds, and copies what was made and
# whose name matches PATTERN into DIRECTORY.
compile() {
    local to=$1 pattern=$2 file
    shift 2
    mkdir -p "$to"
    cargo build --release --target "$TARGET" "$@"
    cargo build --release --target "$TARGET" "$@" --message-format=json 2>/dev/null |
        { grep -oE "\"[^\"]*/$TARGET/release/$pattern\"" || true; } | tr -d '"' | sort -u |
        while read -r file; do install -s -m 755 "$file" "$to"; done
}

build() {
    local out=$1 static=()
    command -v cargo >/dev/null ||
        die "cargo is not on the PATH" "install Rust from https://rustup.rs, then run this again"
    for package in "${PACKAGES[@]}"; do static+=(--package "$package"); done
    cd "$REPO"
    export CARGO_TARGET_DIR=$CACHE/cargo-guest
    RUSTFLAGS='-C target-feature=+crt-static' \
        compile "$out/bin" '[a-z_-]+' "${static[@]}" --bins
    # A library that is loaded into other programs cannot be static.
    CARGO_TARGET_DIR+=-shared
    compile "$out/lib" 'lib[a-z_]+\.so' --package smc-kernel-run --lib
}

"$@"
