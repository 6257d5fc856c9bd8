"""Streams of DIS, as the emulator has them: what arrives, in which order, over restarts, rescaling and faults."""

import base64
import datetime
import json
import re
import signal
import time

import pytest
import yaml
from cloud import faults
from cloud.service import PROJECT, REGION, Answer
from harness.cloud import PAIR, write_key
from harness.ports import free_port
from harness.process import wait_until
from harness.sluice import trigger


def records_of(event):
    """(partition, sequence number) of each record in what the function got."""
    told = json.loads(event["body"])
    return [(told["ShardID"], int(r["sequence_number"])) for r in told["Message"]["records"]]


def cursor_of(call):
    """What a cursor of the emulator says: p, the partition's index; n, the number that it stands at."""
    return json.loads(base64.urlsafe_b64decode(call.query["partition-cursor"]))


class Stream:
    """A stream, and Triggers that read it."""

    def __init__(self, cloud, runner, function, tmp_path):
        self.cloud, self.runner, self.function = cloud, runner, function
        self.stream = cloud.dis.make_stream("orders", partitions=2)
        self.sent = []  # (partition, sequence number)
        self.before = 0  # records that arrived before the stream was made again
        self.secrets = tmp_path / "secrets"
        self.write(cloud.iam.key)

    def write(self, key):
        write_key(self.secrets, key)

    def start(self, delivery=None, options=(), name="run", spec=None, env=None, **more):
        source = {
            "streamName": "orders",
            "startPosition": "TrimHorizon",
            "pollingInterval": "50ms",
            "cloud": {"region": REGION, "projectID": PROJECT, "credentials": PAIR},
            **more,
        }
        return self.runner.start(
            trigger("orders", {"dis": source}, self.function.uri, delivery, **(spec or {})),
            name=name,
            options=[f"--secrets={self.secrets}", "--grace=5s", *options],
            env={"SLUICE_CLOUD": self.cloud.endpoint, **(env or {})},
        )

    def put(self, count, size=0):
        for i in range(count):
            number = len(self.sent)
            partition, sequence = self.cloud.dis.put(
                self.stream, f"key {number}", f"record {number}".ljust(size).encode()
            )
            self.sent.append((partition.id, sequence))

    def rescale(self, count):
        with self.cloud.changed:
            self.stream.rescale(count, self.cloud.now())

    def arrived(self):
        """(partition, sequence number) of each record, as often as it arrived."""
        return [record for event in self.function.events() for record in records_of(event)]

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

    def wait_done(self):
        self.wait_arrived()
        self.wait_saved()

    def read(self, count):
        """So many records are put, arrive, and are saved."""
        self.put(count)
        self.wait_done()

    def make_again(self, count, told=True):
        """The stream is deleted and made again, and has so many records before anyone asks for it. Its app stays.
        told: its description says when it was created."""
        self.before = len(self.arrived())
        with self.cloud.changed:
            created = self.stream.created
            self.stream = self.cloud.dis.make_stream("orders", partitions=2)
            if not told:
                self.stream.created = created
            self.sent = []
            self.put(count)

    def wait_again(self, timeout=10):
        """What arrived since is what was sent since."""
        wait_until("all arrive", lambda: set(self.arrived()[self.before :]) == set(self.sent), timeout)

    def said_of(self):
        """What the checkpoints say of the stream that they are of."""
        return {metadata for _, metadata in self.cloud.dis.checkpoints.values()}

    def saying_again(self):
        return {f"created={int(self.stream.created * 1000)} again"}

    def check_order(self):
        """First deliveries of a partition are in its order."""
        last = {}
        for partition, number in dict.fromkeys(self.arrived()):
            assert number > last.get(partition, -1)
            last[partition] = number


@pytest.fixture
def stream(cloud, runner, function, tmp_path):
    return Stream(cloud, runner, function, tmp_path)


def test_an_app_belongs_to_one_trigger(stream, cloud, runner, function):
    """Two that read as one app would skip what the other has done: they are refused before anything is read."""
    source = {
        "dis": {"streamName": "orders", "appName": "one", "cloud": {"region": REGION, "credentials": PAIR}}
    }
    both = [trigger(name, source, function.uri) for name in ("first", "second")]
    run = runner.start(*both, options=[f"--secrets={stream.secrets}"], env={"SLUICE_CLOUD": cloud.endpoint})
    assert run.wait() == 1
    assert "spec.source.dis.appName: the Triggers test/second and test/first, at " in run.output
    assert cloud.made() == []


