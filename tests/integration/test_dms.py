"""Queues of DMS, as the emulator has them: what arrives, in which order, and what becomes of it when something fails."""

import json
import signal
import time

import pytest
from cloud import faults
from cloud.service import PROJECT, REGION
from harness.cloud import PAIR, write_key
from harness.process import run, wait_until
from harness.sink import Sink
from harness.sluice import SLUICE, trigger


class Queue:
    """A queue with a group, and Triggers that read it."""

    def __init__(self, cloud, runner, function, tmp_path, mode="NORMAL", **how):
        self.cloud, self.runner, self.function = cloud, runner, function
        self.queue = cloud.dms.make_queue("orders", mode=mode, **how)
        self.group = cloud.dms.make_group(self.queue, "sluice")
        self.secrets = tmp_path / "secrets"
        self.write(cloud.iam.key)

    def write(self, key):
        write_key(self.secrets, key)

    def trigger(self, delivery=None, name="orders", **more):
        source = {
            "queueID": self.queue.id,
            "consumerGroupID": self.group.id,
            "pollingInterval": "1s",
            "cloud": {"region": REGION, "projectID": PROJECT, "credentials": PAIR},
            **more,
        }
        return trigger(name, {"dms": source}, self.function.uri, delivery)

    def start(self, delivery=None, name="orders", options=(), env=None, **more):
        return self.runner.start(
            self.trigger(delivery, **more),
            name=name,
            state=f"{name}-state",
            options=[f"--secrets={self.secrets}", "--grace=5s", *options],
            env={"SLUICE_CLOUD": self.cloud.endpoint, **(env or {})},
        )

    def send(self, bodies, **how):
        return self.cloud.dms.send(self.queue, bodies, **how)

    def wait_empty(self, timeout=30):
        """All that was sent is acknowledged."""
        wait_until(
            "all are acknowledged",
            lambda: not self.group.line.waiting,
            timeout,
            explain=lambda: f"{len(self.group.line.waiting)} wait, {self.function.accepted()} events arrived",
        )


@pytest.fixture
def queue(cloud, runner, function, tmp_path):
    return Queue(cloud, runner, function, tmp_path)


def bodies(function):
    return [m["Body"] for e in function.events() for m in json.loads(e["body"])["Messages"]]


@pytest.mark.parametrize(
    "delivery", [{}, {"ordering": "None", "maxInFlight": 64}, {"batch": {"maxMessages": 10}}]
)
def test_what_is_sent_arrives_once_and_is_acknowledged(queue, function, delivery):
    queue.send([f"message {i}" for i in range(100)])
    queue.start(delivery)
    queue.wait_empty()
    queue.send([f"message {i}" for i in range(100, 200)])
    queue.wait_empty()
    assert sorted(bodies(function)) == sorted(f"message {i}" for i in range(200))


def test_whether_the_service_answers_is_known_at_once_at_an_empty_queue(queue, cloud):
    """However long a request may wait there: at the start, and after a failure."""
    run = queue.start(pollingInterval="60s")
    run.wait_for_output("state=Connected", 5)
    cloud.fault("dms.consume", faults.refuse("APIGW.0308", 429), times=1)
    queue.send(["1"])
    queue.wait_empty(10)
    run.wait_for_output("state=Disconnected(.|\n)*state=Connected", 10)


def test_the_event_is_the_classic_one_in_both_dialects(queue, function):
    queue.send(['a "text" \u20ac'], attributes={"dmstrigger": "dmstrigger"}, tags=["red"])
    queue.send([{"n": [1, None]}])
    queue.start({"batch": {"maxMessages": 2, "maxWait": "2s"}})
    queue.wait_empty()
    (e,) = function.events()
    event = json.loads(e["body"])
    assert list(event) == [
        "Tag",
        "QueueID",
        "ConsumerGroupID",
        "Messages",
        "functionname",
        "requestId",
        "timestamp",
    ]
    assert event["Tag"] == "latest" and event["functionname"] == "orders"
    assert (event["QueueID"], event["ConsumerGroupID"]) == (queue.queue.id, queue.group.id)
    assert event["Messages"] == [
        {"Body": 'a "text" \u20ac', "Attributes": {"dmstrigger": "dmstrigger"}},
        {"Body": {"n": [1, None]}, "Attributes": {}},
    ]


