"""Timer ticks and Kafka messages reach a function, in a real cluster."""

import itertools
import json
import os
import re
import time

import pytest
from conftest import SYSTEM, uninstall_chart
from harness import ROOT
from harness.cluster import audit_line
from harness.ports import free_ports
from harness.process import run, wait_until
from helpers import (
    CHILDREN,
    Function,
    assert_whole_and_ordered,
    children,
    condition,
    duplicates,
    events_of,
    get_trigger,
    kafka_source,
    kill_worker,
    names_of,
    numbered,
    offsets,
    trigger,
    wait_condition,
    wait_observed,
    wait_restarted,
    worker_pods,
)

names = (f"events-{n}" for n in itertools.count())


@pytest.fixture
def function(cluster, namespace, image):
    return Function(cluster, namespace, image)


def columns(cluster, namespace):
    """What `kubectl get` shows: {name: {column: text}}"""
    header, *rows = cluster.kubectl("get", "triggers.sluice.dev", namespace=namespace).splitlines()
    starts = [m.start() for m in re.finditer(r"(?:(?<=   )|^)\S", header)]
    ends = [*starts[1:], None]
    cut = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in (header, *rows)]
    return {row[0]: dict(zip(cut[0], row, strict=True)) for row in cut[1:]}


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.create_topic(name, 4)
    return name


def test_ticks_and_messages_arrive(cluster, namespace, function, kafka, topic):
    kafka.produce(topic, numbered(5000))
    cluster.apply(
        trigger("orders", kafka_source(kafka, topic)),
        trigger("clock", {"timer": {"schedule": "@every 1s", "userEvent": "hello"}}),
        namespace=namespace,
    )
    wait_condition(cluster, namespace, "orders", timeout=60)
    wait_condition(cluster, namespace, "clock", timeout=60)
    wait_until("all messages", lambda: len(function.of(topic)) >= 5000, 90, poll=0.5)
    events = function.of(topic)
    assert_whole_and_ordered(events, 5000)
    assert duplicates(events) == 0
    body = json.loads(events[0]["body"])
    assert set(body) == {
        "event_version",
        "event_time",
        "trigger_type",
        "region",
        "messages",
        "instance_id",
        "topic_id",
    }
    assert (body["event_version"], body["trigger_type"], body["topic_id"], len(body["messages"])) == (
        "v1.0",
        "KAFKA",
        topic,
        1,
    )
    assert {json.loads(e["body"])["messages"][0] for e in events} == {m["value"] for m in numbered(5000)}
    ticks = [json.loads(e["body"]) for e in function.events() if not e["id"].startswith(topic)]
    assert ticks and all(
        set(t) == {"version", "time", "trigger_type", "trigger_name", "user_event"} for t in ticks
    )
    assert all(
        (t["version"], t["trigger_type"], t["trigger_name"], t["user_event"])
        == ("v1.0", "TIMER", "clock", "hello")
        for t in ticks
    )


def test_the_status_tells_the_truth(cluster, namespace, function, kafka, topic):
    cluster.apply(trigger("orders", kafka_source(kafka, topic)), namespace=namespace)
    wait_condition(cluster, namespace, "orders")
    assert columns(cluster, namespace)["orders"]["LAST DELIVERY"] == ""
    wait_condition(cluster, namespace, "orders", "Delivering", reason="Idle")
    kafka.produce(topic, numbered(4))
    wait_condition(cluster, namespace, "orders", "Delivering", reason="Delivering", timeout=10)
    found = get_trigger(cluster, namespace, "orders")
    uri = f"http://function.{namespace}.svc/"
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert found["status"]["sinkUri"] == uri
    assert {c["type"]: c["status"] for c in found["status"]["conditions"]} == dict.fromkeys(
        ("Ready", "SinkResolved", "WorkersAvailable", "SourceConnected", "Delivering"), "True"
    )
    row = columns(cluster, namespace)["orders"]
    assert list(row) == ["NAME", "SOURCE", "SINK", "READY", "REASON", "LAST DELIVERY", "AGE"]
    assert (row["SOURCE"], row["SINK"], row["READY"], row["REASON"]) == ("kafka", uri, "True", "Ready")
    assert row["LAST DELIVERY"] and row["AGE"]
    said = wait_until("events", lambda: events_of(cluster, namespace, "orders"), 10)
    assert "the worker's objects are applied" in said
    text = cluster.kubectl("describe", "triggers.sluice.dev", "orders", namespace=namespace)
    for words in (
        "Ready",
        "SinkResolved",
        "WorkersAvailable",
        "SourceConnected",
        "Delivering",
        "the worker's objects are applied",
        "sluice.dev/controller",
    ):
        assert words in text, words
    # What retention takes while nothing is read is told by the worker, with its first and last offset.
    cluster.apply(trigger("orders", kafka_source(kafka, topic), suspend=True), namespace=namespace)
    wait_until("no worker", lambda: not worker_pods(cluster, namespace, "orders"), 60, poll=0.5)
    kafka.produce(topic, numbered(40))
    kafka.purge(topic, {0: 8})
    cluster.apply(trigger("orders", kafka_source(kafka, topic)), namespace=namespace)
    lost = f"topic {topic}, partition 0: 7 records are gone before they were delivered, offsets 1 to 7:"
    wait_until(
        "the loss is told",
        lambda: any(e.startswith(lost) for e in events_of(cluster, namespace, "orders")),
        60,
        poll=0.5,
    )
    text = cluster.kubectl("describe", "triggers.sluice.dev", "orders", namespace=namespace)
    assert "RecordsExpired" in text and "sluice.dev/worker" in text and lost in text


