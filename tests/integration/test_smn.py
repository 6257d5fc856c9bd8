"""Simple Message Notification: signed messages from a sender and a certificate server of the test's own."""

import http.client
import json
import re
import signal
import socket
import threading
import time

import pytest
from harness.process import Later, wait_until
from harness.sluice import trigger


class Listener:
    def __init__(self, runner, smn, *triggers, name="run", port=0, options=()):
        self.run = runner.start(
            *triggers, name=name, options=[f"--listen=127.0.0.1:{port}", *smn.options, *options]
        )
        self.port = self.run.port

    def send(self, message, path="/test/topic", timeout=20):
        body, headers = message
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, body, headers)
            r = connection.getresponse()
            self.headers = dict(r.getheaders())
            self.text = r.read().decode()
            return r.status
        finally:
            connection.close()


@pytest.fixture
def listener(runner, smn, sink):
    return lambda delivery=None, source="smn", spec=None, **more: Listener(
        runner, smn, trigger("topic", {source: {**smn.source, **(spec or {})}}, sink.uri, delivery), **more
    )


def test_a_subscription_is_confirmed_and_messages_arrive(listener, smn, sink):
    g = listener()
    g.run.wait_for_output(r"waiting for the subscription's confirmation", 20)
    assert g.send(smn.confirmation()) == 200
    assert smn.asked == [smn.path, "/confirm?token=t"]
    g.run.wait_for_output(r"source.*Connected", 20)
    message = smn.notification("hello \u00e4", subject="greeting")
    assert g.send(message) == 200
    (request,) = sink.taken()
    sent = json.loads(message[0])
    event = request.json
    assert request.id == sent["message_id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event.pop("requestId"))
    assert re.fullmatch(
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} \d\d \d{4} \d\d:\d\d:\d\d GMT\+0800 \(CST\)",
        event.pop("timestamp"),
    )
    assert event == {
        "functionname": "topic",
        "record": [
            {
                "event_version": "1.0",
                "smn": {
                    "message_attributes": None,
                    "subject": "greeting",
                    "message_id": sent["message_id"],
                    "topic_urn": smn.urn,
                    "type": "notification",
                    "message": "hello \u00e4",
                    "timestamp": sent["timestamp"],
                },
                "event_source": "smn",
                "event_subscription_urn": "urn:fss:cn-north-1:bb8695913bb74682b9ca82a8803b60d8:function:default:topic:latest",
            }
        ],
    }
    assert g.send(message) == 200 and len(sink.all()) == 1  # once delivered, not again
    assert smn.asked.count(smn.path) == 1
    assert g.run.stop() == 0


def test_a_second_call_gets_the_first_ones_outcome(listener, smn, sink):
    gate, entered = threading.Event(), threading.Event()

    def answer(request):
        entered.set()
        gate.wait(3)
        return 200

    sink.answer = answer
    g = listener()
    message = smn.notification("once")
    first = Later(lambda: g.send(message))
    wait_until("the function is called", entered.is_set)
    second = Later(lambda: g.send(message))
    third = Later(lambda: g.send(message))
    assert g.send(smn.notification("x"), path="/test/other") == 404
    gate.set()
    assert [first.get(), second.get(), third.get()] == [200] * 3 and len(sink.all()) == 1


def test_the_second_call_goes_on_when_the_first_caller_leaves(listener, smn, sink):
    calls, gate = [], threading.Event()

    def answer(request):
        calls.append(request.id)
        if len(calls) == 1:
            gate.wait(3)
        return 200

    sink.answer = answer
    g = listener()
    message = smn.notification("once")

    def leave():
        with pytest.raises(TimeoutError):
            g.send(message, timeout=1)

    first = Later(leave)
    wait_until("the function is called", lambda: calls)
    second = Later(lambda: g.send(message))
    first.get()
    assert second.get() == 200 and len(calls) == 2
    gate.set()


def test_a_failure_is_the_senders_to_try_again(listener, smn, sink):
    answers = iter([500, 502, 400, 200])
    sink.answer = lambda request: next(answers)
    g = listener()
    message = smn.notification("again")
    assert [g.send(message) for _ in range(5)] == [500, 500, 500, 200, 200]
    assert len(sink.all()) == 4 and len({r.id for r in sink.all()}) == 1


def test_a_slow_function_is_given_up(listener, smn, sink):
    sink.answer = lambda request: (time.sleep(6), 200)[1]
    g = listener()
    assert g.send(smn.confirmation()) == 200  # the certificate is there
    began = time.monotonic()
    assert g.send(smn.notification("slow")) == 504
    assert 3.9 <= time.monotonic() - began < 4.5


def test_a_killed_worker_gets_the_message_again(listener, smn, sink):
    entered, gate = threading.Event(), threading.Event()

    def answer(request):
        if not gate.is_set():
            entered.set()
            gate.wait(10)
        return 200

    sink.answer = answer
    g = listener()
    message = smn.notification("kill")

    def broken():
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            g.send(message)
        return True

    first = Later(broken)
    wait_until("the function is called", entered.is_set)
    g.run.signal(9)
    g.run.wait()
    gate.set()
    assert first.get()
    again = listener(name="again")
    assert again.send(message) == 200
    assert {r.id for r in sink.taken()} == {json.loads(message[0])["message_id"]}


