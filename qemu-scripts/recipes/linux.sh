#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: the kernel's source tree, unpacked from Debian's linux-source package.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

inputs() { grep '^linux-source-' "$ISM_ROOT/../versions"; }

build() {
    tar -xf "$ISM_ROOT"/usr/src/linux-source-*.tar.xz -C "$1" --strip-components=1 --no-same-owner
}

"$@"
