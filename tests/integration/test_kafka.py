"""Kafka messages, from a real broker to the function."""

import base64
import collections
import itertools
import json
import time

import pytest
from harness.ports import free_ports
from harness.process import wait_until
from harness.sluice import trigger

names = (f"topic-{n}" for n in itertools.count())


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.create_topic(name, 4)
    return name


def kafka_trigger(kafka, topic, uri, name=None, delivery=None, **source):
    spec = {"bootstrapServers": [kafka.bootstrap], "topics": [topic], "startPosition": "Earliest", **source}
    return trigger(name or topic, {"kafka": spec}, uri, delivery)


def numbered(count, partitions=4):
    return [{"value": f"message {i}", "partition": i % partitions} for i in range(count)]


def offsets(events):
    """{partition: [offset]} in the order of arrival"""
    found = collections.defaultdict(list)
    for e in events:
        _, partition, offset = e["id"].rsplit("/", 2)
        found[int(partition)].append(int(offset))
    return found


def assert_ordered(events, count, partitions=4):
    """First deliveries of each partition are in order and without a gap."""
    for partition, seen in offsets(events).items():
        highest = -1
        for offset in seen:
            assert offset <= highest + 1, f"partition {partition}: {offset} came after {highest}"
            highest = max(highest, offset)
        assert highest == count // partitions - 1


def duplicates(events):
    return len(events) - len({e["id"] for e in events})


