"""What a request holds and what becomes of its answer: formats, batches, filters, transforms, dead letters, credentials. Kafka messages of a real
broker, received by a server of the test's own; CloudEvents are judged by their official SDK."""

import base64
import datetime
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest
from cloudevents.v1.http import from_dict, from_http
from harness import shapes
from harness.kafka import Kafka
from harness.pki import self_signed, signed
from harness.ports import free_port
from harness.process import wait_until
from harness.shapes import strict
from harness.sink import Sink
from harness.sluice import SLUICE, trigger

names = (f"delivery-{n}" for n in itertools.count())
FAST = {"initialBackoff": "10ms", "maxBackoff": "100ms"}


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.create_topic(name, 1)
    return name


def make(kafka, topic, uri, delivery=None, **spec):
    source = {
        "kafka": {"bootstrapServers": [kafka.bootstrap], "topics": [topic], "startPosition": "Earliest"}
    }
    return trigger(topic, source, uri, {"retry": FAST, **(delivery or {})}, **spec)


def consume(kafka, topic, count, timeout=20):
    """Messages of a topic from its beginning."""
    from confluent_kafka import Consumer

    c = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": f"judge-{topic}", "auto.offset.reset": "earliest"}
    )
    c.subscribe([topic])
    found = []
    try:
        wait_until(
            f"{count} messages in {topic}",
            lambda: found.extend(m for m in c.consume(count, 0.1) if not m.error()) or len(found) >= count,
            timeout,
        )
    finally:
        c.close()
    return found


def committed(kafka, topic, count, group=None):
    wait_until(
        "everything is committed",
        lambda: kafka.committed(group or f"sluice.test.{topic}", topic, 1) == {0: count},
        20,
    )


MESSAGES = [
    {"value": b'{"n": 1, "text": "\xc3\xa9 \\"quoted\\" 100%"}', "key": "k\u00e9y 1"},
    {"value": b"plain text", "key": None},
    {"value": b"\xff\x00\x01", "key": b"\xff"},
    {"value": b'"just a string"'},
]


def judge(events):
    assert [e["id"].rsplit("/", 1)[1] for e in events] == ["0", "1", "2", "3"]
    assert all(e["specversion"] == "1.0" and e["type"] == "dev.sluice.kafka.message" for e in events)
    assert all(
        e["source"].startswith("/apis/sluice.dev/v1alpha1/namespaces/test/triggers/delivery-") for e in events
    )
    assert [e["subject"] for e in events] == [f"partition:0#{n}" for n in range(4)]
    assert [e.get_attributes().get("partitionkey") for e in events] == ["k\u00e9y 1", None, None, None]
    assert all(e["team"] == "100% caf\u0065" for e in events)
    assert events[0].data == {"n": 1, "text": '\u00e9 "quoted" 100%'}
    assert events[1].data in ("plain text", b"plain text")
    assert events[2].data == b"\xff\x00\x01"
    assert events[3].data == "just a string"


CE = {"ceOverrides": {"extensions": {"team": "100% cafe"}}}


def as_http(request):
    return {k: v for k, v in request.headers}


def test_cloudevents_in_binary_mode(kafka, topic, sink, runner):
    kafka.produce(topic, MESSAGES)
    runner.start(make(kafka, topic, sink.uri, event={"format": "CloudEventsBinary"}, **CE))
    requests = sink.wait_for(4)
    events = []
    for r in requests:
        headers = {k: urllib.parse.unquote(v) if k.startswith("ce-") else v for k, v in r.headers}
        events.append(from_http(headers, r.body))
        assert r.id == headers["ce-id"]
    assert [r.header("Content-Type") for r in requests] == [
        "application/json",
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "application/json",
    ]
    judge(events)


def test_cloudevents_in_structured_mode(kafka, topic, sink, runner):
    kafka.produce(topic, MESSAGES)
    runner.start(make(kafka, topic, sink.uri, event={"format": "CloudEventsStructured"}, **CE))
    judge([from_http(as_http(r), r.body) for r in sink.wait_for(4)])


def test_cloudevents_in_batches(kafka, topic, sink, runner):
    kafka.produce(topic, MESSAGES)
    runner.start(
        make(
            kafka,
            topic,
            sink.uri,
            {"batch": {"maxMessages": 4, "maxWait": "5s"}},
            event={"format": "CloudEventsBatch"},
            **CE,
        )
    )
    (request,) = sink.wait_for(1)
    assert request.header("Content-Type").startswith("application/cloudevents-batch+json")
    judge(
        [
            from_dict(e)
            if "data_base64" not in e
            else from_http({"content-type": "application/cloudevents+json"}, json.dumps(e))
            for e in request.json
        ]
    )


def test_a_null_value_is_an_event_without_data(kafka, topic, sink, runner):
    kafka.produce(topic, [{"value": None, "key": "gone"}])
    runner.start(make(kafka, topic, sink.uri, event={"format": "CloudEventsStructured"}))
    (request,) = sink.wait_for(1)
    assert (
        "data" not in request.json
        and "datacontenttype" not in request.json
        and request.json["partitionkey"] == "gone"
    )


def test_a_trace_goes_on_or_begins(kafka, topic, sink, runner):
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    kafka.produce(
        topic,
        [
            {"value": "a", "headers": {"traceparent": parent, "tracestate": "vendor=1"}},
            {"value": "b"},
            {"value": "c", "headers": {"traceparent": "nonsense"}},
        ],
    )
    runner.start(make(kafka, topic, sink.uri))
    went_on, begun, other = sink.wait_for(3)
    version, trace, span, flags = went_on.header("traceparent").split("-")
    assert (version, trace, flags) == (
        "00",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "01",
    ) and span != "00f067aa0ba902b7"
    assert went_on.header("tracestate") == "vendor=1"
    assert begun.header("tracestate") is None
    traces = {r.header("traceparent").split("-")[1] for r in (went_on, begun, other)}
    assert len(traces) == 3 and all(len(t) == 32 and set(t) != {"0"} for t in traces)


def test_batches_and_their_ids(kafka, topic, sink, runner):
    kafka.produce(topic, [f"message {i}" for i in range(250)])
    runner.start(make(kafka, topic, sink.uri, {"batch": {"maxMessages": 100, "maxWait": "300ms"}}))
    requests = sink.wait_for_records(250)
    assert [len(r.json["messages"]) for r in requests][0] == 100
    assert [m for r in requests for m in r.json["messages"]] == [f"message {i}" for i in range(250)]
    assert [i for r in requests for i in r.ids] == [f"{topic}/0/{i}" for i in range(250)]
    assert requests[0].id == f"{topic}/0/0..{topic}/0/99"
    committed(kafka, topic, 250)


