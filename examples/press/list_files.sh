#!/bin/sh
# Prints one job object a line for every packaged changelog of this machine, ready for `biotope push --file -`.
# A file's place is its job's id (`package:file`, since an id holds no slash), so a file listed twice counts once.
set -eu

dir=${1:-/usr/share/doc}
for file in "$dir"/*/changelog*.gz; do
    [ -e "$file" ] || continue
    place=${file#"$dir"/}
    printf '{"type":"word-count","id":"%s:%s","payload":{"file":"%s"}}\n' "${place%%/*}" "${place#*/}" "$file"
done
