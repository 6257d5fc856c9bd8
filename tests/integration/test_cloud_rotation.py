"""Keys of each kind are replaced while streams and queues are read: nothing fails, is lost or comes twice."""

import dataclasses
import re

import pytest
from cloud.service import PROJECT, REGION
from harness.process import wait_until
from test_cloud_calls import kinds, make_agency
from test_dis import Stream
from test_dms import Queue

ROTATIONS = 2
COUNTERS = (
    "sluice_delivery_failures_total",
    "sluice_events_delivered_total",
    "sluice_source_connected",
)


class OfStream(Stream):
    """Records of DIS."""

    def add(self, count):
        super().put(count)

    def count(self):
        return len(self.sent)


class OfQueue(Queue):
    """Messages of DMS."""

    messages = 0

    def add(self, count):
        self.send([f"message {self.messages + n}" for n in range(count)])
        self.messages += count

    def count(self):
        return self.messages


def used(cloud):
    """The keys that signed calls, in order, each once."""
    return list(dict.fromkeys(key for key, _ in cloud.signed if key))


@pytest.mark.parametrize("kind", ["Secret", "Agency", "Metadata", "ServiceAccount", "PodIdentity"])
@pytest.mark.parametrize("service", [OfStream, OfQueue], ids=["dis", "dms"])
def test_keys_are_replaced_while_it_is_read(
    runner,
    cloud,
    function,
    tmp_path,
    service,
    kind,
):
    make_agency(cloud)
    token = tmp_path / "token"
    token.write_text(cloud.iam.id_token())
    credentials, env = kinds(cloud, tmp_path)[kind]
    source = service(cloud, runner, function, tmp_path)
    run = source.start(
        env=env,
        cloud={"region": REGION, "projectID": PROJECT, "credentials": credentials},
    )

    def goes_on(said):
        """More is put all the while."""
        source.add(5)
        return said()

    run.wait_until("it is read", lambda: goes_on(lambda: function.accepted() > 50), 30)
    for rotation in range(ROTATIONS):
        last, before = used(cloud)[-1], source.count()
        if kind == "Secret" or (kind == "Agency" and rotation == 0):
            source.write(cloud.iam.add_key())
        if kind == "ServiceAccount":
            token.write_text(cloud.iam.id_token(subject=f"rotated {rotation}"))
        cloud.iam.revoke(last)
        run.wait_until("another key is used", lambda last=last: goes_on(lambda: used(cloud)[-1] != last), 30)
        run.wait_until(
            "what was put meanwhile arrives",
            lambda n=before: goes_on(lambda: function.accepted() > n + 20),
            30,
        )
    wait_until("all of it arrives", lambda: function.accepted() >= source.count(), 60)
    ids = [e["id"] for e in function.events(accepted=False)]
    assert len(ids) == len(set(ids)) == source.count()
    assert [run.metric(name) for name in COUNTERS] == [0, source.count(), 1]
    assert len(used(cloud)) >= ROTATIONS + 1
    assert not re.search("state=(Disconnected|Failed)", run.output)
    assert run.stop() == 0


@pytest.mark.parametrize("first", ["access", "secret"])
@pytest.mark.parametrize("service", [OfStream, OfQueue], ids=["dis", "dms"])
def test_a_pair_that_is_read_half_new_is_no_failure(runner, cloud, function, tmp_path, service, first):
    """What is refused meanwhile is asked again once the other half is there."""
    source = service(cloud, runner, function, tmp_path)
    run = source.start()
    source.add(5)
    run.wait_until("it is read", lambda: function.accepted() == 5, 30)
    old, new = cloud.iam.key, cloud.iam.add_key()
    source.write(dataclasses.replace(old, **{first: getattr(new, first)}))
    run.wait_until("it is refused", lambda: 401 in [status for _, status, _ in cloud.made()], 30)
    source.write(new)
    source.add(5)
    run.wait_until("the new pair is used", lambda: function.accepted() == 10, 30)
    assert used(cloud)[-1] == new.access
    assert not re.search("state=(Disconnected|Failed)", run.output)
    assert run.stop() == 0
