# Deployments: what is asked for, from the checks to the end or back.

# --- deployments ---------------------------------------------------------------------------------------------------

# What is there, and what is to be.
compare() {
    had_bin=$(sha_of "$bin")
    had_config=$(sha_of "$config")
    : "${binary_sha:=$had_bin}" "${config_sha:=$had_config}"
    [ "$had_bin" != none ] || fresh=yes
    if [ "$fresh" = yes ] && [ "$action" = upgrade ]; then
        fail 69 "there is no $bin: \`install\` does it the first time"
    fi
    [ "$binary_sha" != none ] || fail 64 "nothing is installed here yet: --binary FILE names the binary that is to be"
    [ "$config_sha" != none ] || fail 64 "there is no config on the host: --config FILE"
    for pair in "binary $had_bin $binary_sha" "config $had_config $config_sha"; do
        # shellcheck disable=SC2086 # three words
        set -- $pair
        if [ "$2" = "$3" ]; then
            say "$1: $(short "$3"), as it is"
        else
            say "$1: $(short "$3") instead of $(short "$2")"
        fi
    done
}

# What was sent is still there, and whole.
has_arrived() {
    [ "$(sha_of "$1")" = "$2" ] || fail 75 "$1 is gone, or not what was sent: another deployment ended meanwhile? Run this again; nothing was changed"
}

lay_candidates() {
    { make_dir "${bin%/*}" 755 && make_dir "${config%/*}" 755; } || fail 73 "cannot make ${bin%/*} or ${config%/*}"
    if [ "$binary_sha" != "$had_bin" ]; then
        has_arrived "$binary_file" "$binary_sha"
        lay_binary "$binary_file" "$binary_sha" || fail 74 "cannot lay the new binary beside $bin: is the disk full?"
    fi
    if [ "$config_sha" != "$had_config" ]; then
        has_arrived "$config_file" "$config_sha"
        lay_config "$config_file" "$config_sha" || fail 74 "cannot lay the new config beside $config: is the disk full?"
    fi
}

check_candidates() {
    next_bin=$bin next_config=$config
    [ ! -e "$bin_new" ] || next_bin=$bin_new
    [ ! -e "$config_new" ] || next_config=$config_new
    find_data
    [ "$next_bin" = "$bin" ] || check_binary
    check_pair "$next_bin" "$next_config"
    if [ -n "$data_dir" ] && [ "$data_new" != "$data_dir" ] && [ -e "$data_dir/LOCK" ]; then
        fail 78 "the config moves data_dir from $data_dir to $data_new, and no job would come along: stop biotope and move it by hand first; nothing was changed"
    fi
    data_dir=$data_new
}

# From here on something changes; where it ends in between, the next run knows what was there.
note_intent() {
    make_dir "$state/kept" 700 || return 1
    if [ -e "$state/doing" ]; then
        from_bin=$(record doing from_binary)
        from_config=$(record doing from_config)
        say "an earlier deployment did not end (begun $(record doing at)); what was there before it is kept"
    else
        from_bin=$had_bin
        from_config=$had_config
        keep "$bin" && keep "$config" || return 1
    fi
    write_record doing "from_binary=$from_bin" "from_config=$from_config" "binary=$binary_sha" "config=$config_sha"
}

note_success() {
    if [ "$from_bin/$from_config" != "$binary_sha/$config_sha" ] && [ "$from_bin" != none ]; then
        write_record previous "binary=$from_bin" "config=$from_config" || return 1
    fi
    if [ "$(record current binary)/$(record current config)" != "$binary_sha/$config_sha" ]; then
        write_record current "binary=$binary_sha" "config=$config_sha" || return 1
    fi
    rm -f "$state/doing"
    forget_others
}

# Both files into place and the service to them. One after the other where each goes with what was there before.
switch() {
    if [ -z "$(main_pid)" ]; then
        put_binary && put_config && start_new
        return
    fi
    if [ -e "$bin_new" ] && [ -e "$config_new" ] && as_service "$bin_new" --config "$config" check-config >/dev/null 2>&1; then
        put_binary && evolve_binary && put_config && evolve_config
    else
        put_binary && put_config && evolve_binary && evolve_config
    fi
}

