# What deploy.sh does on a host: the files of this folder, one after the other, sent there over ssh as standard input of
# `sh -s`, or run here for `--root DIR`. This one: words, settings, what is there, the lock, the records.
#
# Together they own everything that changes there: the files, the records of what was there before, the service. They never ask
# the network for anything. What they begin they bring to an end, whatever becomes of the connection that they came by: to the
# new state or back to the old one. Where they are killed, the next run mends it.
#
# They need a POSIX sh, coreutils (busybox will do), /proc, and systemd only where there is one. Words go to stderr, results to
# stdout; exit codes are those of deploy.sh. Everything is a function, and the last line of the last file calls: half of it does
# nothing.
set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

# --- words ---------------------------------------------------------------------------------------------------------

# The other end may have gone: what is said then is in the log alone.
say() {
    if [ -n "$log" ]; then
        printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$log" || :
    fi
    printf '%s\n' "$*" >&2 2>/dev/null || :
}

# Shows what a command has said.
relay() {
    while IFS= read -r line || [ -n "$line" ]; do
        say "  $line"
    done <"$1"
}

fail() {
    code=$1
    shift
    say "$*"
    exit "$code"
}

# step WORDS COMMAND...: does it, or says only that it would.
step() {
    what=$1
    shift
    if [ "$dry" = yes ]; then
        say "would $what"
    else
        say "$what"
        "$@" || { say "that failed: $what"; return 1; }
    fi
}

sha_of() {
    if [ -f "$1" ] && [ -r "$1" ]; then
        sha256sum <"$1" | cut -d ' ' -f 1
    else
        echo none
    fi
}

short() {
    printf '%.12s' "$1"
}

# --- settings ------------------------------------------------------------------------------------------------------

settings() {
    action='' root='' prefix='' service=auto run='' restart=needed timeout=60 rollout_timeout=600 settle=3 dry=no
    binary_file='' binary_sha='' config_file='' config_sha='' unit_file='' sysusers_file='' stage=''
    log='' tmp='' locked=no fresh=no made='' data_dir='' started='' by=''
    for setting in "$@"; do
        value=${setting#*=}
        case ${setting%%=*} in
        action) action=$value ;;
        root) root=$value ;;
        prefix) prefix=$value ;;
        service) service=$value ;;
        run) run=$value ;;
        restart) restart=$value ;;
        timeout) timeout=$value ;;
        rollout_timeout) rollout_timeout=$value ;;
        settle) settle=$value ;;
        dry) dry=$value ;;
        binary_file) binary_file=$value ;;
        binary_sha) binary_sha=$value ;;
        config_file) config_file=$value ;;
        config_sha) config_sha=$value ;;
        unit_file) unit_file=$value ;;
        sysusers_file) sysusers_file=$value ;;
        stage) stage=$value ;;
        by) by=$value ;;
        *) fail 70 "no setting of this script: $setting" ;;
        esac
    done
    if [ -n "$prefix" ]; then
        bin=$prefix/biotope config=$prefix/biotope.toml state=$prefix/.deploy out=$prefix/biotope.log
    else
        bin=$root/usr/local/bin/biotope config=$root/etc/biotope/biotope.toml
        state=$root/var/lib/biotope-deploy out=$root/var/log/biotope.log
    fi
    unit=$root/etc/systemd/system/biotope.service
    wants=$root/etc/systemd/system/multi-user.target.wants/biotope.service
    sysusers=$root/etc/sysusers.d/biotope.conf
    bin_new=${bin%/*}/.biotope.new
    config_new=${config%/*}/.biotope.toml.new
    if [ "$service" = auto ]; then
        service=none
        if [ -n "$root" ]; then
            service=files
        elif [ -z "$prefix" ] && [ -d /run/systemd/system ]; then
            service=systemd
        fi
    fi
}

# --- looking -------------------------------------------------------------------------------------------------------

# The nearest folder that exists of a path.
nearest() {
    at=${1%/*}
    while [ -n "$at" ] && [ ! -d "$at" ]; do
        at=${at%/*}
    done
    echo "${at:-/}"
}

# What the other end has to know, a word and its value a line. Changes nothing.
look() {
    privilege=none
    if [ "$(id -u)" -ne 0 ]; then
        for place in "$bin" "$config" "$state/x"; do
            [ -w "$(nearest "$place")" ] || privilege=sudo
        done
        [ "$service" != systemd ] || privilege=sudo
        if [ "$privilege" = sudo ] && ! sudo -n true >/dev/null 2>&1; then
            privilege=missing
        fi
    fi
    echo "privilege $privilege"
    echo "user $(id -un 2>/dev/null || id -u)"
    echo "stage ${HOME%/}/.biotope-deploy"
    for file in "${HOME%/}/.biotope-deploy/"*; do
        case $file in
        *.part.*) ;;
        *) [ ! -f "$file" ] || echo "has $(sha_of "$file")" ;;
        esac
    done
    echo "has $(sha_of "$bin")"
    echo "has $(sha_of "$config")"
}

# Runs a command as whom the service runs as: what root may read says nothing about it, and its tokens are its own.
as_service() {
    user=
    if [ "$service" = systemd ] && [ "$(id -u)" -eq 0 ]; then
        user=$(systemctl show -p User --value biotope.service 2>/dev/null) || user=
        if [ -z "$user" ] || [ "$user" = root ] || ! id -u "$user" >/dev/null 2>&1 || ! command -v runuser >/dev/null; then
            user=
        fi
    fi
    if [ -n "$user" ]; then
        runuser -u "$user" -- "$@" </dev/null
    else
        "$@" </dev/null
    fi
}

# The pid of the biotope that runs; nothing if there is none.
main_pid() {
    if [ "$service" = systemd ]; then
        pid=$(systemctl show -p MainPID --value biotope.service 2>/dev/null) || pid=
        [ "$pid" != 0 ] || pid=
    else
        pid=
        if [ -n "$data_dir" ] && [ -f "$data_dir/LOCK" ]; then
            read -r pid <"$data_dir/LOCK" || :
        fi
        # The file stays when the process goes; another one may have its number by now.
        case $pid in
        '' | *[!0-9]*) pid= ;;
        *)
            # Which file that is, the kernel shows to root alone where memory is not dumped; its name, to everybody.
            case $(readlink "/proc/$pid/exe" 2>/dev/null || cat "/proc/$pid/comm" 2>/dev/null) in
            */biotope | */biotope\ * | biotope) ;;
            *) pid= ;;
            esac
            ;;
        esac
    fi
    echo "$pid"
}

