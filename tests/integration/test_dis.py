"""Streams of DIS, as the emulator has them: what arrives, in which order, over restarts, rescaling and faults."""

import base64
import json
import re

import pytest
from cloud import Cloud, faults
from cloud.service import PROJECT, REGION
from conftest import trigger
from harness.process import wait_until

PAIR = {
    "accessKeySecretRef": {"name": "cloud", "key": "ak"},
    "secretKeySecretRef": {"name": "cloud", "key": "sk"},
}


@pytest.fixture
def cloud():
    with Cloud() as c:
        yield c


class Stream:
    """A stream, and Triggers that read it."""

    def __init__(self, cloud, runner, function, tmp_path):
        self.cloud, self.runner, self.function = cloud, runner, function
        self.stream = cloud.dis.make_stream("orders", partitions=2)
        self.sent = []  # (partition, sequence number)
        self.secrets = tmp_path / "secrets"
        (self.secrets / "cloud").mkdir(parents=True)
        for name, value in (("ak", cloud.iam.key.access), ("sk", cloud.iam.key.secret)):
            (self.secrets / "cloud" / name).write_text(value)

    def start(self, delivery=None, **more):
        source = {
            "streamName": "orders",
            "startPosition": "TrimHorizon",
            "pollingInterval": "50ms",
            "cloud": {"region": REGION, "projectID": PROJECT, "credentials": PAIR},
            **more,
        }
        return self.runner.start(
            trigger("orders", {"dis": source}, self.function.uri, delivery),
            options=[f"--secrets={self.secrets}", "--grace=5s"],
            env={"SLUICE_CLOUD": self.cloud.endpoint},
        )

    def put(self, count, size=0):
        for i in range(count):
            number = len(self.sent)
            partition, sequence = self.cloud.dis.put(
                self.stream, f"key {number}", f"record {number}".ljust(size).encode()
            )
            self.sent.append((partition.id, sequence))

    def arrived(self):
        """(partition, sequence number) of each record, as often as it arrived."""
        return [
            (e["ShardID"], int(r["sequence_number"]))
            for e in map(lambda e: json.loads(e["body"]), self.function.events())
            for r in e["Message"]["records"]
        ]

    def wait_arrived(self, timeout=40):
        wait_until(
            "all that was sent arrived",
            lambda: set(self.arrived()) >= set(self.sent),
            timeout,
            explain=lambda: f"{len(set(self.arrived()))} of {len(self.sent)}",
        )

    def wait_saved(self, timeout=20):
        """The checkpoints of the app are behind the last record of each partition."""
        wanted = {p.id: p.next for p in self.stream.partitions if p.next}
        wait_until(
            "all is saved",
            lambda: {k[2]: v[0] for k, v in self.cloud.dis.checkpoints.items() if v[0]} == wanted,
            timeout,
            explain=lambda: f"{self.cloud.dis.checkpoints} instead of {wanted}",
        )

    def check_order(self):
        """First deliveries of a partition are in its order."""
        last = {}
        for partition, number in dict.fromkeys(self.arrived()):
            assert number > last.get(partition, -1)
            last[partition] = number


@pytest.fixture
def stream(cloud, runner, function, tmp_path):
    return Stream(cloud, runner, function, tmp_path)


@pytest.mark.parametrize("delivery", [{}, {"batch": {"maxMessages": 10}}])
def test_records_arrive_once_and_in_order(stream, delivery):
    stream.put(100)
    stream.start(delivery)
    stream.wait_arrived()
    stream.put(100)
    stream.wait_arrived()
    stream.wait_saved()
    assert len(stream.arrived()) == 200
    stream.check_order()
