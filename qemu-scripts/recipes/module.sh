#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: an out-of-tree kernel module, built in the root against the guest
# kernel. It is built in a copy (/repo in the root), which also holds spec/abi,
# since our own module is compiled from that folder too: the source tree is only
# read.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

shared() { [[ ! -d $REPO/spec/abi ]] || echo "$REPO/spec/abi"; }

inputs() {
    basename "$ISM_KERNEL"
    [[ -e $ISM_MODULE_DIR/Kbuild || -e $ISM_MODULE_DIR/Makefile ]] ||
        die "$ISM_MODULE_DIR is not a kernel module's folder" "it needs a Kbuild or a Makefile"
    # shellcheck disable=SC2046 # none or one path
    tree_hash "$ISM_MODULE_DIR" $(shared)
}

build() {
    local out=$1 name path
    name=$(basename "$(realpath "$ISM_MODULE_DIR")")
    mkdir -p "$out/repo/spec"
    cp -a "$ISM_MODULE_DIR" "$out/repo/$name"
    path=$(shared)
    [[ ! $path ]] || cp -a "$path" "$out/repo/spec/abi"
    in_root --bind "$ISM_LINUX:/src/linux" --bind "$ISM_KERNEL/build:/build" --bind "$out/repo:/repo" -- \
        make -C /build M="/repo/$name" LLVM=1 modules
    find "$out/repo/$name" -name '*.ko' -exec cp {} "$out" \;
    compgen -G "$out/*.ko" >/dev/null || die "the build made no .ko"
    rm -rf "$out/repo"
}

"$@"