def test_a_batch_is_bounded_by_the_encoded_events_bytes(kafka, topic, sink, runner):
    kafka.produce(topic, ["\x01" * 400] * 12)  # 400 bytes are 2,400 in JSON
    runner.start(
        make(kafka, topic, sink.uri, {"batch": {"maxMessages": 12, "maxBytes": 8192, "maxWait": "1s"}})
    )
    requests = sink.wait_for_records(12)
    assert all(len(r.body) <= 8192 for r in requests) and len(requests) < 12
    assert sum(len(r.json["messages"]) for r in requests) == 12


@pytest.mark.parametrize("named_by", ["id", "place", "place as text"])
def test_partial_failures_in_order(kafka, topic, sink, runner, named_by):
    failed_once = set()

    def answer(request):
        ids = request.ids
        bad = [n for n, i in enumerate(ids) if int(i.rsplit("/", 1)[1]) in (3, 7) and i not in failed_once]
        failed_once.update(ids[n] for n in bad)
        items = [
            {"itemIdentifier": ids[n] if named_by == "id" else n if named_by == "place" else str(n)}
            for n in bad
        ]
        return 200, {}, json.dumps({"batchItemFailures": items}).encode()

    sink.answer = answer
    kafka.produce(topic, [f"message {i}" for i in range(10)])
    runner.start(
        make(kafka, topic, sink.uri, {"batch": {"maxMessages": 10, "maxWait": "1s"}, "partialFailures": True})
    )
    committed(kafka, topic, 10)
    starts = [int(r.ids[0].rsplit("/", 1)[1]) for r in sink.taken()]
    assert starts == [0, 3] or starts == [0, 3, 7]


@pytest.mark.parametrize(
    "body, again",
    [
        ("", False),
        ("null", False),
        ("{}", False),
        ('{"batchItemFailures": null}', False),
        ('{"batchItemFailures": []}', False),
        ("[]", True),
        ("oops", True),
        ('{"batchItemFailures": {}}', True),
        ('{"batchItemFailures": [{}]}', True),
        ('{"batchItemFailures": [{"itemIdentifier": ""}]}', True),
        ('{"batchItemFailures": [{"itemIdentifier": null}]}', True),
        ('{"batchItemFailures": [{"itemIdentifier": "elsewhere/0/1"}]}', True),
        ('{"batchItemFailures": [{"itemIdentifier": 99}]}', True),
    ],
)
def test_partial_answers_are_read_as_lambda_reads_them(kafka, topic, sink, runner, body, again):
    first = itertools.count()
    sink.answer = lambda request: (200, {}, body.encode() if next(first) == 0 else b"{}")
    kafka.produce(topic, ["a", "b"])
    runner.start(
        make(kafka, topic, sink.uri, {"batch": {"maxMessages": 2, "maxWait": "1s"}, "partialFailures": True})
    )
    committed(kafka, topic, 2)
    assert [r.json["messages"] for r in sink.all()] == [["a", "b"]] * (2 if again else 1)


@pytest.mark.parametrize(
    "filler",
    [
        '{"results": "%s"}',
        '{"batchItemFailures": [], "results": "%s"}',
        '{"results": "%s", "batchItemFailures": []}',
    ],
)
def test_a_large_answer_is_read_for_its_list(kafka, topic, sink, runner, filler):
    sink.answer = lambda request: (200, {}, (filler % ("x" * 3_000_000)).encode())
    kafka.produce(topic, ["a", "b"])
    runner.start(
        make(kafka, topic, sink.uri, {"batch": {"maxMessages": 2, "maxWait": "1s"}, "partialFailures": True})
    )
    committed(kafka, topic, 2)
    assert len(sink.all()) == 1


@pytest.mark.parametrize(
    "filler, said",
    [
        ('{"batchItemFailures": [{"itemIdentifier": "%s"}], "results": "%s"}', "1 of 2 records failed"),
        ('{"results": "%s", "batchItemFailures": [{"itemIdentifier": "%s"}]}', "1 of 2 records failed"),
        ('{"results": "%s%s"', "no JSON object"),
    ],
)
def test_the_size_of_an_answer_does_not_matter(kafka, topic, sink, runner, filler, said):
    first = itertools.count()
    long, name = "x" * (20 << 20), f"{topic}/0/1"
    answer = (filler % ((name, long) if filler.startswith('{"batch') else (long, name))).encode()
    sink.answer = lambda request: (200, {}, answer if next(first) == 0 else b"{}")
    kafka.produce(topic, ["a", "b"])
    run = runner.start(
        make(kafka, topic, sink.uri, {"batch": {"maxMessages": 2, "maxWait": "1s"}, "partialFailures": True})
    )
    committed(kafka, topic, 2)
    assert [r.json["messages"] for r in sink.all()] == [
        ["a", "b"],
        ["b"] if "records" in said else ["a", "b"],
    ]
    run.wait_for_output(said, 10)


