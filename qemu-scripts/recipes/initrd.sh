#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: the userland and the guest programs as one initramfs.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# shellcheck disable=SC2206 # a list of paths
programs=(${ISM_BINS:-})
libraries=()
if [[ ${#programs[@]} == 0 ]]; then
    shopt -s nullglob
    programs=("$ISM_GUEST_BINS"/bin/*)
    libraries=("$ISM_GUEST_BINS"/lib/*)
fi

inputs() {
    basename "$ISM_USERLAND"
    sha256sum "${programs[@]}" "${libraries[@]}" | sed "s# .*/# #"
}

build() {
    cp -a "$ISM_USERLAND" "$1/tree"
    install -m 755 "${programs[@]}" "$1/tree/usr/bin/"
    [[ ${#libraries[@]} == 0 ]] || install -m 755 "${libraries[@]}" "$1/tree/usr/lib/"
    pack_cpio "$1/tree" "$1/initrd.cpio"
    rm -rf "$1/tree"
}

"$@"
