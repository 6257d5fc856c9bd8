"""Change streams while the server fails, goes away and comes back: nothing is lost, and the status says what is wrong."""

import signal
import threading
import time

import pytest
from harness.mongo import Mongo
from harness.process import wait_until
from test_dds import Stream

RESUMABLE = "ResumableChangeStreamError"


@pytest.fixture
def mongo(tmp_path):
    with Mongo(tmp_path) as m:
        yield m


@pytest.fixture
def stream(mongo, runner, function):
    return Stream(mongo, runner, function)


def getmores(mongo):
    """How often the server was asked for more."""
    return mongo.client.admin.command("serverStatus")["opcounters"]["getmore"]


def seconds_of_cpu(pid):
    """Of all its threads."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize(
    "code", [6, 43, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436]
)
def test_a_resumable_code_loses_nothing(stream, code):
    stream.start()
    stream.orders.insert_many([{"n": n} for n in range(50)])
    stream.mongo.fail(["getMore"], times=2, errorCode=code, errorLabels=[RESUMABLE])
    stream.orders.insert_many([{"n": n} for n in range(50, 100)])
    stream.wait_numbers(range(100))
    assert stream.numbers() == list(range(100))


def test_a_code_that_is_not_resumable_is_tried_again_by_us(stream):
    run = stream.start()
    stream.mongo.fail(["getMore"], times=1, errorCode=11601)
    wait_until("the stream was open and is again", lambda: "11601" in run.output, 20)
    stream.orders.insert_one({"n": 1})
    stream.wait_numbers([1])


@pytest.mark.parametrize("how", [{"closeConnection": True}, {"blockConnection": True, "blockTimeMS": 5000}])
def test_connections_that_break_or_hang_lose_nothing(stream, how):
    stream.start()
    stream.orders.insert_many([{"n": n} for n in range(50)])
    stream.mongo.fail(["getMore"], times=1, **how)
    stream.orders.insert_many([{"n": n} for n in range(50, 100)])
    stream.wait_numbers(range(100))
    assert stream.numbers() == list(range(100))


def test_while_reading_fails_for_ever_it_says_so_and_ends_in_time(stream):
    run = stream.start()
    before = getmores(stream.mongo)
    stream.mongo.fail(["getMore"], errorCode=43)
    began, cpu = time.monotonic(), seconds_of_cpu(run.pid)
    run.wait_until("it is told", lambda: run.status()["sourceState"] == "Disconnected", 10)
    assert "43" in run.status()["sourceReason"]
    wait_until("ten seconds have passed", lambda: time.monotonic() - began > 10, 20)
    passed = time.monotonic() - began
    assert seconds_of_cpu(run.pid) - cpu < 0.02 * passed + 0.05
    assert getmores(stream.mongo) - before <= 5 * passed + 2
    run.signal(signal.SIGTERM)
    assert run.wait(3) == 0


def test_a_server_that_does_not_answer_holds_up_no_stop(stream):
    run = stream.start()
    stream.mongo.process.signal(signal.SIGSTOP)
    try:
        run.signal(signal.SIGTERM)
        assert run.wait(3) == 0
    finally:
        stream.mongo.process.signal(signal.SIGCONT)


class Writer(threading.Thread):
    """Writes one document after the other, and remembers those that the server took."""

    def __init__(self, mongo):
        super().__init__(daemon=True)
        self.mongo, self.written, self.over = mongo, [], threading.Event()
        self.start()

    def run(self):
        number = 0
        while not self.over.is_set():
            try:
                self.mongo.client.shop.orders.insert_one({"n": number})
                self.written.append(number)
            except Exception:
                self.over.wait(0.05)
            number += 1

    def stop(self):
        self.over.set()
        self.join(30)


@pytest.mark.parametrize("away", [0, 2])
def test_a_server_that_is_killed_and_comes_back_loses_nothing(stream, away):
    run = stream.start()
    writer = Writer(stream.mongo)
    for _ in range(3):
        seen = len(writer.written)
        wait_until("some are written", lambda: len(writer.written) > seen + 50, 30)
        stream.mongo.kill()
        down = time.monotonic()
        if away:
            run.wait_until("it is told", lambda: run.status()["sourceState"] == "Disconnected", 10)
        wait_until("it was away", lambda: time.monotonic() - down >= away, 30)
        stream.mongo.start()
        began = time.monotonic()
        run.wait_until("reads again", lambda: run.status()["sourceState"] == "Connected", 10)
        assert time.monotonic() - began < 1.5
    writer.stop()
    stream.wait_numbers(writer.written)
    assert len(stream.numbers()) == len(set(stream.numbers()))


def test_a_step_down_loses_nothing(stream):
    stream.start()
    stream.orders.insert_many([{"n": n} for n in range(50)])
    stream.mongo.client.admin.command("replSetStepDown", 2, force=True)

    def writes():
        stream.orders.insert_one({"n": 50})
        return True

    wait_until("there is a primary again", writes, 30)
    stream.wait_numbers(range(51))


# ---- what the oplog does not hold any more


@pytest.fixture
def small(tmp_path):
    """A server whose oplog holds 200 entries."""
    with Mongo(tmp_path, "--oplog-max-entries", "200") as m:
        yield m


@pytest.fixture
def small_stream(small, runner, function):
    return Stream(small, runner, function)


def fill(mongo, count=5000):
    mongo.client.other.things.insert_many([{"x": n} for n in range(count)])


def test_a_quiet_stream_does_not_fall_out_of_the_oplog(small_stream):
    run = small_stream.start()
    small_stream.orders.insert_one({"n": 1})
    small_stream.wait_numbers([1])
    fill(small_stream.mongo)
    # the server has looked through all of it once it has answered once more
    before = getmores(small_stream.mongo)
    wait_until("it was asked again", lambda: getmores(small_stream.mongo) >= before + 2, 20)
    run.stop()
    run = small_stream.start()
    small_stream.orders.insert_one({"n": 2})
    small_stream.wait_numbers([2])
    assert "OplogLost" not in run.output


@pytest.mark.parametrize("on_lost", ["Fail", "Now", "Earliest"])
def test_a_gap_is_told_and_what_follows_is_the_user_s_choice(small_stream, on_lost):
    run = small_stream.start()
    small_stream.orders.insert_one({"n": 1})
    small_stream.wait_numbers([1])
    small_stream.wait_saved()
    run.kill()
    small_stream.orders.insert_one({"n": 2})
    fill(small_stream.mongo)
    small_stream.orders.insert_one({"n": 3})
    run = small_stream.start(ready=False, onLost=on_lost)
    run.wait_for_output(r"reason=OplogLost", 20)
    if on_lost == "Fail":
        run.wait_until("it says so", lambda: run.status()["sourceState"] == "Failed", 20)
        assert run.status()["sourceReason"].startswith(
            "OplogLost: the oplog no longer holds the position, of 20"
        )
        run.stop()
        run = small_stream.start(onLost="Earliest")
    else:
        run.wait_until("it goes on", lambda: run.status()["sourceState"] == "Connected", 20)
    small_stream.orders.insert_one({"n": 4})
    small_stream.wait_numbers([4] if on_lost == "Now" else [3, 4])
    assert 2 not in small_stream.numbers()
    assert (3 in small_stream.numbers()) == (on_lost != "Now")


# ---- the end of a stream


@pytest.mark.parametrize("told", [False, True])
def test_a_collection_that_is_dropped_and_made_again_is_read_on(stream, told):
    operations = ["insert", *(["drop", "invalidate"] if told else [])]
    run = stream.start(operations=operations)
    stream.orders.insert_one({"n": 1})
    stream.orders.drop()
    stream.orders.insert_one({"n": 2})
    stream.wait_numbers([1, 2])
    names = [r["event_name"] for r in stream.records()]
    assert names == (["insert", "drop", "invalidate", "insert"] if told else ["insert", "insert"])
    run.stop()
    stream.start(operations=operations)
    stream.orders.insert_one({"n": 3})
    stream.wait_numbers([3])
    assert stream.numbers() == [1, 2, 3]


# ---- what a server refuses


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (9, "the server can't read the pipeline or the position"),
        (13, "the user needs the actions find and changeStream"),
        (47, "the collection keeps no images of its documents"),
        (260, "the server does not take the stored position"),
        (10334, "a change has more than 16 MB"),
        (40324, "the server is too old for a stage"),
        (40415, "the server is too old for fullDocument, fullDocumentBeforeChange or the scope"),
        (40573, "a single node has no oplog"),
    ],
)
def test_a_refusal_that_no_retry_helps_is_told_with_what_to_do(stream, code, advice):
    stream.mongo.fail(["aggregate"], errorCode=code)
    run = stream.start(ready=False)
    run.wait_until("it is told", lambda: run.status()["sourceState"] == "Failed", 20)
    assert f"the server says {code}: " in run.status()["sourceReason"]
    assert advice in run.status()["sourceReason"]
    stream.mongo.heal()
    run.wait_until("it goes on", lambda: run.status()["sourceState"] == "Connected", 20)
    stream.orders.insert_one({"n": 1})
    stream.wait_numbers([1])
