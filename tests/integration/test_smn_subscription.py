"""Subscriptions that a worker makes by SMN's API. The service is an emulator, which the official client drives first, and which checks signatures with its code."""

import contextlib
import http.client
import json
import time

import pytest
import yaml
from harness.ports import free_port
from harness.process import Later, wait_until
from harness.sink import Sink
from harness.sluice import trigger
from harness.smn import CONFIRMED, PROJECT, UNCONFIRMED, Refused
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdksmn.v2 import (
    AddSubscriptionRequest,
    AddSubscriptionRequestBody,
    CancelSubscriptionRequest,
    ListSubscriptionsByTopicRequest,
    SmnClient,
)


def client(smn, secret=None):
    access, right = next(iter(smn.keys.items()))
    project = smn.urn.split(":")[3]
    return (
        SmnClient.new_builder()
        .with_credentials(BasicCredentials(access, secret or right, project))
        .with_endpoint(smn.endpoint)
        .build()
    )


def test_the_emulator_as_the_official_client_drives_it(smn):
    c, messages = client(smn), []
    with Sink() as endpoint:
        body = AddSubscriptionRequestBody(protocol="http", endpoint=endpoint.uri, remark="by hand")
        urn = c.add_subscription(AddSubscriptionRequest(topic_urn=smn.urn, body=body)).subscription_urn
        (request,) = wait_until("the confirmation", lambda: endpoint.taken() or None, 10)
        messages.append(request)
        (listed,) = c.list_subscriptions_by_topic(
            ListSubscriptionsByTopicRequest(topic_urn=smn.urn, offset=0, limit=10)
        ).subscriptions
        assert (listed.subscription_urn, listed.endpoint, listed.protocol, listed.remark, listed.status) == (
            urn,
            endpoint.uri,
            "http",
            "by hand",
            UNCONFIRMED,
        )
        assert (
            c.add_subscription(AddSubscriptionRequest(topic_urn=smn.urn, body=body)).subscription_urn == urn
        )
        smn.confirm(json.loads(request.body)["subscribe_url"].partition(smn.host)[2])
        assert (
            c.list_subscriptions_by_topic(ListSubscriptionsByTopicRequest(topic_urn=smn.urn))
            .subscriptions[0]
            .status
            == CONFIRMED
        )
        c.cancel_subscription(CancelSubscriptionRequest(subscription_urn=urn))
        found = c.list_subscriptions_by_topic(ListSubscriptionsByTopicRequest(topic_urn=smn.urn))
        assert (found.subscription_count, found.subscriptions) == (0, [])
        with pytest.raises(ClientRequestException) as no_topic:
            c.add_subscription(AddSubscriptionRequest(topic_urn=smn.urn + "x", body=body))
        assert (no_topic.value.status_code, no_topic.value.error_code) == (404, "SMN.00010021")
        with pytest.raises(ClientRequestException) as wrong_key:
            client(smn, "wrong").list_subscriptions_by_topic(
                ListSubscriptionsByTopicRequest(topic_urn=smn.urn)
            )
        assert (wrong_key.value.status_code, wrong_key.value.error_code) == (401, "APIGW.0301")


# ---- what a worker does ----------------------------------------------------------------------------------------------------------------------


class Managed:
    """`sluice run` with a managed subscription; its own listener is the endpoint."""

    def __init__(self, runner, smn, sink, port, source=None, **how):
        self.endpoint = f"http://127.0.0.1:{port}/test/topic"
        self.source = source or {
            "smn": {
                **smn.source,
                "subscription": {"manage": True, "endpoint": self.endpoint},
                "cloud": smn.cloud,
            }
        }
        self.run = runner.start(
            trigger("topic", self.source, sink.uri),
            options=[f"--listen=127.0.0.1:{port}", *smn.options],
            **how,
        )


def made(smn, method="POST"):
    return [c for c in smn.calls if c[0] == method]


