"""Where a consumer group begins and goes on, with a real broker: nothing that came after its first start is skipped in silence."""

import datetime
import json
import re
import time

import pytest
import yaml
from harness.process import wait_until
from harness.sluice import Sluice, trigger
from test_kafka import kafka_trigger, names, offsets

LATEST = {"startPosition": "Latest"}


@pytest.fixture
def topic(kafka):
    name = f"positions-{next(names)}"
    kafka.create_topic(name, 2)
    return name


def to(partition, *values):
    return [{"value": v, "partition": partition} for v in values]


def values(function):
    return [json.loads(e["body"])["messages"][0] for e in function.events()]


def start(runner, kafka, topic, function, name="run", **more):
    run = runner.start(
        kafka_trigger(kafka, topic, function.uri, **{**LATEST, **more}),
        name=name,
    )
    run.wait_for_output("state=Connected", 30)
    return run


def committed(kafka, topic, partitions=2):
    return kafka.committed(f"sluice.test.{topic}", topic, partitions)


def counted(run, name):
    """{reason: count} of a counter of the admin port"""
    return {labels["reason"]: n for found, labels, n in run.metrics() if found == name}


def lost(run):
    return counted(run, "sluice_records_lost_total")


def warnings(run):
    return counted(run, "sluice_source_warnings_total")


def warned(run, topic, reason, words, timeout=10):
    """The log line, which names the Trigger."""
    run.wait_for_output(
        rf'level=warn .*namespace=test trigger={topic} reason={reason} .*text="{words}', timeout
    )


def test_the_first_position_is_committed_before_anything_is_read(kafka, topic, function, runner):
    kafka.produce(topic, to(0, "old") + to(1, "old", "old"))
    function.behave(status=503)
    run = start(runner, kafka, topic, function)
    assert committed(kafka, topic) == {0: 1, 1: 2}
    kafka.produce(topic, to(0, "a", "b") + to(1, "c"))
    run.wait_for_output("Retrying", 20)
    assert run.stop() == 0
    kafka.produce(topic, to(0, "d"))
    function.behave(status=200)
    start(runner, kafka, topic, function, name="again")
    wait_until("all that came since", lambda: set(values(function)) == {"a", "b", "c", "d"}, 60)


def fall_behind_retention(runner, kafka, topic, function):
    """The group is at 1 in both partitions; of the first there are 12 to 19."""
    run = start(runner, kafka, topic, function)
    kafka.produce(topic, to(0, "0") + to(1, "0"))
    function.wait_for(2)
    assert run.stop() == 0
    kafka.produce(topic, to(0, *(f"p{i}" for i in range(1, 20))) + to(1, "q1"))
    kafka.purge(topic, {0: 12})


def test_retention_passes_the_position_of_some_partitions(kafka, topic, function, runner):
    fall_behind_retention(runner, kafka, topic, function)
    run = start(runner, kafka, topic, function, name="again")
    wait_until(
        "what is left", lambda: set(values(function)) == {"0", "q1", *(f"p{i}" for i in range(12, 20))}, 30
    )
    warned(
        run,
        topic,
        "RecordsExpired",
        rf"topic {topic}, partition 0: 11 records are gone before they were delivered, offsets 1 to 11:",
    )
    assert lost(run) == {"RecordsExpired": 11, "PositionReset": 0}
    assert warnings(run) == {
        "RecordsExpired": 1,
        "PositionReset": 0,
        "PartitionAdded": 0,
        "ReadingStopped": 0,
    }


def test_where_to_go_on_when_records_are_gone_may_be_chosen(kafka, topic, function, runner):
    """Stop, until the file says otherwise: the process stays."""
    fall_behind_retention(runner, kafka, topic, function)
    run = runner.start(
        kafka_trigger(kafka, topic, function.uri, **LATEST, offsetOutOfRange="Stop"), name="again"
    )
    stopped = f"topic {topic}, partition 0: the position 1 is no more, there are 12 to 19"
    run.wait_until("has stopped", lambda: run.status()["sourceReason"].startswith(stopped), 30)
    assert run.status()["sourceState"] == "Failed"
    wait_until("the other partition goes on", lambda: values(function)[2:] == ["q1"], 20)
    warned(run, topic, "ReadingStopped", stopped)
    assert committed(kafka, topic)[0] == 1
    t = kafka_trigger(kafka, topic, function.uri, **LATEST, offsetOutOfRange="Latest")
    (runner.directory / "again.yaml").write_text(yaml.safe_dump(t))
    warned(
        run,
        topic,
        "RecordsExpired",
        rf"topic {topic}, partition 0: 19 records are left out, offsets 1 to 19: those before 12 are gone",
        30,
    )
    run.wait_until("goes on", lambda: run.status()["sourceState"] == "Connected", 20)
    kafka.produce(topic, to(0, "last"))
    wait_until("what is new", lambda: values(function)[2:] == ["q1", "last"], 20)
    assert lost(run)["RecordsExpired"] == 19


