#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Fuzzes one target for some seconds, beginning with its corpus:
#
#     fuzz/run.sh TARGET SECONDS [libFuzzer options]
#
# New inputs go to fuzz/target/corpus, not to the checked-in corpus; `fuzz/run.sh TARGET 0 -merge=1`
# adds to the latter what the former has more of coverage. An input that fails is kept in
# fuzz/target/artifacts and the exit status is not 0. With a nightly toolchain the address sanitizer
# is on; without one the same targets run without it.
set -euo pipefail

targets="cdc clc control llc moves vhost_user_stream"
target=${1:-} seconds=${2:-}
if [[ " $targets " != *" $target "* || -z $target || ! $seconds =~ ^[0-9]+$ ]]; then
    echo "usage: ${0##*/} TARGET SECONDS [libFuzzer options]; targets: $targets" >&2
    exit 2
fi
shift 2
cd "$(dirname "$0")"

triple=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes: coverage of edges and comparisons.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg=fuzzing -Ccodegen-units=1"
toolchain=""
if rustc +nightly --version >/dev/null 2>&1; then
    toolchain="+nightly"
    flags+=" -Zsanitizer=address"
else
    echo "no nightly toolchain: fuzzing without the address sanitizer" >&2
fi
if ! command -v c++ >/dev/null; then
    echo "libFuzzer needs a C++ compiler: apt-get install g++" >&2
    exit 1
fi

# An explicit target keeps the flags away from build scripts.
RUSTFLAGS="$flags" cargo $toolchain build --quiet --locked --release --target "$triple" --bin "$target"

new="target/corpus/$target" artifacts="target/artifacts/$target/"
mkdir -p "$new" "$artifacts" "corpus/$target"
folders=("$new" "corpus/$target")
[[ " $* " == *" -merge=1 "* ]] && folders=("corpus/$target" "$new")
time=(-max_total_time="$seconds")
[[ $seconds == 0 ]] && time=()
# Leaks are not looked for: the daemon behind one of the targets lives as long as the process.
ASAN_OPTIONS=detect_leaks=0 RUST_LOG=off exec "target/$triple/release/$target" \
    -artifact_prefix="$artifacts" -timeout=60 -rss_limit_mb=4096 -max_len=4096 \
    "${time[@]}" "$@" "${folders[@]}"
