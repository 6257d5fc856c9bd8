"""README's steps, with a registry of one's own that asks for a password."""

import base64
import json
import sys

import pytest
from conftest import SYSTEM, install_chart
from harness import ROOT
from harness.process import run
from helpers import wait_condition

pytestmark = [pytest.mark.node, pytest.mark.last]


@pytest.fixture
def registry(cluster, image):
    """Its images begin with it: "127.0.0.1:PORT"."""
    if not image[1]:
        pytest.skip("needs the image as an archive")
    with cluster.start(
        sys.executable,
        ROOT / "tests" / "harness" / "registry.py",
        image[1],
        "sluice",
        "somebody",
        "s3cret",
        name="registry",
    ) as p:
        port = p.wait_for_output(r"registry on port (\d+)").group(1)
        yield f"127.0.0.1:{port}"


def secret(registry):
    auths = {"auths": {registry: {"auth": base64.b64encode(b"somebody:s3cret").decode()}}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "registry"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()},
    }


def test_a_registry_that_asks_for_a_password(cluster, namespace, image, registry):
    values = f"image.repository={registry}/sluice,image.tag=dev,image.pullPolicy=Always,imagePullSecrets[0].name=registry"
    try:
        cluster.apply(secret(registry), namespace=SYSTEM)
        cluster.helm(
            "upgrade",
            "--install",
            "sluice",
            ROOT / "charts" / "sluice",
            "--namespace",
            SYSTEM,
            "--wait",
            "--timeout",
            "120s",
            "--set",
            values,
        )
        # Without the Secret in the Trigger's namespace its status says why.
        cluster.kubectl(
            "patch",
            "serviceaccount",
            "default",
            "-p",
            '{"imagePullSecrets":[{"name":"registry"}]}',
            namespace=namespace,
        )
        cluster.apply(
            run(
                [
                    "sed",
                    f"s|localhost/sluice:dev|{registry}/sluice:dev|",
                    ROOT / "examples" / "cluster" / "function.yaml",
                ]
            ).stdout,
            namespace=namespace,
        )
        cluster.apply((ROOT / "examples" / "cluster" / "triggers.yaml").read_text(), namespace=namespace)
        found = wait_condition(cluster, namespace, "heartbeat", "WorkersAvailable", "False", timeout=60)
        assert found["reason"] in ("ErrImagePull", "ImagePullBackOff")
        cluster.apply(secret(registry), namespace=namespace)
        cluster.kubectl("delete", "pods", "--all", "--wait=false", namespace=namespace)
        cluster.wait("deployment/function", "Available", namespace=namespace, timeout=120)
        wait_condition(cluster, namespace, "heartbeat", timeout=120)
    finally:
        install_chart(cluster, image)
        cluster.delete("secret/registry", namespace=SYSTEM)


def test_what_helm_template_applies_strips_no_finalizer(cluster, namespace, image, release):
    """The hooks are in its output, too: the Job runs at install time, beside the controller."""
    repository, _, tag = image[0].rpartition(":")
    held = {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": "held", "finalizers": ["sluice.dev/external-resources"]},
        "spec": {
            "source": {
                "smn": {
                    "topicURN": "urn:smn:eu-west-101:p:t",
                    "subscription": {"manage": True, "endpoint": "http://127.0.0.1:9/"},
                    "cloud": {
                        "credentials": {
                            "accessKeySecretRef": {"name": "c", "key": "a"},
                            "secretKeySecretRef": {"name": "c", "key": "s"},
                        }
                    },
                }
            },
            "sink": {"uri": "http://127.0.0.1:9/"},
        },
    }
    cluster.apply(held, namespace=namespace)
    rendered = cluster.helm(
        "template",
        "sluice",
        ROOT / "charts" / "sluice",
        "--namespace",
        SYSTEM,
        "--show-only",
        "templates/uninstall.yaml",
        "--set",
        f"image.repository={repository},image.tag={tag}" + (",image.pullPolicy=Never" if image[1] else ""),
    ).stdout
    try:
        cluster.apply(rendered)
        cluster.wait("job/sluice-uninstall", "Complete", namespace=SYSTEM, timeout=60)
        assert cluster.get("triggers.sluice.dev", "held", namespace=namespace)["metadata"]["finalizers"] == [
            "sluice.dev/external-resources"
        ]
    finally:
        cluster.run("kubectl", "delete", "--ignore-not-found", "-f", "-", input=rendered, check=False)
        cluster.kubectl(
            "delete", "triggers.sluice.dev/held", "--wait=false", namespace=namespace, check=False
        )
        cluster.kubectl(
            "patch",
            "triggers.sluice.dev/held",
            "--type=merge",
            '-p={"metadata":{"finalizers":null}}',
            namespace=namespace,
            check=False,
        )


def test_an_uninstall_whose_image_cannot_be_pulled_ends(cluster, image, release):
    try:
        cluster.helm(
            "upgrade",
            "sluice",
            ROOT / "charts" / "sluice",
            "--namespace",
            SYSTEM,
            "--set",
            "image.repository=127.0.0.1:9/nowhere,image.tag=none",
        )
        cluster.helm("uninstall", "sluice", "--namespace", SYSTEM, "--timeout", "150s", check=False)
        assert (
            cluster.helm("list", "--all", "--namespace", SYSTEM, "--output", "json").stdout.strip() == "[]"
        ), "it may be installed again"
        left = cluster.items("jobs,serviceaccounts", "-l", "app.kubernetes.io/name=sluice", namespace=SYSTEM)
        assert [o["metadata"]["name"] for o in left] == []
    finally:
        install_chart(cluster, image)
