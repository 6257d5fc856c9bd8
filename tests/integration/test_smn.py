"""Simple Message Notification: signed messages from a sender and a certificate server of the test's own."""
import http.client
import json
import re
import threading
import time

import pytest
from conftest import trigger
from harness.process import wait_until
from harness.sink import Sink
from harness.smn import Smn


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


@pytest.fixture
def smn(tmp_path):
    folder = tmp_path / "smn"
    folder.mkdir()
    with Smn(folder) as s:
        yield s


class Listener:
    def __init__(self, runner, smn, *triggers, name="run", port=0):
        self.run = runner.start(*triggers, name=name, options=[f"--listen=127.0.0.1:{port}", *smn.options])
        self.port = int(self.run.wait_for_output(r"listening on port (\d+)", 20).group(1))

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
    return lambda delivery=None, source="smn", spec=None, **more: Listener(runner, smn, trigger("topic", {source: {**smn.source, **(spec or {})}}, sink.uri, delivery), **more)


def later(call):
    """Calls in a thread; join() gives the result."""
    class Result(threading.Thread):
        def run(self):
            self.result = call()

        def get(self):
            self.join(30)
            return self.result

    r = Result(daemon=True)
    r.start()
    return r


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
    assert re.fullmatch(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} \d\d \d{4} \d\d:\d\d:\d\d GMT\+0800 \(CST\)", event.pop("timestamp"))
    assert event == {"functionname": "topic", "record": [{
        "event_version": "1.0",
        "smn": {"message_attributes": None, "subject": "greeting", "message_id": sent["message_id"], "topic_urn": smn.urn, "type": "notification", "message": "hello \u00e4", "timestamp": sent["timestamp"]},
        "event_source": "smn",
        "event_subscription_urn": "urn:fss:cn-north-1:bb8695913bb74682b9ca82a8803b60d8:function:default:topic:latest"}]}  # fmt: skip
    assert g.send(message) == 200 and len(sink.all()) == 1  # once delivered, not again
    assert smn.asked.count(smn.path) == 1
    assert g.run.stop() == 0
