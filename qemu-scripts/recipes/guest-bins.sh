#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: our own programs for the guest, linked statically so that they run on
# any root file system: the agent that runs commands, and the SMC tools.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

TARGET=x86_64-unknown-linux-gnu
PACKAGES=(ism-agent smc-tools smc-run)

inputs() {
    rustc --version
    echo "${PACKAGES[*]}"
    # Every crate of the workspace that these could be made from.
    tree_hash "$REPO/Cargo.toml" "$REPO/Cargo.lock" "$REPO/smc" "$REPO/tests/agent" "$REPO/spec"
}

build() {
    local out=$1 target_dir=$CACHE/cargo-guest program arguments=() package
    command -v cargo >/dev/null ||
        die "cargo is not on the PATH" "install Rust from https://rustup.rs, then run this again"
    for package in "${PACKAGES[@]}"; do arguments+=(--package "$package"); done
    cd "$REPO"
    RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$target_dir \
        cargo build --locked --release --target "$TARGET" "${arguments[@]}" >&2
    mkdir "$out/bin"
    while read -r program; do
        install -s -m 755 "$program" "$out/bin/"
    done < <(RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$target_dir \
        cargo build --locked --release --target "$TARGET" "${arguments[@]}" \
        --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
}

"$@"
