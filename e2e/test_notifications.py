"""SMN, object storage and alarms in a cluster: reached through a Service's name by another pod, killed, deleted."""

import json
import threading

import pytest
from conftest import SYSTEM
from harness.process import wait_until
from harness.smn import CONFIRMED, Refused, Smn
from helpers import (
    Caller,
    Function,
    children,
    events_of,
    get_trigger,
    kill_worker,
    secret,
    trigger,
    wait_condition,
    wait_restarted,
    worker_pods,
)

pytestmark = pytest.mark.node


@pytest.fixture
def smn(cluster, tmp_path):
    folder = tmp_path / "smn"
    folder.mkdir()
    with Smn(folder, host=cluster.node_address, netns=cluster.netns) as s:
        yield s


@pytest.fixture
def function(cluster, namespace, image):
    return Function(cluster, namespace, image)


@pytest.fixture
def caller(cluster, namespace):
    return Caller(cluster, namespace)


def secrets_of(smn):
    return [
        secret(name, **{k.replace(".", "_"): v for k, v in values.items()})
        for name, values in smn.secrets.items()
    ]


def later(call):
    result = []
    thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
    thread.start()

    def get():
        thread.join(60)
        return result[0]

    return get


def assert_gone(cluster, namespace):
    wait_until(
        "nothing is left",
        lambda: not children(cluster, namespace),
        60,
        explain=lambda: [f"{o['kind']}/{o['metadata']['name']}" for o in children(cluster, namespace)],
    )


def test_an_api(cluster, namespace, image, caller):
    """As the others: by the Service's name, from another pod. A killed worker breaks the call, and makes no second one."""
    answer = json.dumps({"statusCode": 201, "headers": {}, "body": "hello", "isBase64Encoded": False})
    function = Function(cluster, namespace, image, options=[f"--answer={answer}"])
    cluster.apply(trigger("api", {"apig": {"path": "/orders/{id}"}}), namespace=namespace)
    wait_condition(cluster, namespace, "api", timeout=60)
    url = get_trigger(cluster, namespace, "api")["status"]["address"]["url"].replace("{id}", "7")

    def post(body):
        return caller.post(url, body, {"Content-Type": "text/plain"})

    wait_until(
        "it is reached", lambda: post(b"one") == 201, 30, poll=0.5, explain=lambda: caller.said
    )  # once the node knows the pod
    assert caller.said.startswith("hello"), caller.said
    event = json.loads(function.events()[0]["body"])
    assert (event["httpMethod"], event["body"], event["pathParameters"]) == ("POST", "one", {"id": "7"})
    function.behave(delay="2s")
    answered = later(lambda: post(b"two"))
    wait_until(
        "the function is called",
        lambda: worker_metric(cluster, namespace, "api", "sluice_requests_in_flight") == 1,
        20,
    )
    kill_worker(cluster, namespace, "api")
    assert answered() is None, caller.said
    function.behave(delay="0s")
    wait_until("the worker is back", lambda: post(b"three") == 201, 60, poll=1)
    assert [json.loads(e["body"])["body"] for e in function.events(accepted=False)].count("two") <= 1
    cluster.delete("triggers.sluice.dev/api", namespace=namespace)
    assert_gone(cluster, namespace)


def test_messages_of_a_topic(cluster, namespace, function, caller, smn):
    cluster.apply(*secrets_of(smn), trigger("topic", {"smn": smn.source}), namespace=namespace)
    wait_condition(cluster, namespace, "topic", "WorkersAvailable", timeout=60)
    wait_condition(
        cluster,
        namespace,
        "topic",
        "SourceConnected",
        "Unknown",
        "Connecting",
        "waiting for the subscription's confirmation",
    )
    url = get_trigger(cluster, namespace, "topic")["status"]["address"]["url"]
    assert url == f"http://topic-sluice.{namespace}.svc/{namespace}/topic"
    wait_until(
        "the confirmation is taken",
        lambda: caller.post(url, *smn.confirmation()) == 200,
        30,
        poll=0.5,
        explain=lambda: caller.said,
    )
    assert "/confirm?token=t" in smn.asked
    wait_condition(cluster, namespace, "topic", timeout=30)
    message = smn.notification("hello")
    assert caller.post(url, *message) == 200, caller.said
    (event,) = function.events()
    sent = json.loads(message[0])
    assert (
        event["id"] == sent["message_id"]
        and json.loads(event["body"])["record"][0]["smn"]["message"] == "hello"
    )
    assert caller.post(url, json.dumps({**sent, "message": "forged"}).encode(), message[1]) == 403
    assert caller.post(url + "x", *smn.notification("elsewhere")) == 404
    assert function.accepted() == 1
    # Killed while the function works: the sender hears nothing, sends again, and the function gets the same id.
    function.behave(delay="2s")
    message = smn.notification("killed")
    answer = later(lambda: caller.post(url, *message))
    wait_until(
        "the function is called",
        lambda: worker_metric(cluster, namespace, "topic", "sluice_requests_in_flight") == 1,
        20,
    )
    pod = kill_worker(cluster, namespace, "topic")
    assert answer() is None, caller.said
    function.behave(delay="0s")
    wait_until("the worker is back", lambda: caller.post(url, *message) == 200, 60, poll=1)
    wait_restarted(cluster, namespace, "topic", pod)
    assert {e["id"] for e in function.events()} == {sent["message_id"], json.loads(message[0])["message_id"]}
    wait_condition(cluster, namespace, "topic", timeout=30)
    cluster.delete("triggers.sluice.dev/topic", namespace=namespace)
    assert_gone(cluster, namespace)


