"""Timer ticks and Kafka messages reach a function, in a real cluster."""
import itertools
import json
import os
import signal

import pytest
from conftest import SYSTEM, uninstall_chart
from harness.ports import free_ports
from harness.process import wait_until
from helpers import (
    Function, assert_whole_and_ordered, children, condition, duplicates, get_trigger, kafka_source, numbered, trigger, wait_condition, worker_pods,
)  # fmt: skip

names = (f"events-{n}" for n in itertools.count())


@pytest.fixture
def function(cluster, namespace, image):
    return Function(cluster, namespace, image)


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.create_topic(name, 4)
    return name


def test_ticks_and_messages_arrive(cluster, namespace, function, kafka, topic):
    kafka.produce(topic, numbered(5000))
    cluster.apply(trigger("orders", kafka_source(kafka, topic)), trigger("clock", {"timer": {"schedule": "@every 1s", "userEvent": "hello"}}), namespace=namespace)
    wait_condition(cluster, namespace, "orders", timeout=60)
    wait_condition(cluster, namespace, "clock", timeout=60)
    wait_until("all messages", lambda: len(function.of(topic)) >= 5000, 90, poll=0.5)
    events = function.of(topic)
    assert_whole_and_ordered(events, 5000)
    assert duplicates(events) == 0
    body = json.loads(events[0]["body"])
    assert set(body) == {"event_version", "event_time", "trigger_type", "region", "messages", "instance_id", "topic_id"}
    assert (body["trigger_type"], body["topic_id"], len(body["messages"])) == ("KAFKA", topic, 1)
    ticks = [json.loads(e["body"]) for e in function.events() if not e["id"].startswith(topic)]
    assert ticks and all(t["trigger_type"] == "TIMER" and t["trigger_name"] == "clock" and t["user_event"] == "hello" for t in ticks)

    found = get_trigger(cluster, namespace, "orders")
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert found["status"]["sinkUri"] == f"http://function.{namespace}.svc/"
    header, *rows = cluster.kubectl("get", "triggers.sluice.dev", namespace=namespace).splitlines()
    assert header.split() == ["NAME", "SOURCE", "SINK", "READY", "REASON", "LAST", "DELIVERY", "AGE"]
    assert {r.split()[0]: r.split()[3] for r in rows} == {"clock": "True", "orders": "True"}
    wait_condition(cluster, namespace, "orders", "Delivering", reason="Delivering", timeout=90)  # times are told once a minute
    text = cluster.kubectl("describe", "triggers.sluice.dev", "orders", namespace=namespace)
    for words in ("Ready", "SinkResolved", "WorkersAvailable", "SourceConnected", "Delivering", "the worker's objects are applied", "sluice.dev/controller"):
        assert words in text, words
    pod = worker_pods(cluster, namespace, "orders")[0]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] and pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.node
def test_a_killed_worker_loses_nothing(cluster, namespace, function, kafka, topic):
    function.behave(delay="3ms")
    kafka.produce(topic, numbered(4000))
    cluster.apply(trigger("orders", kafka_source(kafka, topic)), namespace=namespace)
    wait_until("a good part of it", lambda: function.accepted() > 1500, 60, poll=0.1)
    (pod,) = worker_pods(cluster, namespace, "orders")
    for process in cluster.node_processes(pod["metadata"]["uid"]):
        os.kill(process, signal.SIGKILL)
    before = function.accepted()
    assert before < 4000
    wait_until("all of it", lambda: len({e["id"] for e in function.of(topic)}) == 4000, 120, poll=0.5)
    assert_whole_and_ordered(function.of(topic), 4000)
    # One in flight a partition, and a second of what 4 lanes settle at 3 ms each.
    assert duplicates(function.of(topic)) <= 4 + 4 * 340
    wait_condition(cluster, namespace, "orders")


def test_a_function_that_fails_for_a_while_loses_nothing(cluster, namespace, function, kafka, topic):
    cluster.apply(trigger("orders", kafka_source(kafka, topic), delivery={"retry": {"maxBackoff": "2s"}}), namespace=namespace)
    wait_condition(cluster, namespace, "orders", timeout=60)
    function.behave(status=503, **{"for": "20s"})
    kafka.produce(topic, numbered(400))
    c = wait_condition(cluster, namespace, "orders", "Delivering", "False", "Retrying", "answered 503: told to fail", timeout=15)
    assert f"http://function.{namespace}.svc/" in c["message"]
    assert condition(cluster, namespace, "orders")["status"] == "False"
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
        trigger("early", {"timer": {"schedule": "@every 1s"}}, {"ref": {"apiVersion": "v1", "kind": "Service", "name": "later"}}),
        namespace=namespace,
    )
    wait_condition(cluster, namespace, "early", "SinkResolved", "False", "ServiceNotFound", f"Service {namespace}/later does not exist", timeout=15)
    wait_condition(cluster, namespace, "wrong", "SourceConnected", "False", "SourceDisconnected", address, timeout=15)
    assert "refused" in wait_condition(cluster, namespace, "wrong", "Ready", "False", "SourceDisconnected", timeout=5)["message"]
    service = function.service()
    service["metadata"]["name"] = "later"
    cluster.apply(service, namespace=namespace)
    wait_condition(cluster, namespace, "early")
    function.wait_for(1)