def test_a_worker_subscribes_itself_once(runner, smn, sink):
    port = free_port()
    first = Managed(runner, smn, sink, port)
    first.run.wait_for_output(r"source.*state=Connected", 20)
    (found,) = smn.subscriptions.values()
    assert (found["endpoint"], found["protocol"], found["remark"], found["status"]) == (
        first.endpoint,
        "http",
        "Sluice test/topic",
        CONFIRMED,
    )
    assert [status for _, status in smn.publish("hello")] == [200]
    assert json.loads(sink.taken()[0].body)["record"][0]["smn"]["message"] == "hello"
    assert first.run.stop() == 0
    assert len(smn.subscriptions) == 1, "a worker that ends stays subscribed: a restart would lose messages"
    # Started anew, also without what it remembers: the subscription is adopted.
    for state in ("state", "another"):
        before = len(made(smn, "GET"))
        again = Managed(runner, smn, sink, port, name=f"again-{state}", state=state)
        again.run.wait_for_output(r"source.*state=Connected", 20)
        wait_until("it looked", lambda: len(made(smn, "GET")) > before, 20)
        assert [status for _, status in smn.publish(state)] == [200]
        assert again.run.stop() == 0
    assert len(smn.subscriptions) == 1 and len(made(smn)) == 1


def test_an_unconfirmed_subscription_is_confirmed_anew(runner, smn, sink):
    port = free_port()
    body = AddSubscriptionRequestBody(protocol="http", endpoint=f"http://127.0.0.1:{port}/test/topic")
    urn = client(smn).add_subscription(AddSubscriptionRequest(topic_urn=smn.urn, body=body)).subscription_urn
    wait_until("nobody was there", lambda: smn.sent, 10)
    managed = Managed(runner, smn, sink, port)
    managed.run.wait_for_output(r"source.*state=Connected", 20)
    assert list(smn.subscriptions) == [urn] and smn.subscriptions[urn]["status"] == CONFIRMED


def test_it_is_found_among_many(runner, smn, sink):
    port = free_port()
    for n in range(250):
        smn.subscriptions[f"{smn.urn}:{n}"] = {
            "topic_urn": smn.urn,
            "subscription_urn": f"{smn.urn}:{n}",
            "endpoint": f"http://127.0.0.1/{n}",
            "status": CONFIRMED,
        }
    smn.subscriptions["ours"] = {
        "topic_urn": smn.urn,
        "subscription_urn": "ours",
        "endpoint": f"http://127.0.0.1:{port}/test/topic",
        "status": CONFIRMED,
    }
    managed = Managed(runner, smn, sink, port)
    managed.run.wait_for_output(r"source.*state=Connected", 20)
    assert len(smn.subscriptions) == 251 and not made(smn) and len(made(smn, "GET")) >= 3


@pytest.mark.parametrize("kind", ["obs", "cloudEye"])
def test_the_other_sources_of_a_topic(runner, smn, sink, kind):
    port = free_port()
    common = {
        **smn.source,
        "subscription": {"manage": True, "endpoint": f"http://127.0.0.1:{port}/test/topic"},
        "cloud": smn.cloud,
    }
    managed = Managed(
        runner, smn, sink, port, {kind: {**common, **({"bucket": "pictures"} if kind == "obs" else {})}}
    )
    managed.run.wait_for_output(r"source.*state=Connected", 20)
    assert len(smn.subscriptions) == 1


def test_what_the_service_refuses_is_told_in_its_words_and_tried_again(runner, smn, sink):
    port = free_port()
    smn.refuse = lambda method, path: (
        Refused(403, "SMN.00010002", "The account is frozen.") if method == "POST" else None
    )
    managed = Managed(runner, smn, sink, port)
    managed.run.wait_for_output(
        rf'state=Disconnected reason="subscribe to {smn.urn}: 403 SMN.00010002: The account is frozen. \(the account is',
        20,
    )
    smn.refuse = lambda method, path: None
    managed.run.wait_for_output(r"source.*state=Connected", 30)
    assert len(smn.subscriptions) == 1