put_binary() {
    [ ! -e "$bin_new" ] || step "put the new binary into its place: $bin" place "$bin_new" "$bin"
}

put_config() {
    if [ -e "$config_new" ]; then
        [ -e "$config" ] || give_config "$config_new" || return 1
        step "put the new config into its place: $config" place "$config_new" "$config"
    fi
}

start_new() {
    step "start biotope" start_service && until_healthy
}

# Back to what was there, and serving.
restore() {
    say "going back to what was there before"
    # What has served before is given its time.
    [ "$timeout" -ge 60 ] || timeout=60
    if [ "$from_bin" = none ]; then
        stop_service
        remove_all
        return
    fi
    lay_binary "$state/kept/$from_bin" "$from_bin" && place "$bin_new" "$bin" || return 1
    if [ "$from_config" != none ]; then
        lay_config "$state/kept/$from_config" "$from_config" && place "$config_new" "$config" || return 1
    fi
    if [ -n "$(main_pid)" ] && answers; then
        evolve_binary && evolve_config && return
    fi
    restart=needed
    restart_service
}

# A first installation that came to nothing leaves what it did not make, and the data directory.
remove_all() {
    if [ "$service" = systemd ]; then
        systemctl disable --quiet biotope.service 2>/dev/null || :
        rm -f "$unit" "$sysusers"
        systemctl daemon-reload || :
    fi
    rm -f "$bin"
    [ "$from_config" != none ] || rm -f "$config"
    forget_others
}

has_to_install() {
    [ "$fresh" = yes ] || [ "$action" = install ]
}

deploy() {
    begin
    refuse_package
    compare
    if [ "$dry" = yes ]; then
        plan
        return
    fi
    lay_candidates
    if [ "$service" = files ]; then
        lay_down
        return
    fi
    check_candidates
    if [ "$action" = check ]; then
        say "all of it passes; nothing was changed"
        return
    fi
    note_intent || fail 74 "cannot keep what is there in $state: is the disk full?"
    if { ! has_to_install || install_unit; } && switch && stays_healthy && note_success; then
        made=
        clear_stage
        say "done: $("$bin" --version | head -n 1) serves with the config $(short "$config_sha")"
    elif restore; then
        rm -f "$state/doing"
        fail 79 "it was taken back: what was there before is there again"
    else
        made=
        fail 79 "IT COULD NOT BE TAKEN BACK: look at $state/log, mend what it says, and run this again"
    fi
}

# What was sent is in its place.
clear_stage() {
    for file in "$stage/"*; do
        case $file in
        *.part.*) ;;
        *) [ -z "$stage" ] || rm -f "$file" ;;
        esac
    done
}

# For images and packages: files alone, checked from inside where that can be.
lay_down() {
    if [ "$(id -u)" -eq 0 ] && command -v chroot >/dev/null 2>&1 && [ -e "$bin_new" ]; then
        code=0
        at=$config
        [ ! -e "$config_new" ] || at=$config_new
        chroot "$root" "${bin_new#"$root"}" --config "${at#"$root"}" check-config >"$tmp/out" 2>&1 </dev/null || code=$?
        case $code in
        0) say "the config passes, seen from inside $root" ;;
        126 | 127) say "not checked: the binary does not run here, or not in $root" ;;
        *)
            relay_config "$tmp/out"
            fail 78 "the config does not pass, seen from inside $root; nothing was changed"
            ;;
        esac
    elif [ -e "$bin_new" ] || [ -e "$config_new" ]; then
        say "not checked: only root can look from inside $root"
    fi
    [ "$action" != check ] || return 0
    { put_binary && { ! has_to_install || install_unit; } && put_config; } || fail 74 "cannot lay everything down in $root"
    made=
    say "done: $root holds biotope, its config and its unit"
}

