"""What was put into a stream, what arrived, and how often: while it is rescaled, with faults of each kind before and after calls have their effect, the program killed and stopped, keys rotated and
clocks that disagree. LEDGER=50000 in the environment makes it long."""

import collections
import json
import os
import random
import threading
import time

from cloud import faults
from harness.process import wait_until
from test_dis import Stream, cursor_of, records_of

RECORDS = int(os.environ.get("LEDGER", 3000))
LONG = RECORDS >= 20000
TIMES = 30 if LONG else 1  # of each kind of fault, of each operation, before and after
ENDS = 10 if LONG else 3  # of each kind
AHEAD = 300  # records that wait to be delivered, at most
SIZES = [2, 7, 3, 9]  # after 5 partitions
DISCOVERED_WITHIN = 30.0

SPREAD = 40 * TIMES  # calls over which the faults of an operation are spread
# How many faults of calls that are rare; None: each kind
OPERATIONS = {
    "dis.show_stream": 10 if LONG else 3,
    "dis.show_checkpoint": 12 if LONG else 6,
    "dis.get_cursor": 12 if LONG else 6,
    "dis.get_records": None,
    "dis.commit_checkpoint": None,
}
BEFORE = {
    "reset": faults.reset(),
    "hang up": faults.hang_up(),
    "system error": faults.refuse("DIS.5000"),
    "503": faults.status(503, b"<html>busy</html>"),
    "throttled": faults.refuse("DIS.4303"),
    "throttled by the gateway": faults.status(429, b'{"error_code":"APIG.0308"}', "application/json"),
}
AFTER = {**BEFORE, "truncated": faults.truncate(), "cut off": faults.cut_off(), "slow": faults.slow(0.2)}


class again:
    """The answer before this one to a question about the same partition."""

    def __init__(self):
        self.before = {}

    def __call__(self, call, answer):
        at = cursor_of(call)["p"]
        old, self.before[at] = self.before.get(at), answer
        return old or answer


class Arrivals:
    """What the function accepted, in its order."""

    def __init__(self, function):
        self.function, self.number, self.lock = function, 0, threading.Lock()
        self.all = []  # (partition, sequence number)
        self.distinct = {}  # in the order of the first deliveries

    def look(self):
        """How many there were so far."""
        with self.lock:
            while page := json.loads(self.function.ask(f"/-/events?after={self.number}"))["events"]:
                self.number = page[-1]["number"]
                came = [r for e in page if e["status"] == 200 for r in records_of(e)]
                self.all += came
                self.distinct |= dict.fromkeys(came)
            return len(self.all)

    def partitions(self):
        self.look()
        return {p for p, _ in list(self.distinct)}


class Producer(threading.Thread):
    """Puts keyed records, and waits while too many are on their way."""

    def __init__(self, stream, arrivals):
        super().__init__(daemon=True)
        self.stream, self.arrivals = stream, arrivals
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.wanted = 0

    def run(self):
        while not self.stopped.wait(0.02):
            with self.lock:
                self.arrivals.look()
                most = min(self.wanted, len(self.arrivals.distinct) + AHEAD)
                self.stream.put(max(0, most - len(self.stream.sent)))

    def put_until(self, count, run, timeout=120):
        """So many records altogether are put."""
        self.wanted = count
        run.wait_until(f"{count} records are put", lambda: len(self.stream.sent) >= count, timeout)


class Ledger:
    def __init__(self, cloud, stream, function):
        self.cloud, self.stream, self.function = cloud, stream, function
        self.stream.rescale(5)
        self.arrivals = Arrivals(function)
        self.producer = Producer(stream, self.arrivals)
        self.run, self.keys = None, [cloud.iam.key]
        self.may_repeat = 0  # the sum over the kills
        self.discoveries = []

    def start(self):
        self.run = self.stream.start(
            {"timeout": "5s", "retry": {"initialBackoff": "100ms", "maxBackoff": "100ms"}},
        )
        self.run.wait_for_http(f"http://127.0.0.1:{self.run.admin}/livez")

    def kill(self):
        """What was in flight, settled since the last commit, or came between the question and the end, may come again."""
        with self.producer.lock:
            seen = self.arrivals.look()
            before = {name: number for name, _, number in self.run.metrics()}
            self.run.kill()
            after = self.arrivals.look()
        assert before["sluice_records_unsaved"] >= 0
        self.may_repeat += before["sluice_records_held"] + before["sluice_records_unsaved"] + after - seen

    def stop(self):
        self.run.stop_timeout = 20
        assert self.run.stop() == 0

    def rotate(self):
        """The new key is there before the old one is gone."""
        key = self.cloud.iam.add_key()
        self.stream.write(key)
        self.cloud.iam.revoke(self.keys[-1].access)
        self.keys.append(key)

    def rescale(self, count, watch):
        known = self.arrivals.partitions()
        self.stream.rescale(count)
        since = time.monotonic()
        new = {p.id for p in self.stream.stream.partitions} - known
        if not watch or not new:
            return

        def discovered():
            return new <= self.arrivals.partitions()

        self.producer.wanted = len(self.stream.sent) + AHEAD
        self.run.wait_until(f"records of {sorted(new)} arrive", discovered, DISCOVERED_WITHIN)
        self.discoveries.append(time.monotonic() - since)

    def first_deliveries_ascend(self):
        last = collections.defaultdict(lambda: -1)
        for partition, number in self.arrivals.distinct:
            assert number > last[partition], f"{partition}: {number} came after {last[partition]}"
            last[partition] = number