@pytest.mark.parametrize("delivery", [{}, {"batch": {"maxMessages": 10}}])
def test_records_arrive_once_and_in_order(stream, delivery):
    stream.put(100)
    stream.start(delivery)
    stream.wait_arrived()
    stream.read(100)
    assert len(stream.arrived()) == 200
    stream.check_order()


def test_the_event_is_the_classic_one(stream, cloud, function):
    with cloud.changed:
        stream.stream.partitions[0].put(None, b"<Buffer></Buffer>", cloud.now())
        stream.stream.partitions[0].put("a key", b"\x00\xff", cloud.now())
    stream.start({"batch": {"maxMessages": 2, "maxWait": "5s"}})
    (e,) = function.wait_for(1)
    event = json.loads(e["body"])
    assert list(event) == ["ShardID", "Message", "Tag", "StreamName"]
    assert (event["ShardID"], event["Tag"]) == ("shardId-0000000000", "latest")
    assert event["StreamName"] == "orders"
    message = event["Message"]
    assert list(message) == ["next_partition_cursor", "records", "millis_behind_latest"]
    assert message["next_partition_cursor"] and message["millis_behind_latest"] == ""
    assert message["records"] == [
        {"data": base64.b64encode(b"<Buffer></Buffer>").decode(), "sequence_number": "0"},
        {"partition_key": "a key", "data": "AP8=", "sequence_number": "1"},
    ]
    assert e["id"] == "orders/shardId-0000000000/0..orders/shardId-0000000000/1"


def test_after_a_kill_it_goes_on_where_it_was(stream, function):
    run = stream.start()
    stream.read(200)
    stream.put(200)
    function.wait_for(250)
    run.kill()
    before = len(stream.arrived())
    stream.put(50)
    stream.start()
    stream.wait_done()
    stream.check_order()
    assert len(stream.arrived()) - len(stream.sent) <= before - 200


@pytest.mark.parametrize("said", ["DIS.4375", "-1", ""])
def test_latest_is_what_comes_after_the_first_start(stream, cloud, said):
    cloud.dis.no_checkpoint = said
    stream.put(40)
    missed, stream.sent = stream.sent, []
    run = stream.start(startPosition="Latest")
    wait_until("the start is saved", lambda: len(cloud.dis.checkpoints) == 2)
    run.signal(signal.SIGTERM)
    run.wait()
    stream.put(40)  # while nothing runs
    stream.start(startPosition="Latest")
    stream.wait_arrived()
    assert not set(stream.arrived()) & set(missed)


def test_a_first_start_that_was_interrupted_is_finished(stream, cloud):
    """What is there already is old, whatever was saved before the end."""
    stream.put(40)
    missed, stream.sent = stream.sent, []
    cloud.fault("dis.commit_checkpoint", faults.status(503), times=1 << 30, skip=1)
    run = stream.start(startPosition="Latest")
    wait_until("one of two is saved", lambda: len(cloud.dis.checkpoints) == 1)
    run.kill()
    cloud.clear_faults()
    stream.start(startPosition="Latest")
    wait_until("the start is saved", lambda: len(cloud.dis.checkpoints) == 2)
    stream.put(40)
    stream.wait_arrived()
    assert not set(stream.arrived()) & set(missed)


def test_a_checkpoint_is_the_next_number(stream, cloud):
    """As the official Kafka adapter leaves it: nothing is lost, nothing repeated."""
    stream.put(40)
    cloud.dis.apps["billing"] = {"app_name": "billing", "app_id": "1", "create_time": 0}
    for partition in stream.stream.partitions:
        cloud.dis.checkpoints["billing", "orders", partition.id] = (3, "")
    stream.sent = [(p, n) for p, n in stream.sent if n >= 3]
    stream.start(appName="billing", startPosition="Latest")
    stream.wait_arrived()
    assert sorted(stream.arrived()) == sorted(stream.sent)