def test_fifo_queues_keep_their_order(cloud, runner, function, tmp_path):
    queue = Queue(cloud, runner, function, tmp_path, mode="FIFO")
    sent = [f"{i}" for i in range(60)]
    queue.send(sent)
    function.behave(status=503, percent=20)
    queue.start({"retry": {"initialBackoff": "100ms", "maxBackoff": "100ms"}})
    queue.wait_empty(60)
    assert bodies(function) == sent


def test_only_messages_with_the_tags_are_asked_for(queue, function):
    for body, tags in (("none", []), ("red", ["red"]), ("blue", ["blue"]), ("both", ["red", "blue"])):
        queue.send([body], tags=tags)
    queue.start(tags=["red", "blue"], tagType="And")
    function.wait_for(1)
    wait_until("one is acknowledged", lambda: len(queue.group.line.waiting) == 3)
    assert bodies(function) == ["both"]


def test_another_tag_rule_of_the_group_is_named(queue):
    first = queue.start(tags=["red"])
    first.wait_for_output("state=Connected|state=Idle")
    second = queue.start(tags=["blue"], name="other")
    second.wait_for_output("state=Disconnected.*tag")


def test_dead_letters_are_a_source(cloud, runner, function, tmp_path):
    queue = Queue(cloud, runner, function, tmp_path, redrive=True, max_consume_count=1)
    queue.send(["poison"])
    with cloud.changed:  # consumed once, in vain
        queue.group.line.take(cloud.now(), 1, 15, False, lambda m: True)
    cloud.advance(16)
    queue.start(deadLetters=True)
    with cloud.changed:
        queue.group.line.settle_time(cloud.now(), cloud.dms.bury(queue.queue, queue.group))
    function.wait_for(1)
    wait_until("it is acknowledged", lambda: not queue.group.dead.waiting)
    assert bodies(function) == ["poison"]


def test_a_repeated_acknowledgement_is_no_failure(queue, cloud, function):
    """Its answer is lost, after it had its effect: the queue refuses the second one."""
    cloud.fault("dms.ack*", faults.reset(), when="after", times=3)
    sent = [f"{i}" for i in range(50)]
    queue.send(sent)
    queue.start()
    queue.wait_empty()
    assert sorted(bodies(function)) == sorted(sent)


def test_an_empty_queue_is_asked_once_an_interval(queue, cloud, function):
    run_ = queue.start(pollingInterval="3s")
    run_.wait_for_output("state=Connected|state=Idle")
    wait_until("it was asked 3 times", lambda: len(cloud.made("dms.consume*")) >= 3, 20)
    times = [when for _, _, when in cloud.made("dms.consume*")]
    assert all(b - a >= 2.9 for a, b in zip(times, times[1:]))


def test_the_time_out_must_fit_into_the_window(tmp_path):
    file = tmp_path / "t.yaml"
    source = {"queueID": "q", "consumerGroupID": "g", "ackWait": "30s"}
    file.write_text(json.dumps(trigger("t", {"dms": source}, "http://f/", {"timeout": "30s"})))
    said = run([SLUICE, "validate", file], check=False)
    assert said.returncode == 1
    assert "spec.source.dms: ackWait must exceed delivery.timeout" in said.stdout + said.stderr
    del source["ackWait"]
    file.write_text(json.dumps(trigger("t", {"dms": source}, "http://f/", {"timeout": "5m"})))
    said = run([SLUICE, "validate", file], check=False)
    assert said.returncode == 1 and "delivery.timeout must be below 300s" in said.stdout + said.stderr


def test_all_attempts_must_fit_into_the_window(tmp_path):
    """What comes again is counted anew: attempts that go on in the next window never come to their end."""
    file = tmp_path / "t.yaml"

    def validate(ack_wait=None, **retry):
        source = {"queueID": "q", "consumerGroupID": "g", **({"ackWait": ack_wait} if ack_wait else {})}
        delivery = {"timeout": "20s", "retry": {"onExhausted": "Drop", **retry}}
        file.write_text(json.dumps(trigger("t", {"dms": source}, "http://f/", delivery)))
        said = run([SLUICE, "validate", file], check=False)
        return said.returncode, said.stdout + said.stderr

    code, said = validate("60s", maxAttempts=5)
    assert code == 1 and "spec.source.dms: delivery.retry.maxAttempts is never reached: 5 times" in said
    assert "raise ackWait to 2m6s" in said
    code, said = validate(maxEventAge="10m")
    assert code == 1 and "spec.source.dms: delivery.retry.maxEventAge is never reached: 10m" in said
    assert validate(maxAttempts=5)[0] == validate("126s", maxAttempts=5)[0] == validate("60s")[0] == 0