def wait_committed(kafka, topic, count, partitions=4):
    expected = {p: count // partitions for p in range(partitions)}
    wait_until(
        "everything is committed",
        lambda: kafka.committed(f"sluice.test.{topic}", topic, partitions) == expected,
        20,
    )


def test_all_arrive_in_order_in_the_kafka_shape(kafka, topic, function, runner):
    kafka.produce(topic, numbered(5000))
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    events = function.wait_for(5000, 60)
    assert_ordered(events, 5000)
    assert duplicates(events) == 0
    body = json.loads(events[0]["body"])
    assert list(body) == [
        "event_version",
        "event_time",
        "trigger_type",
        "region",
        "messages",
        "instance_id",
        "topic_id",
    ]
    assert (body["event_version"], body["trigger_type"], body["topic_id"]) == ("v1.0", "KAFKA", topic)
    assert all(type(m) is str for e in events for m in json.loads(e["body"])["messages"])
    wait_committed(kafka, topic, 5000)
    assert run.stop() == 0


def test_the_current_dialect_null_and_binary_values(kafka, topic, function, runner):
    kafka.produce(
        topic,
        [
            {"value": None, "key": "k", "partition": 0},
            {"value": b"\xff\x00binary", "partition": 0},
            {"value": 'quote " and \u00fc\n', "partition": 0},
        ],
    )
    t = kafka_trigger(kafka, topic, function.uri)
    t["spec"]["event"] = {"dialect": "Current", "region": "eu-1", "instanceID": "i-1"}
    runner.start(t)
    bodies = [json.loads(e["body"]) for e in function.wait_for(3)]
    assert [b["records"][0]["messages"][0] for b in bodies] == [
        None,
        base64.b64encode(b"\xff\x00binary").decode(),
        'quote " and \u00fc\n',
    ]
    assert all(
        b["records"][0]["topic_id"] == topic and b["region"] == "eu-1" and b["instance_id"] == "i-1"
        for b in bodies
    )


def test_a_kill_loses_nothing_and_repeats_little(kafka, topic, function, runner):
    function.behave(delay="2ms")
    kafka.produce(topic, numbered(4000))
    t = kafka_trigger(kafka, topic, function.uri)
    run = runner.start(t)
    wait_until("half of it", lambda: function.accepted() > 1000, 60)
    run.kill()
    runner.start(t, name="again")
    wait_until("all of it", lambda: len({e["id"] for e in function.events()}) == 4000, 120)
    events = function.events()
    assert_ordered(events, 4000)
    # In flight: one a partition; settled since the last commit: a second of it, at 2 ms each on 4 partitions, or 1,000.
    assert duplicates(events) <= 4 + 4 * 1000
    assert duplicates(events) <= 4 + 2200


def test_a_failing_function_delays_and_keeps_the_order(kafka, topic, function, runner):
    kafka.produce(topic, numbered(400))
    function.behave(status=503, **{"for": "3s"})
    run = runner.start(
        kafka_trigger(
            kafka, topic, function.uri, delivery={"retry": {"initialBackoff": "50ms", "maxBackoff": "500ms"}}
        )
    )
    run.wait_for_output(r"Retrying.*answered 503: told to fail", 20)
    events = function.wait_for(400, 60)
    assert_ordered(events, 400)
    assert duplicates(events) == 0
    wait_committed(kafka, topic, 400)


def test_unordered_delivery_is_parallel(kafka, topic, function, runner):
    function.behave(delay="50ms")
    kafka.produce(topic, numbered(400))
    runner.start(kafka_trigger(kafka, topic, function.uri, delivery={"ordering": "None", "maxInFlight": 100}))
    events = function.wait_for(
        400, 15
    )  # one after the other on four lanes it would take 5 s at the very least
    assert len({e["id"] for e in events}) == 400
    span = (events[-1]["timeMicros"] - events[0]["timeMicros"]) / 1e6
    assert span < 2.5, f"took {span:.1f} s"


def test_two_members_share_and_hand_over_cleanly(kafka, topic, function, runner):
    function.behave(delay="5ms")
    t = kafka_trigger(kafka, topic, function.uri)
    first = runner.start(t, name="first")
    kafka.produce(topic, numbered(1200))
    wait_until("some of it", lambda: function.accepted() > 100, 30)
    second = runner.start(t, name="second", state="state-2")
    second.wait_for_output("Connected", 20)
    wait_until("more of it", lambda: function.accepted() > 500, 30)
    assert first.stop() == 0
    wait_until("all of it", lambda: len({e["id"] for e in function.events()}) == 1200, 60)
    assert_ordered(function.events(), 1200)
    assert duplicates(function.events()) == 0, (
        "partitions are left only when their records are settled and committed"
    )


def test_a_broker_that_restarts_is_found_again(kafka, topic, function, runner):
    kafka.produce(topic, numbered(40))
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    function.wait_for(40)
    kafka.stop()
    run.wait_for_output(r"Disconnected.*refused", 30)
    kafka.start()
    kafka.produce(topic, numbered(40))
    events = function.wait_for(80, 60)
    assert len({e["id"] for e in events}) == 80


def test_a_wrong_broker_and_a_missing_topic_are_named(kafka, function, runner):
    (port,) = free_ports(1)
    wrong = trigger(
        "wrong", {"kafka": {"bootstrapServers": [f"127.0.0.1:{port}"], "topics": ["t"]}}, function.uri
    )
    missing = kafka_trigger(kafka, "no-such-topic", function.uri)
    run = runner.start(wrong, missing)
    run.wait_for_output(rf"test/wrong .*Disconnected.*127\.0\.0\.1:{port}.*refused", 15)
    run.wait_for_output(r"test/no-such-topic .*Failed.*no-such-topic", 15)


def test_a_backlog_is_read_faster_than_a_queue_a_second(kafka, function, runner):
    """At the default fetchBytes, whatever the librdkafka: a thread of one before 2.2 that finds its queue full sleeps for up to a
    second, so that these 64 MiB, of which one is fetched ahead, would take a minute."""
    topic = next(names)
    kafka.create_topic(topic, 1)
    count = 64 << 10
    kafka.produce(topic, [{"value": "x" * 1024}] * count)
    began = time.monotonic()
    run = runner.start(
        kafka_trigger(kafka, topic, function.uri, delivery={"ordering": "None", "maxInFlight": 64})
    )
    run.wait_until("all of it", lambda: function.accepted() >= count, 60)
    assert time.monotonic() - began < 30
