"""The whole product on a real cluster. Usage: "$(tools/venv)/bin/pytest" e2e

KUBECONFIG: the user's cluster, which must be able to pull SLUICE_IMAGE; without it, a cluster is made and removed.
SLUICE_CLUSTER: the name of a cluster to use and to leave running, for work on the tests. SLUICE_IMAGE: an image instead of a fresh build.
"""

import os
import signal

import pytest
from harness import ROOT
from harness.cluster import Cluster
from harness.kafka import Kafka
from harness.process import run, wait_until

SYSTEM = "sluice-system"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def pytest_configure(config):
    def end(*_):
        raise KeyboardInterrupt  # as Ctrl-C: what was started is stopped

    signal.signal(signal.SIGTERM, end)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
    if os.environ.get("KUBECONFIG"):
        for item in items:
            if item.get_closest_marker("node"):
                item.add_marker(pytest.mark.skip(reason="needs a node on this machine"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and "cluster" in item.funcargs:
        report.sections.append(
            ("the cluster", state_of(item.funcargs["cluster"], item.funcargs.get("namespace")))
        )
    return report


def state_of(cluster, namespace):
    questions = [("logs", f"--namespace={SYSTEM}", "--tail=60", "--all-pods", "deployment/sluice")]
    if namespace:
        questions = [
            ("get", f"--namespace={namespace}", "triggers.sluice.dev,deployments,pods", "-o", "wide"),
            ("describe", f"--namespace={namespace}", "triggers.sluice.dev"),
            ("get", f"--namespace={namespace}", "events", "--sort-by=.lastTimestamp"),
            (
                "logs",
                f"--namespace={namespace}",
                "--tail=40",
                "--prefix",
                "-l",
                "app.kubernetes.io/component=worker",
            ),
            *questions,
        ]
    return "\n".join(
        f"$ kubectl {' '.join(q)}\n{(d := cluster.run('kubectl', *q, check=False)).stdout[-8000:]}{d.stderr}"
        for q in questions
    )


@pytest.fixture(scope="session")
def image():
    """(name, archive or None)"""
    if name := os.environ.get("SLUICE_IMAGE"):
        return name, None
    if os.environ.get("KUBECONFIG"):
        pytest.skip("a user's cluster needs SLUICE_IMAGE, an image that it can pull")
    archive = ROOT / "build" / "image" / "sluice-e2e.oci.tar"
    run(["make", "-C", ROOT, archive.relative_to(ROOT)], timeout=900)  # `make e2e` has made it already
    return "localhost/sluice:e2e", archive


@pytest.fixture(scope="session")
def cluster(image):
    with Cluster() as c:
        if image[1]:
            c.load_image(image[1])
        yield c


@pytest.fixture(scope="session")
def kafka(cluster):
    """A broker beside the cluster's pods, on the node's address."""
    if not cluster.node_address:
        pytest.skip("SLUICE_NODE_ADDRESS must say where the cluster's pods reach this machine")
    with Kafka(host=cluster.node_address, netns=cluster.netns) as k:
        yield k


def install_chart(cluster, image):
    repository, _, tag = image[0].rpartition(":")
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": RESTRICTED}}
    )
    cluster.helm(
        "upgrade",
        "--install",
        "sluice",
        ROOT / "charts" / "sluice",
        "--namespace",
        SYSTEM,
        "--wait",
        "--timeout",
        "60s",
        "--set",
        f"image.repository={repository},image.tag={tag}" + (",image.pullPolicy=Never" if image[1] else ""),
    )


def uninstall_chart(cluster):
    cluster.helm(
        "uninstall", "sluice", "--namespace", SYSTEM, "--ignore-not-found", "--wait", "--timeout", "60s"
    )


@pytest.fixture(scope="session")
def release(cluster, image):
    install_chart(cluster, image)
    if cluster.keep:
        cluster.kubectl("rollout", "restart", "deployment/sluice", namespace=SYSTEM)
        cluster.kubectl("rollout", "status", "deployment/sluice", "--timeout=60s", namespace=SYSTEM)
    yield SYSTEM
    uninstall_chart(cluster)


@pytest.fixture
def namespace(cluster, release, request):
    """A namespace of the test's own, with restricted pods."""
    name = (
        request.node.name.removeprefix("test_")
        .translate(str.maketrans("_[", "--", "]"))
        .lower()[:50]
        .rstrip("-")
    )
    cluster.delete(f"namespace/{name}")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    wait_until(
        "the default service account", lambda: cluster.get("serviceaccount", "default", namespace=name)
    )
    yield name
    cluster.delete("triggers.sluice.dev", "--all", namespace=name)
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
