#!/bin/sh
# inventory-sync: takes the goods of one order off the shelf. One process a job: the payload is one line of
# compact JSON on stdin, what is printed is the result, exit 0 says done.
set -eu

IFS= read -r payload

order=${payload#*\"order\":\"}
order=${order%%\"*}
units=${payload#*\"units\":}
units=${units%%[!0-9]*}

if [ -z "$units" ] || [ "$units" -eq 0 ]; then
    echo "no units in $payload" >&2
    exit 65 # the payload will not get better: dead at once
fi

printf '{"order":"%s","moved_units":%d}\n' "$order" "$units"
