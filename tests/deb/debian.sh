# Sourced by the scripts beside it, which have a `fail` of their own: a Debian in a folder, from the mirror that apt of this
# machine uses.
# shellcheck shell=bash

# until_true WHAT COMMAND...: waits, a minute at most.
until_true() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((tries += 1)) -lt 300 ] || fail "$what: not within a minute"
        sleep 0.2
    done
}

# lay_debian SUITE TAR ROOT [OPTION...]: lays one of that suite down in ROOT; an empty one is this machine's own. It is made once,
# with these options of debootstrap, and kept in TAR: no package of ours was ever in it.
lay_debian() {
    local suite=$1 tar=$2 root=$3 uri codename proxy=
    shift 3
    mkdir -p "$root"
    if [ -f "$tar" ]; then
        tar -xf "$tar" -C "$root"
        return
    fi
    # shellcheck disable=SC2016 # apt fills these in
    read -r uri codename < <(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | grep -v security)
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    if [ -n "$proxy" ]; then
        export http_proxy=$proxy
    fi
    debootstrap --variant=minbase "$@" "${suite:-$codename}" "$root" "$uri" >"$tar.txt" 2>&1 || {
        tail -n 3 "$tar.txt"
        echo "SKIPPED: no Debian ${suite:-$codename} can be had by debootstrap"
        exit 0
    }
    tar --one-file-system -cf "$tar.new" -C "$root" . && mv "$tar.new" "$tar"
}