# The bytes that the running process is made of.
running_sha() {
    at_work=$(main_pid)
    if [ -z "$at_work" ]; then
        echo none
    elif [ -r "/proc/$at_work/exe" ]; then
        sha256sum <"/proc/$at_work/exe" 2>/dev/null | cut -d ' ' -f 1
    elif timeout 10 "$bin" --config "$config" status --json 2>/dev/null | grep -q "\"file_id\": *\"$(stat -Lc %d:%i "$bin")\""; then
        sha_of "$bin"
    else
        echo unknown
    fi
}

# Asks the running biotope for its state; what it says of itself is then in $tmp/status.
answers() {
    as_service timeout 10 "$bin" --config "$config" status --json >"$tmp/status" 2>"$tmp/why"
}

# A value of one line of JSON, as it is written.
member() {
    sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$2" | head -n 1
}

# --- one at a time -------------------------------------------------------------------------------------------------

# A process, told from others that had its number before; one that has ended and is not reaped is none.
identity() {
    echo "$1:$(sed 's/.*) //; /^[ZX]/d' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20)"
}

# The lock is a link that says who has it: made in one step, and known to be left over when that process is gone.
take_lock() {
    until_then=$(($(date +%s) + timeout))
    told=no
    while ! ln -s "$(identity $$)" "$state/lock" 2>/dev/null; do
        holder=$(readlink "$state/lock") || continue
        if [ "$(identity "${holder%%:*}")" != "$holder" ]; then
            break_lock "$holder"
            continue
        fi
        if [ "$told" = no ]; then
            say "another deployment is under way here (process ${holder%%:*}); waiting for its end, ${timeout} s at most"
            told=yes
        fi
        [ "$(date +%s)" -lt "$until_then" ] || fail 75 "it has not ended; try again later, or look at $state/log"
        sleep 1
    done
    locked=yes
}

# Only one at a time may take away what a dead one left, and only if it is still that.
break_lock() {
    if mkdir "$state/lock.breaking" 2>/dev/null; then
        [ "$(readlink "$state/lock")" != "$1" ] || rm -f "$state/lock"
        rmdir "$state/lock.breaking"
    else
        [ "$(date +%s)" -lt "$until_then" ] || fail 75 "$state/lock.breaking is left over: remove it, and try again"
        sleep 1
    fi
}

leave() {
    code=$?
    trap - EXIT
    if [ "$dry" = no ]; then
        rm -f "$bin_new" "$config_new"
        [ "$locked" = no ] || rm -f "$state/lock"
        # Folders that were made for nothing.
        for dir in $made; do
            rmdir "$dir" 2>/dev/null || :
        done
    fi
    [ -z "$tmp" ] || rm -rf "$tmp"
    exit "$code"
}

make_dir() {
    if [ ! -d "$1" ]; then
        case $1 in
        /*/*) make_dir "${1%/*}" 755 || return 1 ;;
        esac
        mkdir -m "$2" "$1" || return 1
        made="$1 $made"
    fi
}

begin() {
    # What is begun here ends, even if nobody listens any more.
    trap '' HUP INT PIPE
    tmp=$(mktemp -d)
    trap leave EXIT
    if [ "$dry" = no ] && [ "$service" != files ]; then
        make_dir "$state" 700 || fail 73 "cannot make $state"
        take_lock
        log=$state/log
        { touch "$log" && chmod 600 "$log"; } || fail 73 "cannot write $log"
        keep_log_short
        say "$action, asked for by ${by:-somebody}"
    fi
}

keep_log_short() {
    if [ "$(wc -c <"$log")" -gt 1048576 ]; then
        tail -n 2000 "$log" >"$log.new" && mv -f "$log.new" "$log"
    fi
}

# --- records -------------------------------------------------------------------------------------------------------

# `current`, `previous` and `doing` say which bytes, by their sums; the bytes are in kept/.
record() {
    sed -n "s/^$2=//p" "$state/$1" 2>/dev/null | head -n 1
}

write_record() {
    to=$state/$1
    shift
    printf '%s\n' "$@" "at=$(date -u +%Y-%m-%dT%H:%M:%SZ)" "by=$by" >"$to.new" && flush "$to.new" && mv -f "$to.new" "$to"
}

flush() {
    sync "$1" 2>/dev/null || sync
}

# Keeps a copy of a file, under its sum.
keep() {
    sum=$(sha_of "$1")
    if [ "$sum" != none ] && [ "$(sha_of "$state/kept/$sum")" != "$sum" ]; then
        cp "$1" "$state/kept/.new" && flush "$state/kept/.new" && mv -f "$state/kept/.new" "$state/kept/$sum"
    fi
}

forget_others() {
    for file in "$state/kept/"*; do
        if [ -f "$file" ] && ! grep -q "=${file##*/}\$" "$state/current" "$state/previous" "$state/doing" 2>/dev/null; then
            rm -f "$file"
        fi
    done
}