@pytest.mark.parametrize("position", ["Latest", "Earliest"])
def test_a_running_trigger_is_overtaken(kafka, topic, function, runner, position):
    """The function hangs at one record, while more comes than is fetched ahead, and most of it goes."""
    run = start(
        runner,
        kafka,
        topic,
        function,
        startPosition=position,
        fetchBytes=2097152,
        delivery={"timeout": "5m", "maxInFlight": 1},
    )
    function.behave(delay="8s", **{"for": "7s"})
    big = "x" * 100_000
    kafka.produce(topic, to(0, "first", *[big] * 200))
    wait_until("the first is under way", lambda: function.events(accepted=False), 7)
    kafka.purge(topic, {0: 199})
    kafka.produce(topic, to(0, "last"))
    wait_until("the last", lambda: "last" in values(function), 90)
    warned(
        run, topic, "RecordsExpired", r".* records are gone before they were delivered, offsets \d+ to 198"
    )
    seen = offsets(function.events())[0]
    count = lost(run)["RecordsExpired"]
    assert count > 0 and len(seen) + count == 202
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("count", [4, 20])
def test_a_topic_that_is_made_again_under_a_running_trigger_is_read_from_its_beginning(
    kafka, topic, function, runner, count
):
    """The position lies behind the new end, or within the new topic."""
    run = start(runner, kafka, topic, function)
    kafka.produce(topic, to(0, *"abcdef"))
    function.wait_for(6)
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 1)
    kafka.produce(topic, to(0, *(f"new {i}" for i in range(count))))
    wait_until(
        "all of the new topic", lambda: {f"new {i}" for i in range(count)} <= set(values(function)), 60
    )
    wait_until("its end is committed", lambda: committed(kafka, topic, 1) == {0: count}, 20)
    warned(run, topic, "PositionReset", rf"topic {topic}, partition 0: the position \d is no more: ")
    assert warnings(run)["PositionReset"] == 1


def test_a_topic_that_is_made_again_while_the_worker_is_down_is_read_from_its_beginning(
    kafka, topic, function, runner
):
    run = start(runner, kafka, topic, function)
    kafka.produce(topic, to(0, *"abc"))
    function.wait_for(3)
    assert run.stop() == 0
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 3)
    kafka.produce(topic, [{"value": f"new {i}", "partition": i % 3} for i in range(30)])
    start(runner, kafka, topic, function, name="again")
    wait_until("all of the new topic", lambda: {f"new {i}" for i in range(30)} <= set(values(function)), 60)


def test_partitions_that_come_while_the_worker_is_down_are_read_from_their_beginning(
    kafka, topic, function, runner
):
    run = start(runner, kafka, topic, function)
    assert run.stop() == 0
    kafka.grow_topic(topic, 4)
    kafka.produce(topic, to(2, "c") + to(3, "d") + to(0, "a"))
    run = start(runner, kafka, topic, function, name="again")
    wait_until("all of them", lambda: sorted(values(function)) == ["a", "c", "d"], 30)
    for partition in (2, 3):
        warned(run, topic, "PartitionAdded", rf"topic {topic}, partition {partition}: .*, offset 0, ")
    assert warnings(run) == {
        "RecordsExpired": 0,
        "PositionReset": 0,
        "PartitionAdded": 2,
        "ReadingStopped": 0,
    }


def test_partitions_that_come_under_two_workers_are_read_from_their_beginning(kafka, topic, function, runner):
    kafka.produce(topic, to(0, "old"))
    start(runner, kafka, topic, function)
    second = runner.start(kafka_trigger(kafka, topic, function.uri, **LATEST), name="second", state="state-2")
    second.wait_for_output("Connected", 30)
    kafka.grow_topic(topic, 6)
    kafka.produce(topic, [m for p in range(2, 6) for m in to(p, f"p{p}")])
    wait_until("the new partitions", lambda: sorted(set(values(function))) == ["p2", "p3", "p4", "p5"], 60)


def test_two_workers_that_start_first_leave_out_what_was_there(kafka, topic, function, runner):
    kafka.produce(topic, to(0, "old", "old") + to(1, "old"))
    t = kafka_trigger(kafka, topic, function.uri, **LATEST)
    for run in [runner.start(t, name=n, state=n) for n in ("first", "second")]:
        run.wait_for_output("Connected", 30)
    kafka.produce(topic, to(0, "new") + to(1, "new"))
    wait_until("what is new", lambda: len(values(function)) >= 2, 30)
    assert set(values(function)) == {"new"}