def worker_metric(cluster, namespace, name, metric):
    (pod,) = worker_pods(cluster, namespace, name)
    text = cluster.run(
        "curl", "-sS", "--fail", "--max-time", "5", f"http://{pod['status']['podIP']}:8081/metrics"
    ).stdout
    return float(next(line for line in text.splitlines() if line.startswith(metric + "{")).rsplit(" ", 1)[1])


def records(*keys, bucket="pictures"):
    return {
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "aws:s3",
                "eventTime": "2026-01-02T03:04:05.000Z",
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": bucket},
                    "object": {"key": k, "eTag": "0", "size": 1, "sequencer": f"{n:016X}"},
                },
            }
            for n, k in enumerate(keys)
        ]
    }


def test_changes_of_a_bucket(cluster, namespace, function, caller, smn):
    cluster.apply(
        *secrets_of(smn),
        secret("store", token="right"),
        trigger(
            "hook",
            {
                "obs": {
                    "bucket": "pictures",
                    "from": "Webhook",
                    "tokenSecretRef": {"name": "store", "key": "token"},
                    "suffix": ".png",
                }
            },
        ),
        trigger("published", {"obs": {"bucket": "pictures", **smn.source}}),
        namespace=namespace,
    )
    wait_condition(cluster, namespace, "hook", timeout=60)
    wait_condition(cluster, namespace, "published", "WorkersAvailable", timeout=60)
    hook, published = (f"http://{n}-sluice.{namespace}.svc/{namespace}/{n}" for n in ("hook", "published"))

    def post(keys, token="right"):
        return caller.post(
            hook,
            json.dumps(records(*keys)).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )

    wait_until(
        "it is reached", lambda: post(["a.png", "b.txt"]) == 200, 30, poll=0.5, explain=lambda: caller.said
    )
    assert post(["c.png"], "wrong") == 401
    (event,) = function.events()
    assert [r["s3"]["object"]["key"] for r in json.loads(event["body"])["Records"]] == ["a.png"]
    wait_until(
        "it is reached",
        lambda: caller.post(published, *smn.notification(json.dumps(records("from-smn")))) == 200,
        30,
        poll=0.5,
        explain=lambda: caller.said,
    )
    assert [r["s3"]["object"]["key"] for r in json.loads(function.events()[1]["body"])["Records"]] == [
        "from-smn"
    ]
    function.behave(delay="2s")
    answer = later(lambda: post(["killed.png"]))
    wait_until(
        "the function is called",
        lambda: worker_metric(cluster, namespace, "hook", "sluice_requests_in_flight") == 1,
        20,
    )
    kill_worker(cluster, namespace, "hook")
    assert answer() is None, caller.said
    function.behave(delay="0s")
    wait_until("the worker is back", lambda: post(["killed.png"]) == 200, 60, poll=1)
    assert "killed.png" in function.events()[-1]["body"]
    cluster.delete("triggers.sluice.dev", "--all", namespace=namespace)
    assert_gone(cluster, namespace)


# ---- a subscription that the worker manages ---------------------------------------------------------------------------------------------------


def managed(cluster, namespace, smn, **more):
    smn.resolve = lambda host: (
        cluster.get("service", host.split(".")[0], namespace=host.split(".")[1])["spec"]["clusterIP"]
        if host.endswith(".svc")
        else host
    )
    endpoint = f"http://topic-sluice.{namespace}.svc/{namespace}/topic"
    return trigger(
        "topic",
        {"smn": {**smn.source, "subscription": {"manage": True, "endpoint": endpoint}, "cloud": smn.cloud}},
        **more,
    )