def make_faults(cloud, dice):
    """Of calls that are made often each kind, anywhere; of the others a few, and never two of one operation in a row."""
    made = []
    for operation, few in OPERATIONS.items():
        kinds = [(when, k) for when, ks in (("before", BEFORE), ("after", AFTER)) for k in ks.values()]
        if few:
            for i, (when, kind) in enumerate(dice.sample(kinds, few)):
                made.append(cloud.fault(operation, kind, when=when, skip=i))
            continue
        for when, kind in kinds * TIMES:
            made.append(cloud.fault(operation, kind, when=when, skip=dice.randrange(SPREAD)))
    made.append(cloud.fault("dis.get_records", again(), when="after", times=3 * TIMES, skip=5))
    made.append(cloud.fault("dis.get_records", faults.refuse("DIS.4225"), times=TIMES, skip=9))
    return made


def test_nothing_is_lost(cloud, runner, function, tmp_path):
    dice = random.Random(7)
    stream = Stream(cloud, runner, function, tmp_path)
    ledger = Ledger(cloud, stream, function)
    function.behave(delay="2ms")
    made = make_faults(cloud, dice)
    began = time.monotonic()
    steps = [(lambda: ledger.kill(), True)] * ENDS + [(lambda: ledger.stop(), True)] * ENDS
    steps += [(ledger.rotate, False)] * 2
    steps += [(lambda s=s: setattr(cloud, "skew", s), False) for s in (1200.0, -1200.0, 0.0)]
    dice.shuffle(steps)
    for number, count in enumerate(SIZES):
        at = (number * 2 + 1) * len(steps) // (len(SIZES) * 2) + number
        steps.insert(at, (lambda count=count: ledger.rescale(count, LONG or count == 7), False))

    ledger.start()
    ledger.producer.start()
    for number, (step, ends) in enumerate(steps):
        ledger.producer.put_until(RECORDS * (number + 1) // (len(steps) + 1), ledger.run)
        step()
        if ends:
            ledger.start()
    ledger.producer.put_until(max(RECORDS, len(stream.sent)), ledger.run)

    def faults_are_over():
        ledger.producer.wanted = len(stream.sent) + 10
        return all(f.hits == f.times for f in made)

    ledger.run.wait_until("each fault happened", faults_are_over, 600 if LONG else 60)
    ledger.producer.stopped.set()
    ledger.producer.join()
    wait_until(
        "all that was sent arrived",
        lambda: ledger.arrivals.look() and len(ledger.arrivals.distinct) >= len(stream.sent),
        120,
        explain=lambda: f"lost: {len(set(stream.sent) - set(ledger.arrivals.distinct))}",
    )
    stream.wait_saved(60)
    ledger.stop()
    repeated = ledger.arrivals.look() - len(ledger.arrivals.distinct)
    lost = set(stream.sent) - set(ledger.arrivals.distinct)
    print(
        f"sent {len(stream.sent)}, lost {len(lost)}, repeated {repeated} "
        f"(at most {ledger.may_repeat}), faults {sum(f.hits for f in made)}, kills {ENDS}, stops {ENDS}, "
        f"{time.monotonic() - began:.0f} s, discoveries {', '.join(f'{d:.1f} s' for d in ledger.discoveries)}"
    )
    assert not lost and len(ledger.arrivals.distinct) == len(stream.sent)
    assert repeated <= ledger.may_repeat
    ledger.first_deliveries_ascend()
    assert len(stream.stream.active()) == 9
    assert ledger.discoveries
