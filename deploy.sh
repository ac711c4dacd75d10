#!/bin/sh
# Biotope onto a server: builds the one file that runs on any Linux of its architecture, and brings it and its config to a
# host by ssh, or into a folder. What is done there is in packaging/deploy; docs/deploy.md has all of it.
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
       $name check|install|upgrade|rollback|status [OPTION...] user@host
       $name check|install|upgrade --root DIR [OPTION...]
       $name cargo COMMAND [ARG...]

Commands:
  build     Build target/dist/biotope: one static file, stripped; the same bytes from the same commit and toolchain.
            Linked to glibc where that can be linked statically, else to musl, whose std rustup then gets.
  cargo     Run a command of cargo for the same target with the same flags: $name cargo bench --bench lifecycle
  check     Copy binary and config to the host, and see whether they would pass there; nothing is changed
  install   The first time: user, unit, binary, config, start; later, as upgrade, with the unit brought up to date
  upgrade   A new config, a new binary, or both, without an interruption; taken back if it does not serve
  rollback  Back to the binary and the config that were there before
  status    Show what is installed, what runs, and what is kept

Options:
  --config FILE              The config that is to be [default: ./biotope.toml]
  --binary FILE              The binary that is to be [default: target/dist/biotope, which build makes]
                             check and upgrade bring what is named alone; where nothing is, both
  --dry-run                  Print every step, and change nothing, here or there
  --timeout SECONDS          For a start, or for another deployment to end [default: 60]
  --settle SECONDS           How long it has to go on answering before that counts [default: 3]
  --rollout-timeout SECONDS  How long the verdict on a config is waited for [default: 600]
  --restart needed|never     Whether it may be started anew where nothing else helps [default: needed]
  --prefix DIR               All in this folder of the host, without a unit: for users without root
  --service auto|systemd|none  Who starts biotope there [default: auto]
  --run COMMAND              Without systemd: what starts it, with \$BIN and \$CONFIG [default: that binary, by setsid]
  --unit FILE                The unit to install [default: packaging/systemd/biotope.service]
  --root DIR                 No host: lay files down in this folder, for images and packages
  --port N, --identity FILE, -o OPTION  ssh's own

Options of build:
  --target TRIPLE   Build for this target, and for no other

Environment of build:
  CC                The C compiler; by default musl-gcc where there is one and it fits, else cc
  CARGO_TARGET_DIR  Where the build's own files go instead of target/; the result is in its dist/
  BIOTOPE_COMMIT    The commit that is built, where neither git nor the file packaging/commit can tell

Examples: $name build && $name install root@host.example --config biotope.toml
          $name upgrade root@host.example --config biotope.toml --dry-run
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

# Whether the C compiler can link a file statically to its own libc.
links_statically() {
    probe=${TMPDIR:-/tmp}/biotope-probe.$$
    done=0
    echo 'int main(void) { return 0; }' | ${CC:-cc} -static -x c -o "$probe" - 2>/dev/null || done=1
    rm -f "$probe"
    return "$done"
}

# The target to build for: the host's own, where its libc is there to be linked statically; else musl, which always is. Of the
# two glibc is the faster, and takes less memory: benches/README.md has the figures.
choose_target() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    case $host in
    *-linux-musl*) musl=$host ;;
    *-linux-gnueabihf) musl=${host%-gnueabihf}-musleabihf ;;
    *) musl=${host%-gnu}-musl ;;
    esac
    if [ "$host" = "$musl" ] || links_statically; then
        echo "$host"
        return
    fi
    say "there is no libc.a to link (Debian: libc6-dev, Fedora: glibc-static): building for musl, which is slower"
    if ! has_std "$musl" && command -v rustup >/dev/null 2>&1; then
        rustup -q target add "$musl" </dev/null >&2 || true
    fi
    echo "$musl"
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

