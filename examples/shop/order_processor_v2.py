#!/usr/bin/env python3
"""order-processor, v2: as v1, and grants one loyalty point for every full 10.00."""

from orders import follow_ups, total_cents
from worker import Failure, serve


def handle(job):
    order = job["payload"]
    if not order["lines"]:
        raise Failure("an order without lines", outcome="dead")
    total = total_cents(order)
    result = {"order": order["order"], "cents": total, "points": total // 1000}
    return result, follow_ups(order, total)


if __name__ == "__main__":
    serve(handle)