def test_pods_are_restricted(cluster, namespace, function):
    """The namespace refuses any other; a root that can't be written is beyond what it asks."""
    cluster.apply(trigger("clock", {"timer": {"schedule": "@every 1s"}}), namespace=namespace)
    wait_condition(cluster, namespace, "clock")
    pods = worker_pods(cluster, namespace, "clock") + cluster.items(
        "pods", "-l", "app.kubernetes.io/component=controller", namespace=SYSTEM
    )
    assert len(pods) >= 2
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        for container in pod["spec"]["containers"]:
            security = container["securityContext"]
            assert (
                security["readOnlyRootFilesystem"]
                and not security["allowPrivilegeEscalation"]
                and security["capabilities"] == {"drop": ["ALL"]}
            )


@pytest.mark.node
def test_a_killed_worker_loses_nothing(cluster, namespace, function, kafka, topic):
    function.behave(delay="8ms")
    kafka.produce(topic, numbered(4000))
    cluster.apply(trigger("orders", kafka_source(kafka, topic)), namespace=namespace)
    wait_until("half of it", lambda: function.accepted() >= 2000, 60, poll=0.1)
    killed = time.time()
    pod = kill_worker(cluster, namespace, "orders")
    wait_until("all of it", lambda: len({e["id"] for e in function.of(topic)}) == 4000, 120, poll=0.5)
    events = function.of(topic)
    assert_whole_and_ordered(events, 4000)
    wait_restarted(cluster, namespace, "orders", pod)
    before = [e for e in events if e["timeMicros"] / 1e6 <= killed + 0.1]
    assert 2000 <= len(before) < 4000
    # One in flight a partition, and what settled since the last commit: a second before the kill, and what a commit takes.
    recent = [e for e in before if e["timeMicros"] / 1e6 > killed - 1.25]
    assert duplicates(events) <= 4 + len(recent)
    assert {p: len(o) - len(set(o)) <= 1 + 1000 for p, o in offsets(events).items()} == dict.fromkeys(
        range(4), True
    )
    wait_condition(cluster, namespace, "orders")


def test_a_function_that_fails_for_a_while_loses_nothing(cluster, namespace, function, kafka, topic):
    cluster.apply(
        trigger("orders", kafka_source(kafka, topic), delivery={"retry": {"maxBackoff": "2s"}}),
        namespace=namespace,
    )
    wait_condition(cluster, namespace, "orders", timeout=60)
    function.behave(status=503, **{"for": "20s"})
    kafka.produce(topic, numbered(400))
    c = wait_condition(
        cluster,
        namespace,
        "orders",
        "Delivering",
        "False",
        "Retrying",
        "answered 503: told to fail",
        timeout=15,
    )
    assert f"http://function.{namespace}.svc/" in c["message"]
    assert condition(cluster, namespace, "orders")["status"] == "False", "nothing is accepted"
    function.wait_for(400, 60)
    assert_whole_and_ordered(function.of(topic), 400)
    assert duplicates(function.of(topic)) == 0
    wait_condition(cluster, namespace, "orders", "Delivering", "True")
    wait_condition(cluster, namespace, "orders")


def test_a_wrong_broker_and_a_missing_service_are_named(cluster, namespace, function, kafka):
    (port,) = free_ports(1)
    address = f"{cluster.node_address}:{port}"
    cluster.apply(
        trigger("wrong", {"kafka": {"bootstrapServers": [address], "topics": ["t"]}}),
        trigger(
            "early",
            {"timer": {"schedule": "@every 1s"}},
            {"ref": {"apiVersion": "v1", "kind": "Service", "name": "later"}},
        ),
        namespace=namespace,
    )
    wait_condition(
        cluster,
        namespace,
        "early",
        "SinkResolved",
        "False",
        "ServiceNotFound",
        f"Service {namespace}/later does not exist",
        timeout=15,
    )
    wait_condition(
        cluster, namespace, "wrong", "SourceConnected", "False", "SourceDisconnected", address, timeout=15
    )
    assert (
        "refused"
        in wait_condition(cluster, namespace, "wrong", "Ready", "False", "SourceDisconnected", timeout=5)[
            "message"
        ]
    )
    service = function.service()
    service["metadata"]["name"] = "later"
    cluster.apply(service, namespace=namespace)
    wait_condition(cluster, namespace, "early")
    function.wait_for(1)


