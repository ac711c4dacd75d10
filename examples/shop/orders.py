"""What both versions of order-processor share: the sum of an order, and the jobs that follow from it."""


def total_cents(order):
    """The sum over the lines of an order, in cents."""
    return sum(line["units"] * line["cents"] for line in order["lines"])


def follow_ups(order, total):
    """The three jobs that follow from an order.

    Each has an id of its own, made from the order's number: whatever was run twice, the second
    enqueueing of the same job is recognised and counts once. Both versions make the same bodies.
    """
    number = order["order"]
    units = sum(line["units"] for line in order["lines"])
    return [
        {
            "type": "payment-processor",
            "id": f"pay-{number}",
            "payload": {"order": number, "customer": order["customer"], "cents": total},
        },
        {
            "type": "inventory-sync",
            "id": f"stock-{number}",
            "payload": {"order": number, "units": units, "lines": len(order["lines"])},
        },
        {
            "type": "notification-sender",
            "id": f"mail-{number}",
            "task": "receipt",
            "payload": {"order": number, "customer": order["customer"]},
        },
    ]
