#!/bin/bash
# word-count, v2: counts the words of one gzip-compressed file, with awk.
# The payload is one line of compact JSON on stdin, {"file":"/path"}; the result is {"file":"/path","words":n}.
set -euo pipefail

IFS= read -r payload
file=${payload#*\"file\":\"}
file=${file%%\"*}

if [ ! -r "$file" ]; then
    echo "cannot read $file" >&2
    exit 65 # no retry makes the file readable: dead at once
fi

words=$(zcat -- "$file" | LC_ALL=C tr -c 'A-Za-z0-9\n' ' ' | LC_ALL=C awk '{n+=NF} END {print n+0}')
printf '{"file":"%s","words":%d}\n' "$file" "$words"