def test_a_poison_record_reaches_the_dead_letter_alone_and_is_replayed(kafka, topic, sink, runner, tmp_path):
    letters = f"{topic}-dead"
    kafka.create_topic(letters, 1)
    healed = []

    def answer(request):
        poisoned = "poison" in request.json["messages"]
        return (500, {}, b'{"why": "poison"}') if poisoned and not healed else 200

    sink.answer = answer
    kafka.produce(
        topic, [{"value": "poison" if i == 37 else f"message {i}", "key": f"k{i}"} for i in range(64)]
    )
    t = make(
        kafka,
        topic,
        sink.uri,
        {
            "batch": {"maxMessages": 64, "maxWait": "1s"},
            "retry": {**FAST, "maxAttempts": 2, "bisect": True, "onExhausted": "DeadLetter"},
            "deadLetter": {"kafka": {"bootstrapServers": [kafka.bootstrap], "topic": letters}},
        },
        function={"urn": "urn:fss:eu-1:p:function:default:f"},
    )
    runner.start(t)
    committed(kafka, topic, 64)
    assert {i for r in sink.taken() for i in r.ids} == {f"{topic}/0/{i}" for i in range(64) if i != 37}
    (message,) = consume(kafka, letters, 1)
    assert message.key() == b"k37" and dict(message.headers())["sluice-event-id"] == f"{topic}/0/37".encode()
    letter = json.loads(message.value())
    strict(letter, shapes.ASYNC_NOTIFICATION)
    datetime.datetime.strptime(letter["timestamp"][:-9] + letter["timestamp"][-6:], "%Y-%m-%dT%H:%M:%S.%f%z")
    assert len(letter["timestamp"]) == len("2025-07-28T11:47:56.893440057+02:00")
    assert letter["request_context"]["function_urn"] == "urn:fss:eu-1:p:function:default:f"
    assert (
        letter["request_context"]["condition"] == "UnhandledInvocationError"
        and letter["request_context"]["approximate_invoke_count"] == 2
    )
    assert json.loads(letter["request_payload"])["messages"] == ["poison"]
    assert (
        letter["response_context"]["status_code"] == 500
        and "answered 500" in letter["response_context"]["function_error"]
    )
    assert letter["response_payload"] == '{"why": "poison"}'
    failed = [r for r in sink.all() if r.status == 500]
    assert letter["request_context"]["request_id"] == failed[-1].header("X-CFF-Request-Id")

    healed.append(True)
    path = tmp_path / "replay.json"
    path.write_text(json.dumps(t))
    done = subprocess.run([SLUICE, "replay", "-f", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1 sent" in done.stderr
    replayed = sink.taken()[-1]
    assert replayed.json["messages"] == ["poison"] and replayed.id == f"{topic}/0/37"
    committed(kafka, letters, 1, f"sluice.test.{topic}.replay")
    # Once only: a second replay finds nothing more.
    before = len(sink.all())
    assert subprocess.run([SLUICE, "replay", "-f", path], capture_output=True, timeout=60).returncode == 0
    assert len(sink.all()) == before


def test_what_keeps_a_dead_letter_from_its_topic_is_said_while_it_waits(kafka, topic, sink, runner):
    """librdkafka gives a broker half a minute; what the function had said is long settled then."""
    sink.answer = lambda request: 400
    kafka.produce(topic, ["poison"])

    def waits(letters, said):
        name = letters["topic"]
        t = make(
            kafka,
            topic,
            sink.uri,
            {"retry": {**FAST, "onExhausted": "DeadLetter"}, "deadLetter": {"kafka": letters}},
        )
        t["spec"]["source"]["kafka"]["consumerGroup"] = name
        run = runner.start(t, name=name, state=name, options=["--grace=0s"])
        run.wait_until("it says why", lambda: run.status()["deliveryReason"].startswith(said), 20)

    gone = f"127.0.0.1:{free_port()}"
    waits({"bootstrapServers": [gone], "topic": "away"}, f"dead letter: topic away: {gone}")
    missing = f"{topic}-missing"
    waits(
        {"bootstrapServers": [kafka.bootstrap], "topic": missing},
        f"dead letter: topic {missing}: Local: Unknown topic: create the topic",
    )


def test_a_dead_letter_over_http_is_the_cloudevent_with_knatives_attributes(kafka, topic, sink, runner):
    refused = itertools.count()
    with Sink(lambda request: 503 if next(refused) < 3 else 202) as dead:
        sink.answer = lambda request: (422, {}, b"no such order") if b"bad" in request.body else 200
        kafka.produce(topic, ['{"order": "bad"}', '{"order": "good"}'])
        runner.start(
            make(
                kafka,
                topic,
                sink.uri,
                {"retry": {**FAST, "onExhausted": "DeadLetter"}, "deadLetter": {"uri": dead.uri + "letters"}},
                event={"format": "CloudEventsBinary"},
            )
        )
        (request,) = dead.wait_for(1)
        committed(kafka, topic, 2)
    assert request.path == "/letters" and len(dead.all()) == 4  # refused three times, and not lost
    event = from_http(as_http(request), request.body)
    assert event.data == {"order": "bad"} and event["id"] == f"{topic}/0/0"
    assert (
        event["knativeerrordest"] == sink.uri
        and event["knativeerrorcode"] == "422"
        and event["knativeerrordata"] == "no such order"
    )


def test_a_state_that_comes_and_goes_with_each_event_is_told_now_and_then(kafka, topic, sink, runner):
    """Each letter is one that fails and one that is settled."""
    with Sink(lambda request: 202) as dead:
        sink.answer = lambda request: 422
        kafka.produce(topic, [{"value": str(i), "partition": 0} for i in range(500)])
        run = runner.start(
            make(
                kafka,
                topic,
                sink.uri,
                {
                    "ordering": "Partition",
                    "retry": {**FAST, "onExhausted": "DeadLetter"},
                    "deadLetter": {"uri": dead.uri},
                },
            )
        )
        began = time.monotonic()
        committed(kafka, topic, 500)
        sink.answer = lambda request: 200
        kafka.produce(topic, ["well"])
        committed(kafka, topic, 501)
        took = time.monotonic() - began
        wait_until("that all is well is told", lambda: "state=Delivering" in last_said(run), 15)
    assert len(dead.all()) == 500
    assert 2 <= run.output.count("msg=delivery") <= 6 + (took + 15) / 10
    assert run.output.count(f"{topic}  kafka") <= 15 + took + 15


def last_said(run):
    return [line for line in run.output.splitlines() if "msg=delivery" in line][-1]


@pytest.mark.parametrize("form", ["FunctionGraph", "CloudEventsStructured"])
def test_a_dead_letter_holds_none_of_our_secrets(sink, runner, tmp_path, form):
    """The function answers with the request that it was sent, as some do on errors."""
    (tmp_path / "s").mkdir()
    for key, value in (("token", "the+secret/token=="), ("user", "ada-l"), ("password", "pass-word")):
        (tmp_path / "s" / key).write_text(value)
    ref = {key: {"name": "s", "key": key} for key in ("token", "user", "password")}
    pair = base64.b64encode(b"ada-l:pass-word").decode()
    sink.answer = lambda request: (
        422,
        {},
        json.dumps(
            {
                "headers": dict(request.headers),
                "escaped": json.dumps("the+secret/token==").replace("/", "\\/"),
            }
        ).encode(),
    )
    delivery = {
        "retry": {**FAST, "onExhausted": "DeadLetter"},
        "headers": [{"name": "X-Token", "secretRef": ref["token"]}],
        "authentication": {"basic": {"usernameSecretRef": ref["user"], "passwordSecretRef": ref["password"]}},
    }
    with Sink() as dead:
        runner.start(
            trigger(
                "t",
                {"timer": {"schedule": "1s"}},
                sink.uri,
                {**delivery, "deadLetter": {"uri": dead.uri}},
                event={"format": form},
            ),
            options=[f"--secrets={tmp_path}"],
        )
        letter = dead.wait_for(1)[0].body.decode()
    echoed = sink.all()[0]
    assert (
        echoed.header("X-Token") == "the+secret/token==" and echoed.header("Authorization") == f"Basic {pair}"
    )
    told = json.loads(letter)["response_payload" if form == "FunctionGraph" else "knativeerrordata"]
    assert "X-Token" in told and told.count("***") >= 3
    for secret in ("the+secret", "secret/token", "secret\\/token", pair, "ada-l", "pass-word"):
        assert secret not in letter, secret


@pytest.mark.parametrize("form", ["FunctionGraph", "CloudEventsStructured"])
def test_a_letter_that_is_too_large_for_its_topic_is_cut(kafka, topic, sink, runner, form):
    letters = f"{topic}-small"
    kafka.create_topic(letters, 1, {"max.message.bytes": "20000"})
    large = json.dumps({"text": '"\u00e9' * 30000})
    kafka.produce(
        topic,
        [
            {"value": large, "key": "k"},
            {"value": '{"small": 1}', "key": "k"},
            {"value": large, "key": "x" * 15000},
        ],
    )
    sink.answer = lambda request: 400
    runner.start(
        make(
            kafka,
            topic,
            sink.uri,
            {
                "retry": {**FAST, "onExhausted": "DeadLetter"},
                "deadLetter": {"kafka": {"bootstrapServers": [kafka.bootstrap], "topic": letters}},
            },
            event={"format": form},
        )
    )
    found = consume(kafka, letters, 3)
    committed(kafka, topic, 3)
    first, small, last = [json.loads(m.value()) for m in found]
    assert [m.key() for m in found] == [b"k", b"k", None]
    for letter in (first, last):
        if form == "FunctionGraph":
            assert (
                letter["truncated"] is True
                and letter["request_payload_size"] > 100_000
                and 5000 < len(letter["request_payload"].encode()) < 20000
            )
        else:
            assert letter["sluicetruncated"] == "true" and letter["sluicedatasize"] == str(
                len(large.encode())
            )
            assert (
                large.startswith(letter["data"])
                and len(letter["data"]) > 3000
                and letter["datacontenttype"].startswith("text/plain")
            )
    assert "truncated" not in small and "sluicetruncated" not in small


def test_a_letter_that_is_too_large_over_http_is_cut(kafka, topic, sink, runner):
    kafka.produce(topic, [{"value": json.dumps({"text": "x" * 100000})}])
    sink.answer = lambda request: 400
    with Sink(lambda request: 413 if len(request.body) > 5000 else 202) as dead:
        runner.start(
            make(
                kafka,
                topic,
                sink.uri,
                {"retry": {**FAST, "onExhausted": "DeadLetter"}, "deadLetter": {"uri": dead.uri}},
            )
        )
        committed(kafka, topic, 1)
        letter = json.loads(dead.all()[-1].body)
    assert letter["truncated"] is True and 1000 < len(letter["request_payload"]) < 5000


def test_a_letter_is_written_once_while_its_broker_is_slow_to_come_back(kafka, topic, sink, runner):
    """The engine's attempts end by their time-out, while the letter is still on its way."""
    letters = f"{topic}-dead"
    with Kafka() as other:
        other.create_topic(letters, 1)
        other.stop()
        kafka.produce(topic, [{"value": "poison"}])
        sink.answer = lambda request: 400
        run = runner.start(
            make(
                kafka,
                topic,
                sink.uri,
                {
                    "timeout": "1s",
                    "retry": {**FAST, "onExhausted": "DeadLetter"},
                    "deadLetter": {"kafka": {"bootstrapServers": [other.bootstrap], "topic": letters}},
                },
            )
        )
        run.wait_for_output("Blocked", 20)
        other.start()
        committed(kafka, topic, 1)
        assert run.stop() == 0
        assert other.end_offsets(letters, 1) == {0: 1}


def test_letters_of_a_file_are_replayed_by_filter_and_rate(kafka, sink, tmp_path):
    letters = [
        json.dumps(
            {
                "timestamp": "2026-01-01T00:00:00Z",
                "request_context": {"request_id": f"r{i}"},
                "request_payload": json.dumps({"n": i}),
                "event_id": f"t/0/{i}",
                "response_context": {"status_code": 500 if i % 2 else 400},
            }
        )
        for i in range(20)
    ]
    (tmp_path / "letters.jsonl").write_text("\n".join(letters) + "\n\n")
    (tmp_path / "t.json").write_text(json.dumps(trigger("t", {"timer": {"schedule": "1h"}}, sink.uri)))
    command = [
        SLUICE,
        "replay",
        "-f",
        tmp_path / "t.json",
        "--letters",
        tmp_path / "letters.jsonl",
        "--rate=100",
        '--filter={"response_context": {"status_code": [500]}}',
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "10 sent" in done.stderr and "10 filtered" in done.stderr, done.stderr
    assert sorted(r.json["n"] for r in sink.taken()) == list(range(1, 20, 2))
    assert {r.id for r in sink.taken()} == {f"t/0/{i}" for i in range(1, 20, 2)}


def envelope(payload, **more):
    return json.dumps(
        {
            "timestamp": "2026-01-01T00:00:00Z",
            "request_context": {"request_id": "r"},
            "request_payload": payload,
            **more,
        }
    )


def replay(tmp_path, t, *options, **more):
    (tmp_path / "t.json").write_text(json.dumps(t))
    return subprocess.run(
        [SLUICE, "replay", "-f", tmp_path / "t.json", *options],
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


def from_file(tmp_path, sink, *lines, form="FunctionGraph", options=()):
    (tmp_path / "letters.jsonl").write_text("".join(f"{line}\n" for line in lines))
    t = trigger("t", {"timer": {"schedule": "1h"}}, sink.uri, {"retry": FAST}, event={"format": form})
    return replay(tmp_path, t, "--letters", tmp_path / "letters.jsonl", *options)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_nothing_of_a_file_is_sent_while_a_line_can_not_be_read(sink, tmp_path, broken):
    good = [envelope(json.dumps({"n": i}), event_id=f"e{i}") for i in range(3)]
    lines = [
        *good[:broken],
        '{"no": "letter"}',
        *good[broken:],
        "{",
        envelope("", event_id="x"),
        envelope("cut", truncated=True),
    ]
    done = from_file(tmp_path, sink, *lines)
    assert done.returncode == 1
    for line in (broken + 1, 5, 6, 7):
        assert f"letters.jsonl:{line}: " in done.stderr
    assert "neither request_payload nor specversion" in done.stderr and "cut to fit" in done.stderr
    assert "sent 0, refused 4, left 3" in done.stderr
    assert sink.all() == []
    done = from_file(tmp_path, sink, *good)
    assert done.returncode == 0 and "sent 3, refused 0, left 0" in done.stderr
    assert [r.id for r in sink.taken()] == ["e0", "e1", "e2"]


def test_a_file_is_gone_on_with_where_it_was_interrupted(sink, tmp_path):
    lines = [envelope(json.dumps({"n": i}), event_id=f"e{i}") for i in range(6)]
    stuck = True
    sink.answer = lambda request: 503 if stuck and request.json["n"] == 3 else 200
    (tmp_path / "letters.jsonl").write_text("\n".join(lines))
    (tmp_path / "t.json").write_text(
        json.dumps(trigger("t", {"timer": {"schedule": "1h"}}, sink.uri, {"retry": FAST}))
    )
    command = [SLUICE, "replay", "-f", tmp_path / "t.json", "--letters", tmp_path / "letters.jsonl"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        wait_until("the fourth is refused", lambda: len(sink.all()) > 3, 20)
        run.send_signal(signal.SIGINT)
        told = run.stderr.read()
    assert run.returncode == 130 and "sent 3, refused 0, left 3" in told
    stuck = False
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "goes on behind line 3" in done.stderr, done.stderr
    assert [r.json["n"] for r in sink.taken()] == list(range(6))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["letters.jsonl", "t.json"]


PAYLOADS = [
    '{"a": 1.10, "a": 1e999}',
    '{"big": 123456789012345678901234567890}',
    "[1,\t2]\n",
    '"\\u0000"',
    "plain \x00 text",
    "\u00e9\U0001f600",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payload_is_replayed_byte_for_byte(sink, tmp_path, payload):
    done = from_file(tmp_path, sink, envelope(payload, response_payload="\x00", number=1e300))
    assert done.returncode == 0, done.stderr
    assert [r.body for r in sink.taken()] == [payload.encode()]


EVENT = '{"specversion":"1.0","id":"own","source":"/s","type":"t","knativeerrorcode":"500","dataschema":"x:y","ext":7,'


@pytest.mark.parametrize(
    "rest, kind, body",
    [
        ('"data":{"a": 1.10,"a": 1e999}', "application/json", b'{"a": 1.10,"a": 1e999}'),
        ('"datacontenttype":"text/plain","data":"\\u0000x"', "text/plain", b"\0x"),
        ('"datacontenttype":"image/png","data_base64":"/wA="', "image/png", b"\xff\0"),
    ],
)
def test_a_cloudevent_is_replayed_byte_for_byte(sink, tmp_path, rest, kind, body):
    done = from_file(tmp_path, sink, EVENT + rest + "}", form="CloudEventsBinary")
    assert done.returncode == 0, done.stderr
    (request,) = sink.taken()
    assert (request.body, request.header("Content-Type"), request.header("ce-id")) == (body, kind, "own")
    assert (
        request.header("ce-dataschema"),
        request.header("ce-ext"),
        request.header("ce-knativeerrorcode"),
    ) == ("x:y", "7", None)
    done = from_file(tmp_path, sink, EVENT + rest + "}", form="CloudEventsStructured")
    member = rest[rest.index('"data') :].encode()
    assert done.returncode == 0 and sink.taken()[-1].body.endswith(member + b"}")


@pytest.mark.parametrize(
    "letter",
    [
        EVENT + '"data_base64":"?"}',
        EVENT + '"data":1,"data":2}',
        '{"specversion":"0.3"}',
        EVENT + '"x":"\\ud800"}',
    ],
)
def test_a_cloudevent_that_can_not_be_replayed_is_refused(sink, tmp_path, letter):
    done = from_file(tmp_path, sink, letter, form="CloudEventsBinary")
    assert done.returncode == 1 and "no CloudEvent" in done.stderr and "sent 0, refused 1" in done.stderr
    assert sink.all() == []


def test_letters_of_a_topic_that_can_not_be_read_are_refused_and_not_committed(kafka, topic, sink, tmp_path):
    letters = f"{topic}-dead"
    kafka.create_topic(letters, 1)
    good = [envelope(json.dumps({"n": i}), response_payload="\x00") for i in range(3)]
    kafka.produce(letters, [{"value": v} for v in (good[0], "no letter", good[1], None, b"\xff", good[2])])
    t = make(
        kafka,
        topic,
        sink.uri,
        {
            "retry": {**FAST, "onExhausted": "DeadLetter"},
            "deadLetter": {"kafka": {"bootstrapServers": [kafka.bootstrap], "topic": letters}},
        },
    )
    done = replay(tmp_path, t)
    assert done.returncode == 1, done.stderr
    for offset in (1, 3, 4):
        assert f"refused: {letters}/0/{offset} " in done.stderr
    assert "sent 3, refused 3" in done.stderr
    assert [r.json["n"] for r in sink.taken()] == [0, 1, 2]
    assert kafka.committed(f"sluice.test.{topic}.replay", letters, 1) == {0: 1}


def test_what_a_filter_cannot_judge_has_failed_for_good(kafka, topic, sink, runner):
    """Names made so that all choices stay open: a search through them would not end."""
    names = ["a", "a!", "a!!", "a!!!"]
    pattern = {"value": {**{n: [1] for n in names}, **{f"{n}.x": [1] for n in names}}}
    hard = json.dumps({n: [v for _ in range(300) for v in ([1], {"x": 1})] + [0] for n in names})
    deep = json.dumps({n: [1, {"x": 1}] for n in names})[:-1] + ',"z":' + "[" * 5000 + "]" * 5000 + "}"
    kafka.produce(topic, [deep, hard, deep])
    with Sink(lambda request: 202) as dead:
        batch = {"batch": {"maxMessages": 3, "maxWait": "100ms"}}
        retry = {"retry": {**FAST, "onExhausted": "DeadLetter"}, "deadLetter": {"uri": dead.uri + "letters"}}
        run = runner.start(
            make(kafka, topic, sink.uri, {**retry, **batch}, filter={"pattern": pattern}),
        )
        (letter,) = dead.wait_for(1)
        committed(kafka, topic, 3)
        assert letter.id == f"{topic}/0/1" and b"filter can't say" in letter.body
        delivered = {i for r in sink.all() for i in (r.header("X-Sluice-Record-Ids") or r.id).split(",")}
        assert delivered == {f"{topic}/0/0", f"{topic}/0/2"}
    assert run.metric("sluice_filter_failures_total") == 1


def test_drop_is_counted(kafka, topic, sink, runner):
    sink.answer = lambda request: 400 if b"bad" in request.body else 200
    kafka.produce(topic, ["bad", "good"])
    run = runner.start(make(kafka, topic, sink.uri, {"retry": {**FAST, "onExhausted": "Drop"}}))
    committed(kafka, topic, 2)
    assert len(sink.all()) == 2 and run.stop() == 0


def test_a_filter_leaves_out_and_commits(kafka, topic, sink, runner):
    kafka.produce(
        topic,
        [
            {
                "value": json.dumps({"n": i, "state": "open" if i % 3 == 0 else "closed"}),
                "headers": {"kind": "a" if i % 2 else "b"},
            }
            for i in range(60)
        ],
    )
    runner.start(
        make(
            kafka,
            topic,
            sink.uri,
            filter={
                "pattern": {
                    "value": {"state": ["open"], "n": [{"numeric": [">=", 10]}]},
                    "headers": {"kind": ["a"]},
                }
            },
        )
    )
    committed(kafka, topic, 60)
    expected = [i for i in range(60) if i % 3 == 0 and i >= 10 and i % 2]
    assert [json.loads(r.json["messages"][0])["n"] for r in sink.taken()] == expected


def test_a_transform_reshapes_and_its_errors_are_final(kafka, topic, sink, runner):
    kafka.produce(topic, ['{"n": 1}', "no json", '{"n": 2}'])
    run = runner.start(
        make(
            kafka,
            topic,
            sink.uri,
            {"retry": {**FAST, "onExhausted": "Drop"}},
            transform={"jq": "{number: (.messages[0] | fromjson | .n), topic: .topic_id}"},
        )
    )
    committed(kafka, topic, 3)
    assert [r.json for r in sink.all()] == [{"number": 1, "topic": topic}, {"number": 2, "topic": topic}]
    assert run.stop() == 0


def test_preview_prints_what_is_sent(kafka, topic, sink, runner, tmp_path):
    kafka.produce(
        topic,
        [
            {
                "value": '{"n": 1}',
                "key": "k",
                "headers": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            }
        ],
    )
    secrets = tmp_path / "secrets"
    (secrets / "s").mkdir(parents=True)
    (secrets / "s" / "k").write_text("hidden\n")
    for number, spec in enumerate(
        [
            {},
            {"event": {"dialect": "Current"}},
            {"event": {"format": "CloudEventsBinary"}},
            {"event": {"format": "CloudEventsStructured"}},
            {"event": {"format": "CloudEventsBatch"}},
            {"transform": {"jq": "{a: .messages}"}},
        ]
    ):
        delivery = {
            "method": "PUT",
            "headers": [
                {"name": "X-Plain", "value": "a b"},
                {"name": "X-Secret", "secretRef": {"name": "s", "key": "k"}},
            ],
        }
        t = make(kafka, topic, sink.uri + "invoke?a=b", delivery, **spec)
        t["spec"]["source"]["kafka"]["consumerGroup"] = f"{topic}-{number}"
        with Sink() as own:
            t["spec"]["sink"]["uri"] = own.uri + "invoke?a=b"
            run = runner.start(t, name=f"run{number}", options=[f"--secrets={secrets}"])
            (sent,) = own.wait_for(1)
            assert run.stop() == 0
        document = {
            "topic": topic,
            "partition": 0,
            "offset": 0,
            "key": "k",
            "value": '{"n": 1}',
            "headers": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        }
        if "ce-time" in {k for k, _ in sent.headers}:
            document["timestamp"] = millis(sent.header("ce-time"))
        elif "structured" in str(spec).lower() or "batch" in str(spec).lower():
            document["timestamp"] = millis(
                (sent.json if isinstance(sent.json, dict) else sent.json[0])["time"]
            )
        (tmp_path / "t.json").write_text(json.dumps(t))
        done = subprocess.run(
            [SLUICE, "preview", "-f", tmp_path / "t.json", "--record=-", f"--secrets={secrets}"],
            input=json.dumps(document),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition("\n\n")
        first, *lines = head.split("\n")
        assert first == f"PUT {own.uri}invoke?a=b"
        shown = sorted(tuple(line.split(": ", 1)) for line in lines)
        ignore = {"traceparent"}
        assert [h for h in shown if h[0] not in ignore] == sorted(
            h for h in sent.headers if h[0] not in ignore
        )
        assert dict(shown)["traceparent"][:35] == sent.header("traceparent")[:35]
        found, wanted = (json.loads(body), sent.json)
        for e in (found, wanted):
            if isinstance(e, dict):
                e.pop("event_time", None)
        assert found == wanted


def millis(text):
    import datetime

    return round(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def test_preview_says_why_a_record_is_filtered(kafka, tmp_path):
    t = make(kafka, "t", "http://f/", filter={"pattern": {"value": {"state": ["open"]}}})
    (tmp_path / "t.json").write_text(json.dumps(t))
    done = subprocess.run(
        [SLUICE, "preview", "-f", tmp_path / "t.json", "--record=-"],
        input='{"value": {"state": "closed"}}',
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (
        3,
        "",
    ) and 'value.state: no value matches ["open"]' in done.stderr


def test_secrets_become_headers_and_rotate_without_a_restart(kafka, topic, sink, runner, tmp_path):
    data = tmp_path / "secrets" / "credentials"
    data.mkdir(parents=True)

    def rotate(version, **values):
        """As the kubelet does it: a new folder, and one link that changes at once."""
        folder = data / f"..{version}"
        folder.mkdir()
        for key, value in values.items():
            (folder / key).write_text(value)
            if not (data / key).is_symlink():
                (data / key).symlink_to(f"..data/{key}")
        (data / "..data_tmp").symlink_to(folder.name)
        os.replace(data / "..data_tmp", data / "..data")

    rotate("1", user="ada", password="s3cret", token="t-1")
    delivery = {
        "authentication": {
            "basic": {
                "usernameSecretRef": {"name": "credentials", "key": "user"},
                "passwordSecretRef": {"name": "credentials", "key": "password"},
            }
        },
        "headers": [{"name": "X-Token", "secretRef": {"name": "credentials", "key": "token"}}],
    }
    runner.start(make(kafka, topic, sink.uri, delivery), options=[f"--secrets={tmp_path / 'secrets'}"])
    kafka.produce(topic, ["a"])
    (first,) = sink.wait_for(1)
    assert (
        first.header("Authorization") == "Basic " + base64.b64encode(b"ada:s3cret").decode()
        and first.header("X-Token") == "t-1"
    )
    rotate("2", user="ada", password="changed", token="t-2")
    # The function refuses the old ones: nothing is lost, and no event is final because of it.
    sink.answer = lambda request: 200 if request.header("X-Token") == "t-2" else 401
    kafka.produce(topic, ["b"])
    second = sink.wait_for(2)[1]
    assert second.header("Authorization") == "Basic " + base64.b64encode(b"ada:changed").decode()


def test_a_missing_secret_is_named_and_nothing_is_sent(kafka, topic, sink, runner, tmp_path):
    delivery = {"authentication": {"bearer": {"tokenSecretRef": {"name": "nowhere", "key": "token"}}}}
    run = runner.start(make(kafka, topic, sink.uri, delivery), options=[f"--secrets={tmp_path}"])
    kafka.produce(topic, ["a"])
    run.wait_for_output(r"Retrying.*Secret nowhere, key token", 20)
    assert sink.all() == []
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "token").write_text("t")
    (request,) = sink.wait_for(1)
    assert request.header("Authorization") == "Bearer t"


def test_tokens_by_client_credentials(kafka, topic, sink, runner, tmp_path):
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "id").write_text("my client")
    (tmp_path / "client" / "secret").write_text("a:b/c")
    issued = itertools.count(1)
    trouble = itertools.count()

    def token(request):
        if next(trouble) < 2:
            return 503, {}, b"not yet"
        assert request.header("Content-Type") == "application/x-www-form-urlencoded"
        assert request.header("Authorization") == "Basic " + base64.b64encode(b"my+client:a%3Ab%2Fc").decode()
        assert urllib.parse.parse_qs(request.body.decode()) == {
            "grant_type": ["client_credentials"],
            "scope": ["events write"],
            "audience": ["https://f"],
        }
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps(
                {"access_token": f"token-{next(issued)}", "token_type": "Bearer", "expires_in": 2}
            ).encode(),
        )

    with Sink(token) as server:
        ref = {
            "clientIdSecretRef": {"name": "client", "key": "id"},
            "clientSecretSecretRef": {"name": "client", "key": "secret"},
        }
        delivery = {
            "authentication": {
                "oauth2": {
                    "tokenURL": server.uri + "token",
                    **ref,
                    "scopes": ["events", "write"],
                    "audience": "https://f",
                }
            }
        }
        run = runner.start(make(kafka, topic, sink.uri, delivery), options=[f"--secrets={tmp_path}"])
        kafka.produce(topic, ["a"])
        (request,) = sink.wait_for(1)
        assert request.header("Authorization") == "Bearer token-1"
        server.wait_for(2)  # asked for again before the first one ended
        kafka.produce(topic, ["b"])
        assert sink.wait_for(2)[1].header("Authorization") != "Bearer token-1"
        assert run.stop() == 0


def oauth2(server, tmp_path):
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "id").write_text("me")
    (tmp_path / "client" / "secret").write_text("s3cret-of-mine")
    ref = {
        "clientIdSecretRef": {"name": "client", "key": "id"},
        "clientSecretSecretRef": {"name": "client", "key": "secret"},
    }
    return {"authentication": {"oauth2": {"tokenURL": server.uri + "token", **ref}}}


@pytest.fixture
def tokens():
    """A server of tokens: token-1, token-2 and so on."""
    issued = itertools.count(1)
    with Sink(
        lambda request: (
            200,
            {"Content-Type": "application/json"},
            json.dumps({"access_token": f"token-{next(issued)}", "expires_in": 3600}).encode(),
        )
    ) as server:
        yield server


def test_a_token_that_is_refused_is_renewed_however_young_it_is(kafka, topic, sink, tokens, runner, tmp_path):
    sink.answer = lambda request: 401 if request.header("Authorization") == "Bearer token-1" else 200
    kafka.produce(topic, ["a"])
    delivery = {**oauth2(tokens, tmp_path), "retry": {**FAST, "onExhausted": "Drop"}}
    runner.start(make(kafka, topic, sink.uri, delivery), options=[f"--secrets={tmp_path}"])
    wait_until("it is taken", lambda: any(r.status == 200 for r in sink.all()), 20)
    assert sink.all()[-1].header("Authorization") == "Bearer token-2" and len(tokens.all()) == 2


def test_a_function_that_refuses_every_token_is_not_asked_for_ever(
    kafka, topic, sink, tokens, runner, tmp_path
):
    sink.answer = lambda request: 401
    kafka.produce(topic, ["a"])
    delivery = {**oauth2(tokens, tmp_path), "retry": {**FAST, "onExhausted": "Drop"}}
    runner.start(make(kafka, topic, sink.uri, delivery), options=[f"--secrets={tmp_path}"])
    committed(kafka, topic, 1)
    assert len(tokens.all()) == 2


def test_the_initialization_renews_a_token_and_waits_as_it_is_asked_to(
    kafka, topic, sink, tokens, runner, tmp_path
):
    asked = []

    def answer(request):
        if request.header("Authorization") == "Bearer token-1":
            return 401
        if request.path == "/init":
            asked.append(time.monotonic())
        return (503, {"Retry-After": "2"}, b"") if len(asked) == 1 else 200

    sink.answer = answer
    kafka.produce(topic, ["a"])
    runner.start(
        make(kafka, topic, sink.uri + "invoke", oauth2(tokens, tmp_path), function={"initPath": "/init"}),
        options=[f"--secrets={tmp_path}"],
    )
    wait_until("the event is taken", lambda: any(r.path == "/invoke" for r in sink.all()), 30)
    assert len(asked) == 2 and asked[1] - asked[0] >= 2 and len(tokens.all()) == 2


def test_the_function_is_initialized_once_before_the_first_event(kafka, topic, sink, runner):
    tries = itertools.count()
    sink.answer = lambda request: 503 if request.path == "/init" and next(tries) < 2 else 200
    kafka.produce(topic, ["a", "b", "c"])
    run = runner.start(make(kafka, topic, sink.uri + "invoke", function={"initPath": "/init", "name": "f"}))
    sink.wait_for(4)
    assert [(r.path, r.status) for r in sink.all()] == [("/init", 503), ("/init", 503), ("/init", 200)] + [
        ("/invoke", 200)
    ] * 3
    assert sink.all()[0].header("X-CFF-Func-Name") == "f" and sink.all()[0].body == b""
    assert run.stop() == 0


def test_a_rate_is_kept(kafka, topic, sink, runner):
    kafka.produce(topic, [f"{i}" for i in range(60)])
    runner.start(
        make(kafka, topic, sink.uri, {"ordering": "None", "rateLimit": {"eventsPerSecond": 50, "burst": 10}})
    )
    sink.wait_for(1)
    began = time.monotonic()
    sink.wait_for(60)
    assert 0.8 <= time.monotonic() - began <= 2  # (60 - 10) / 50 = 1 s


def test_an_overloaded_function_is_throttled_and_recovers(kafka, topic, sink, runner):
    sink.answer = lambda request: (503, {}, b"too much")
    kafka.produce(topic, [f"{i}" for i in range(200)])
    run = runner.start(make(kafka, topic, sink.uri, {"ordering": "None", "maxInFlight": 32}))
    run.wait_for_output(r"Retrying.*answered 503: too much", 20)
    time.sleep(3)  # of an outage, with several attempts
    lines = [x for x in run.output.splitlines() if "msg=delivery" in x]
    assert len(lines) <= 3, "an outage is one state, once it is known to be one"
    sink.answer = lambda request: 200
    committed(kafka, topic, 200)


def test_a_function_that_takes_too_long_is_asked_again(kafka, topic, sink, runner):
    late, calls = threading.Event(), itertools.count()
    sink.answer = lambda request: 200 if next(calls) else (late.wait(30) and 500)
    run = runner.start(make(kafka, topic, sink.uri, {"responseTimeout": "200ms"}))
    kafka.produce(topic, ["slow"])
    sink.wait_for(1)
    late.set()
    committed(kafka, topic, 1)
    run.wait_for_output(r"no answer within 200 ms of the request", 5)


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [("https", "no TLS session within 875 ms"), ("http", "no answer within 1000 ms")],
)
def test_what_took_too_long_is_told(kafka, topic, runner, scheme, reason):
    """A peer that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/"
        run = runner.start(make(kafka, topic, uri, {"timeout": "1s"}))
        kafka.produce(topic, ["lost"])
        run.wait_for_output(f"msg=delivery .*{reason}", 20)
        (other,) = {"no TLS session within", "no answer within"} - {reason.rsplit(" ", 2)[0]}
        assert other not in run.output


# ---- connections -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """An authority, a server's certificate for localhost, a client's, as Secrets in folders."""
    folder = tmp_path_factory.mktemp("pki")

    self_signed(folder, "ca", "test authority")
    signed(folder, "server", "server", "subjectAltName=DNS:localhost")
    signed(folder, "client", "client", "extendedKeyUsage=clientAuth")
    secret = folder / "secrets" / "tls"
    secret.mkdir(parents=True)
    for name in ("ca.pem", "client.pem", "client.key"):
        (secret / name).write_bytes((folder / name).read_bytes())
    return folder


def tls_sink(pki, client_certificate):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    if client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki / "ca.pem")
    return Sink(tls=context)


def test_tls_with_an_authority_and_a_client_certificate_from_secrets(kafka, topic, runner, pki):
    ref = {
        f"{k}SecretRef": {"name": "tls", "key": v}
        for k, v in (("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key"))
    }
    with tls_sink(pki, True) as sink:
        kafka.produce(topic, ["a"])
        run = runner.start(
            make(kafka, topic, f"https://localhost:{sink.port}/", {"tls": ref}),
            options=[f"--secrets={pki / 'secrets'}"],
        )
        (request,) = sink.wait_for(1)
        assert request.json["messages"] == ["a"] and run.stop() == 0


def test_an_authority_in_the_sink_and_what_is_said_without_it(kafka, topic, runner, pki):
    with tls_sink(pki, False) as sink:
        kafka.produce(topic, ["a"])
        uri = f"https://localhost:{sink.port}/"
        without = runner.start(make(kafka, topic, uri), name="without")
        without.wait_for_output(r"(Retrying|Throttled).*certificate", 20)
        assert without.stop() == 0
        t = make(kafka, topic, uri)
        t["spec"]["sink"]["CACerts"] = (pki / "ca.pem").read_text()
        runner.start(t, name="with")
        sink.wait_for(1)


def test_through_a_proxy_with_a_password(kafka, topic, sink, runner, tmp_path):
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "user").write_text("u")
    (tmp_path / "proxy" / "password").write_text("p:w")
    with Proxy() as proxy:
        spec = {
            "url": f"http://127.0.0.1:{proxy.port}",
            "usernameSecretRef": {"name": "proxy", "key": "user"},
            "passwordSecretRef": {"name": "proxy", "key": "password"},
        }
        kafka.produce(topic, ["a"])
        uri = sink.uri.replace("127.0.0.1", "function.invalid")  # only the proxy can know that name
        run = runner.start(make(kafka, topic, uri, {"proxy": spec}), options=[f"--secrets={tmp_path}"])
        proxy.target = ("127.0.0.1", sink.port)
        sink.wait_for(1)
        assert run.stop() == 0
        assert proxy.asked[0] == (
            f"function.invalid:{sink.port}",
            "Basic " + base64.b64encode(b"u:p:w").decode(),
        )


class Proxy:
    """Answers CONNECT, and goes to one target whatever was asked for."""

    def __init__(self):
        self.asked, self.target = [], None

    def __enter__(self):
        import socketserver
        import threading

        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                import socket

                lines = list(iter(lambda: self.rfile.readline().decode().strip(), ""))
                headers = dict(line.split(": ", 1) for line in lines[1:])
                outer.asked.append((lines[0].split()[1], headers.get("Proxy-Authorization")))
                with socket.create_connection(outer.target) as out:
                    self.wfile.write(b"HTTP/1.1 200 established\r\n\r\n")

                    def pump(source, to):
                        while data := source.recv(65536):
                            to.sendall(data)
                        to.shutdown(socket.SHUT_WR)

                    back = threading.Thread(target=pump, args=(out, self.connection), daemon=True)
                    back.start()
                    pump(self.connection, out)
                    back.join()

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def port(self):
        return self.server.server_address[1]


def test_bodies_are_compressed(kafka, topic, sink, runner):
    import gzip

    kafka.produce(topic, ["x" * 5000, "short"])
    runner.start(make(kafka, topic, sink.uri, {"compression": "Gzip"}))
    large, small = sink.wait_for(2)
    assert large.header("Content-Encoding") == "gzip" and json.loads(gzip.decompress(large.body))[
        "messages"
    ] == ["x" * 5000]
    assert small.header("Content-Encoding") is None and small.json["messages"] == ["short"]


@pytest.mark.parametrize(
    "source, shape",
    [
        ({"kafka": {"bootstrapServers": ["k:1"], "topics": ["t"]}}, shapes.KAFKA),
        ({"timer": {"schedule": "1m", "userEvent": "u"}}, shapes.TIMER),
    ],
)
def test_events_decode_strictly_with_the_published_types(tmp_path, source, shape):
    t = trigger("t", source, "http://f/", event={"dialect": "Current", "region": "r", "instanceID": "i"})
    (tmp_path / "t.json").write_text(json.dumps(t))
    done = subprocess.run(
        [SLUICE, "preview", "-f", tmp_path / "t.json", "--record=-", "--body"],
        input='{"value": "v"}' if "kafka" in source else "{}",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    strict(json.loads(done.stdout), shape)
