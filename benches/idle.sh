#!/bin/bash
# What a biotope costs that has nothing to do: processor time and memory over ten seconds with four pools, or so many, and
# how long a start takes until a request is answered.
#
#   benches/idle.sh [--pools N] [BIOTOPE]     the program to measure; by default what is shipped, made if it is not there
#
# Prints each figure beside its target; exits with 1 if one is missed. Five starts, medians. The first start makes the
# log, and writes a spare segment behind: it is measured by itself, and waited for before anything else is.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

pools=4
if [ "${1-}" = --pools ]; then
    pools=$2
    shift 2
fi
# Four pools are to take less than 20 MiB, two hundred less than 40.
most=$((20 + pools / 10))
# Each pool is made, and ended.
spent_most=$(awk -v pools="$pools" 'BEGIN { printf "%.2f", 0.02 + pools * 0.0003 }')
if [ $# -gt 0 ]; then
    biotope=$(realpath -- "$1")
else
    biotope=$(realpath -m -- "${CARGO_TARGET_DIR:-target}/dist/biotope")
    [ -x "$biotope" ] || ./deploy.sh build >/dev/null
fi
[ -x /usr/bin/time ] || { echo "benches/idle.sh: /usr/bin/time is missing: install the package time" >&2; exit 69; }

dir=$(mktemp -d "${TMPDIR:-/var/tmp}/biotope-idle.XXXXXX")
pid=
trap '[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true; rm -rf "$dir"' EXIT

port=$((20000 + $$ % 10000))
{
    printf '[http]\nlisten = "127.0.0.1:%d"\n' "$port"
    for ((n = 1; n <= pools; n++)); do
        printf '[workers.type-%d]\nversion = "v1"\nexec = ["cat"]\n' "$n"
    done
} >"$dir/biotope.toml"

# Whether the biotope answers that it is ready.
ready() {
    local answer
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
    read -r answer <&3 || answer=
    exec 3<&- 3>&-
    [[ $answer == *" 200 "* ]]
}

# Starts a biotope under /usr/bin/time and waits for its first answer; sets `pid` and `took` (microseconds).
start() {
    local began=${EPOCHREALTIME/./}
    /usr/bin/time -v -o "$dir/time.txt" "$biotope" run "$dir/biotope.toml" 2>"$dir/stderr.txt" &
    until { ready; } 2>/dev/null; do
        [ $((${EPOCHREALTIME/./} - began)) -lt 30000000 ] || { cat "$dir/stderr.txt" >&2; exit 1; }
    done
    took=$((${EPOCHREALTIME/./} - began))
    pid=$(cat "$dir/data/LOCK")
}

# Waits until the next segment stands ready behind the active one.
settle() {
    local segments
    until segments=("$dir"/data/log/*.seg) && [ "${#segments[@]}" -ge 2 ] && ! compgen -G "$dir/data/log/*.tmp" >/dev/null; do
        sleep 0.1
    done
}

# Ends it in good order, and waits until it has.
stop() {
    kill -TERM "$pid"
    wait
    pid=
}

# Nanoseconds on a processor of all threads so far, and how often they were woken.
spent() {
    # The index of ended jobs brings threads of its library that look about once a second: their time counts, their
    # wake-ups are told by themselves.
    for task in /proc/"$pid"/task/*; do
        printf '%s %s\n' "$(cat "$task/comm")" "$(cat "$task/schedstat")"
    done | awk '{ ns += $(NF - 2); if ($1 !~ /^sled/) runs += $NF } END { printf "%d %d\n", ns, runs }'
}

missed=0
# figure NAME VALUE UNIT TARGET: VALUE must be below TARGET.
figure() {
    local word=ok
    awk -v value="$2" -v target="$4" 'BEGIN { exit !(value < target) }' || { word=MISSED missed=1; }
    printf '%-34s %10s %-4s (target below %s) %s\n' "$1" "$2" "$3" "$4" "$word"
}

start
printf '%-34s %10s ms\n' "first start, makes the log" "$(awk -v us="$took" 'BEGIN { printf "%.1f", us / 1000 }')"
settle
stop
starts=()
for _ in 1 2 3 4 5; do
    start
    starts+=("$took")
    [ "${#starts[@]}" -eq 5 ] || stop
done
median=$(printf '%s\n' "${starts[@]}" | sort -n | sed -n 3p)
figure "start to the first answer" "$(awk -v us="$median" 'BEGIN { printf "%.1f", us / 1000 }')" ms 50

settle
read -r ns_before runs_before < <(spent)
sleep 10
read -r ns_after runs_after < <(spent)
figure "processor time, idle for 10 s" "$(awk -v ns=$((ns_after - ns_before)) 'BEGIN { printf "%.4f", ns / 1e9 }')" s 0.02
figure "wake-ups, idle for 10 s" $((runs_after - runs_before)) "" 20
rss=$(awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' /proc/"$pid"/status)
stop
total=$(awk -F': ' '/(User|System) time/ { s += $2 } END { printf "%.2f", s }' "$dir/time.txt")
peak=$(awk -F': ' '/Maximum resident/ { printf "%.1f", $2 / 1024 }' "$dir/time.txt")
figure "processor time, start and stop too" "$total" s "$spent_most"
figure "memory (RSS) idle" "$rss" MiB "$most"
figure "memory (RSS) at most" "$peak" MiB "$most"
exit "$missed"
