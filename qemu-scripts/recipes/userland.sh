#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: the guests' file tree: busybox and the programs measured with, from the
# root's packages, with the libraries they load.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# dash is /bin/sh: busybox's shell would run its own ip, ping and mount instead of
# those in the PATH. bash is the console's shell.
PROGRAMS=(usr/bin/dash usr/bin/bash usr/bin/sockperf usr/bin/iperf3 usr/bin/tcpdump usr/bin/socat usr/sbin/ethtool
    usr/bin/ip usr/bin/ss usr/bin/rdma usr/sbin/bridge usr/sbin/tc)

inputs() {
    grep -E '^(bash|busybox-static|dash|sockperf|iperf3|iproute2|tcpdump|socat|ethtool|libc6) ' \
        "$ISM_ROOT/../versions"
    sha256sum <"$HERE/guest-init"
}

# The libraries PROGRAM loads, as paths below the root.
libraries() {
    local ROOT_LD
    root_ld
    "${ROOT_LD[@]}" --list "$1" | awk -v root="$ISM_ROOT" '
        $2 == "=>" { path = $3 } $1 ~ "^/" { path = $1 }
        index(path, root) == 1 { print substr(path, length(root) + 2) }' | sort -u
}

build() {
    local out=$1 program library
    mkdir -p "$out"/{dev,etc,modules,proc,root,run,sys,tmp,usr/bin,usr/lib/x86_64-linux-gnu,usr/lib64}
    ln -s usr/bin "$out/bin"
    ln -s usr/bin "$out/sbin"
    ln -s bin "$out/usr/sbin"
    ln -s usr/lib "$out/lib"
    ln -s usr/lib64 "$out/lib64"
    cp "$ISM_ROOT/usr/bin/busybox" "$out/usr/bin/busybox"
    for program in $("$ISM_ROOT/usr/bin/busybox" --list); do
        [[ $program == busybox ]] || ln -s busybox "$out/usr/bin/$program"
    done
    for program in "${PROGRAMS[@]}"; do
        cp --remove-destination -L "$(in_merged "$program")" "$out/usr/bin/${program##*/}"
        while read -r library; do
            cp -L -u "$ISM_ROOT/$library" "$out/usr/lib/x86_64-linux-gnu/"
        done < <(libraries "$(in_merged "$program")")
    done
    ln -sf dash "$out/usr/bin/sh"
    cp -L "$ISM_ROOT/lib64/ld-linux-x86-64.so.2" "$out/usr/lib64/"
    install -m 755 "$HERE/guest-init" "$out/init"
    echo 'root:x:0:0:root:/root:/bin/bash' >"$out/etc/passwd"
    echo 'PS1="\h:\w# "' >"$out/etc/profile"
    echo 'root:x:0:' >"$out/etc/group"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$out/etc/hosts"
    cp "$ISM_ROOT/etc/protocols" "$out/etc/" 2>/dev/null || true
}

# in_merged PATH: the program, wherever this release keeps it.
in_merged() {
    local path
    for path in "$1" "usr/bin/${1##*/}" "usr/sbin/${1##*/}"; do
        if [[ -e $ISM_ROOT/$path ]]; then
            echo "$ISM_ROOT/$path"
            return
        fi
    done
    die "the root has no ${1##*/}" "look at $ISM_ROOT"
}

"$@"