def test_one_topic_of_several_is_made_later(kafka, topic, function, runner):
    later = f"{topic}-later"
    t = kafka_trigger(kafka, topic, function.uri, **LATEST, topics=[topic, later])
    run = runner.start(t)
    run.wait_for_output(f"Failed.*{later}|{later}.*[Uu]nknown", 30)
    kafka.create_topic(later, 1)
    kafka.produce(later, to(0, "first"))
    wait_until("its first record", lambda: "first" in values(function), 60)


def test_a_topic_that_is_deleted_holds_up_no_other(kafka, topic, function, runner):
    """It is deleted with positions that are not committed yet: the other one's are, what is gone is no lag, and the Trigger stays ready."""
    gone = f"{topic}-gone"
    kafka.create_topic(gone, 4)
    run = runner.start(
        kafka_trigger(kafka, topic, function.uri, startPosition="Earliest", topics=[gone, topic]),
    )
    group = f"sluice.test.{topic}"
    kafka.produce(gone, [{"value": "x", "partition": i % 4} for i in range(20)])
    function.wait_for(20)
    kafka.delete_topic(gone)

    def said(pattern):
        kafka.produce(topic, to(0, "go on"))
        return re.search(pattern, run.output)

    wait_until(
        "the deletion is told",
        lambda: said(rf'state=Connected reason="topic {gone}, partition \d: .*set aside'),
        20,
        poll=0.5,
    )
    end = kafka.end_offsets(topic, 2)
    wait_until("the other topic is committed", lambda: kafka.committed(group, topic, 2) == end, 5)
    assert run.status()["lag"] == 0
    assert run.status()["sourceState"] == "Connected" and gone in run.status()["sourceReason"]
    assert run.ask("/readyz")[0] == 200
    count = len(values(function))
    run.kill()
    again = runner.start(
        kafka_trigger(kafka, topic, function.uri, startPosition="Earliest", topics=[gone, topic]),
        name="again",
    )
    again.wait_for_output("state=Connected", 60)
    kafka.produce(topic, to(0, "last"))
    wait_until("what is new", lambda: "last" in values(function), 20)
    assert values(function)[count:] == ["last"]
    assert not re.search("state=(Connecting|Disconnected)", run.output.split("state=Connected", 1)[1])


def test_transactions_leave_no_lag(kafka, topic, function, runner):
    from confluent_kafka import Producer

    run = start(runner, kafka, topic, function)
    function.behave(delay="300ms")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions()
    for aborted in (False, True):
        producer.begin_transaction()
        for partition in (0, 1):
            producer.produce(topic, "aborted" if aborted else "kept", partition=partition)
        producer.flush()  # else those to be aborted may never have been sent
        (producer.abort_transaction if aborted else producer.commit_transaction)()
    ends = {0: 4, 1: 4}  # two records and two markers
    wait_until("the ends are committed", lambda: committed(kafka, topic) == ends, 30)
    assert kafka.end_offsets(topic, 2) == ends
    assert values(function) == ["kept", "kept"]
    assert run.stop() == 0


def test_a_worker_that_another_of_its_name_fenced_off_joins_again_and_ends_at_once(
    kafka, topic, function, tmp_path
):
    """Both have the same group.instance.id, as by mistake in two places."""
    path = tmp_path / "trigger.yaml"
    path.write_text(yaml.safe_dump(kafka_trigger(kafka, topic, function.uri)))

    def worker(name):
        return Sluice(
            "worker",
            f"--trigger={path}",
            f"--checkpoint={tmp_path / name}",
            "--instance=slot-0",
            "--log-level=info",
            name=name,
            directory=tmp_path / f"{name}-output",
        )

    first, second = worker("first"), worker("second")
    try:
        first.start()
        first.wait_for_output("state=Connected", 30)
        second.start()
        second.wait_for_output("state=Connected", 30)
        first.wait_for_output("state=Failed.*[Ff]enced", 30)
        kafka.produce(topic, to(0, "a"))
        function.wait_for(1)
        assert second.stop() == 0
        first.wait_for_output(r"state=Failed(.|\n)*state=Connected", 120)
        kafka.produce(topic, to(0, "b"))
        wait_until("it delivers again", lambda: "b" in values(function), 60)
        second.start()
        first.wait_for_output(
            r"state=Connected(.|\n)*state=Failed(.|\n)*state=Connected(.|\n)*state=Failed", 60
        )
        began = time.monotonic()
        assert first.stop() == 0
        assert time.monotonic() - began < 10
    finally:
        for p in (first, second):
            print(p.describe())
            p.close()


