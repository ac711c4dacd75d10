#!/usr/bin/env python3
"""A biotope worker that stays, in Python: answers each job with how long its payload is.

    [workers.measure]
    version = "v1"
    exec = ["examples/workers/worker.py"]
    mode = "persistent"
"""

import json
import sys


def work(job, progress):
    """What a job is worth. An exception is a failed attempt of this job alone."""
    progress(fraction=0.5, text="counting")
    return {"characters": len(json.dumps(job["payload"])), "attempt": job["attempt"]}


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(request_id, method, params):
    if method == "hello":
        return {"result": {"protocol": 1}}
    if method == "job":
        try:
            progress = lambda **said: say({"method": "progress", "params": {"id": request_id, **said}})
            return {"result": {"value": work(params, progress)}}
        except Exception as error:
            return {"error": {"code": 1, "message": repr(error), "data": {"outcome": "fail"}}}
    return {"result": {}}  # wipe: nothing is kept from one cycle to the next


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:  # anything without one is a notification
        say({"id": request["id"], **answer(request["id"], request["method"], request.get("params"))})