# Flags of rustc, one a line: linked statically, random numbers from the kernel's call (which getrandom looks for in a library
# that is loaded, and then in /dev), and no path of this machine in the result. Later prefixes win.
rustc_flags() {
    rust_commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    printf '%s\n' -Ctarget-feature=+crt-static '--cfg=getrandom_backend="linux_getrandom"' \
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

# Sets `target`, `target_dir` and `commit`, and what rustc and the C compiler are told, for the target $1 or one that is chosen.
prepare() {
    target=$1
    command -v cargo >/dev/null 2>&1 || fail 69 "cargo is missing: install the Rust toolchain"
    cd "$here"
    [ -n "$target" ] || target=$(choose_target)
    has_std "$target" || fail 69 "there is no std for $target: rustup target add $target"
    cc=$(choose_cc "$target")
    command -v "${cc%% *}" >/dev/null 2>&1 || fail 69 "there is no C compiler $cc: install gcc, or set CC"
    mkdir -p "${CARGO_TARGET_DIR:-target}/dist"
    target_dir=$(cd "${CARGO_TARGET_DIR:-target}" && pwd -P)
    commit=$(commit_here)
    # Everything is unpacked first, so that its paths are known.
    cargo fetch --locked --quiet --target "$target"
    CARGO_ENCODED_RUSTFLAGS=$(rustc_flags | tr '\n' '\037')
    CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%?}
    triple=$(echo "$target" | tr - _)
    export "CC_$triple=$cc" "CFLAGS_$triple=${CFLAGS-} -U_FORTIFY_SOURCE"
    BIOTOPE_COMMIT=$commit
    CARGO_BUILD_TARGET=$target
    CARGO_TARGET_DIR=$target_dir
    export CARGO_ENCODED_RUSTFLAGS BIOTOPE_COMMIT CARGO_BUILD_TARGET CARGO_TARGET_DIR
    unset RUSTFLAGS CC CFLAGS
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
    prepare "$target"
    say "building $commit for $target"
    cargo build --release --locked --bin biotope >&2

    # What was there goes on to run, and nobody sees half a file.
    made=$target_dir/dist/.biotope.$$
    cp "$target_dir/$target/release/biotope" "$made"
    mv -f "$made" "$target_dir/dist/biotope"
    say "$("$target_dir/dist/biotope" --version | head -n 1), $(wc -c <"$target_dir/dist/biotope") bytes"
    echo "$target_dir/dist/biotope"
}

# --- a host --------------------------------------------------------------------------------------------------------

# A word, as any login shell reads it.
quote() {
    if [ -n "$1" ]; then
        printf '%s\n' "$1" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/"
    else
        echo "''"
    fi
}

sha_of() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum <"$1" | cut -d ' ' -f 1
    else
        shasum -a 256 <"$1" | cut -d ' ' -f 1
    fi
}

# One connection serves all commands, so that nobody is asked for a password twice.
over_ssh() {
    # The first value that ssh meets counts: the caller's own options come first.
    eval "set -- $ssh_options \"\$@\""
    ssh -T -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
        -o ControlMaster=auto -o "ControlPath=$tmp/ssh" -o ControlPersist=60 "$@"
}

# Runs the part that lives on the host, with these settings: there, or here for --root.
on_host() {
    if [ -n "$root" ]; then
        cat "$here/packaging/deploy/"*.sh | sh -s -- "$@" "root=$root"
        return
    fi
    words='sh -s --'
    [ "$privilege" != sudo ] || words='sudo -n sh -s --'
    for word in "$@" "prefix=$prefix"; do
        words="$words $(quote "$word")"
    done
    {
        # On standard input, since everybody on the host sees the words of a command.
        [ -z "${BIOTOPE_TOKEN-}" ] || printf 'export BIOTOPE_TOKEN=%s\n' "$(quote "$BIOTOPE_TOKEN")"
        cat "$here/packaging/deploy/"*.sh
    } | over_ssh -- "$destination" "$words"
}

