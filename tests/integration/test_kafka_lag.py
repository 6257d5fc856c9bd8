"""How far behind a Trigger is, in records and in time, with a real broker."""

import datetime
import itertools
import json
import time

import pytest
from harness.process import wait_until
from harness.sink import Sink
from test_kafka import kafka_trigger

names = (f"lag-{n}" for n in itertools.count())
HOUR = 3600


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.create_topic(name, 2)
    return name


def by_partition(run, name):
    return {int(labels["partition"]): n for found, labels, n in run.metrics() if found == name}


def test_each_partition_tells_its_lag_in_records_and_in_time(kafka, topic, runner):
    """Also while the function blocks, and of what came since."""
    an_hour_ago = int(time.time() - HOUR) * 1000
    old = [{"value": f"old {i}", "partition": 0, "timestamp": an_hour_ago + i * 1000} for i in range(5)]
    with Sink(lambda request: 400 if b"old" in request.body else 200) as function:
        run = runner.start(kafka_trigger(kafka, topic, function.uri))
        kafka.produce(topic, [*old, {"value": "new", "partition": 1}])
        wait_until("it is known", lambda: by_partition(run, "sluice_partition_lag") == {0: 5, 1: 0}, 20)
        kafka.produce(topic, [{"value": "old x" + "x" * 1000, "partition": 0}] * 3000)
        wait_until("and what came since", lambda: run.status()["lag"] == 3005, 60)
        seconds = by_partition(run, "sluice_partition_lag_seconds")
        assert HOUR <= seconds[0] < HOUR + 300 and seconds[1] == 0
        labels = next(labels for found, labels, _ in run.metrics() if found == "sluice_partition_lag")
        assert labels["topic"] == topic and labels["trigger"] == topic and labels["source"] == "kafka"
        assert run.metric("sluice_source_lag") == 3005
        assert HOUR <= run.metric("sluice_source_lag_seconds") < HOUR + 300
        since = datetime.datetime.fromisoformat(run.status()["oldestPendingTime"].replace("Z", "+00:00"))
        assert since.timestamp() * 1000 == an_hour_ago
        function.answer = lambda request: 200
        # What blocks is tried again by a restart alone.
        assert run.stop() == 0
        again = runner.start(kafka_trigger(kafka, topic, function.uri), name="again")
        wait_until("none is left", lambda: again.status()["lag"] == 0, 60)
        assert by_partition(again, "sluice_partition_lag") == {0: 0, 1: 0}
        assert by_partition(again, "sluice_partition_lag_seconds") == {0: 0, 1: 0}
        assert again.metric("sluice_source_lag_seconds") == 0 and "oldestPendingTime" not in again.status()


def test_a_thousand_transactions_leave_no_lag(kafka, topic, runner):
    """Their marks have offsets of their own."""
    from confluent_kafka import Producer

    with Sink() as function:
        run = runner.start(kafka_trigger(kafka, topic, function.uri))
        run.wait_for_output("state=Connected", 30)
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, "linger.ms": 0})
        producer.init_transactions()
        for i in range(1000):
            producer.begin_transaction()
            producer.produce(topic, f"{i}", partition=i % 2)
            producer.commit_transaction()
        function.wait_for(1000, 60)
        wait_until("none is left", lambda: run.status()["lag"] == 0, 2)
        ends = kafka.end_offsets(topic, 2)
        assert sum(ends.values()) == 2000
        wait_until(
            "and that is committed", lambda: kafka.committed(f"sluice.test.{topic}", topic, 2) == ends, 5
        )
        assert [json.loads(r.body)["messages"][0] for r in function.all()].count("999") == 1