def test_partitions_come_and_go(stream, cloud):
    """One that appears is read from its beginning, one that goes to its end, and one that comes back goes on."""
    run = stream.start(startPosition="Latest")
    wait_until("the start is saved", lambda: len(cloud.dis.checkpoints) == 2)
    for count in (4, 3, 5):
        stream.put(30)
        stream.rescale(count)
        stream.put(30)
    stream.wait_arrived(40)
    assert run.alive()
    stream.wait_saved()
    stream.check_order()
    assert len(stream.arrived()) == len(stream.sent) == 180


def test_cursors_are_renewed(stream, cloud):
    stream.start()
    stream.put(20)
    stream.wait_arrived()
    for _ in range(3):
        cloud.advance(301)
        stream.put(20)
        stream.wait_arrived()
    assert len([c for c in cloud.made("dis.get_records") if c[1] == 400]) >= 3
    assert len(stream.arrived()) == 80
    stream.check_order()


def test_throttling_and_failures_lose_nothing(stream, cloud):
    for number in range(6):
        cloud.fault("dis.get_records", faults.refuse("DIS.4303"), skip=3 * number)
        cloud.fault("dis.get_cursor", faults.refuse("DIS.4305"), times=2)
        cloud.fault("dis.get_records", faults.truncate(), when="after", skip=4 * number)
        cloud.fault("dis.commit_checkpoint", faults.reset(), when="after")
    stream.start()
    for _ in range(5):
        stream.put(40)
        stream.wait_arrived(60)
    stream.wait_saved()
    stream.check_order()
    assert len(stream.arrived()) == 200


def test_an_answer_to_another_question_skips_nothing(stream, cloud):
    """Such as one that was reordered, and begins further on."""

    def later(call, answer):
        told = json.loads(answer.body)
        told["records"] = told["records"][5:]
        return Answer(answer.status, json.dumps(told).encode(), answer.headers)

    run = stream.start()
    stream.read(20)
    assert run.stop() == 0
    stream.put(60)
    fault = cloud.fault("dis.get_records", later, when="after", times=2)
    stream.start()
    stream.wait_done()
    stream.check_order()
    assert fault.hits == 2 and len(stream.arrived()) == 80


def test_a_position_out_of_range_goes_to_the_oldest(stream, cloud):
    run = stream.start()
    stream.read(20)
    run.kill()
    stream.put(20)
    with cloud.changed:
        for partition in stream.stream.partitions:
            partition.drop_before(cloud.now() + 1)
    gone = set(stream.sent[20:])
    stream.sent = stream.sent[:20]
    partitions = {p.id: p.next for p in stream.stream.partitions}
    stream.put(20)
    assert all(n >= partitions[p] for p, n in stream.sent[20:])
    run = stream.start()
    stream.wait_arrived()
    run.wait_for_output("PositionOutOfRange")
    assert not set(stream.arrived()) & gone


def state_of(run):
    shown = run.status()
    return shown["sourceState"], shown["sourceReason"]


def held_up(run, name):
    state, reason = state_of(run)
    return state == "Connected" and re.fullmatch(
        f"nothing of partition {name} came since 20..-..-..T..:..:..Z, although the list names records up to "
        r"\d+: perhaps one is larger than maxFetchBytes \(1024\); then raise it",
        reason,
    )


def test_a_record_above_max_fetch_bytes_is_named(stream):
    """Its partition is held up, the others are not, and the source is ready."""
    run = stream.start(maxFetchBytes=1024)
    stream.put(1)
    stream.wait_arrived()
    stream.put(1, size=3000)
    ((held, _),) = stream.sent[1:]
    wait_until("the status names it", lambda: held_up(run, held), 60)
    run.wait_for_output("reason=RecordsHeldUp")
    del stream.sent[1]
    stream.put(8)
    stream.sent = [s for s in stream.sent if s[0] != held]
    assert len(stream.sent) > 1
    stream.wait_arrived()
    assert held_up(run, held) and run.ask("/readyz")[0] == 200
    assert run.output.count("reason=RecordsHeldUp") == 1


