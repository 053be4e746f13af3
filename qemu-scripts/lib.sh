# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Shared by the scripts of this folder: messages, host tools, the cache, and
# commands inside the Debian root. Invariant: what stands in the cache under its
# final name is complete; anything else is named .tmp-* and is thrown away.
#
# Sourced, never run. The caller has `set -euo pipefail`.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
REPO=$(dirname "$HERE")
CACHE=${VHOST_USER_ISM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vhost-user-ism}
export HERE REPO CACHE

# --- messages ---------------------------------------------------------------

# say TEXT...: progress, on stderr (or on the caller's, when a recipe's own
# stderr goes to a log).
say() {
    if [[ ${ISM_IN_RECIPE:-} ]]; then echo "$*" >&3; else echo "$*" >&2; fi
}

# die TEXT NEXT-STEP...: the error on one line, then what to do about it.
die() {
    say "${0##*/}: error: $1"
    shift
    local line
    for line in "$@"; do say "  $line"; done
    exit "${EXIT_STATUS:-1}"
}

# usage_error TEXT: a wrong command line.
usage_error() {
    say "${0##*/}: $1"
    say "  '${0##*/} --help' shows what is allowed"
    exit 2
}

# print_help FILE: the script's own header comment (from its third line on) is
# its help.
print_help() {
    sed -n '3,/^[^#]/{/^# SPDX/d;/^#$/s/.*//p;s/^# //p}' "$1" | sed '/./,$!d'
}

