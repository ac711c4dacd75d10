#!/usr/bin/env python3
"""order-processor, v1: adds up the order and hands it on."""

from orders import follow_ups, total_cents
from worker import Failure, serve


def handle(job):
    order = job["payload"]
    if not order["lines"]:
        raise Failure("an order without lines", outcome="dead")
    total = total_cents(order)
    return {"order": order["order"], "cents": total}, follow_ups(order, total)


if __name__ == "__main__":
    serve(handle)