def test_what_cannot_work_is_refused(cluster, namespace):
    def refused(t):
        return cluster.apply(t, namespace=namespace, check=False)

    two = trigger(
        "two", {"timer": {"schedule": "1m"}, "kafka": {"bootstrapServers": ["a:1"], "topics": ["t"]}}
    )
    assert "spec.source" in refused(two)
    assert "spec.delivery.ordering" in refused(
        trigger("enum", {"timer": {"schedule": "1m"}}, delivery={"ordering": "Random"})
    )
    assert "spec.delivery.maxInFlight" in refused(
        trigger("range", {"timer": {"schedule": "1m"}}, delivery={"maxInFlight": 0})
    )
    cluster.apply(trigger("cron", {"timer": {"schedule": "0 61 * * * *"}}), namespace=namespace)
    c = wait_condition(cluster, namespace, "cron", "Ready", "False", "InvalidSpec", timeout=5)
    assert "spec.source.timer.schedule" in c["message"] and '"61" is no minute' in c["message"]


def test_suspending_and_going_on(cluster, namespace, function):
    clock = trigger("clock", {"timer": {"schedule": "@every 500ms"}})
    cluster.apply(clock, namespace=namespace)
    function.wait_for(2)
    clock["spec"]["suspend"] = True
    cluster.apply(clock, namespace=namespace)
    wait_condition(cluster, namespace, "clock", reason="Suspended")
    wait_until("no worker", lambda: not worker_pods(cluster, namespace, "clock"), 40)
    wait_until("no entry", lambda: not get_trigger(cluster, namespace, "clock")["status"].get("workers"), 20)
    count = function.accepted()
    clock["spec"]["suspend"] = False
    cluster.apply(clock, namespace=namespace)
    function.wait_for(count + 2, 40)
    wait_condition(cluster, namespace, "clock", reason="Ready")
    wait_observed(cluster, namespace, "clock")


def test_an_edit_reaches_the_worker(cluster, namespace, function):
    clock = trigger("clock", {"timer": {"schedule": "@every 500ms", "userEvent": "first"}})
    cluster.apply(clock, namespace=namespace)
    function.wait_for(2)
    before = names_of(worker_pods(cluster, namespace, "clock"))
    generation = get_trigger(cluster, namespace, "clock")["metadata"]["generation"]
    clock["spec"]["source"]["timer"]["userEvent"] = "second"
    cluster.apply(clock, namespace=namespace)

    def words():
        said = [json.loads(e["body"])["user_event"] for e in function.events()]
        return said if "second" in said else None

    said = wait_until("the new words", words, 40)
    assert said == sorted(said), "the old words never come after the new"
    assert wait_observed(cluster, namespace, "clock")["metadata"]["generation"] == generation + 1
    wait_condition(cluster, namespace, "clock", reason="Ready")
    wait_until(
        "another worker alone",
        lambda: len(after := names_of(worker_pods(cluster, namespace, "clock"))) == 1 and not after & before,
        40,
    )
    wait_until(
        "one entry", lambda: len(get_trigger(cluster, namespace, "clock")["status"]["workers"]) == 1, 20
    )


def test_a_deleted_trigger_leaves_nothing(cluster, namespace, function, kafka, topic):
    cluster.apply(
        trigger("orders", kafka_source(kafka, topic)),
        trigger("clock", {"timer": {"schedule": "@every 1s"}}),
        namespace=namespace,
    )
    wait_condition(cluster, namespace, "orders")
    wait_condition(cluster, namespace, "clock")
    mine = {name.format("orders") for name in CHILDREN}
    there = names_of(children(cluster, namespace, "app.kubernetes.io/instance=orders"))
    assert mine < there and len(there - mine) == 1, "all that is made, and a pod"
    cluster.delete("triggers.sluice.dev/orders", namespace=namespace)
    wait_until(
        "no child of orders",
        lambda: not children(cluster, namespace, "app.kubernetes.io/instance=orders"),
        30,
    )
    assert {name.format("clock") for name in CHILDREN} < names_of(children(cluster, namespace)), (
        "another Trigger keeps what is its own"
    )
    count = function.accepted()
    function.wait_for(count + 2, 20)


