# The service on the host: started, evolved, restarted, seen to be healthy; and made, the first time.

# --- the service ---------------------------------------------------------------------------------------------------

start_service() {
    if [ "$service" = systemd ]; then
        systemctl reset-failed biotope.service 2>/dev/null || :
        timeout "$timeout" systemctl start biotope.service || { say "systemctl start biotope failed"; return 1; }
    elif [ -n "$run" ]; then
        (
            trap - HUP INT PIPE EXIT
            BIN=$bin CONFIG=$config exec timeout "$timeout" sh -c "$run" >"$tmp/out" 2>&1 </dev/null
        ) || {
            relay "$tmp/out"
            say "the command of --run failed: $run"
            return 1
        }
    else
        start_by_hand
    fi
}

# Without a service manager: a process of its own session, which outlives this one. Nobody starts it after a reboot.
start_by_hand() {
    apart=
    ! command -v setsid >/dev/null 2>&1 || apart=setsid
    (
        trap - INT PIPE EXIT
        # Without a session of its own it might still hear of the end of this one.
        [ -z "$apart" ] || trap - HUP
        cd / || exit 1
        umask 077
        exec $apart "$bin" run "$config" >>"$out" 2>&1 </dev/null
    ) &
    started=$!
}

stop_service() {
    if [ "$service" = systemd ]; then
        timeout "$timeout" systemctl stop biotope.service || systemctl kill --signal=SIGKILL biotope.service || :
        return
    fi
    ending=$(main_pid)
    [ -n "$ending" ] || ending=$started
    [ -n "$ending" ] || return 0
    kill -TERM "$ending" 2>/dev/null || return 0
    until_then=$(($(date +%s) + timeout))
    while kill -0 "$ending" 2>/dev/null; do
        if [ "$(date +%s)" -ge "$until_then" ]; then
            say "process $ending does not end; killing it"
            kill -KILL "$ending" 2>/dev/null || :
            until_then=$((until_then + timeout))
        fi
        pause
    done
}

pause() {
    sleep 0.2 2>/dev/null || sleep 1
}

restart_service() {
    if [ "$restart" = never ]; then
        say "only a restart can take that over, and --restart never forbids it"
        return 1
    fi
    say "stopping biotope and starting it again: nobody is served meanwhile"
    if [ "$service" = systemd ]; then
        systemctl reset-failed biotope.service 2>/dev/null || :
        timeout "$timeout" systemctl restart biotope.service || { say "systemctl restart biotope failed"; return 1; }
    else
        stop_service
        start_service || return 1
    fi
    until_healthy
}

# Waits until the installed binary runs and answers, and goes on to do so for a moment.
until_healthy() {
    until_then=$(($(date +%s) + timeout))
    while :; do
        if answers && [ "$(running_sha)" = "$(sha_of "$bin")" ]; then
            break
        fi
        if [ "$service" = none ] && [ -n "$started" ] && ! kill -0 "$started" 2>/dev/null && [ -z "$(main_pid)" ]; then
            [ ! -f "$out" ] || tail -n 5 "$out" >"$tmp/why"
            relay "$tmp/why"
            say "biotope ended at once"
            return 1
        fi
        if [ "$(date +%s)" -ge "$until_then" ]; then
            relay "$tmp/why"
            say "biotope did not serve within $timeout s"
            return 1
        fi
        pause
    done
}

# What comes up and falls over is not up.
stays_healthy() {
    healthy_pid=$(main_pid)
    until_then=$(($(date +%s) + settle))
    while [ "$(date +%s)" -lt "$until_then" ]; do
        sleep 1
        if ! answers || [ "$(main_pid)" != "$healthy_pid" ]; then
            relay "$tmp/why"
            say "biotope served, and then did not"
            return 1
        fi
    done
    say "biotope serves (process $healthy_pid)"
}

