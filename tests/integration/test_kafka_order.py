"""Order by key with many in flight, with a real broker: what is done behind a record that is stuck does not come again."""

import base64
import collections
import itertools
import json
import struct
import zlib

import pytest
from harness.process import wait_until
from harness.sink import Sink
from test_kafka import kafka_trigger

names = (f"order-{n}" for n in itertools.count())
COUNT = 2000
BY_KEY = {
    "ordering": "Key",
    "maxInFlight": 64,
    "retry": {"initialBackoff": "100ms", "maxBackoff": "500ms"},
}


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.create_topic(name, 2)
    return name


def fill(kafka, topic, partitions=(0,)):
    """In each: one that is stuck, and so many of 400 other keys behind it."""
    for p in partitions:
        stuck = {"key": "stuck", "value": "stuck", "partition": p}
        others = [{"key": f"k{i % 400}", "value": f"{i % 400}:{i}", "partition": p} for i in range(COUNT)]
        kafka.produce(topic, [stuck, *others])


def text(request):
    return json.loads(request.body)["messages"][0]


class Function(Sink):
    """Accepts all but what is stuck, until it is told otherwise."""

    def __init__(self):
        self.mended = False
        super().__init__(lambda request: 200 if self.mended or b"stuck" not in request.body else 400)

    def accepted(self):
        return [r for r in self.taken() if r.status == 200]


@pytest.fixture
def function():
    with Function() as f:
        yield f


def kept(group, kafka, topic, partition):
    """(committed offset, offsets behind it that are done) as the broker has them."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
    try:
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=10)
    finally:
        consumer.close()
    if not found.metadata:
        return found.offset, set()
    assert len(found.metadata) <= 4096 and found.metadata.startswith("sluice:")
    body = base64.b64decode(found.metadata[len("sluice:") :])
    form, data, check = body[0], body[1:-4], body[-4:]
    assert check == struct.pack(">I", zlib.crc32(struct.pack(">q", found.offset) + body[:-4]))
    assert form in (1, 2)
    if form == 2:
        return found.offset, {found.offset + i for i in range(len(data) * 8) if data[i // 8] >> (i % 8) & 1}
    numbers, value, shift, at, done = [], 0, 0, found.offset, set()
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            numbers.append(value)
            value = shift = 0
    for gap, length in zip(numbers[::2], numbers[1::2]):
        done |= set(range(at + gap, at + gap + length))
        at += gap + length
    return found.offset, done


def start(runner, kafka, topic, function, name="run"):
    soon = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "1000"}  # whoever is killed is gone
    trigger = kafka_trigger(kafka, topic, function.uri, delivery=dict(BY_KEY), properties=soon)
    run = runner.start(trigger, name=name, state=f"state-{name}")
    run.wait_for_output("state=Connected", 30)
    return run


def all_but_stuck(run, function, count):
    """All were read, and what is not held by a lane that is stuck was accepted."""

    def settled():
        s = run.status()
        return s["received"] == count and s["inFlight"] == 0 and s["delivered"] + s["held"] == count

    wait_until("all but what is stuck is done", settled, 60)
    return {r.id for r in function.accepted()}


def is_kept(kafka, topic, partition, ids):
    mine = {int(i.rsplit("/", 1)[1]) for i in ids if i.split("/")[1] == str(partition)}
    wait_until(
        "what is done is committed",
        lambda: kept(f"sluice.test.{topic}", kafka, topic, partition) == (0, mine),
        20,
    )


def in_order(requests):
    """Each key's records in the order of the log; none of them was accepted twice."""
    seen = collections.defaultdict(list)
    for r in requests:
        key, _, number = text(r).partition(":")
        seen[r.id.split("/")[1], key].append(int(number or 0))
    assert all(numbers == sorted(set(numbers)) for numbers in seen.values())


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_is_done_behind_a_key_that_is_stuck_does_not_come_again(kafka, topic, function, runner, end):
    fill(kafka, topic)
    run = start(runner, kafka, topic, function)
    done = all_but_stuck(run, function, COUNT + 1)
    is_kept(kafka, topic, 0, done)
    if end == "stop":
        assert run.stop() == 0
    else:
        run.kill()
    before = len(function.requests)
    function.mended = True
    again = start(runner, kafka, topic, function, name="again")
    everything = {f"{topic}/0/{o}" for o in range(COUNT + 1)}
    wait_until("the others", lambda: {r.id for r in function.accepted()} == everything, 90)
    assert {r.id for r in function.requests[before:]} == everything - done
    in_order(function.accepted())
    wait_until(
        "the end is committed",
        lambda: kept(f"sluice.test.{topic}", kafka, topic, 0) == (COUNT + 1, set()),
        20,
    )
    assert again.status()["lag"] == 0


def test_a_worker_that_takes_over_delivers_what_was_not_done(kafka, topic, function, runner):
    fill(kafka, topic, (0, 1))
    first = start(runner, kafka, topic, function)
    done = all_but_stuck(first, function, 2 * (COUNT + 1))
    before = len(function.requests)
    second = start(runner, kafka, topic, function, name="second")
    wait_until("the second one is stuck, too", lambda: second.status()["held"] > 0, 60)
    function.mended = True
    everything = {f"{topic}/{p}/{o}" for p in (0, 1) for o in range(COUNT + 1)}
    wait_until("the others", lambda: {r.id for r in function.accepted()} == everything, 90)
    assert {r.id for r in function.requests[before:]} <= everything - done
    in_order(function.accepted())
    assert first.stop() == second.stop() == 0


def test_what_others_commit_with_an_offset_is_left_alone(kafka, topic, function, runner):
    """All comes again, and nothing else happens."""
    from confluent_kafka import Consumer, TopicPartition

    fill(kafka, topic)
    group = f"sluice.test.{topic}"
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
    consumer.commit(
        offsets=[TopicPartition(topic, 0, 10, metadata="sluice:" + "A" * 1000)], asynchronous=False
    )
    consumer.close()
    run = start(runner, kafka, topic, function)
    wait_until("all from there on", lambda: len(function.accepted()) == COUNT + 1 - 10, 60)
    assert {r.id for r in function.accepted()} == {f"{topic}/0/{o}" for o in range(10, COUNT + 1)}
    assert run.status()["sourceState"] == "Connected"


def test_brokers_that_take_less_with_an_offset_get_less(runner, function):
    """offset.metadata.max.bytes of a broker of its own."""
    from harness.kafka import Kafka

    with Kafka(properties={"offset.metadata.max.bytes": "100"}) as kafka:
        topic = next(names)
        kafka.create_topic(topic, 2)
        fill(kafka, topic)
        # A few keys are stuck, so that what is done stands in many pieces.
        function.answer = lambda r: (
            400 if b"stuck" in r.body or int(text(r).split(":")[0]) % 100 == 0 else 200
        )
        run = start(runner, kafka, topic, function)
        all_but_stuck(run, function, COUNT + 1)
        group = f"sluice.test.{topic}"
        offset, done = wait_until(
            "some of it is committed", lambda: (k := kept(group, kafka, topic, 0))[1] and k, 30
        )
        assert offset == 0 and done < {int(r.id.rsplit("/", 1)[1]) for r in function.accepted()}
