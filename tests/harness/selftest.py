"""Checks the harness against the real servers. Usage: "$(tools/venv)/bin/pytest" -q tests/harness/selftest.py"""

import sys
import urllib.request

import pytest

from .cluster import Cluster
from .kafka import Kafka
from .ports import free_port
from .process import Dead, Process, TimedOut


def test_a_process_is_asked_and_stopped():
    port = free_port()
    with Process([sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"], name="server") as p:
        p.wait_for_http(f"http://127.0.0.1:{port}/")
        assert p.alive()
    assert not p.alive()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1)


def test_a_process_that_ends_is_told_at_once():
    with Process(["sh", "-c", "echo no; exit 3"]) as p:
        with pytest.raises(Dead, match="ended with 3"):
            p.wait_for_output("yes", timeout=30)
        assert p.wait() == 3


def test_a_process_that_ignores_sigterm_is_killed():
    with Process(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 100; done"], stop_timeout=0.3) as p:
        p.wait_for_output("up")
        with pytest.raises(TimedOut):
            p.wait(0.1)
        assert p.stop() == -9


def test_kafka_keeps_ports_and_data():
    with Kafka() as k:
        k.create_topic("orders", 4)
        k.produce("orders", [{"value": f"{i}", "partition": i % 4} for i in range(1000)])
        bootstrap = k.bootstrap
        k.stop()
        k.start()
        assert k.bootstrap == bootstrap
        k.kill()
        k.start()
        assert k.end_offsets("orders", 4) == {p: 250 for p in range(4)}
        assert k.committed("nobody", "orders", 1) == {0: None}
        k.delete_topic("orders")


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as c:
        yield c


def test_a_cluster_runs_pods_and_tells_who_wrote(cluster):
    before = cluster.audit_position()
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "written", "namespace": "default"}}
    )
    assert [e["objectRef"]["name"] for e in cluster.audit(before, user="admin")] == ["written"]
    assert cluster.audit(cluster.audit_position()) == []
    assert "v3." in cluster.helm("version", "--short").stdout
    [pod] = cluster.items("pods", "-l", "k8s-app=kube-dns", namespace="kube-system")
    assert len(cluster.node_processes(pod["metadata"]["uid"])) == 1


def test_kafka_on_the_node(cluster):
    with Kafka(host=cluster.node_address, netns=cluster.netns) as k:
        k.create_topic("orders", 2)
        k.produce("orders", [{"value": "1", "partition": 1}])
        assert k.end_offsets("orders", 2) == {0: 0, 1: 1}
