#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: a program that runs the root's QEMU with the root's own loader and
# libraries, without entering the root: QEMU sees this host's files, sockets and
# network devices.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

inputs() {
    echo "$ISM_ROOT"
    grep '^qemu-system-x86 ' "$ISM_ROOT/../versions"
}

build() {
    local program=$1/qemu-system-x86_64 ROOT_LD
    root_ld
    cat >"$program" <<END
#!/bin/sh
root='$ISM_ROOT'
export QEMU_MODULE_DIR="\$root/usr/lib/x86_64-linux-gnu/qemu"
exec $(printf "'%s' " "${ROOT_LD[@]}") --argv0 qemu-system-x86_64 \\
    "\$root/usr/bin/qemu-system-x86_64" -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
END
    chmod +x "$program"
    "$program" --version
    "$program" -device help | grep -q vhost-user-test-device-pci ||
        die "this QEMU has no vhost-user-test-device-pci" "QEMU 11.1 or later is needed"
}

"$@"