# Of a dry run: what would be done.
plan() {
    [ "$binary_sha" = "$had_bin" ] || say "would copy the new binary, check its sum, and lay it beside $bin"
    [ "$config_sha" = "$had_config" ] || say "would copy the new config, check its sum, and lay it beside $config"
    [ "$service" = files ] || say "would check the config with the binary, and that the log can be read; if not: nothing changes, exit 78 or 65"
    [ "$action" != check ] || return 0
    [ "$fresh" = yes ] || [ "$binary_sha/$config_sha" = "$had_bin/$had_config" ] || say "would keep what is there, for a rollback, in $state/kept"
    if has_to_install; then
        install_unit
    fi
    [ "$binary_sha" = "$had_bin" ] || say "would put the new binary into its place: $bin"
    [ "$config_sha" = "$had_config" ] || say "would put the new config into its place: $config"
    if [ "$service" = files ]; then
        return 0
    fi
    tell_start
    say "would see that it serves within $timeout s and for $settle s; if not: would go back to what was there"
}

tell_start() {
    find_data
    if [ -n "$(main_pid)" ]; then
        [ "$binary_sha" = "$had_bin" ] || say "would replace the running binary in the same process (biotope upgrade --wait); by a restart where it cannot"
        say "would have the config taken over (biotope reload --wait)"
    elif [ "$service" = systemd ]; then
        say "would start it (systemctl start biotope)"
    elif [ -n "$run" ]; then
        say "would start it ($run)"
    else
        say "would start it (setsid $bin run $config); nothing starts it after a reboot"
    fi
}

rollback() {
    begin
    # An unfinished deployment is gone back from; of a finished one, what was there before it.
    if [ -e "$state/doing" ]; then
        binary_sha=$(record doing from_binary) config_sha=$(record doing from_config)
    else
        binary_sha=$(record previous binary) config_sha=$(record previous config)
    fi
    if [ -z "$binary_sha" ] || [ "$binary_sha" = none ]; then
        fail 69 "nothing is kept here to go back to"
    fi
    binary_file=$state/kept/$binary_sha config_file=$state/kept/$config_sha
    action=upgrade
    if [ "$dry" = yes ]; then
        compare
        plan
        return
    fi
    for sum in "$binary_sha" "$config_sha"; do
        [ "$(sha_of "$state/kept/$sum")" = "$sum" ] || fail 74 "what is kept in $state/kept/$sum is damaged"
    done
    compare
    lay_candidates
    check_candidates
    note_intent || fail 74 "cannot keep what is there in $state: is the disk full?"
    if switch && stays_healthy && note_success; then
        say "done: back at $("$bin" --version | head -n 1) with the config $(short "$config_sha"); the same again goes forward"
    elif restore; then
        rm -f "$state/doing"
        fail 79 "it did not serve: what was there before the rollback is there again"
    else
        fail 79 "NEITHER SERVES: look at $state/log, mend what it says, and run this again"
    fi
}

status() {
    tmp=$(mktemp -d)
    trap leave EXIT
    dry=yes
    if [ ! -e "$bin" ]; then
        echo "not installed: there is no $bin"
        exit 69
    fi
    [ "$service" = systemd ] || find_data
    echo "binary: $bin, $("$bin" --version 2>&1 | head -n 1), $(short "$(sha_of "$bin")")"
    echo "config: $config, $(short "$(sha_of "$config")")"
    [ ! -e "$state/current" ] || echo "deployed: $(record current at) by $(record current by)"
    [ ! -e "$state/previous" ] || echo "kept for a rollback: binary $(short "$(record previous binary)"), config $(short "$(record previous config)")"
    [ ! -e "$state/doing" ] || echo "a deployment did not end (begun $(record doing at)): run it again, or roll back"
    pid=$(main_pid)
    if [ -z "$pid" ]; then
        echo "not running"
        exit 69
    fi
    if [ "$(running_sha)" = "$(sha_of "$bin")" ]; then
        echo "running: process $pid, of that binary"
    else
        echo "running: process $pid, of ANOTHER binary: $(short "$(running_sha)")"
    fi
    as_service timeout 60 "$bin" --config "$config" status
}

main() {
    settings "$@"
    case $action in
    look) look ;;
    check | install | upgrade) deploy ;;
    rollback) rollback ;;
    status) status ;;
    *) fail 64 "this script does not do \"$action\"" ;;
    esac
}

main "$@"
