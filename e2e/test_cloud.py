"""Queues and streams of the cloud in a cluster: pods reach the emulator on the node's address."""

import json
import os
import signal

import pytest
from cloud.service import PROJECT, REGION
from harness.cloud import CloudProcess
from harness.process import wait_until
from helpers import Function, duplicates, secret, trigger, wait_condition, worker_pods

pytestmark = pytest.mark.node  # the emulator runs beside the pods


@pytest.fixture
def cloud(cluster):
    with CloudProcess(cluster) as c:
        yield c


def give_key(cloud, cluster, namespace):
    key = cloud.do("key")
    cluster.apply(secret("cloud", ak=key["access"], sk=key["secret"]), namespace=namespace)
    return key["access"]


def source(cloud, **of):
    (kind, spec), *_ = of.items()
    pair = {
        "accessKeySecretRef": {"name": "cloud", "key": "ak"},
        "secretKeySecretRef": {"name": "cloud", "key": "sk"},
    }
    how = {"region": REGION, "projectID": PROJECT, "endpoint": cloud.endpoint, "credentials": pair}
    return {kind: {**spec, "cloud": how}}


def test_a_queue_is_read_and_a_key_that_is_refused_is_named(cluster, namespace, image, cloud):
    function = Function(cluster, namespace, image)
    queue = cloud.do("queue", name="orders")
    cloud.do("send", queue=queue["queue"], bodies=[f"message {i}" for i in range(50)])
    access = give_key(cloud, cluster, namespace)
    spec = {"queueID": queue["queue"], "consumerGroupID": queue["group"], "pollingInterval": "2s"}
    cluster.apply(trigger("orders", source(cloud, dms=spec)), namespace=namespace)
    wait_condition(cluster, namespace, "orders", timeout=60)
    function.wait_for(50)
    found = [m["Body"] for e in function.events() for m in json.loads(e["body"])["Messages"]]
    assert sorted(found) == sorted(f"message {i}" for i in range(50))
    wait_until("all are acknowledged", lambda: cloud.do("waiting", queue=queue["queue"]) == {"group": 0}, 20)

    cloud.do("revoke", access=access)
    wait_condition(cluster, namespace, "orders", status="False", words="access key", timeout=60)
    give_key(cloud, cluster, namespace)
    cloud.do("send", queue=queue["queue"], bodies=["again"])
    function.wait_for(51, timeout=150)  # the kubelet brings a changed Secret within about a minute
    wait_condition(cluster, namespace, "orders", timeout=60)


def test_two_workers_share_a_stream_and_lose_nothing_when_one_is_killed(cluster, namespace, image, cloud):
    function = Function(cluster, namespace, image)
    stream = cloud.do("stream", name="clicks", partitions=4)["stream"]
    give_key(cloud, cluster, namespace)
    spec = {"streamName": stream, "appName": "sluice", "startPosition": "TrimHorizon"}
    cluster.apply(trigger("clicks", source(cloud, dis=spec), replicas=2), namespace=namespace)
    cloud.do("put", stream=stream, records=[[f"key {i}", f"before {i}"] for i in range(200)])

    def holders():
        leases = cluster.items("leases", namespace=namespace)
        return {h for lease in leases if (h := lease["spec"].get("holderIdentity"))}

    def pods():
        return {p["metadata"]["name"] for p in worker_pods(cluster, namespace, "clicks")}

    wait_until("each has its part", lambda: len(holders()) == 2 and holders() == pods(), 60)
    function.wait_for(200)
    gone = min(holders())
    cluster.kubectl("delete", "pod", gone, "--grace-period=0", "--force", "--wait=false", namespace=namespace)
    cloud.do("put", stream=stream, records=[[f"key {i}", f"after {i}"] for i in range(200)])
    wait_until(
        "another has its part", lambda: len(holders()) == 2 and gone not in holders(), 90, explain=holders
    )
    function.wait_for(400, timeout=60)
    events = function.events()
    assert len({e["id"] for e in events}) == 400 and duplicates(events) < 100
    wait_condition(cluster, namespace, "clicks", timeout=60)


def test_a_worker_that_outlives_its_pod_gives_its_part_up(cluster, namespace, image, cloud):
    """Its node is cut off: the pod was deleted by force, the process runs on, and the Trigger's replicas change."""
    function = Function(cluster, namespace, image)
    stream = cloud.do("stream", name="clicks", partitions=6)["stream"]
    give_key(cloud, cluster, namespace)
    spec = {"streamName": stream, "appName": "sluice", "startPosition": "TrimHorizon"}
    clicks = trigger("clicks", source(cloud, dis=spec), replicas=2)
    cluster.apply(clicks, namespace=namespace)

    def leases():
        return cluster.items("leases", namespace=namespace)

    def holders():
        return {h for lease in leases() if (h := lease["spec"].get("holderIdentity"))}

    def slots_said():
        return {lease["metadata"]["annotations"].get("sluice.dev/slots") for lease in leases()}

    def pods():
        return {
            p["metadata"]["name"]: p["metadata"]["uid"] for p in worker_pods(cluster, namespace, "clicks")
        }

    wait_until("each has its part", lambda: len(holders()) == 2 and holders() == set(pods()), 60)
    assert slots_said() == {"2"}
    cut_off = min(holders())
    uid = pods()[cut_off]
    processes = cluster.node_processes(uid)
    assert processes
    kubelet = int((cluster.directory / "pid" / "kubelet").read_text())
    os.kill(kubelet, signal.SIGSTOP)
    try:
        cluster.kubectl(
            "delete", "pod", cut_off, "--grace-period=0", "--force", "--wait=false", namespace=namespace
        )
        wait_until("the pod is gone", lambda: cut_off not in pods(), 20)
        clicks["spec"]["replicas"] = 3
        cluster.apply(clicks, namespace=namespace)
        wait_until("the Leases say it", lambda: slots_said() == {"3"}, 30, explain=leases)
        wait_until("it holds nothing", lambda: cut_off not in holders(), 30, explain=leases)
        assert cluster.node_processes(uid) == processes
    finally:
        os.kill(kubelet, signal.SIGCONT)
    wait_until(
        "each has its part", lambda: len(holders()) == 3 and holders() == set(pods()), 120, explain=leases
    )
    cloud.do("put", stream=stream, records=[[f"key {i}", f"record {i}"] for i in range(300)])
    function.wait_for(300, timeout=60)
    assert len({e["id"] for e in function.events()}) == 300
    wait_condition(cluster, namespace, "clicks", timeout=60)