def test_retry_after_is_heeded(runner, smn, sink):
    port, times = free_port(), []

    def refuse(method, path):
        times.append(time.monotonic())
        return Refused(429, "SMN.0429", "slow down", [("Retry-After", "4")]) if len(times) == 1 else None

    smn.refuse = refuse
    managed = Managed(runner, smn, sink, port)
    managed.run.wait_for_output(r"source.*state=Connected", 30)
    assert times[1] - times[0] >= 3.9


def test_wrong_keys_and_missing_ones(runner, smn, sink):
    port, secret = free_port(), smn.folder / "secrets" / "cloud" / "sk"
    secret.write_text("wrong")
    managed = Managed(runner, smn, sink, port)
    managed.run.wait_for_output(
        rf'state=Disconnected reason="list subscriptions of {smn.urn}: 401 APIGW.0301: Incorrect IAM', 20
    )
    secret.unlink()
    missing = "cloud.credentials.secretKeySecretRef: Secret cloud, key sk: open "
    managed.run.wait_until(
        "says that it is missing", lambda: managed.run.status()["sourceReason"].startswith(missing), 20
    )
    secret.write_text(smn.keys["AKEXAMPLE"])
    managed.run.wait_until(
        "goes on at once", lambda: managed.run.status()["sourceState"] == "Connected", 10
    )  # the pause may be longer


def test_a_topic_that_does_not_exist(runner, smn, sink):
    port = free_port()
    smn.topics.clear()
    managed = Managed(runner, smn, sink, port)
    managed.run.wait_for_output(
        rf'state=Disconnected reason="list subscriptions of {smn.urn}: 404 SMN.00010021: The topic {smn.urn} does not exist."',
        20,
    )


def test_an_edit_leaves_nothing_behind(runner, smn, sink):
    """Another topic, then another endpoint: what was subscribed before is cancelled once the new subscription is confirmed."""
    port = free_port()
    first = Managed(runner, smn, sink, port)
    first.run.wait_for_output(r"source.*state=Connected", 20)
    (old,) = smn.subscriptions
    assert first.run.stop() == 0
    was, smn.urn = smn.urn, smn.urn.replace(PROJECT, "0" * 32) + "-new"  # of another project, too
    smn.topics.add(smn.urn)
    second = Managed(runner, smn, sink, port, name="second")
    wait_until(
        "the old one is cancelled", lambda: old not in smn.subscriptions, 20, explain=second.run.describe
    )
    ((_, found),) = smn.subscriptions.items()
    assert (found["topic_urn"], found["status"]) == (smn.urn, CONFIRMED) and was != smn.urn
    order = [m for m, _ in smn.calls if m != "GET"]
    assert order == ["POST", "POST", "DELETE"]
    second.run.wait_for_output(r"source.*state=Connected", 20)
    assert second.run.stop() == 0
    third = Managed(runner, smn, sink, free_port(), name="third")
    wait_until(
        "the old one is cancelled",
        lambda: [s["endpoint"] for s in smn.subscriptions.values()] == [third.endpoint],
        20,
        explain=third.run.describe,
    )


class Lingering(dict):
    """Subscriptions that a service lists still after it has cancelled them."""

    def pop(self, urn, default=None):
        return self.get(urn, default)


def test_one_that_is_listed_after_its_end_is_not_cancelled_without_a_pause(runner, smn, sink):
    port = free_port()
    first = Managed(runner, smn, sink, port)
    first.run.wait_for_output(r"source.*state=Connected", 20)
    (old,) = smn.subscriptions
    assert first.run.stop() == 0
    smn.subscriptions = Lingering(smn.subscriptions)
    smn.urn = smn.urn + "-new"
    smn.topics.add(smn.urn)
    second = Managed(runner, smn, sink, port, name="second")
    second.run.wait_for_output(
        rf'source.*state=Connected reason="cancel subscription {old}: it is still listed"', 20
    )
    begun = time.monotonic()
    wait_until("it is tried again", lambda: len(made(smn, "DELETE")) >= 3, 30, explain=second.run.describe)
    assert time.monotonic() - begun >= 1
    smn.subscriptions = dict(smn.subscriptions)
    wait_until(
        "the old one is cancelled", lambda: old not in smn.subscriptions, 30, explain=second.run.describe
    )
    second.run.wait_for_output(r'source.*state=Connected reason=""', 20)