def test_answers_without_records_are_no_failure(stream, cloud):
    """A service may answer so for a while, though there are some."""
    run = stream.start(maxFetchBytes=1024)
    stream.put(8)
    stream.wait_arrived()

    def nothing(call, _):
        cursor = call.query["partition-cursor"]
        body = json.dumps({"records": [], "next_partition_cursor": cursor}).encode()
        return Answer(200, body, [("Content-Type", "application/json")])

    cloud.fault("dis.get_records", nothing, times=1 << 30)
    stream.put(8)
    wait_until("the status says so", lambda: "nothing of partition" in state_of(run)[1], 60)
    assert run.ask("/readyz")[0] == 200
    cloud.clear_faults()
    stream.wait_arrived()
    wait_until("all is well", lambda: state_of(run) == ("Connected", ""))
    assert "state=Disconnected" not in run.output and "state=Failed" not in run.output


def test_a_stream_that_is_made_again_is_held_up_by_nothing(stream, cloud):
    """What an old list named says nothing of it."""
    run = stream.start()
    stream.read(60)
    told = set()  # partitions

    def gone(call, answer):
        if answer.status != 200:
            told.add(cursor_of(call)["p"])
        return answer

    cloud.fault("dis.get_records", gone, when="after", times=1 << 30)
    with cloud.changed:
        del cloud.dis.streams["orders"]
        cloud.dis.checkpoints.clear()
    wait_until("each partition is told that it is gone", lambda: len(told) == 2)
    wait_until("it is gone", lambda: state_of(run)[0] == "Failed")
    stream.stream = cloud.dis.make_stream("orders", partitions=2)
    stream.before, stream.sent = len(stream.arrived()), []
    for _ in range(3):
        stream.put(4)
        # Each partition is asked for again up to 10 s after it was refused. What it brings before the list says
        # that the stream is another one comes again.
        stream.wait_again(15)
    wait_until("all is well", lambda: state_of(run) == ("Connected", ""))
    wait_until("no lag is left", lambda: run.status()["lag"] == 0)
    since = time.monotonic()
    wait_until("the list came again", lambda: listed_since(cloud, since), 30)
    stream.put(4)
    stream.wait_saved()
    assert "maxFetchBytes" not in run.output


def test_a_service_that_is_away_is_logged_once(stream, cloud):
    """Though each partition, and the list of them, says so in words of its own, time and again."""
    with cloud.changed:
        stream.rescale(16)
    run = stream.start()
    stream.put(60)
    stream.wait_arrived()
    operations = ("dis.get_records", "dis.get_cursor", "dis.show_stream", "dis.commit_checkpoint")
    for operation in operations:
        cloud.fault(operation, faults.status(503), times=1 << 30)
    since = time.monotonic()
    wait_until("the list was asked for, too", lambda: listings_since(cloud, since) > 1, 40)
    assert state_of(run)[0] == "Disconnected"
    assert len(re.findall("level=warn msg=source .*state=Disconnected", run.output)) == 1
    assert run.output.count("level=warn") == 1
    cloud.clear_faults()
    stream.put(16)
    stream.wait_arrived()


ANEW = (
    r"its position \d+ is of the stream that was created at 2\S+Z; that was deleted, and made again at 2\S+Z"
)


def test_an_edit_that_cannot_be_started_leaves_what_reads(stream, runner, function):
    """Its calls can't be made: that is known before anything is stopped. The next edit can be started."""
    run = stream.start()
    stream.put(10)
    stream.wait_arrived()
    file = runner.directory / "run.yaml"
    good, bad = (yaml.safe_load(file.read_text()) for _ in range(2))
    bad["spec"]["source"]["dis"]["cloud"]["credentials"] = {"type": "PodIdentity"}
    file.write_text(yaml.safe_dump(bad))
    told = (
        "its change can't be started, and it goes on as it was: start test/orders: cloud.credentials.type "
        "PodIdentity: HC_CONTAINER_CREDENTIALS_FULL_URI is not set in the environment"
    )
    run.wait_until("it is told", lambda: run.status()["sourceReason"].startswith(told))
    stream.put(10)
    stream.wait_arrived()
    assert "state=Disconnected" not in run.output
    good["spec"]["delivery"] = {"maxInFlight": 3}
    file.write_text(yaml.safe_dump(good))
    run.wait_until("it is well", lambda: run.status()["sourceState"] == "Connected")
    stream.put(10)
    stream.wait_arrived()
    assert len(stream.arrived()) == 30


