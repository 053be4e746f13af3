#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: a Debian trixie root with trixie-backports, holding QEMU, the kernel's
# source, its compilers, and the programs the guests run.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

SUITE=trixie
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
PINNED="qemu-* seabios linux-source-*" # taken from backports
PACKAGES=(
    # QEMU with vhost-user SHMEM, and the guest kernel's source
    qemu-system-x86 linux-source-7.3
    # to build the kernel and modules for it
    bc bison clang cpio flex gcc kmod libc6-dev libelf-dev libssl-dev lld llvm lz4 make perl
    python3-minimal xz-utils bindgen rust-src rustc
    # what the guests run
    busybox-static ethtool iperf3 iproute2 socat sockperf tcpdump
)

# How the root is made: by root itself, or in a user namespace.
mode() { if is_root; then echo root; else echo unshare; fi; }

inputs() { echo "$SUITE $(mode) ${PACKAGES[*]}"; }

# The mirror this machine already uses for Debian, else Debian's own name.
mirror() {
    local found=
    if command -v apt-get >/dev/null; then
        # shellcheck disable=SC2016 # apt's own format string
        found=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null |
            grep -E '^https?://.*/debian/?$' | sort | uniq -c | sort -rn |
            awk 'NR == 1 { print $2 }') || true
    fi
    echo "${found:-http://deb.debian.org/debian}"
}

# Proxies and clock leniency of this machine's apt, as --aptopt arguments.
apt_options() {
    command -v apt-config >/dev/null || return 0
    apt-config dump --format '%f "%v";%n' Acquire |
        grep -E '^Acquire::(https?::(Proxy|CaInfo)|Check-Valid-Until|Check-Date) "' |
        sed 's/^/--aptopt=/' || true
}

build() {
    local out=$1 tar_to=() options
    need_root_or_unshare
    [[ -e $KEYRING ]] || die "$KEYRING is missing" "install the package debian-archive-keyring"
    mapfile -t options < <(apt_options)
    # shellcheck disable=SC2016 # $1 is mmdebstrap's
    options+=(
        --mode="$(mode)" --variant=minbase --keyring="$KEYRING"
        --aptopt='Apt::Install-Recommends "false"'
        --dpkgopt=path-exclude=/usr/share/doc/* --dpkgopt=path-exclude=/usr/share/man/*
        --dpkgopt=path-exclude=/usr/share/locale/*
        --setup-hook='mkdir -p "$1/etc/apt/preferences.d"; printf "%s\n" "Package: '"$PINNED"'" \
            "Pin: release n='"$SUITE"'-backports" "Pin-Priority: 900" >"$1/etc/apt/preferences.d/backports"'
        --include="$(IFS=,; echo "${PACKAGES[*]}")"
    )
    # In a user namespace the tree goes through a pipe, because the namespace's
    # own ids cannot write to this user's home.
    if is_root; then
        sources | mmdebstrap "${options[@]}" --format=directory "$SUITE" "$out/root" -
    else
        mkdir "$out/root"
        tar_to=(unshare --user --map-root-user --map-auto
            tar -C "$out/root" --exclude=./dev/* -x)
        sources | mmdebstrap "${options[@]}" --format=tar "$SUITE" - - | "${tar_to[@]}"
    fi
    # Mount points of what builds inside, and the versions everything else is
    # keyed by.
    mkdir -p "$out/root/src/linux" "$out/root/build" "$out/root/out"
    # shellcheck disable=SC2016 # dpkg's own format string
    ISM_ROOT=$out/root in_root -- dpkg-query -W -f '${Package} ${Version}\n' >"$out/versions"
}

sources() {
    local uri
    uri=$(mirror)
    echo "deb $uri $SUITE main"
    echo "deb $uri $SUITE-backports main"
}

"$@"
