#!/usr/bin/env python3
"""Prints orders as NDJSON, one job object a line: the same lines for the same seed, on every machine.

    python3 make_orders.py [COUNT [SEED]] > orders.ndjson

orders.ndjson beside this file is the output of `make_orders.py 10000 7420`.
"""

import json
import sys

GOODS = [
    ("bread", 320), ("milk", 119), ("cheese", 549), ("apples", 275), ("coffee", 899), ("tea", 425), ("honey", 650),
    ("rice", 210), ("pasta", 145), ("soap", 99), ("candles", 780), ("kettle", 3499), ("lamp", 5250), ("chair", 12900),
]
TENANTS = ["north", "south", "east", "west"]


def numbers(seed):
    """A small generator of its own (xorshift64*), so that no version of Python changes the orders."""
    state = seed or 1
    while True:
        state ^= state >> 12
        state ^= (state << 25) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 27
        yield ((state * 0x2545F4914F6CDD1D) & 0xFFFFFFFFFFFFFFFF) >> 33


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 7420
    draw = numbers(seed)
    for number in range(1, count + 1):
        lines = []
        for _ in range(1 + next(draw) % 3):
            name, cents = GOODS[next(draw) % len(GOODS)]
            lines.append({"sku": name, "units": 1 + next(draw) % 4, "cents": cents})
        order = f"order-{number:05}"
        job = {
            "type": "order-processor",
            "id": order,
            "tenant": TENANTS[next(draw) % len(TENANTS)],
            "payload": {"order": order, "customer": f"customer-{next(draw) % 2500:04}", "lines": lines},
        }
        print(json.dumps(job, separators=(",", ":")))


if __name__ == "__main__":
    main()