# What the other end says of itself: sets privilege and stage; leaves the sums of what it has in $tmp/look.
look() {
    privilege=none
    status=0
    on_host action=look "service=$service" >"$tmp/look" || status=$?
    [ "$status" -ne 255 ] || fail 69 "no connection to $destination"
    [ "$status" -eq 0 ] || fail 69 "$destination answers, but has no POSIX sh with coreutils (exit code $status)"
    privilege=$(sed -n 's/^privilege //p' "$tmp/look")
    stage=$(sed -n 's/^stage //p' "$tmp/look")
    if [ "$privilege" = missing ]; then
        fail 77 "$(sed -n 's/^user //p' "$tmp/look") on $destination may not write there, and has no sudo without a password: deploy as root, give that user sudo (NOPASSWD), or use --prefix DIR"
    fi
    [ -n "$stage" ] || fail 69 "$destination did not answer as expected"
}

# What is run there while a file comes in: half a file never has the name of a whole one.
# shellcheck disable=SC2016 # the host's own shell expands it
receive='umask 077
stage=$1 sum=$2
mkdir -p "$stage" || exit 73
for part in "$stage"/*.part.*; do
    [ ! -f "$part" ] || kill -0 "${part##*.}" 2>/dev/null || rm -f "$part"
done
part=$stage/$sum.part.$$
cat >"$part" || { rm -f "$part"; exit 74; }
if [ "$(sha256sum <"$part" | cut -d " " -f 1)" = "$sum" ]; then
    mv -f "$part" "$stage/$sum"
else
    rm -f "$part"
    exit 65
fi'

# send WHAT FILE: has the file lie on the host, and sets sum and there.
send() {
    sum=$(sha_of "$2")
    if [ -n "$root" ]; then
        there=$2
        return
    fi
    there=$stage/$sum
    if grep -q "^has $sum\$" "$tmp/look"; then
        say "$1: the host has it already"
        return
    fi
    size=$(wc -c <"$2" | tr -d ' ')
    if [ "$dry_run" = yes ]; then
        say "would send the $1, $size bytes"
        return
    fi
    say "sending the $1, $size bytes"
    status=0
    over_ssh -- "$destination" "sh -c $(quote "$receive") sh $(quote "$stage") $(quote "$sum")" <"$2" || status=$?
    case $status in
    0) ;;
    65) fail 75 "the $1 did not arrive whole: run this again; nothing was changed" ;;
    73 | 74) fail 74 "$destination cannot take the $1: no room in $stage? nothing was changed" ;;
    255) fail 75 "the connection broke: run this again; nothing was changed" ;;
    *) fail 74 "$destination could not take the $1 (exit code $status); nothing was changed" ;;
    esac
}

is_number() {
    case $2 in
    '' | *[!0-9]*) fail 64 "$1 needs a number of seconds, not \"$2\"" ;;
    esac
}

is_absolute() {
    case $2 in
    /?*) ;;
    *) fail 64 "$1 needs a path that begins with /, not \"$2\"" ;;
    esac
}

add_ssh_option() {
    ssh_options="$ssh_options $1 $(quote "$2")"
}

host_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --dry-run)
            dry_run=yes
            shift
            continue
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -?*)
            [ $# -ge 2 ] || fail 64 "$1 needs a value; $name --help tells more"
            ;;
        *)
            [ -z "$destination" ] || fail 64 "one host at a time: \"$destination\" or \"$1\"?"
            destination=$1
            shift
            continue
            ;;
        esac
        case $1 in
        --config) config=$2 ;;
        --binary) binary=$2 ;;
        --unit) unit=$2 ;;
        --root) root=$2 ;;
        --prefix) prefix=$2 ;;
        --service) service=$2 ;;
        --run) run=$2 ;;
        --restart) restart=$2 ;;
        --timeout | --rollout-timeout | --settle) is_number "$1" "$2" ;;
        --port) add_ssh_option -p "$2" ;;
        --identity) add_ssh_option -i "$2" ;;
        -o) add_ssh_option -o "$2" ;;
        *) fail 64 "$action knows no $1; $name --help tells more" ;;
        esac
        case $1 in
        --timeout) timeout=$2 ;;
        --rollout-timeout) rollout_timeout=$2 ;;
        --settle) settle=$2 ;;
        esac
        shift 2
    done
}

check_arguments() {
    case $service in
    auto | systemd | none) ;;
    *) fail 64 "--service is auto, systemd or none, not \"$service\"" ;;
    esac
    case $restart in
    needed | never) ;;
    *) fail 64 "--restart is needed or never, not \"$restart\"" ;;
    esac
    [ -z "$prefix" ] || is_absolute --prefix "$prefix"
    if [ -n "$root" ]; then
        [ -z "$destination$prefix" ] || fail 64 "--root DIR lays files down here: without a host, and without --prefix"
        case $action in
        check | install | upgrade) ;;
        *) fail 64 "$action is for a host: nothing runs in --root DIR" ;;
        esac
        [ -d "$root" ] || fail 73 "there is no folder $root"
        root=$(cd "$root" && pwd -P)
        [ "$root" != / ] || fail 64 "--root / is this machine: $name $action user@localhost"
    fi
    [ -n "$destination$root" ] || fail 64 "$action needs a host: $name $action user@host"
    for file in "$config" "$binary"; do
        [ -z "$file" ] || { [ -f "$file" ] && [ -r "$file" ]; } || fail 66 "there is no file $file that can be read"
    done
}

# Which files go along: those that are named; where none is, or it is the first time, those that lie where one expects them.
choose_files() {
    case $action in
    rollback | status)
        binary='' config=''
        return
        ;;
    check | upgrade) [ -z "$binary$config" ] || return 0 ;;
    esac
    if [ -z "$binary" ] && [ -f "$here/target/dist/biotope" ]; then
        binary=$here/target/dist/biotope
    fi
    if [ -z "$config" ] && [ -f biotope.toml ]; then
        config=biotope.toml
    fi
    [ -n "$binary$config" ] || fail 66 "there is neither $here/target/dist/biotope nor ./biotope.toml: name what is to be brought by --binary or --config"
    if [ "$action" = install ] && [ -z "$binary" ]; then
        fail 66 "there is no $here/target/dist/biotope: run $name build first, or name a file by --binary"
    fi
    say "bringing ${binary:+$binary }${config:+$config}"
}

on_a_host() {
    action=$1
    shift
    destination='' config='' binary='' root='' prefix='' service=auto run='' restart=needed timeout=60 rollout_timeout=600
    settle=3 dry_run=no ssh_options='' privilege=none stage=''
    unit=$here/packaging/systemd/biotope.service
    host_arguments "$@"
    check_arguments
    choose_files
    tmp=$(mktemp -d)
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    : >"$tmp/look"
    [ -n "$root" ] || look
    set -- "action=$action" "service=$service" "run=$run" "restart=$restart" "timeout=$timeout" "settle=$settle" \
        "rollout_timeout=$rollout_timeout" "dry=$dry_run" "by=$(id -un) on $(uname -n)" "stage=$stage"
    if [ -n "$binary" ]; then
        send binary "$binary"
        set -- "$@" "binary_file=$there" "binary_sha=$sum"
    fi
    if [ -n "$config" ]; then
        send config "$config"
        set -- "$@" "config_file=$there" "config_sha=$sum"
    fi
    if [ "$action" = install ]; then
        send unit "$unit"
        set -- "$@" "unit_file=$there"
        send "user's name" "${unit%/*}/sysusers.conf"
        set -- "$@" "sysusers_file=$there"
    fi
    status=0
    on_host "$@" || status=$?
    if [ "$status" -eq 255 ]; then
        fail 75 "the connection broke: what had begun there goes on to its end by itself; \`$name status\` shows it, and the same command again mends it"
    fi
    exit "$status"
}

leave() {
    status=$?
    trap - EXIT
    if [ -S "$tmp/ssh" ]; then
        over_ssh -O exit -- "$destination" >/dev/null 2>&1 || :
    fi
    rm -rf "$tmp"
    exit "$status"
}

case ${1-} in
build)
    shift
    build "$@"
    ;;
check | install | upgrade | rollback | status)
    on_a_host "$@"
    ;;
cargo)
    shift
    prepare ""
    exec cargo "$@"
    ;;
-h | --help | help)
    usage
    ;;
*)
    usage >&2
    exit 64
    ;;
esac