def test_an_edit_whose_dead_letters_go_nowhere_is_started(stream, runner, function):
    """Their topic is asked for with the first letter: until then it holds nothing up, and then it loses none."""
    run = stream.start()
    stream.put(10)
    stream.wait_arrived()
    gone = f"127.0.0.1:{free_port()}"
    file = runner.directory / "run.yaml"
    edited = yaml.safe_load(file.read_text())
    edited["spec"]["delivery"] = {
        "maxInFlight": 3,
        "retry": {"onExhausted": "DeadLetter"},
        "deadLetter": {"kafka": {"bootstrapServers": [gone], "topic": "letters"}},
    }
    file.write_text(yaml.safe_dump(edited))
    run.wait_for_output("the files changed. applied=1")
    stream.read(10)
    assert state_of(run) == ("Connected", "")
    function.behave(status=400)
    stream.put(1)
    said = f"dead letter: topic letters: {gone}"
    run.wait_until("it says why", lambda: run.status()["deliveryReason"].startswith(said), 20)
    assert run.status()["sourceState"] == "Connected"


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "not read"])
def test_a_stream_that_is_made_again_and_outgrows_its_positions(stream, is_read):
    """By its numbers alone it might be the same one."""
    run = stream.start()
    stream.read(40)
    if not is_read:
        run.kill()
    stream.make_again(100)
    if not is_read:
        run = stream.start()
    stream.wait_again(40)
    wait_until("all is saved as the new one's", lambda: stream.said_of() == stream.saying_again())
    stream.wait_saved()
    assert is_read or len(stream.arrived()) == stream.before + 100
    assert warned(run, "PositionOutOfRange") == 2
    assert re.search(ANEW, run.output)
    assert "RecordsExpired" not in run.output
    run.kill()
    stream.before, stream.sent = len(stream.arrived()), []
    run = stream.start()
    stream.put(10)
    stream.wait_again()
    assert warned(run, "PositionOutOfRange") == 0


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "gone"])
def test_ids_tell_a_stream_from_the_one_before(stream, cloud, kept):
    """Its numbers are those of other records. They stay the same over a restart, though nothing was saved of
    it but that it was made again, and whether its checkpoints stay or go with the stream."""

    def ids(since=0):
        return [e["id"] for e in stream.function.events()[since:]]

    def expected(name):
        return {f"{name}/{p}/{n}" for p, n in stream.sent}

    run = stream.start()
    stream.read(20)
    assert set(ids()) == expected("orders")
    with cloud.changed:
        if not kept:
            cloud.dis.checkpoints.clear()
        cloud.fault("dis.commit_checkpoint", faults.status(503), times=1 << 30, skip=2)
        stream.make_again(20)
    name = f"orders@{int(stream.stream.created * 1000)}"
    wait_until("all arrive", lambda: set(ids(stream.before)) >= expected(name), 40)
    run.kill()
    assert stream.said_of() == stream.saying_again()
    again = len(ids())
    cloud.clear_faults()
    stream.start()
    wait_until("all arrive again", lambda: set(ids(again)) >= expected(name))
    stream.wait_saved()
    assert set(ids(stream.before)) == expected(name)


def test_a_checkpoint_of_an_earlier_version_is_read_on(stream, cloud):
    """It does not say which stream it is of."""
    run = stream.start()
    stream.read(40)
    run.kill()
    with cloud.changed:
        cloud.dis.checkpoints = {k: (number, "") for k, (number, _) in cloud.dis.checkpoints.items()}
    run = stream.start()
    stream.put(10)
    stream.wait_arrived()
    assert len(stream.arrived()) == 50
    assert warned(run, "PositionOutOfRange") == 0


def test_a_stream_that_is_made_again_is_read_from_its_oldest_record(stream, cloud):
    """Behind a position beyond its end nothing would come, and what comes first would be passed over."""
    run = stream.start()
    stream.read(60)
    since = time.monotonic()
    stream.make_again(20, told=False)
    wait_until("the list came again", lambda: listed_since(cloud, since), 30)
    wait_until(
        "what is to come is lag", lambda: run.status()["lag"] > 0 or len(stream.arrived()) > stream.before
    )
    stream.wait_again(15)
    stream.put(20)
    stream.wait_again()
    stream.wait_saved()
    wait_until("no lag is left", lambda: run.status()["lag"] == 0)
    assert len(stream.arrived()) == stream.before + 40
    assert re.search(r"its position \d+ lies beyond the end of the stream, \d+", run.output)
    assert warned(run, "PositionOutOfRange") == 2  # of each partition; they may share a line of the log


