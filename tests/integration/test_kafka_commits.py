"""Commits that a broker did not take are made once it does, so that nothing comes twice."""

import itertools
import re
import signal
import time

import pytest
import yaml
from harness.kafka import Kafka
from harness.process import wait_until
from test_kafka import duplicates, kafka_trigger, offsets

names = (f"commits-{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def kafka():
    """A broker of its own: it goes away."""
    with Kafka() as k:
        yield k


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.create_topic(name, 2)
    return name


def produce(kafka, topic, count):
    kafka.produce(topic, [{"value": f"message {i}", "partition": i % 2} for i in range(count)])


def committed(kafka, topic):
    return kafka.committed(f"sluice.test.{topic}", topic, 2)


def nothing_comes_twice(kafka, topic, function, runner, count):
    """A worker that starts anew delivers what is new, and only that."""
    again = runner.start(kafka_trigger(kafka, topic, function.uri), name="again")
    produce(kafka, topic, 2)
    events = function.wait_for(count + 2, 60)
    assert again.stop() == 0
    assert duplicates(events) == 0
    assert offsets(events) == {p: list(range(count // 2 + 1)) for p in (0, 1)}


def test_what_was_settled_while_the_broker_was_away_is_committed_when_it_is_back(
    kafka, topic, function, runner
):
    function.behave(delay="100ms")
    produce(kafka, topic, 60)
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    function.wait_for(4, 30)
    kafka.kill()
    function.wait_for(60, 30)  # they had been fetched ahead
    assert run.alive()
    kafka.start()
    wait_until("all of it is committed", lambda: committed(kafka, topic) == {0: 30, 1: 30}, 60)
    assert run.stop() == 0
    nothing_comes_twice(kafka, topic, function, runner, 60)


def test_a_clean_stop_waits_for_a_commit_that_is_under_way(kafka, topic, function, runner):
    """The broker hangs while the last events are settled, and answers when the worker stops already."""
    function.behave(delay="100ms")
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    run.wait_for_output("state=Connected", 30)
    produce(kafka, topic, 20)
    function.wait_for(4, 30)

    kafka.process.signal(signal.SIGSTOP)
    try:
        function.wait_for(20, 30)
        run.signal(signal.SIGTERM)
        wait_until("it stops", lambda: "draining" in run.ask("/readyz")[1], 5)
    finally:
        kafka.process.signal(signal.SIGCONT)
    assert run.wait(20) == 0
    assert committed(kafka, topic) == {0: 10, 1: 10}
    nothing_comes_twice(kafka, topic, function, runner, 20)


def test_a_broker_that_says_nothing_holds_up_no_stop(kafka, topic, function, runner):
    """It is frozen before the last position is committed: the worker ends all the same, and says what comes again."""
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    run.wait_for_output("state=Connected", 30)
    produce(kafka, topic, 2)
    function.wait_for(2, 30)
    kafka.process.signal(signal.SIGSTOP)
    try:
        produced = time.monotonic()
        run.signal(signal.SIGTERM)
        assert run.wait(20) == 0
        assert time.monotonic() - produced < 15, "below the grace: no request is in flight"
    finally:
        kafka.process.signal(signal.SIGCONT)
    assert "requests in flight" not in run.output


def test_a_broker_that_says_nothing_is_told_until_it_answers(kafka, topic, function, runner):
    """It is frozen before the last position is committed: each question about it takes five seconds."""
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    run.wait_for_output("state=Connected", 30)
    produce(kafka, topic, 2)
    function.wait_for(2, 30)
    wait_until("it is committed", lambda: set(committed(kafka, topic).values()) == {1}, 20)
    produce(kafka, topic, 2)
    function.wait_for(4, 30)
    kafka.process.signal(signal.SIGSTOP)
    try:
        run.wait_for_output(r'state=Connecting reason="positions (are not known|can.t be committed): ', 30)
        until = time.monotonic() + 14
        wait_until(
            "two more questions are asked",
            lambda: run.ask("/readyz")[0] != 503 or time.monotonic() > until,
            20,
        )
        assert time.monotonic() > until, "it was ready meanwhile"
        assert re.findall(r"msg=source .*state=(\w+)", run.output)[-2:] == ["Connected", "Connecting"]
    finally:
        kafka.process.signal(signal.SIGCONT)
    wait_until("it is ready", lambda: run.ask("/readyz")[0] == 200, 20)
    wait_until("all is committed", lambda: set(committed(kafka, topic).values()) == {2}, 20)


def test_a_broker_that_falls_silent_while_nothing_is_produced_is_told(kafka, topic, function, runner):
    """Its system keeps the connections, and nothing is to be committed."""
    run = runner.start(kafka_trigger(kafka, topic, function.uri))
    run.wait_for_output("state=Connected", 30)
    produce(kafka, topic, 2)
    wait_until("it is committed", lambda: set(committed(kafka, topic).values()) == {1}, 20)
    kafka.process.signal(signal.SIGSTOP)
    try:
        wait_until("it is told", lambda: run.ask("/readyz")[0] == 503, 45)
        assert "its broker is away: it does not answer" in run.status()["sourceReason"]
    finally:
        kafka.process.signal(signal.SIGCONT)
    wait_until("it is ready", lambda: run.ask("/readyz")[0] == 200, 60)
    produce(kafka, topic, 2)
    function.wait_for(4, 30)


def test_a_broker_that_says_nothing_holds_up_no_edit(kafka, topic, function, runner, tmp_path):
    """Where the brokers have moved, the old ones may never answer again."""
    trigger = kafka_trigger(kafka, topic, function.uri)
    run = runner.start(trigger)
    run.wait_for_output("state=Connected", 30)
    with Kafka() as other:
        other.create_topic(topic, 2)
        produce(other, topic, 2)
        produce(kafka, topic, 2)
        function.wait_for(2, 30)
        kafka.process.signal(signal.SIGSTOP)
        try:
            trigger["spec"]["source"]["kafka"]["bootstrapServers"] = [other.bootstrap]
            (tmp_path / "run.yaml").write_text(yaml.safe_dump(trigger))
            function.wait_for(4, 30)
        finally:
            kafka.process.signal(signal.SIGCONT)
    assert run.stop() == 0
