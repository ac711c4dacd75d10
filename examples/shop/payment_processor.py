#!/usr/bin/env python3
"""payment-processor: charges a customer.

Every thousandth order meets a card network that does not answer at first: that attempt fails, and the
retry goes through. The receipt is derived from the job's id, so a repeated run makes the same one.
"""

import hashlib

from worker import Failure, serve


def handle(job):
    payment = job["payload"]
    if payment["order"].endswith("000") and job["attempt"] == 1:
        raise Failure("the card network did not answer")
    receipt = hashlib.sha256(job["job_id"].encode()).hexdigest()[:16]
    return {"order": payment["order"], "charged_cents": payment["cents"], "receipt": receipt}, []


if __name__ == "__main__":
    serve(handle)