def test_a_stream_that_is_made_again_while_nobody_reads_it(stream):
    run = stream.start()
    stream.read(60)
    run.kill()
    stream.make_again(20, told=False)
    run = stream.start()
    stream.wait_again()
    stream.wait_saved()
    assert len(stream.arrived()) == stream.before + 20
    assert warned(run, "PositionOutOfRange") == 2


def test_a_list_that_is_behind_once_makes_nothing_come_again(stream, cloud):
    """A replica of the service that lags is no stream that was made again."""
    run = stream.start()
    stream.read(60)
    since = time.monotonic()
    cloud.fault("dis.show_stream", behind, when="after", times=1)
    wait_until("it was asked twice", lambda: listings_since(cloud, since) >= 3, 50)
    stream.put(4)
    stream.wait_arrived()
    assert len(stream.arrived()) == 64
    assert "PositionOutOfRange" not in run.output


def behind(_, answer):
    told = json.loads(answer.body)
    for partition in told["partitions"]:
        partition["sequence_number_range"] = "[0 : 1]"
    return Answer(200, json.dumps(told).encode(), answer.headers)


def listings_since(cloud, since):
    return sum(when > since for _, _, when in cloud.made("dis.show_stream"))


def warned(run, reason):
    return sum(
        int(line.rsplit(" ", 1)[1])
        for line in run.ask("/metrics")[1].splitlines()
        if not line.startswith("#") and f'"{reason}"' in line
    )


def listed_since(cloud, since):
    return any(when > since for _, _, when in cloud.made("dis.show_stream"))


def nothing_listed(_, answer):
    told = json.loads(answer.body)
    return Answer(200, json.dumps({**told, "partitions": []}).encode(), answer.headers)


def null_cursor(*_):
    body = json.dumps({"records": [], "next_partition_cursor": None}).encode()
    return Answer(200, body, [("Content-Type", "application/json")])


@pytest.mark.parametrize(
    ("operation", "fault", "reason"),
    [
        ("dis.show_stream", nothing_listed, "the list names none"),
        (
            "dis.get_records",
            faults.refuse("DIS.4319"),
            r"shardId-000000000[01]: DIS\.4319 .+",
        ),
        ("dis.get_records", faults.refuse("DIS.4302"), r"shardId-000000000[01]: DIS\.4302 .+"),
        ("dis.get_records", null_cursor, "shardId-000000000[01]: its cursor is null, as at the end"),
    ],
    ids=["none", "expired", "unknown", "ended"],
)
def test_why_nothing_is_read(stream, cloud, operation, fault, reason):
    when = "after" if fault is nothing_listed else "before"
    cloud.fault(operation, fault, when=when, times=1 << 30)
    stream.put(4)
    run = stream.start()
    run.wait_for_http(f"http://127.0.0.1:{run.admin}/livez")
    expected = re.compile(f"no partition of stream orders is read: {reason}")
    wait_until(
        "the reason says why",
        lambda: state_of(run)[0] == "Connecting" and expected.fullmatch(state_of(run)[1]),
        explain=lambda: state_of(run),
    )
    status, text = run.ask("/readyz")
    assert status == 503 and "test/orders: Connecting: no partition" in text
    if fault is null_cursor:  # it takes until the next list
        cloud.clear_faults()
        stream.wait_arrived()
        wait_until("all is well", lambda: state_of(run) == ("Connected", ""))