def test_the_examples_work(cluster, namespace, image):
    for path in sorted((ROOT / "examples" / "cluster").glob("*.yaml")):
        # As README says it.
        cluster.apply(run(["sed", f"s|localhost/sluice:dev|{image[0]}|", path]).stdout, namespace=namespace)
    cluster.wait("deployment/function", "Available", namespace=namespace)
    wait_condition(cluster, namespace, "heartbeat")
    wait_condition(
        cluster, namespace, "orders", "SourceConnected", "False", "SourceDisconnected", "kafka.kafka.svc:9092"
    )
    wait_until(
        "a tick is shown",
        lambda: '"user_event":"hello"' in cluster.logs("deployment/function", namespace).replace(": ", ":"),
        20,
        poll=0.5,
    )


def test_idle_triggers_cause_no_write(cluster, namespace, function, kafka, topic):
    if not cluster.directory:
        pytest.skip("needs the audit log of the node of the tests")
    seconds = float(os.environ.get("SLUICE_IDLE_SECONDS", "60"))
    count = int(os.environ.get("SLUICE_IDLE_TRIGGERS", "100"))
    sources = [
        kafka_source(kafka, topic) if n % 10 == 0 else {"timer": {"schedule": "0 0 0 1 1"}}
        for n in range(count)
    ]
    start = cluster.audit_position()
    cluster.apply(*(trigger(f"idle-{n}", source) for n, source in enumerate(sources)), namespace=namespace)

    def ready():
        found = cluster.items("triggers.sluice.dev", namespace=namespace)
        return (
            sum(
                any(
                    c["type"] == "Ready" and c["status"] == "True"
                    for c in t.get("status", {}).get("conditions", [])
                )
                for t in found
            )
            == count
        )

    wait_until(f"{count} Ready Triggers", ready, 240, poll=1)
    # The last states settle; from then on nothing may be written.
    ours = (f"system:serviceaccount:{namespace}:", f"system:serviceaccount:{SYSTEM}:")

    def writes(since):
        return [e for e in cluster.audit(since) if e["user"]["username"].startswith(ours)]

    def quiet():
        before = cluster.audit_position()
        try:
            wait_until("a write", lambda: writes(before), 20, poll=0.5)  # a worker looks every 15 s
        except AssertionError:
            return True
        return False

    wait_until("the last state is written", quiet, 90)
    wrote = {e["user"]["username"] for e in writes(start)}
    assert len(wrote) == count + 1, "until they were ready, each worker and the controller wrote"
    since = cluster.audit_position()
    try:
        wait_until("a write", lambda: writes(since), seconds, poll=1)
    except AssertionError:
        pass
    assert [audit_line(e) for e in writes(since)] == []
    assert ready()


@pytest.mark.last
def test_the_end(cluster, namespace, function, release):
    """The chart goes first, as careless users do it: Triggers can be deleted all the same, and nothing is left but their definition."""
    topic = trigger(
        "topic",
        {
            "smn": {
                "topicURN": "urn:smn:eu-west-101:p:orders",
                "subscription": {"manage": True, "endpoint": "https://shop.example.com/orders"},
                "cloud": {
                    "endpoint": "http://127.0.0.1:9",
                    "credentials": {
                        "accessKeySecretRef": {"name": "c", "key": "ak"},
                        "secretKeySecretRef": {"name": "c", "key": "sk"},
                    },
                },
            }
        },
    )
    cluster.apply(trigger("clock", {"timer": {"schedule": "@every 1s"}}), topic, namespace=namespace)
    wait_condition(cluster, namespace, "clock")
    wait_until(
        "the finalizer",
        lambda: (
            get_trigger(cluster, namespace, "topic")["metadata"].get("finalizers")
            == ["sluice.dev/external-resources"]
        ),
        20,
    )
    uninstall_chart(cluster)
    assert not get_trigger(cluster, namespace, "topic")["metadata"].get("finalizers")
    remains = "the subscription of urn:smn:eu-west-101:p:orders to https://shop.example.com/orders remains outside the cluster"
    assert any(remains in said for said in events_of(cluster, namespace, "topic"))
    wait_until(
        "no controller",
        lambda: not cluster.items("pods", "-l", "app.kubernetes.io/component=controller", namespace=SYSTEM),
        60,
    )
    count = function.accepted()
    function.wait_for(count + 2, 20)
    cluster.delete("triggers.sluice.dev", "--all", namespace=namespace)
    wait_until("no child", lambda: not children(cluster, namespace), 30)
    kinds = "deployments,jobs,pods,configmaps,secrets,services,ingresses,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,leases"
    for selector in ("app.kubernetes.io/name=sluice", "app.kubernetes.io/managed-by=sluice"):
        wait_until(
            "nothing labelled",
            lambda s=selector: not cluster.items(kinds, "-A", "-l", s),
            30,
            explain=lambda s=selector: names_of(cluster.items(kinds, "-A", "-l", s)),
        )
    assert cluster.get("crd", "triggers.sluice.dev"), "the definition stays, and with it users' Triggers"