# need_value "$@": the option in $1 must be followed by a value.
need_value() {
    [[ $# -ge 2 && -n $2 ]] || usage_error "$1 needs a value"
}

# --- the host ---------------------------------------------------------------

is_root() { [[ $(id -u) == 0 ]]; }

# host_lacks PART=PACKAGE...: prints the packages of the parts, commands or files,
# that are not here.
host_lacks() {
    local pair part
    for pair in "$@"; do
        part=${pair%%=*}
        if [[ $part == /* ]]; then [[ -e $part ]]
        else PATH=$PATH:/usr/sbin:/sbin command -v "$part" >/dev/null; fi || echo "${pair#*=}"
    done | sort -u
}

# host_tools PART=PACKAGE...: installs what is missing when it may, else says how.
host_tools() {
    local missing log=$CACHE/log/host-tools.log
    mapfile -t missing < <(host_lacks "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null ||
        die "this host lacks: ${missing[*]}" \
            "install these (Debian package names), then run the same command again"
    is_root ||
        die "this host lacks: ${missing[*]}" \
            "run: sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" \
            "then run the same command again"
    say "installing on this host: ${missing[*]}"
    mkdir -p "$CACHE/log"
    { apt-get update &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            "${missing[@]}"; } >"$log" 2>&1 ||
        die "apt-get could not install ${missing[*]}" "its output: $log"
    mapfile -t missing < <(host_lacks "$@")
    [[ ${#missing[@]} == 0 ]] ||
        die "this host's release has these too old or not at all: ${missing[*]}" \
            "Debian 12 (fully updated) or newer is needed"
}

# may_unshare: as an ordinary user, a whole uid range in a user namespace is what
# stands in for root.
may_unshare() {
    unshare --user --map-root-user --map-auto true 2>/dev/null
}

need_root_or_unshare() {
    is_root && return
    host_tools newuidmap=uidmap unshare=util-linux
    may_unshare || die "user namespaces with subordinate ids are not available to $(id -un)" \
        "run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)" \
        "and, where the system forbids them: sudo sysctl -w kernel.unprivileged_userns_clone=1" \
        "or run the same command as root"
}

# end_process PID: with SIGTERM, after 5 s with SIGKILL; returns when it is gone.
# PID is a child of the caller.
end_process() {
    local i
    kill "$1" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.05
    done
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" || true
}

# --- the Debian root --------------------------------------------------------

# in_root [--bind HOST:INSIDE]... -- COMMAND...: runs COMMAND in the Debian root
# ($ISM_ROOT). Mounts live in a mount namespace of its own, processes in a pid
# namespace, so nothing outlives it.
in_root() {
    local binds=()
    while [[ $1 == --bind ]]; do
        binds+=("$2")
        shift 2
    done
    [[ $1 == -- ]] && shift
    local ns=(--mount --pid --fork --kill-child --propagation private)
    is_root || ns+=(--user --map-root-user --map-auto)
    # shellcheck disable=SC2016 # expanded by the inner shell
    ISM_BINDS=${binds[*]-} unshare "${ns[@]}" bash -euo pipefail -c '
        # The first process of a pid namespace dies of a signal only if it
        # handles it: this shell does, so that ^C ends a build.
        trap "exit 130" INT
        trap "exit 143" TERM
        root=$1
        shift
        mount --rbind /dev "$root/dev"
        mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
        for bind in $ISM_BINDS; do
            mkdir -p "$root${bind#*:}"
            mount --bind "${bind%%:*}" "$root${bind#*:}"
        done
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            chroot "$root" "$@"' in_root "$ISM_ROOT" "$@"
}

# root_ld: the root's dynamic loader and its search path, to run a program of the
# root without entering it; sets the array ROOT_LD.
root_ld() {
    ROOT_LD=("$ISM_ROOT/lib64/ld-linux-x86-64.so.2" --library-path
        "$ISM_ROOT/usr/lib/x86_64-linux-gnu:$ISM_ROOT/usr/lib")
}

# pack_cpio DIR FILE: DIR as an initramfs archive owned by root, not compressed: a
# guest under TCG boots 0.35 s faster so.
pack_cpio() {
    local ROOT_LD
    root_ld
    (
        cd "$1" || exit
        find . -mindepth 1 -print0 | LC_ALL=C sort -z |
            "${ROOT_LD[@]}" "$ISM_ROOT/usr/bin/cpio" --quiet --null --create --format=newc \
                --owner=0:0 --reproducible
    ) >"$2"
}

# --- the cache --------------------------------------------------------------

# tree_hash PATH...: one hash over names, modes and contents of files.
tree_hash() {
    local path
    for path in "$@"; do
        [[ -e $path ]] || die "$path does not exist"
        (
            cd "$(dirname "$path")" || exit
            # shellcheck disable=SC2016 # expanded by the inner shell
            find "$(basename "$path")" \( -name .git -o -name target -o -name .build \) -prune -o \
                \( -type f -o -type l \) \
                ! -name '*.o' ! -name '*.ko' ! -name '*.cmd' ! -name '*.mod' -print0 |
                LC_ALL=C sort -z | xargs -0r sh -c '
                    for f; do
                        if [ -L "$f" ]; then echo "$f -> $(readlink "$f")"
                        else printf "%s " "$(stat -c %a "$f")"; sha256sum "$f"; fi
                    done' sh
        )
    done | sha256sum | cut -c1-64
}

# recipe_key NAME: hash of the recipe's commands (comments apart) and of what it
# says it is made from.
recipe_key() {
    local inputs
    inputs=$(ISM_IN_RECIPE=1 bash "$HERE/recipes/$1.sh" inputs 3>&2)
    { sed -e '/^ *#/d' -e '/^ *$/d' "$HERE/recipes/$1.sh"; echo "$inputs"; } |
        sha256sum | cut -c1-16
}

# discard PATH: rm -rf, also of what a user namespace left behind.
discard() {
    [[ -e $1 ]] || return 0
    if is_root || ! may_unshare; then
        rm -rf "$1"
    else
        unshare --user --map-root-user --map-auto rm -rf "$1"
    fi
}

# forget_old NAME: items of recipe NAME that nobody asked for in 30 days.
forget_old() {
    local old
    find "$CACHE" -maxdepth 1 -name "$1-????????????????" -mtime +30 -print0 |
        while IFS= read -r -d '' old; do discard "$old"; done
}

# cached NAME TITLE: sets REPLY to the cache item of recipe NAME, made if it is
# not there. Two callers do not build twice: the second waits for the first.
cached() {
    local name=$1 title=$2 key tmp log lock
    key=$(recipe_key "$name")
    REPLY=$CACHE/$name-$key
    if [[ -d $REPLY ]]; then
        touch "$REPLY"
        return
    fi
    mkdir -p "$CACHE/log"
    exec {lock}>"$CACHE/.lock-$name"
    if ! flock --nonblock "$lock"; then
        say "waiting for another run that is making: $name"
        flock "$lock"
    fi
    if [[ ! -d $REPLY ]]; then
        say "$title"
        for tmp in "$CACHE/.tmp-$name-"*; do discard "$tmp"; done
        tmp=$CACHE/.tmp-$name-$key
        log=$CACHE/log/$name-$key.log
        mkdir "$tmp"
        ISM_IN_RECIPE=1 bash "$HERE/recipes/$name.sh" build "$tmp" 3>&2 >"$log" 2>&1 || {
            say "--- the last lines of $log"
            tail -n 15 "$log" >&2
            die "making '$name' failed" "the whole log: $log" \
                "the same command can be run again; finished parts are kept in $CACHE"
        }
        mv "$tmp" "$REPLY"
        forget_old "$name"
    fi
    exec {lock}>&-
}

# count_lines WHAT TOTAL: passes its input on, telling the caller how far it is.
count_lines() {
    awk -v what="$1" -v total="$2" '
        { print }
        NR % 300 == 0 {
            printf "      %d of about %d %s\n", NR, total, what | "cat >&3"
            close("cat >&3")
        }'
}
