"""A real broker that is killed, partitions that are added, members that come and go, a topic that is made again, under load:
nothing is lost, little comes twice, and each key keeps its order. SLUICE_CHAOS=N: with so many messages."""

import collections
import json
import os
import threading
import time

import pytest
from harness.kafka import Kafka
from harness.process import wait_until
from harness.sink import Sink
from harness.sluice import Sluice, trigger

COUNT = int(os.environ.get("SLUICE_CHAOS", "200000"))
TOPIC, GROUP = "chaos", "chaos"
PARTITIONS, GROWN, KEYS = 6, 8, 50  # keys a partition
FOREIGN = 6  # members
BATCH, IN_FLIGHT = 100, 8
# What a rebalance may repeat: what was in flight, and what was done in each partition since its last commit (250 records, a
# batch more, and what the function took while the commit was under way).
REPEATED_MOST = 2 * BATCH * IN_FLIGHT + GROWN * (250 + 2 * BATCH)


class Log:
    """What was produced: each partition's keys with their own numbers."""

    def __init__(self, kafka):
        self.kafka, self.numbers, self.sent = kafka, collections.Counter(), 0

    def produce(self, count, partitions, generation=0):
        """All are acknowledged on return, whatever befalls the broker meanwhile."""
        from confluent_kafka import Producer

        failed = []
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "message.timeout.ms": 120000,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        for i in range(count):
            partition = i % partitions
            key = f"{generation}.{partition}.{i // partitions % KEYS}"
            value = f"{key}:{self.numbers[key]}"
            self.numbers[key] += 1
            while True:
                try:
                    producer.produce(
                        TOPIC, value, key, partition, on_delivery=lambda e, _: e and failed.append(str(e))
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(120) == 0 and not failed, failed[:3]
        self.sent += count


class Function(Sink):
    """Takes batches, and keeps the order in which their records were accepted."""

    def __init__(self):
        self.accepted, self.distinct, self.next, self.disorder = 0, 0, collections.Counter(), []
        self.lock = threading.Lock()
        super().__init__(self.take)

    def take(self, request):
        with self.lock:
            for text in json.loads(request.body)["messages"]:
                key, _, number = text.partition(":")
                number = int(number)
                self.accepted += 1
                # Again from an earlier one is a repetition; a gap is a loss, or a record that overtook another.
                if number > self.next[key]:
                    self.disorder.append((key, number, self.next[key]))
                elif number == self.next[key]:
                    self.next[key] += 1
                    self.distinct += 1
        request.body = b""
        return 200

    @property
    def repeated(self):
        with self.lock:
            return self.accepted - self.distinct


@pytest.fixture
def kafka():
    with Kafka() as k:
        yield k


@pytest.fixture
def worker(kafka, tmp_path):
    with Function() as function:
        source = {
            "bootstrapServers": [kafka.bootstrap],
            "topics": [TOPIC],
            "consumerGroup": GROUP,
            "startPosition": "Earliest",
            "properties": {"topic.metadata.refresh.interval.ms": "1000"},
        }
        delivery = {
            "ordering": "Key",
            "maxInFlight": IN_FLIGHT,
            "batch": {"maxMessages": BATCH, "maxWait": "10ms"},
            "retry": {"initialBackoff": "50ms", "maxBackoff": "1s"},
        }
        path = tmp_path / "trigger.json"
        path.write_text(json.dumps(trigger(TOPIC, {"kafka": source}, function.uri, delivery)))
        w = Sluice(
            *("worker", f"--trigger={path}", f"--checkpoint={tmp_path / 'checkpoint'}"),
            *("--instance=slot-0", "--log-level=info"),
            directory=tmp_path / "output",
        )
        w.function = function
        try:
            yield w.start()
        finally:
            print(w.describe())
            w.close()


def foreign_members(kafka, count):
    """One after the other joins the group, is given partitions, of which it commits nothing, and leaves after a second."""
    from confluent_kafka import Consumer

    for _ in range(count):
        consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "group.id": GROUP,
                "enable.auto.commit": False,
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 10000,
                "log_level": 0,
            }
        )
        got, began = [], time.monotonic()
        consumer.subscribe([TOPIC], on_assign=lambda _, partitions, g=got: g.append(len(partitions)))
        while not got or time.monotonic() < began + 1:
            consumer.poll(0.05)
            assert time.monotonic() < began + 40, "it is given no partitions"
        consumer.close()


def test_nothing_is_lost_whatever_befalls_the_broker(kafka, worker):
    function, log = worker.function, Log(kafka)
    share = COUNT // 5

    def part(count, partitions, while_under_way, generation=0):
        """Something befalls it all while so many are produced and delivered."""
        target = log.sent + count
        thread = threading.Thread(target=log.produce, args=(count, partitions, generation))
        thread.start()
        wait_until("some of them came", lambda: function.distinct > target - count + count // 10, 60)
        while_under_way()
        thread.join()
        wait_until(
            "all of them came",
            lambda: function.distinct == log.sent,
            120 + COUNT / 5000,
            explain=lambda: f"{function.distinct} of {log.sent}",
        )
        # Before the next incident: else what it repeats would add up.
        wait_until(
            "all is committed",
            lambda: kafka.committed(GROUP, TOPIC, partitions) == kafka.end_offsets(TOPIC, partitions),
            30,
        )
        assert not function.disorder, function.disorder[:5]
        return function.repeated

    def uncommitted():
        """What was taken and is not committed, or not yet: no more than that may come again."""
        committed = kafka.committed(GROUP, TOPIC, PARTITIONS).values()
        return function.distinct - sum(offset or 0 for offset in committed)

    may_repeat = []

    def restart_broker():
        kafka.kill()
        kafka.start()
        may_repeat.append(uncommitted())

    def restart_worker():
        worker.kill()
        may_repeat.append(uncommitted())
        worker.start()

    kafka.create_topic(TOPIC, PARTITIONS)
    repeated = part(share, PARTITIONS, restart_broker)
    assert repeated <= may_repeat[0]
    before, repeated = repeated, part(share, PARTITIONS, restart_worker)
    assert repeated - before <= may_repeat[1] + IN_FLIGHT * BATCH
    before, repeated = repeated, part(share, PARTITIONS, lambda: foreign_members(kafka, FOREIGN))
    assert repeated - before <= FOREIGN * REPEATED_MOST
    kafka.grow_topic(TOPIC, GROWN)
    before, repeated = repeated, part(share, GROWN, lambda: None)
    assert repeated - before <= REPEATED_MOST
    kafka.delete_topic(TOPIC)
    kafka.create_topic(TOPIC, PARTITIONS)
    before, repeated = repeated, part(share, PARTITIONS, lambda: None, generation=1)
    assert repeated - before <= REPEATED_MOST
    assert function.next == log.numbers
    assert worker.stop() == 0
