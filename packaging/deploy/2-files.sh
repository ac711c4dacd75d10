# Files on the host: laid beside their places, checked there, and renamed into them.

# --- files ---------------------------------------------------------------------------------------------------------

# Lays a file beside its place. A config keeps the owner and mode that its place has.
lay_binary() {
    rm -f "$bin_new"
    cp "$1" "$bin_new" && chmod 755 "$bin_new" && flush "$bin_new" && [ "$(sha_of "$bin_new")" = "$2" ]
}

lay_config() {
    rm -f "$config_new"
    if [ -e "$config" ]; then
        cp -p "$config" "$config_new" || return 1
    else
        (umask 077 && : >"$config_new") || return 1
    fi
    cat "$1" >"$config_new" && flush "$config_new" && [ "$(sha_of "$config_new")" = "$2" ]
}

place() {
    mv -f "$1" "$2" && flush "${2%/*}"
}

# A first config is for its service to read, and for nobody else.
give_config() {
    if [ "$service" = none ]; then
        return
    fi
    gid=$(sed -n 's/^biotope:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group" 2>/dev/null) || gid=
    if [ -n "$gid" ] && [ "$(id -u)" -eq 0 ]; then
        chgrp "$gid" "$1" && chmod 640 "$1"
    else
        say "there is no group biotope here: everybody may read the config"
        chmod 644 "$1"
    fi
}

# --- checks, before anything changes -------------------------------------------------------------------------------

# What a file begins with, of a program of this kind of machine: its sort, and the machine that it is for.
first_bytes() {
    od -A n -t x1 -N 20 "$1" 2>/dev/null | tr -d ' \n'
}

# Whether a new file is a biotope, and runs here.
check_binary() {
    case $(first_bytes "$bin_new") in
    7f454c46*)
        # What runs here is of the kind of what reads it.
        kind=$(first_bytes "$bin_new" | cut -c 9-12,37-40)
        if [ "$kind" != "$(first_bytes /proc/self/exe | cut -c 9-12,37-40)" ]; then
            fail 65 "the new binary is for another machine than this one ($(uname -sm)); nothing was changed"
        fi
        ;;
    2321*) ;;
    *) fail 65 "the new binary is no program; nothing was changed" ;;
    esac
    code=0
    timeout 30 "$bin_new" --version >"$tmp/version" 2>"$tmp/why" </dev/null || code=$?
    case $code in
    0) ;;
    126 | 127) fail 65 "the new binary does not run here ($(uname -sm)); nothing was changed" ;;
    *)
        relay "$tmp/why"
        fail 65 "the new binary does not even tell its version (exit code $code); nothing was changed"
        ;;
    esac
    case $(head -n 1 "$tmp/version") in
    biotope\ *) say "the new binary runs here: $(head -n 1 "$tmp/version")" ;;
    *) fail 65 "the new binary is no biotope: it says \"$(head -n 1 "$tmp/version")\" to --version; nothing was changed" ;;
    esac
}

# Shows what was said of a config, by the name that it will have.
relay_config() {
    sed "s/\.biotope\.toml\.new/biotope.toml/g" "$1" >"$tmp/renamed"
    relay "$tmp/renamed"
}

# The config that is to be, by the binary that is to be, at the place where it will lie: its paths are relative to it.
check_pair() {
    code=0
    as_service timeout 60 "$1" --config "$2" check-config >"$tmp/out" 2>&1 || code=$?
    if [ "$code" -ne 0 ]; then
        relay_config "$tmp/out"
        fail 78 "the config does not pass on this host; nothing was changed"
    fi
    say "the config passes: $(head -n 1 "$tmp/out" | sed 's/\.biotope\.toml\.new/biotope.toml/')"
    code=0
    as_service timeout 120 "$1" --config "$2" takeover-check >"$tmp/takeover" 2>"$tmp/why" || code=$?
    if [ "$code" -ne 0 ]; then
        relay "$tmp/why"
        fail 65 "the new binary cannot read what is in the data directory (exit code $code); nothing was changed"
    fi
    data_new=$(member data_dir "$tmp/takeover")
    say "the log can be read: $(sed -n 's/.*"live_jobs":\([0-9]*\).*/\1/p' "$tmp/takeover") live jobs in $data_new"
}

# Where the biotope that is here has its data; empty if there is none, or if its config tells nothing.
find_data() {
    data_dir=
    if [ -f "$config" ]; then
        for program in "$bin" "$bin_new"; do
            if [ -x "$program" ] && as_service timeout 120 "$program" --config "$config" takeover-check >"$tmp/out" 2>/dev/null; then
                data_dir=$(member data_dir "$tmp/out")
                break
            fi
        done
    fi
}

refuse_package() {
    for packaged in "$root/usr/lib/systemd/system/biotope.service" "$root/lib/systemd/system/biotope.service"; do
        if [ -z "$prefix" ] && [ -e "$packaged" ]; then
            fail 73 "a package has put biotope here ($packaged): upgrade it by its package, or remove that first"
        fi
    done
}
