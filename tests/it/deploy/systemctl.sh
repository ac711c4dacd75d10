#!/bin/sh
# As much of systemctl as deploy.sh uses: one unit, started as it says and as whom it says. Where it was called, and how, is
# written down for the test.
set -eu
unit=/etc/systemd/system/biotope.service
state=/run/systemctl
mkdir -p "$state"
echo "$*" >>"$state/calls"

of_unit() {
    sed -n "s/^$1=//p" "$unit" 2>/dev/null | head -n 1
}

main_pid() {
    if [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; then
        cat "$state/pid"
    else
        echo 0
    fi
}

start() {
    [ "$(main_pid)" = 0 ] || return 0
    [ -e "$state/loaded" ] || { echo "Unit biotope.service not found." >&2; exit 5; }
    user=$(of_unit User)
    mkdir -p /var/lib/biotope
    chown "$user:$user" /var/lib/biotope
    # shellcheck disable=SC2046 # the words of the command
    setsid setpriv --reuid="$user" --regid="$user" --init-groups $(of_unit ExecStart) >>"$state/journal" 2>&1 </dev/null &
    echo $! >"$state/pid"
    # READY of Type=notify, and a process that ends before it.
    while ! grep -q "ready after" "$state/journal"; do
        kill -0 "$(cat "$state/pid")" 2>/dev/null || { cat "$state/journal" >&2; exit 1; }
        sleep 0.1
    done
}

stop() {
    pid=$(main_pid)
    [ "$pid" != 0 ] || return 0
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    : >"$state/journal"
}

case $1 in
show)
    case $3 in
    MainPID) main_pid ;;
    User) of_unit User ;;
    *) exit 2 ;;
    esac
    ;;
daemon-reload) [ ! -f "$unit" ] || : >"$state/loaded" ;;
is-enabled) [ -e "$state/enabled" ] ;;
enable) : >"$state/enabled" ;;
disable) rm -f "$state/enabled" ;;
reset-failed) ;;
start) start ;;
stop) stop ;;
restart)
    stop
    start
    ;;
*) exit 2 ;;
esac
