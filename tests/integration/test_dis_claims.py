"""Processes that share the partitions of a stream by one --state."""

import time

import pytest
from harness.process import wait_until
from harness.sluice import trigger
from test_dis import Stream


@pytest.fixture
def stream(cloud, runner, function, tmp_path):
    made = Stream(cloud, runner, function, tmp_path)
    made.rescale(4)
    return made


class Reader:
    """A process, and how many records it got."""

    def __init__(self, stream, name, replicas):
        self.file = stream.runner.directory / f"{name}.yaml"
        self.run = stream.start(name=name, spec={"replicas": replicas})
        self.run.wait_for_http(f"http://127.0.0.1:{self.run.admin}/livez")

    def received(self):
        return self.run.metric("sluice_events_received_total")


def arrive(stream, count=40):
    """So many records are put; how long until all arrived."""
    stream.put(count)
    since = time.monotonic()
    stream.wait_arrived()
    return time.monotonic() - since


def both_read(stream, first, second):
    """Each reads two of the four partitions."""

    def shared():
        before = first.received(), second.received()
        arrive(stream)
        return first.received() > before[0] and second.received() > before[1]

    wait_until("both read", shared, 30)


def test_partitions_are_shared_and_handed_over(stream):
    first = Reader(stream, "first", 2)
    arrive(stream)
    assert first.received() == 40  # alone it reads all
    second = Reader(stream, "second", 2)
    both_read(stream, first, second)
    stream.wait_saved()
    repeated = len(stream.arrived()) - len(set(stream.arrived()))
    assert repeated == 0  # what was given up had been saved

    since = time.monotonic()
    assert first.run.stop() == 0
    ended = time.monotonic()
    arrive(stream)
    assert time.monotonic() - since <= 3.0, f"it took {ended - since:.1f} s to end"
    assert len(stream.arrived()) == len(set(stream.arrived()))

    third = Reader(stream, "third", 2)
    both_read(stream, second, third)
    stream.put(40)
    since = time.monotonic()
    second.run.kill()
    stream.put(40)
    stream.wait_arrived()
    assert time.monotonic() - since <= 3.0
    stream.wait_saved()
    stream.check_order()


def test_one_part_has_one_reader(stream):
    first = Reader(stream, "first", 1)
    arrive(stream)
    second = Reader(stream, "second", 1)
    second.run.wait_for_output("state=Standby")
    second.run.wait_for_http(f"http://127.0.0.1:{second.run.admin}/readyz")
    arrive(stream)
    assert (first.received(), second.received()) == (80, 0)
    first.run.kill()
    assert arrive(stream) <= 3.0
    stream.wait_saved()
    stream.check_order()


@pytest.mark.parametrize("numbers", [(3, 2), (3, 4)])
def test_another_number_of_parts_waits_until_the_others_are_gone(stream, numbers):
    """What a part is depends on how many there are: with two numbers at once some are read by nobody."""
    stream.rescale(6)
    first = Reader(stream, "first", numbers[0])
    arrive(stream)
    second = Reader(stream, "second", numbers[1])
    second.run.wait_for_output("state=Standby")
    assert f"spec.replicas is {numbers[1]} here, and {numbers[0]} in a process" in second.run.output
    second.run.wait_for_http(f"http://127.0.0.1:{second.run.admin}/readyz")
    arrive(stream)
    assert (first.received(), second.received()) == (80, 0)

    edit(first, numbers[0], numbers[1])  # it gives up its parts, and both agree
    both_read(stream, first, second)
    edit(second, numbers[1], 5)
    first.run.kill()
    arrive(stream)
    stream.wait_saved()
    stream.check_order()


def edit(reader, before, after):
    """The file of a process says another number."""
    text = reader.file.read_text()
    assert f"replicas: {before}\n" in text
    reader.file.write_text(text.replace(f"replicas: {before}\n", f"replicas: {after}\n"))


def test_what_keeps_its_positions_in_the_state_is_run_once(stream, runner, function):
    """Only what is shared may be run twice."""
    tick = trigger("tick", {"timer": {"schedule": "@every 1s"}}, function.uri)
    first = runner.start(tick, name="first")
    first.wait_for_output("state=Connected")
    second = runner.start(tick, name="second")
    assert second.wait() == 1
    assert "in use by another process" in second.output
