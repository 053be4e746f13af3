#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Recipe: the guest kernel with SMC and Rust, and a build tree (build/) that
# out-of-tree modules are built against. Inside the root the source is always at
# /src/linux and the build at /build, so no host path gets into either.
#
# ISM_FLAVOUR: `release`, or `debug` (kernel-debug.config is added).
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

OBJECTS=2600 # lines `make` prints, for the progress shown

fragments() {
    echo "$HERE/kernel.config"
    [[ $ISM_FLAVOUR == release ]] || echo "$HERE/kernel-$ISM_FLAVOUR.config"
}

inputs() {
    basename "$ISM_LINUX"
    grep -E '^(rustc|rust-src|bindgen|clang-[0-9]+|lld-[0-9]+|gcc-[0-9]+|libc6-dev) ' \
        "$ISM_ROOT/../versions"
    fragments | xargs sed -e '/^# [^C]/d' -e '/^#$/d' -e '/^$/d'
}

# Prints every line of the fragments that is not so in .config: an option whose
# dependencies are not met is dropped by olddefconfig without a word.
lost_options() {
    local config=$1 line option
    fragments | xargs cat | while read -r line; do
        case $line in
            "# CONFIG_"*" is not set")
                option=${line#\# }
                if grep -q "^${option%% *}=" "$config"; then echo "$line"; fi ;;
            CONFIG_*)
                grep -qxF -- "$line" "$config" || echo "$line" ;;
        esac
    done
}

# What modules need stays: headers, host programs, Rust metadata, symbols, and
# the command lines bindgen was run with.
prune() {
    find "$1" -path "$1/scripts" -prune -o -path "$1/tools" -prune -o -type f \
        \( -name '*.o' -o -name '*.a' -o \( -name '.*.cmd' ! -name '.bindings*.cmd' \) \
        -o -name 'vmlinux*' ! -name 'vmlinux.symvers' -o -name '.tmp_vmlinux*' \
        -o -name '*.bin' -o -name '*.elf' \) -exec rm -f {} +
    find "$1/tools" "$1/scripts" -name '*.o' ! -name 'module*.o' -delete
    rm -rf "$1/arch/x86/boot"
}

build() {
    local out=$1 lost
    local in=(in_root --bind "$ISM_LINUX:/src/linux" --bind "$out/build:/build" --
        make -C /src/linux O=/build LLVM=1 KBUILD_BUILD_USER=vhost-user-ism
        KBUILD_BUILD_HOST=guest KBUILD_BUILD_TIMESTAMP='1 January 2026')
    mkdir "$out/build"
    "${in[@]}" tinyconfig
    fragments | xargs cat >>"$out/build/.config"
    "${in[@]}" olddefconfig
    lost=$(lost_options "$out/build/.config")
    if [[ $lost ]]; then
        die "the kernel's configuration dropped lines of $(fragments | xargs -n1 basename | tr '\n' ' ')" \
            "$lost" "add what they depend on, or remove them"
    fi
    "${in[@]}" -j"$(nproc)" bzImage modules_prepare | count_lines objects "$OBJECTS"
    # Nothing is built as a module, so vmlinux's symbols are all there are.
    cp "$out/build/vmlinux.symvers" "$out/build/Module.symvers"
    mv "$out/build/arch/x86/boot/bzImage" "$out/build/System.map" "$out"
    cp "$out/build/.config" "$out/config"
    prune "$out/build"
}

"$@"