def test_an_edit_in_place_goes_on_at_once(runner, smn, sink):
    """A message that is under way is not delivered twice, no sender is refused, and one of the two keeps the subscription."""
    gate = sink.hold(b"slow", 20)
    port = free_port()
    first = Managed(runner, smn, sink, port)
    first.run.wait_for_output(r"source.*state=Connected", 20)
    (urn,) = smn.subscriptions
    body, headers = smn.notification("slow")

    def post():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/test/topic", body, headers)
            return connection.getresponse().status

    calls = [Later(post)]
    wait_until("it is under way", gate.entered.is_set)
    elsewhere = f"http://localhost:{port}/test/topic"
    first.source["smn"]["subscription"]["endpoint"] = elsewhere
    files = runner.directory / "run.yaml"
    files.write_text(yaml.safe_dump(trigger("topic", first.source, sink.uri)))
    first.run.wait_for_output('msg="the files changed" applied=1', 20)
    calls.append(Later(post))
    assert smn.send({"endpoint": elsewhere, "subscription_urn": urn}, smn.notification("other")) == 200
    gate.opened.set()
    assert [c.get() for c in calls] == [200, 200]
    wait_until(
        "the edit's subscription is the only one",
        lambda: [s["endpoint"] for s in smn.subscriptions.values()] == [elsewhere],
        20,
        explain=first.run.describe,
    )
    assert urn not in smn.subscriptions
    assert [m for m, _ in smn.calls if m != "GET"] == ["POST", "POST", "DELETE"]
    assert len(sink.taken()) == 2
    assert first.run.stop() == 0


def test_a_confirmed_subscription_is_remembered(runner, smn, sink):
    """Also one that its user made: a worker that starts anew does not wait for a confirmation that will never come."""
    port = free_port()
    t = trigger("topic", {"smn": smn.source}, sink.uri)
    options = [f"--listen=127.0.0.1:{port}", *smn.options]
    run = runner.start(t, options=options)
    run.wait_for_output("waiting for the subscription's confirmation", 20)
    body = AddSubscriptionRequestBody(protocol="http", endpoint=f"http://127.0.0.1:{port}/test/topic")
    client(smn).add_subscription(AddSubscriptionRequest(topic_urn=smn.urn, body=body))
    run.wait_for_output(r"source.*state=Connected", 20)
    assert run.stop() == 0
    again = runner.start(t, name="again", options=options)
    again.wait_for_output(r"source.*state=Connected", 20)
    assert not made(smn, "GET")


def test_tls_from_a_secret_needs_a_cluster(runner, smn, sink):
    run = runner.start(
        trigger("topic", {"smn": {**smn.source, "listener": {"tls": {"secretName": "served"}}}}, sink.uri),
        options=["--listen=127.0.0.1:0", *smn.options],
    )
    assert run.wait(20) == 1
    assert (
        "test/topic: spec.source.smn.listener.tls names a Secret of a cluster; without one say --tls-cert=FILE and --tls-key=FILE"
        in run.err
    )


@pytest.mark.parametrize("made_it", [True, False])
def test_killed_while_it_subscribes(runner, smn, sink, made_it):
    """Before the service heard it, and before the worker heard the answer: once started anew there is one subscription, and it is remembered where it was to be made."""
    port, subscribe = free_port(), smn.subscribe

    def kill(topic, body):
        answer = subscribe(topic, body) if made_it else None
        smn.subscribe = subscribe
        managed.run.signal(9)
        managed.run.wait()
        return answer or (500, b"")

    smn.subscribe = kill
    managed = Managed(runner, smn, sink, port)
    assert managed.run.wait(20) == -9 and len(smn.subscriptions) == made_it
    again = Managed(runner, smn, sink, port, name="again")
    again.run.wait_for_output(r"source.*state=Connected", 30)
    assert [s["status"] for s in smn.subscriptions.values()] == [CONFIRMED]
    assert [status for _, status in smn.publish("hello")] == [200]
