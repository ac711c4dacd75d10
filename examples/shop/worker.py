"""The persistent side of a biotope worker: JSON-RPC 2.0, one object a line, on stdin and stdout.

serve(handle) answers hello, job and wipe until stdin is closed. handle(job) gets the job's members
(job_id, task, payload, attempt, ...) and returns (value, follow_up_jobs), or raises Failure.
"""

import json
import sys


class Failure(Exception):
    """Ends a run without success. outcome: "fail" counts an attempt, "retry" does not, "dead" gives up at once."""

    def __init__(self, message, outcome="fail", after_ms=None):
        super().__init__(message)
        self.data = {"outcome": outcome}
        if after_ms is not None:
            self.data["after_ms"] = after_ms


def run(handle, job):
    """One job's answer: the member of the response that says how it went."""
    try:
        value, follow_ups = handle(job)
    except Failure as failure:
        return {"error": {"code": 1, "message": str(failure), "data": failure.data}}
    except Exception as error:  # a bug in the worker is a failed attempt of this job, and of no other one
        message = f"{type(error).__name__}: {error}"
        return {"error": {"code": 2, "message": message, "data": {"outcome": "fail"}}}
    result = {"value": value}
    if follow_ups:
        result["enqueue"] = follow_ups
    return {"result": result}


def serve(handle):
    """Answers requests in the order of their coming until stdin is closed."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:  # a notification, for instance cancel: nothing to answer
            continue
        method = request["method"]
        if method == "hello":
            answer = {"result": {"protocol": 1}}
        elif method == "job":
            answer = run(handle, request["params"])
        elif method == "wipe":  # nothing is kept between cycles
            answer = {"result": {}}
        else:
            answer = {"error": {"code": -32601, "message": f"unknown method {method}"}}
        answer = {"id": request["id"], "jsonrpc": "2.0", **answer}
        print(json.dumps(answer, separators=(",", ":")), flush=True)