@pytest.mark.parametrize("serial", [True, False])
def test_serial_waits_until_what_was_fetched_is_saved(stream, function, cloud, serial):
    ahead = []  # of records asked for, how many before them were not saved

    def watch(call, answer):
        cursor = cursor_of(call)
        partition = stream.stream.partitions[cursor["p"]]
        saved = cloud.dis.checkpoints.get(("sluice_test_orders", "orders", partition.id), (0, ""))[0]
        ahead.append(cursor["n"] - saved)
        return answer

    cloud.fault("dis.get_records", watch, when="after", times=1 << 30)
    function.behave(delay="20ms")
    stream.put(60, size=200)
    stream.start(serial=serial, maxFetchBytes=1024)
    stream.wait_arrived()
    stream.check_order()
    assert len(stream.arrived()) == 60
    assert len(ahead) > 10 and any(ahead) != serial, ahead


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat().replace("+00:00", "Z")


def test_at_a_timestamp(stream, cloud):
    stream.put(40)
    missed, stream.sent = stream.sent, []
    cloud.advance(10)
    since = cloud.now()
    cloud.advance(10)
    stream.put(40)
    at = {"startPosition": "AtTimestamp", "startTimestamp": rfc3339(since)}
    stream.start(**at).wait_for_output("state=Connected")
    stream.wait_done()
    assert not set(stream.arrived()) & set(missed) and len(stream.arrived()) == 40


def test_at_a_timestamp_before_the_retention_is_the_oldest_record(stream, cloud):
    stream.put(40)
    run = stream.start(startPosition="AtTimestamp", startTimestamp=rfc3339(cloud.now() - 30 * 86400))
    stream.wait_done()
    assert len(stream.arrived()) == 40 and run.alive()
    stream.check_order()


def test_at_a_sequence_number_of_each_partition(stream):
    stream.put(60)
    assert all(p.next > 7 for p in stream.stream.partitions)
    stream.sent = [(p, n) for p, n in stream.sent if n >= 7]
    at = {"startPosition": "AtSequenceNumber", "startSequenceNumber": 7}
    run = stream.start(**at)
    stream.wait_done()
    assert sorted(stream.arrived()) == sorted(stream.sent)
    assert run.stop() == 0
    stream.put(20)
    stream.start(**at)  # once only: then it goes on
    stream.wait_arrived()
    assert sorted(stream.arrived()) == sorted(stream.sent)


def test_a_partition_that_expired_comes_back_under_its_id(stream, cloud):
    """First all of it was read; then some of it expired unread."""
    run = stream.start()
    stream.read(40)
    for number in range(2):
        stream.rescale(1)
        last = stream.stream.partitions[1]
        assert last.status == "DELETED"
        cloud.advance(25 * 3600)
        stream.stream.settle_time(cloud.now())
        assert last.status == "EXPIRED"
        run.kill()
        if not number:  # otherwise nothing runs while it is back
            run = stream.start()
            wait_until(
                "the list was read", lambda: cloud.made("dis.show_stream")[-1][2] > time.monotonic() - 1
            )
            run.wait_for_output("state=Connected")
        stream.rescale(2)
        assert last.status == "ACTIVE" and last.oldest == last.next
        stream.put(40)
        if number:  # and these are too old by the time it runs
            cloud.advance(25 * 3600)
            stream.stream.settle_time(cloud.now())
            stream.sent = list(dict.fromkeys(stream.arrived()))
            stream.put(40)
            run = stream.start()
        stream.wait_done()
    run.wait_for_output("PositionOutOfRange")
    stream.check_order()
    assert len(stream.arrived()) == len(set(stream.arrived())) == len(stream.sent)


@pytest.mark.parametrize("expired", [False, True])
def test_a_partition_that_was_closed_at_the_start_is_read_from_its_beginning(stream, cloud, expired):
    """It was none of those that Latest passes by."""
    stream.rescale(1)
    if expired:
        cloud.advance(25 * 3600)
    stream.start(startPosition="Latest")
    wait_until("the start is saved", lambda: len(cloud.dis.checkpoints) == 1)
    stream.rescale(2)
    stream.put(40)
    stream.wait_arrived()
    stream.check_order()


def test_partitions_may_have_short_names(stream, cloud):
    """ "0" and "shardId-0000000000" are the same one; it is called by the long name."""
    cloud.dis.short_ids = True
    stream.put(40)
    run = stream.start()
    stream.wait_done()
    assert run.stop() == 0
    cloud.dis.short_ids = False
    stream.rescale(3)
    stream.put(40)
    stream.start()
    stream.wait_done()
    stream.check_order()
    assert len(stream.arrived()) == 80
