"""What was sent to a queue, what arrived, and how often: with faults of each kind before and after calls have their effect, the program killed and
stopped, and keys rotated. LEDGER=20000 in the environment makes it long."""

import collections
import json
import os
import random
import signal

from cloud import faults
from harness.process import wait_until
from test_dms import Queue

MESSAGES = int(os.environ.get("LEDGER", 2000))
TIMES = max(3, MESSAGES * 30 // 20000)  # of each kind of fault
ENDS = max(2, MESSAGES * 10 // 20000)  # of each kind

KINDS = {
    "reset": faults.reset(),
    "hang up": faults.hang_up(),
    "500": faults.refuse(10250002),
    "503": faults.status(503, b"<html>busy</html>"),
    "throttled": faults.refuse(10240407),
    "truncated": faults.truncate(),
    "slow": faults.slow(0.3),
}


def arrived(function):
    return collections.Counter(
        m["Body"] for e in function.events() for m in json.loads(e["body"])["Messages"]
    )


def test_nothing_is_lost(cloud, runner, function, tmp_path):
    queue = Queue(cloud, runner, function, tmp_path)
    sent = [f"message {i}" for i in range(MESSAGES)]
    dice = random.Random(12)
    ends = [signal.SIGKILL] * ENDS + [signal.SIGTERM] * ENDS
    dice.shuffle(ends)
    delivery = {
        "ordering": "None",
        "maxInFlight": 64,
        "timeout": "5s",
        "retry": {"initialBackoff": "100ms", "maxBackoff": "100ms"},
    }

    for kind in KINDS.values():
        for operation in ("dms.consume", "dms.acknowledge"):
            for when in ("after",) if kind is KINDS["truncated"] else ("before", "after"):
                for _ in range(TIMES // 3):  # thirty in a row would be an outage of minutes
                    cloud.fault(operation, kind, when=when, times=3, skip=dice.randrange(MESSAGES // 20))
    queue.send(sent[: MESSAGES // 2])
    keys = [cloud.iam.key]
    for number, how in enumerate(ends):
        run = queue.start(delivery, ackWait="15s")
        goal = function.accepted() + MESSAGES // 2 // len(ends) // 2
        run.wait_until("it delivers", lambda: function.accepted() >= goal or not queue.group.line.waiting, 60)
        if number in (1, 3):  # made before the old one is gone
            key = cloud.iam.add_key()
            queue.write(key)
            cloud.iam.revoke(keys[-1].access)
            keys.append(key)
        if how == signal.SIGKILL:
            run.kill()
        else:
            assert run.stop() == 0
        cloud.advance(16)  # what was not acknowledged is there again
    queue.send(sent[MESSAGES // 2 :])
    run = queue.start(delivery, ackWait="15s")

    def drained():
        cloud.advance(0.5)
        return not queue.group.line.waiting

    wait_until(
        "all are acknowledged",
        drained,
        120,
        poll=0.25,
        explain=lambda: f"{len(queue.group.line.waiting)} wait",
    )
    got = arrived(function)
    assert set(got) == set(sent), f"lost: {len(set(sent) - set(got))}"
    # What a killed program had taken: eight answers of ten messages at most.
    assert sum(got.values()) - len(sent) <= ENDS * 80