def test_what_cannot_work_is_refused(cluster, namespace):
    def refused(t):
        return cluster.apply(t, namespace=namespace, check=False)

    two = trigger("two", {"timer": {"schedule": "1m"}, "kafka": {"bootstrapServers": ["a:1"], "topics": ["t"]}})
    assert "spec.source" in refused(two)
    assert "spec.delivery.ordering" in refused(trigger("enum", {"timer": {"schedule": "1m"}}, delivery={"ordering": "Random"}))
    assert "spec.delivery.maxInFlight" in refused(trigger("range", {"timer": {"schedule": "1m"}}, delivery={"maxInFlight": 0}))
    cluster.apply(trigger("cron", {"timer": {"schedule": "0 61 * * * *"}}), namespace=namespace)
    c = wait_condition(cluster, namespace, "cron", "Ready", "False", "InvalidSpec", timeout=5)
    assert "spec.source.timer.schedule" in c["message"] and '"61" is no minute' in c["message"]


def test_suspending_and_editing(cluster, namespace, function):
    clock = trigger("clock", {"timer": {"schedule": "@every 500ms", "userEvent": "first"}})
    cluster.apply(clock, namespace=namespace)
    function.wait_for(2)
    clock["spec"]["suspend"] = True
    cluster.apply(clock, namespace=namespace)
    wait_condition(cluster, namespace, "clock", reason="Suspended")
    wait_until("no worker", lambda: not worker_pods(cluster, namespace, "clock"), 40)
    clock["spec"]["suspend"] = False
    clock["spec"]["source"]["timer"]["userEvent"] = "second"
    cluster.apply(clock, namespace=namespace)
    wait_until("the new words", lambda: any(json.loads(e["body"])["user_event"] == "second" for e in function.events()), 40)
    found = wait_until("it is observed", lambda: (t := get_trigger(cluster, namespace, "clock"))["status"]["observedGeneration"] == t["metadata"]["generation"] and t, 10)
    wait_until("one entry", lambda: len(get_trigger(cluster, namespace, "clock")["status"]["workers"]) == 1, 20)
    assert found["status"]["source"] == "timer"


def test_idle_triggers_cause_no_write(cluster, namespace, function):
    if not cluster.directory:
        pytest.skip("needs the audit log of the node of the tests")
    seconds = float(os.environ.get("SLUICE_IDLE_SECONDS", "60"))
    count = int(os.environ.get("SLUICE_IDLE_TRIGGERS", "100"))
    idle = [trigger(f"idle-{n}", {"timer": {"schedule": "0 0 0 1 1"}}) for n in range(count)]
    cluster.apply(*idle, namespace=namespace)

    def ready():
        found = cluster.items("triggers.sluice.dev", namespace=namespace)
        return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in t.get("status", {}).get("conditions", [])) for t in found) == count

    wait_until(f"{count} Ready Triggers", ready, 240, poll=1)
    # The last states settle; from then on nothing may be written.
    ours = (f"system:serviceaccount:{namespace}:", f"system:serviceaccount:{SYSTEM}:")

    def writes(since):
        return [e for e in cluster.audit(since) if e["user"]["username"].startswith(ours)]

    def quiet():
        before = cluster.audit_position()
        try:
            wait_until("a write", lambda: writes(before), 5, poll=0.5)
        except AssertionError:
            return True
        return False

    wait_until("the last state is written", quiet, 60)
    since = cluster.audit_position()
    try:
        wait_until("a write", lambda: writes(since), seconds, poll=1)
    except AssertionError:
        pass
    assert writes(since) == []
    assert ready()


def test_the_end(cluster, namespace, function, kafka, topic, release):
    """Deleting leaves nothing: first a Trigger, then the chart."""
    cluster.apply(trigger("orders", kafka_source(kafka, topic)), trigger("clock", {"timer": {"schedule": "@every 1s"}}), namespace=namespace)
    wait_condition(cluster, namespace, "orders", timeout=60)
    cluster.delete("triggers.sluice.dev/orders", namespace=namespace)
    wait_until("no child of orders", lambda: not children(cluster, namespace, "app.kubernetes.io/instance=orders"), 30)
    wait_condition(cluster, namespace, "clock")
    uninstall_chart(cluster)
    cluster.delete("triggers.sluice.dev", "--all", namespace=namespace)
    wait_until("no child", lambda: not children(cluster, namespace), 30)
    left = cluster.items("deployments,clusterroles,clusterrolebindings,serviceaccounts", "-A", "-l", "app.kubernetes.io/instance=sluice")
    assert left == []
    assert cluster.get("crd", "triggers.sluice.dev"), "the definition stays, and with it users' Triggers"
