"""Two brokers, of which one goes away: what the other one leads goes on, and the status says what does not."""

import itertools
import re

import pytest
from harness.kafka import Kafka
from harness.process import wait_until
from test_kafka import duplicates, kafka_trigger, offsets

names = (f"two-{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def kafka():
    """The first node, which leads what groups commit: it is there before the second one."""
    with Kafka() as k:
        k.create_topic("first")
        wait_until("groups have a place", lambda: k.committed("group", "first", 1) == {0: None}, 30)
        yield k


@pytest.fixture(scope="module")
def second(kafka):
    with Kafka(joins=kafka) as k:
        yield k


@pytest.fixture
def topic(kafka, second):
    name = next(names)
    kafka.create_topic(name, leaders=[1, 2])
    return name


def to(partition, count, text="x"):
    return [{"value": f"{text} {n}", "partition": partition} for n in range(count)]


def start(runner, kafka, topic, function):
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    run.wait_for_output("state=Connected", 30)
    return run


def states(run):
    return re.findall(r"msg=source namespace=test trigger=\S+ state=(\w+)", run.output)


def test_a_broker_that_is_away_is_named_until_it_is_back(kafka, second, topic, function, runner):
    kafka.produce(topic, to(0, 3) + to(1, 3))
    run = start(runner, kafka, topic, function)
    function.wait_for(6)
    second.kill()
    run.wait_for_output(rf'state=Disconnected reason="topic {topic}, partition 1: .*{second.port}', 30)
    since = len(states(run))
    # For longer than metadata and statistics are old: the other one's events go on, the state stays.
    function.behave(delay="1s")
    kafka.produce(topic, to(0, 40, "meanwhile"))
    function.wait_for(46, 60)
    function.behave(delay="0s")
    assert set(states(run)[since:]) <= {"Disconnected"}
    told = run.status()
    assert told["sourceState"] == "Disconnected" and f"topic {topic}, partition 1: " in told["sourceReason"]
    wait_until(
        "what went on is committed",
        lambda: kafka.committed(f"sluice.test.{topic}", topic, 2) == {0: 43, 1: 3},
        20,
    )
    second.start()
    kafka.produce(topic, to(1, 5, "after"))
    events = function.wait_for(51, 60)
    assert offsets(events) == {0: list(range(43)), 1: list(range(8))} and duplicates(events) == 0
    # What comes says so, before the next statistics would.
    wait_until("it says so", lambda: run.status()["sourceState"] == "Connected", 1)
    wait_until("no lag is left", lambda: run.status()["lag"] == 0, 20)
    assert run.status()["sourceReason"] == ""
    assert set(states(run)[since:]) <= {"Disconnected", "Connecting", "Connected"}
    assert states(run)[since:].count("Connected") == 1