def test_limits_answer_503(listener, smn, sink):
    g = listener({"rateLimit": {"eventsPerSecond": 1, "burst": 1}})
    assert g.send(smn.notification("1")) == 200
    assert g.send(smn.notification("2")) == 503 and int(g.headers["Retry-After"]) >= 1


def test_a_message_that_waits_for_its_certificate_is_told_of_the_end(runner, smn, sink):
    """Whose server never answers: the sender hears 503 when the grace is over, and tries another worker."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        spec = {**smn.source, "trusted": {**smn.source["trusted"], "hosts": [host]}}
        g = Listener(runner, smn, trigger("topic", {"smn": spec}, sink.uri), options=["--grace=1s"])
        body, _ = smn.notification("waits")
        message = {**json.loads(body), "signing_cert_url": f"https://{host}{smn.path}"}
        sent = Later(lambda: g.send((json.dumps(message).encode(), smn.headers(message))))
        with silent.accept()[0]:
            g.run.signal(signal.SIGTERM)
            assert sent.get() == 503
            assert "the worker is stopping" in g.text and g.headers["Retry-After"] == "1"
            assert g.run.wait(10) == 0
    assert sink.all() == []


def test_what_is_refused_and_how_it_is_said(listener, smn, sink):
    g = listener()
    body, headers = smn.notification("a")
    changed = json.loads(body)
    changed["message"] = "b"
    missing = f"/smn/SMN_{smn.path.split('_')[1]}_{'0' * 32}.pem"
    assert [g.send((json.dumps(changed).encode(), headers)) for _ in range(2)] == [403, 403]
    for change, status in (
        ({"topic_urn": smn.urn + "x"}, 403),
        ({"timestamp": "2017-11-15T04:02:24Z"}, 403),
        ({"signature_version": "v2"}, 403),
        ({"type": "Other"}, 400),
        ({"message": None}, 400),
        ({"signing_cert_url": "https://smn.cn-north-1.myhuaweicloud.com.evil.test" + smn.path}, 403),
        ({"signing_cert_url": f"http://{smn.host}{smn.path}"}, 403),
        ({"signing_cert_url": f"https://a@{smn.host}{smn.path}"}, 403),
        ({"signing_cert_url": "https://smn.cn-north-1.myhuaweicloud.com/other.pem"}, 403),
        ({"signing_cert_url": f"https://{smn.host}/other"}, 403),
        ({"signing_cert_url": f"https://{smn.host}{smn.path}?a=b"}, 403),
        ({"signing_cert_url": f"https://{smn.host}{missing}"}, 503),
    ):
        other = {**json.loads(body), **change}
        assert g.send((json.dumps(other).encode(), smn.headers(other))) == status, change
    assert g.send((b"x" * 400_000, headers)) == 413
    assert g.send((b"not json", headers)) == 400
    assert sink.all() == [] and smn.asked == [smn.path, missing]
    g.run.wait_for_output(r"message refused: bad signature", 20)
    # A confirmation that leads elsewhere is not followed, though it is signed.
    assert g.send(smn.confirmation(subscribe_url="https://example.test/")) == 403
    smn.answers["/no"] = 500, b""
    assert g.send(smn.confirmation(subscribe_url=f"https://{smn.host}/no")) == 502
    assert g.send(smn.confirmation("HttpSubscriptionUserConfirm")) == 200
    assert g.send((lambda m: (m[0], {}))(smn.confirmation("HttpSubscriptionUserConfirm"))) == 200
    asked = len(smn.asked)
    assert g.send(smn.confirmation("UnsubscribeConfirmation")) == 200 and len(smn.asked) == asked


def test_the_current_dialect(runner, smn, sink):
    g = Listener(runner, smn, trigger("topic", {"smn": smn.source}, sink.uri, event={"dialect": "Current"}))
    assert g.send(smn.notification("m", subject="")) == 200
    event = sink.taken()[0].json
    assert (
        set(event) == {"record"}
        and event["record"][0]["smn"]["subject"] == ""
        and event["record"][0]["smn"]["message_attributes"] is None
    )


def test_alarms_of_cloud_eye(listener, smn, sink):
    g = listener(
        source="cloudEye", spec={"alarms": ["cpu"], "states": ["alarm"], "severities": ["Critical", "Major"]}
    )

    def alarm(**change):
        return smn.notification(
            json.dumps(
                {
                    "message_type": "alarm",
                    "alarm_id": "al1",
                    "alarm_name": "cpu",
                    "alarm_status": "alarm",
                    "alarm_level": 2,
                    **change,
                }
            )
        )

    assert g.send(alarm()) == 200 and len(sink.all()) == 1
    assert [
        g.send(m)
        for m in (
            alarm(alarm_status="ok"),
            alarm(alarm_name="disk"),
            alarm(alarm_level=3),
            smn.notification("no alarm"),
        )
    ] == [200] * 4
    assert len(sink.all()) == 1
    assert json.loads(sink.taken()[0].json["record"][0]["smn"]["message"])["alarm_id"] == "al1"
    # The level as SMN's templates spell it, and as a number in words.
    for level, wanted in (("Critical", True), ("Minor", False), ("Major", True)):
        before = len(sink.all())
        assert g.send(alarm(alarm_level=None, template_variable={"AlarmLevel": level})) == 200
        assert len(sink.all()) - before == wanted, level
    assert g.send(alarm(alarm_level="1")) == 200 and g.send(alarm(alarm_level="4")) == 200
    assert len(sink.all()) == 4
