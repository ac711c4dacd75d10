#!/bin/sh
# A biotope worker that stays, in POSIX sh: answers each job with the number of the attempt.
#
#   [workers.measure]
#   version = "v1"
#   exec = ["examples/workers/worker.sh"]
#   mode = "persistent"
#
# The members of a request come in a fixed order, and within a text every quotation mark has a backslash before it. So the
# first "id":" and the first "method":" are the request's own, and the last "attempt": is, since it stands behind the payload,
# whatever that holds. What must be taken apart further is a case for jq, or for another language.

while IFS= read -r line; do
    case $line in '{"id":"'*) ;; *) continue ;; esac # anything without an id is a notification
    id=${line#*\"id\":\"} id=${id%%\"*}
    method=${line#*\"method\":\"} method=${method%%\"*}
    case $method in
    hello) result='{"protocol":1}' ;;
    job)
        attempt=${line##*\"attempt\":} attempt=${attempt%%,*}
        result="{\"value\":{\"attempt\":$attempt}}"
        ;;
    *) result='{}' ;; # wipe: nothing is kept from one cycle to the next
    esac
    printf '{"jsonrpc":"2.0","id":"%s","result":%s}\n' "$id" "$result"
done