def wait_trigger_gone(cluster, namespace, timeout):
    wait_until(
        "the Trigger is gone",
        lambda: not get_trigger(cluster, namespace, "topic"),
        timeout,
        poll=0.5,
        explain=lambda: get_trigger(cluster, namespace, "topic")["status"],
    )


def delete(cluster, namespace, *options):
    cluster.kubectl("delete", "triggers.sluice.dev/topic", "--wait=false", *options, namespace=namespace)


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_a_managed_subscription_comes_and_goes(cluster, namespace, function, smn, cascade):
    cluster.apply(*secrets_of(smn), managed(cluster, namespace, smn), namespace=namespace)
    wait_condition(cluster, namespace, "topic", timeout=60)
    (found,) = smn.subscriptions.values()
    assert (found["status"], found["endpoint"]) == (
        CONFIRMED,
        f"http://topic-sluice.{namespace}.svc/{namespace}/topic",
    )
    wait_until(
        "a message arrives",
        lambda: [status for _, status in smn.publish("hello")] == [200],
        30,
        poll=0.5,
        explain=lambda: smn.sent,
    )
    assert json.loads(function.events()[0]["body"])["record"][0]["smn"]["message"] == "hello"
    # A worker that starts anew finds it, and is connected at once.
    posts = [m for m, _ in smn.calls].count("POST")
    kill_worker(cluster, namespace, "topic")
    wait_until("it is back", lambda: [status for _, status in smn.publish("again")] == [200], 60, poll=1)
    wait_condition(cluster, namespace, "topic", timeout=30)
    assert len(smn.subscriptions) == 1 and [m for m, _ in smn.calls].count("POST") == posts
    delete(cluster, namespace, f"--cascade={cascade}")
    wait_trigger_gone(cluster, namespace, 90)
    assert smn.subscriptions == {}
    assert_gone(cluster, namespace)


def test_what_cannot_be_cancelled_is_named_after_the_deadline(cluster, namespace, function, smn):
    deployment = cluster.get("deployment", "sluice", namespace=SYSTEM)
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]

    def start_with(args):
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args}]
        cluster.kubectl(
            "patch", "deployment", "sluice", "--type=json", "-p", json.dumps(patch), namespace=SYSTEM
        )
        cluster.kubectl("rollout", "status", "deployment/sluice", "--timeout=60s", namespace=SYSTEM)

    cluster.apply(*secrets_of(smn), managed(cluster, namespace, smn), namespace=namespace)
    wait_condition(cluster, namespace, "topic", timeout=60)
    start_with([*arguments, "--ending-deadline=30s"])
    try:
        smn.refuse = lambda method, path: Refused(503, "SMN.0503", "The service is closed.")
        delete(cluster, namespace)
        wait_condition(
            cluster,
            namespace,
            "topic",
            "Ready",
            "False",
            "Ending",
            f"the subscription of {smn.urn} to http://topic-sluice.{namespace}.svc/",
        )
        wait_condition(
            cluster,
            namespace,
            "topic",
            "SourceConnected",
            "False",
            "SourceDisconnected",
            "503 SMN.0503: The service is closed.",
        )
        wait_trigger_gone(cluster, namespace, 60)
        said = wait_until(
            "it is said",
            lambda: [e for e in events_of(cluster, namespace, "topic") if "remains outside the cluster" in e],
            20,
        )
        assert f"the subscription of {smn.urn} to " in said[0] and "The service is closed." in said[0]
        assert len(smn.subscriptions) == 1
        assert_gone(cluster, namespace)
    finally:
        start_with(arguments)


def test_a_namespace_goes_though_a_subscription_stays(cluster, namespace, function, smn):
    cluster.apply(*secrets_of(smn), managed(cluster, namespace, smn), namespace=namespace)
    wait_condition(cluster, namespace, "topic", timeout=60)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    wait_until(
        "the namespace is gone",
        lambda: not cluster.get("namespace", namespace),
        120,
        poll=1,
        explain=lambda: cluster.get("namespace", namespace)["status"],
    )
    said = cluster.logs("deployment/sluice", SYSTEM)
    assert (
        not smn.subscriptions
        or f"the subscription of {smn.urn} to http://topic-sluice.{namespace}.svc/{namespace}/topic remains outside the cluster"
        in said
    )
