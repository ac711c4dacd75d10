#!/bin/sh
# Biotope onto a server: builds the one file that runs on any Linux of its architecture.
#
# POSIX sh. Results go to stdout, what is done and what went wrong to stderr.
set -eu
export LC_ALL=C
unset CDPATH

here=$(cd "$(dirname "$0")" && pwd -P)
name=${0##*/}

usage() {
    cat <<END
Usage: $name build [--target TRIPLE]

Commands:
  build    Build target/dist/biotope: one static file, stripped; the same bytes from the same commit and toolchain.
           For musl where Rust's std for it is at hand or can be had by rustup, else for glibc.

Options of build:
  --target TRIPLE   Build for this target, and for no other

Environment of build:
  CC                The C compiler; by default musl-gcc where there is one and it fits, else cc
  CARGO_TARGET_DIR  Where the build's own files go instead of target/; the result is in its dist/
  BIOTOPE_COMMIT    The commit that is built, where neither git nor the file packaging/commit can tell

Example: $name build && target/dist/biotope --version
END
}

say() {
    printf '%s: %s\n' "$name" "$*" >&2
}

# fail CODE WORDS...: the end, with a reason. Codes as of sysexits.
fail() {
    code=$1
    shift
    say "$*"
    exit "$code"
}

# --- build ---------------------------------------------------------------------------------------------------------

# Whether the toolchain has a std for the target $1.
has_std() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]
}

# The target to build for: musl, whose libc is meant to be linked statically, or else the host's own.
choose_target() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    case $host in
    *-linux-gnu) musl=${host%-gnu}-musl ;;
    *-linux-gnueabihf) musl=${host%-gnueabihf}-musleabihf ;;
    *) musl=$host ;;
    esac
    if ! has_std "$musl" && command -v rustup >/dev/null 2>&1; then
        rustup -q target add "$musl" </dev/null >/dev/null 2>&1 || true
    fi
    if has_std "$musl"; then
        echo "$musl"
    else
        say "there is no std for $musl (rustup target add $musl): linking glibc statically"
        echo "$host"
    fi
}

# The commit of this tree: what the environment, git, or the archive that it came in says.
commit_here() {
    if [ -n "${BIOTOPE_COMMIT-}" ]; then
        echo "$BIOTOPE_COMMIT"
    elif [ "$(git -C "$here" rev-parse --show-toplevel 2>/dev/null)" = "$here" ]; then
        git -C "$here" describe --always --abbrev=40 --exclude='*' --dirty=-modified
    else
        # `git archive` writes the commit into this file.
        commit=$(sed -n 's/^\([0-9a-f]\{40\}\)$/\1/p' "$here/packaging/commit" 2>/dev/null) || commit=
        echo "${commit:-unknown}"
    fi
}

# Flags of rustc, one a line: linked statically, and no path of this machine in the result. Later prefixes win.
rustc_flags() {
    rust_commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    printf '%s\n' -Ctarget-feature=+crt-static \
        "--remap-path-prefix=$cargo_home=/cargo" \
        "--remap-path-prefix=$here=/biotope" \
        "--remap-path-prefix=$target_dir=/target" \
        "--remap-path-prefix=$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$rust_commit"
    # A mirror of the registry has a directory of another name.
    for dir in "$cargo_home"/registry/src/*/; do
        [ ! -d "$dir" ] || printf '%s\n' "--remap-path-prefix=${dir%/}=/cargo/registry"
    done
}

# The C compiler for the few files in C. Those need no more of libc's headers than musl and glibc have in common.
choose_cc() {
    if [ -n "${CC-}" ]; then
        echo "$CC"
    elif [ "$1" = "$(uname -m)-unknown-linux-musl" ] && command -v musl-gcc >/dev/null 2>&1; then
        echo musl-gcc
    else
        echo cc
    fi
}

build() {
    target=
    while [ $# -gt 0 ]; do
        case $1 in
        --target)
            [ $# -ge 2 ] || fail 64 "--target needs a triple, as rustc --print target-list shows them"
            target=$2
            shift 2
            ;;
        *) fail 64 "build knows no $1; $name --help tells more" ;;
        esac
    done
    command -v cargo >/dev/null 2>&1 || fail 69 "cargo is missing: install the Rust toolchain"
    cd "$here"
    [ -n "$target" ] || target=$(choose_target)
    has_std "$target" || fail 69 "there is no std for $target: rustup target add $target"
    cc=$(choose_cc "$target")
    command -v "${cc%% *}" >/dev/null 2>&1 || fail 69 "there is no C compiler $cc: install gcc, or set CC"
    mkdir -p "${CARGO_TARGET_DIR:-target}/dist"
    target_dir=$(cd "${CARGO_TARGET_DIR:-target}" && pwd -P)
    commit=$(commit_here)
    say "building $commit for $target"

    # Everything is unpacked first, so that its paths are known.
    cargo fetch --locked --quiet --target "$target"
    CARGO_ENCODED_RUSTFLAGS=$(rustc_flags | tr '\n' '\037')
    CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%?}
    TARGET_CC=$cc
    TARGET_CFLAGS="${CFLAGS-} -U_FORTIFY_SOURCE -ffile-prefix-map=$here=/biotope"
    BIOTOPE_COMMIT=$commit
    SOURCE_DATE_EPOCH=0
    export CARGO_ENCODED_RUSTFLAGS TARGET_CC TARGET_CFLAGS BIOTOPE_COMMIT SOURCE_DATE_EPOCH
    unset RUSTFLAGS CC CFLAGS
    cargo build --release --locked --bin biotope --target "$target" --target-dir "$target_dir" >&2

    # What was there goes on to run, and nobody sees half a file.
    made=$target_dir/dist/.biotope.$$
    cp "$target_dir/$target/release/biotope" "$made"
    mv -f "$made" "$target_dir/dist/biotope"
    say "$("$target_dir/dist/biotope" --version | head -n 1), $(wc -c <"$target_dir/dist/biotope") bytes"
    echo "$target_dir/dist/biotope"
}

case ${1-} in
build)
    shift
    build "$@"
    ;;
-h | --help | help)
    usage
    ;;
*)
    usage >&2
    exit 64
    ;;
esac
