"""Documents that change reach a function, in a real cluster: the image has the module that reads change streams."""

import json

import pytest
from harness.mongo import Mongo
from harness.process import wait_until
from helpers import Function, kill_worker, trigger, wait_condition, wait_restarted


@pytest.fixture
def mongo(cluster, tmp_path):
    """A server beside the cluster's pods, on the node's address."""
    if not cluster.node_address:
        pytest.skip("SLUICE_NODE_ADDRESS must say where the cluster's pods reach this machine")
    with Mongo(tmp_path, address=cluster.node_address, netns=cluster.netns) as m:
        yield m


def insert(client, numbers):
    return len(client.shop.orders.insert_many([{"_id": n, "n": n} for n in numbers]).inserted_ids)


def numbers(function):
    return [
        int(r["dds"]["full_document"]["n"]["$numberInt"])
        for e in function.events()
        for r in json.loads(e["body"])["records"]
    ]


def test_changes_arrive_and_go_on_after_a_kill(cluster, namespace, image, mongo):
    function = Function(cluster, namespace, image)
    cluster.apply(
        trigger(
            "orders",
            {
                "dds": {
                    "hosts": [mongo.host],
                    "directConnection": True,
                    "database": "shop",
                    "collection": "orders",
                }
            },
        ),
        namespace=namespace,
    )
    wait_condition(cluster, namespace, "orders", timeout=60)
    assert mongo.ask(insert, range(100)) == 100
    wait_until("all changes", lambda: len(set(numbers(function))) == 100, 60, poll=0.5)
    pod = kill_worker(cluster, namespace, "orders")
    assert mongo.ask(insert, range(100, 200)) == 100
    wait_until("what came meanwhile", lambda: len(set(numbers(function))) == 200, 60, poll=0.5)
    wait_restarted(cluster, namespace, "orders", pod)
    first = list(dict.fromkeys(numbers(function)))
    assert first == list(range(200)), "none is missing, and they came in order"
