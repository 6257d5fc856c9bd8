"""A worker under the memory limit that a pod has by default: whatever callers and the function do, it is not killed."""

import contextlib
import http.client
import json
import time

import pytest
from harness.cgroup import MemoryLimit
from harness.process import Later
from harness.sink import Sink
from harness.sluice import Sluice, trigger

POD = 128 << 20

ANSWER = json.dumps({"statusCode": 200, "body": "taken", "isBase64Encoded": False}).encode()


def slow(_):
    time.sleep(0.2)
    return 200, {"Content-Type": "application/json"}, ANSWER


@contextlib.contextmanager
def worker(t, tmp_path, limit):
    path = tmp_path / "trigger.json"
    path.write_text(json.dumps(t))
    process = Sluice(
        "worker",
        f"--trigger={path}",
        f"--checkpoint={tmp_path / 'state'}",
        "--listen=127.0.0.1:0",
        directory=tmp_path / "output",
    )
    process.command = [*limit.enter, *process.command]
    with process:
        yield process


def send(port, bodies):
    """What each body was answered; None: the connection was cut."""
    told = []
    for body in bodies:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/f", body, {"Content-Type": "text/plain"})
            told.append(connection.getresponse().status)
        except OSError:  # refused while it sends
            told.append(None)
        finally:
            connection.close()
    return told


@pytest.mark.parametrize(
    "transform",
    [None, {"jq": ".queryStringParameters = ([range(1500000)] | length)", "timeout": "1m"}],
    ids=["plain", "transform"],
)
def test_a_flood_of_large_bodies_is_within_the_pods_limit(tmp_path, transform):
    with MemoryLimit(POD) as limit, Sink(slow) as sink:
        source = {"apig": {"path": "/f"}}
        t = trigger("api", source, sink.uri, **({"transform": transform} if transform else {}))
        with worker(t, tmp_path, limit) as run:
            port = run.port
            callers = [Later(send, port, [bytes([97 + i % 26]) * (2 << 20)] * 4) for i in range(24)]
            told = [status for caller in callers for status in caller.get()]
            assert send(port, [b"small"]) == [200]
            assert limit.kills() == 0, f"{limit.peak()} of {POD} bytes"
        assert 200 in told and set(told) <= {200, 502, 503, None}  # 502: the transform has too little
        assert limit.peak() < POD
