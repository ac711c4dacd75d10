#!/bin/sh
# notification-sender: a persistent worker in nothing but POSIX sh. Requests come as one line of JSON each, with
# the members in a fixed order (id, jsonrpc, method, params), so that taking a line apart needs no parser.
set -eu

while IFS= read -r line; do
    case $line in
    '{"id":"'*) ;;
    *) continue ;; # a notification: nothing to answer
    esac
    id=${line#\{\"id\":\"}
    id=${id%%\"*}
    method=${line#*\"method\":\"}
    method=${method%%\"*}

    case $method in
    hello)
        printf '{"id":"%s","jsonrpc":"2.0","result":{"protocol":1}}\n' "$id"
        ;;
    job)
        customer=${line#*\"customer\":\"}
        customer=${customer%%\"*}
        order=${line#*\"order\":\"}
        order=${order%%\"*}
        printf '{"id":"%s","jsonrpc":"2.0","result":{"value":{"order":"%s","to":"%s@example.org"}}}\n' \
            "$id" "$order" "$customer"
        ;;
    wipe)
        printf '{"id":"%s","jsonrpc":"2.0","result":{}}\n' "$id"
        ;;
    *)
        printf '{"id":"%s","jsonrpc":"2.0","error":{"code":-32601,"message":"unknown method"}}\n' "$id"
        ;;
    esac
done