@pytest.mark.parametrize(
    ("behaviour", "timeout", "ack_wait"),
    [({"status": 500}, "20s", {}), ({"delay": "1m"}, "2s", {"ackWait": "18s"})],
)
def test_a_poison_message_reaches_the_dead_letter_after_all_attempts(
    queue, cloud, function, behaviour, timeout, ack_wait
):
    """With the delivery of the example; where the function hangs, all of it is a tenth as long."""
    function.behave(**behaviour)
    queue.send(["poison"])
    (poison,) = queue.group.line.waiting
    with Sink() as letters:
        queue.start(
            {
                "timeout": timeout,
                "retry": {"maxAttempts": 5, "onExhausted": "DeadLetter"},
                "deadLetter": {"uri": letters.uri},
            },
            **ack_wait,
        )
        (letter,) = letters.wait_for(1, 40)
        queue.wait_empty()
    assert json.loads(letter.body)["request_context"]["approximate_invoke_count"] == 5
    assert poison.deliveries == 1


def given_out(queue):
    """How often each message that is not acknowledged was taken, by its body."""
    with queue.cloud.changed:
        return {g.message.body: g.deliveries for g in queue.group.line.waiting}


def test_no_more_is_taken_than_the_window_covers(cloud, runner, function, tmp_path):
    """Each time that a message is taken counts towards the queue's dead letters, whether it was tried or not."""
    queue = Queue(cloud, runner, function, tmp_path, redrive=True, max_consume_count=1)
    sent = [f"{i}" for i in range(10)]
    function.behave(delay="1s")  # there are 3 s to begin with the last attempt
    queue.send(sent)
    run_ = queue.start({"timeout": "10s"}, ackWait="15s")
    queue.wait_empty(30)
    assert bodies(function) == sent and not queue.group.dead.waiting
    assert "WindowOver" not in run_.output


def test_more_is_taken_at_once_while_it_is_done_in_time(queue, cloud, function):
    queue.send([f"{i}" for i in range(100)])
    queue.start()
    queue.wait_empty()
    # 1 + 2 + ... + 10, and 45 more, would be 15; a busy machine gives less credit. One by one it would be 100.
    assert len(cloud.made("dms.acknowledge")) <= 40


@pytest.mark.parametrize("ordering", ["Partition", "None"])
def test_only_what_is_tried_is_taken_while_the_function_fails(queue, function, ordering):
    queue.send([f"{i}" for i in range(100)])
    function.behave(status=503)
    run_ = queue.start({"timeout": "5s", "ordering": ordering, "retry": {"maxBackoff": "1s"}}, ackWait="15s")
    run_.wait_for_output("reason=WindowOver .*come again: 1", 20)
    taken = given_out(queue)
    tried = {m["Body"] for e in function.events(accepted=False) for m in json.loads(e["body"])["Messages"]}
    taken_at_all = {body for body, times in taken.items() if times}
    assert len(taken_at_all) <= 2 and len(taken_at_all - tried) <= 1, (taken_at_all, tried)
    function.behave(status=200)
    queue.wait_empty(60)


def test_what_a_stop_leaves_is_given_back(cloud, runner, function, tmp_path):
    """A FIFO queue gives nothing out while messages are with a consumer, and their window here is long."""
    queue = Queue(cloud, runner, function, tmp_path, mode="FIFO")
    queue.send([f"{i}" for i in range(6)])
    first = queue.start(options=["--grace=500ms"], name="first")
    queue.wait_empty()  # in answers of 1, 2 and 3: the next has 4
    function.behave(delay="1m")
    queue.send([f"{i}" for i in range(6, 12)])
    wait_until("four are taken", lambda: len(queue.group.line.handlers) == 4)
    assert first.stop() == 0
    assert not queue.group.line.handlers
    function.behave(status=200)
    queue.start(name="second")
    queue.wait_empty(10)
    assert bodies(function)[-6:] == [f"{i}" for i in range(6, 12)]


def test_a_service_that_says_nothing_holds_up_no_stop(queue, cloud, function):
    """An acknowledgement is on its way for ever; its message comes again, to whoever runs then."""
    fault = cloud.fault("dms.acknowledge", faults.late(120), times=1 << 30)
    queue.send(["0"])
    run_ = queue.start()
    wait_until("it is acknowledged", lambda: fault.hits)
    began = time.monotonic()
    run_.signal(signal.SIGTERM)
    assert run_.wait(20) == 0
    assert time.monotonic() - began < 15, "below the grace: no request is in flight"
    assert "requests in flight" not in run_.output