# The running binary becomes the installed one: in the same process where it can, by a restart where it cannot.
evolve_binary() {
    want=$(sha_of "$bin")
    [ "$(running_sha)" != "$want" ] || return 0
    say "replacing the running binary, in the same process"
    code=0
    as_service "$bin" --config "$config" upgrade --wait >"$tmp/out" 2>&1 || code=$?
    relay "$tmp/out"
    case $code in
    0)
        if [ "$(running_sha)" != "$want" ]; then
            say "it runs another file than $bin: $(readlink "/proc/$(main_pid)/exe" 2>/dev/null)"
            return 1
        fi
        until_healthy
        ;;
    69 | 80) restart_service ;;
    *) return 1 ;;
    esac
}

# The running config becomes the installed one, and its verdict is waited for.
evolve_config() {
    say "having the config taken over"
    code=0
    as_service timeout "$rollout_timeout" "$bin" --config "$config" reload --wait >"$tmp/out" 2>&1 || code=$?
    relay "$tmp/out"
    case $code in
    0) ;;
    75 | 124) say "accepted; the rollout goes on after $rollout_timeout s: \`biotope status\` shows how it stands" ;;
    69 | 80) restart_service || return 1 ;;
    *) return 1 ;;
    esac
    answers || { relay "$tmp/why"; return 1; }
}

# --- the first time ------------------------------------------------------------------------------------------------

# The unit, with the place of the binary in it.
lay_unit() {
    make_dir "${unit%/*}" 755 && make_dir "${sysusers%/*}" 755 || return 1
    sed "s|^ExecStart=/usr/bin/biotope|ExecStart=${bin#"$root"}|" "$unit_file" >"$unit.new" && chmod 644 "$unit.new" || return 1
    grep -q "^ExecStart=${bin#"$root"} " "$unit.new" || { say "the unit starts another program than ${bin#"$root"}"; return 1; }
    cp "$sysusers_file" "$sysusers.new" && chmod 644 "$sysusers.new" && mv -f "$sysusers.new" "$sysusers" || return 1
    flush "$unit.new" && mv -f "$unit.new" "$unit"
}

unit_is_there() {
    sed "s|^ExecStart=/usr/bin/biotope|ExecStart=${bin#"$root"}|" "$unit_file" >"$tmp/unit"
    cmp -s "$tmp/unit" "$unit" && cmp -s "$sysusers_file" "$sysusers"
}

make_user() {
    if ! id -u biotope >/dev/null 2>&1; then
        if command -v systemd-sysusers >/dev/null 2>&1; then
            systemd-sysusers "$sysusers"
        else
            useradd --system --user-group --home-dir /var/lib/biotope --no-create-home --shell /usr/sbin/nologin biotope
        fi
    fi
}

install_unit() {
    case $service in
    systemd | files) ;;
    *) return 0 ;;
    esac
    [ -n "$unit_file" ] || fail 64 "there is no unit to install"
    if ! unit_is_there; then
        step "install the unit $unit" lay_unit || return 1
        if [ "$service" = systemd ]; then
            step "tell systemd" systemctl daemon-reload || return 1
        fi
    fi
    if [ "$service" = files ]; then
        [ -h "$wants" ] || step "enable it at boot" enable_by_link || return 1
        make_user_in_root
        return
    fi
    step "make the user biotope, if there is none" make_user || return 1
    if ! systemctl is-enabled --quiet biotope.service 2>/dev/null; then
        step "enable it at boot" systemctl enable --quiet biotope.service
    fi
}

# Where nobody can make the user now, its first boot does, by sysusers.d.
make_user_in_root() {
    if [ "$(id -u)" -eq 0 ] && command -v systemd-sysusers >/dev/null 2>&1 && [ -f "$root/etc/passwd" ]; then
        step "make the user biotope, if there is none" systemd-sysusers --root="$root" biotope.conf
    else
        say "the user biotope is made at boot, as $sysusers says"
    fi
}

enable_by_link() {
    make_dir "${wants%/*}" 755 && ln -s ../biotope.service "$wants.new" && mv -f "$wants.new" "$wants"
}