def test_a_worker_of_the_same_slot_goes_on_at_once_after_a_kill(kafka, topic, function, tmp_path):
    """Static membership: the group does not wait for the session to time out, which takes 45 s."""
    path = tmp_path / "trigger.yaml"
    path.write_text(yaml.safe_dump(kafka_trigger(kafka, topic, function.uri)))

    def worker(number):
        return Sluice(
            *("worker", f"--trigger={path}", f"--checkpoint={tmp_path / 'checkpoint'}"),
            *("--instance=slot-0", "--log-level=info"),
            name=f"worker-{number}",
            directory=tmp_path / f"output-{number}",
        )

    workers = [worker(n) for n in range(4)]
    try:
        for number, w in enumerate(workers):
            began = time.monotonic()
            w.start()
            kafka.produce(topic, to(0, f"{number}"))
            wait_until("it delivers", lambda n=number: f"{n}" in values(function), 20)
            assert number == 0 or time.monotonic() - began < 10
            w.kill()
    finally:
        for w in workers:
            print(w.describe())
            w.close()


def test_the_lag_is_true_while_the_function_blocks(kafka, topic, function, runner):
    """What is not fetched, since no room is left for it, counts as well."""
    function.behave(status=400)
    run = start(runner, kafka, topic, function, startPosition="Earliest", fetchBytes=2097152)
    kafka.produce(topic, to(0, *["x" * 1000] * 3000))
    run.wait_for_output("state=Blocked", 30)
    kafka.produce(topic, to(0, *["x" * 1000] * 9000))

    wait_until("the lag is known", lambda: run.status()["lag"] == 12000, 30)


def test_a_group_may_begin_at_a_time(runner, kafka, topic, function):
    """At its first start alone; a partition without a record since then begins at its end."""
    began = 1_790_000_000_000
    kafka.produce(
        topic,
        [
            {"value": f"{p}-{i}", "partition": p, "timestamp": began + i * 1000}
            for p in (0, 1)
            for i in range(4)
        ],
    )
    kafka.produce(topic, [{"value": "late", "partition": 0, "timestamp": began + 9_000}])
    since = {"startPosition": "Timestamp", "startTimestamp": stamp(began + 8_500)}
    run = start(runner, kafka, topic, function, **since)
    assert [e["body"] for e in function.wait_for(1)] and values(function) == ["late"]
    wait_until("committed", lambda: committed(kafka, topic) == {0: 5, 1: 4}, 10)
    run.stop()
    kafka.produce(topic, to(1, "more"))
    earlier = {"startPosition": "Timestamp", "startTimestamp": stamp(began)}
    start(runner, kafka, topic, function, name="again", **earlier)
    function.wait_for(2)
    assert values(function) == ["late", "more"]


def stamp(milliseconds):
    at = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_what_was_aborted_is_read_where_that_is_asked_for(runner, kafka, topic, function):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"{topic}-aborts"})
    producer.init_transactions()
    for value, end in (("aborted", producer.abort_transaction), ("committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush()
        end()
    earliest = {"startPosition": "Earliest"}
    run = start(runner, kafka, topic, function, isolation="ReadUncommitted", **earliest)
    function.wait_for(2)
    assert values(function) == ["aborted", "committed"]
    run.stop()
    start(runner, kafka, topic, function, name="second", consumerGroup=f"{topic}-second", **earliest)
    function.wait_for(3)
    assert values(function) == ["aborted", "committed", "committed"]


def test_further_options_reach_librdkafka(runner, kafka, topic, function):
    from confluent_kafka.admin import AdminClient

    start(runner, kafka, topic, function, properties={"client.id": "of-my-own", "session.timeout.ms": "7000"})
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    (group,) = admin.describe_consumer_groups([f"sluice.test.{topic}"]).values()
    assert [m.client_id for m in group.result(20).members] == ["of-my-own"]


def test_topics_by_a_pattern_and_those_that_appear_later(runner, kafka, topic, function):
    """Whole names match; what is in a topic before it is found is read, too."""
    for name in (f"{topic}.one", f"{topic}.one.more", f"not-{topic}.one"):
        kafka.create_topic(name)
    source = {
        "bootstrapServers": [kafka.bootstrap],
        "topicPattern": f"{topic}[.][a-z]+",
        "properties": {"topic.metadata.refresh.interval.ms": "500"},
    }
    run = runner.start(trigger("pattern", {"kafka": source}, function.uri))
    run.wait_for_output("state=Connected", 30)
    kafka.produce(f"{topic}.one", ["a"])
    kafka.produce(f"{topic}.one.more", ["not this"])
    kafka.produce(f"not-{topic}.one", ["nor this"])
    function.wait_for(1)
    kafka.create_topic(f"{topic}.two")
    kafka.produce(f"{topic}.two", ["b", "c"])
    function.wait_for(3, 60)
    assert [e["id"] for e in function.events()] == [
        f"{topic}.one/0/0",
        f"{topic}.two/0/0",
        f"{topic}.two/0/1",
    ]
    kafka.produce(f"{topic}.one", ["d"])
    function.wait_for(4)
    assert values(function) == ["a", "b", "c", "d"]
