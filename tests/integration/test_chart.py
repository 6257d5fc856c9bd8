"""What the chart makes of its values."""

import json
import subprocess

import pytest
import yaml
from harness import ROOT, TOOLS
from harness.process import run
from harness.sluice import SLUICE


@pytest.fixture(scope="module")
def helm():
    return f"{run([TOOLS / 'node', 'helm'], timeout=1800).stdout.strip()}/helm"


def template(helm, values=None, check=True):
    done = subprocess.run(
        [helm, "template", "sluice", ROOT / "charts" / "sluice", "--namespace=sluice-system", "--values=-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def one(objects, kind, name):
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def arguments(objects):
    return one(objects, "Deployment", "sluice")["spec"]["template"]["spec"]["containers"][0]["args"]


def test_there_is_never_more_than_one_controller(helm):
    assert one(template(helm), "Deployment", "sluice")["spec"]["strategy"] == {"type": "Recreate"}
    refused = template(helm, {"replicas": 2}, check=False)
    assert refused.returncode != 0 and "replicas" in refused.stderr
    assert one(template(helm, {"replicas": 0}), "Deployment", "sluice")["spec"]["replicas"] == 0
    assert "Lease" not in (ROOT / "charts" / "sluice" / "values.yaml").read_text()


def test_how_images_are_pulled_reaches_the_workers(helm):
    assert not [a for a in arguments(template(helm)) if "pull" in a or "worker-p" in a or "worker-t" in a]
    toleration = {"key": "dedicated", "operator": "Exists", "effect": 'No"Schedule'}
    values = {
        "imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}],
        "image": {"pullPolicy": "Always"},
        "worker": {"tolerations": [toleration], "priorityClassName": "high"},
    }
    found = template(helm, values)
    assert {
        "--image-pull-policy=Always",
        "--worker-pull-secret=registry",
        "--worker-pull-secret=mirror",
        "--worker-priority-class=high",
    } <= set(arguments(found))
    assert [
        json.loads(a.partition("=")[2]) for a in arguments(found) if a.startswith("--worker-tolerations=")
    ] == [[toleration]]
    assert (
        one(found, "Deployment", "sluice")["spec"]["template"]["spec"]["imagePullSecrets"]
        == values["imagePullSecrets"]
    )
    # The program takes what the chart gives it.
    done = subprocess.run(
        [SLUICE, *arguments(found), "--kubeconfig=/nowhere"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1 and "/nowhere" in done.stderr


def test_nobody_prescribes_a_user(helm):
    """OpenShift's restricted-v2 gives each namespace users of its own."""
    text = json.dumps(template(helm)) + (ROOT / "examples" / "cluster" / "function.yaml").read_text()
    assert "runAsUser" not in text and "runAsGroup" not in text and text.count("runAsNonRoot") == 3


def test_the_last_job_knows_whose_triggers_it_must_not_touch(helm):
    found = template(helm, {"fullnameOverride": "events"})
    job = one(found, "Job", "events-uninstall")
    assert (
        job["metadata"]["annotations"]["helm.sh/hook"] == "post-delete"
        and "hook-failed" in job["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    )
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == [
        "controller",
        "--strip-finalizers",
        "--unless-deployment=sluice-system/events",
    ]
    assert job["spec"]["activeDeadlineSeconds"] <= 60
    rules = next(
        o for o in found if o["kind"] == "ClusterRole" and o["metadata"]["name"].endswith(":uninstall")
    )["rules"]
    assert {
        "apiGroups": ["apps"],
        "resources": ["deployments"],
        "resourceNames": ["events"],
        "verbs": ["get"],
    } in rules


def test_the_controller_has_no_right_that_nothing_uses(helm):
    roles = [
        o
        for o in template(helm)
        if o["kind"] == "ClusterRole"
        and not o["metadata"]["name"].rpartition(":")[2] in ("edit", "view", "uninstall")
    ]
    assert len(roles) == 1
    rights = {
        (group, resource): set(r["verbs"])
        for r in roles[0]["rules"]
        for group in r["apiGroups"]
        for resource in r["resources"]
    }
    # It makes the slots that workers share, takes away those that are too many, and gives workers their rights.
    assert rights["coordination.k8s.io", "leases"] == {"get", "create", "patch", "delete"}
    for kind in ("roles", "rolebindings"):
        assert rights["rbac.authorization.k8s.io", kind] == {"get", "create", "patch"}
    assert rights["", "serviceaccounts"] == {"get", "create", "patch"}
    assert rights["", "events"] == {"list"} and rights["events.k8s.io", "events"] == {"create", "patch"}
    assert rights["", "configmaps"] == {"get", "create", "patch", "delete"}
    assert not [
        r for r in rights.values() if r & {"*", "escalate", "bind", "deletecollection", "update"}
    ] or rights["sluice.dev", "triggers/finalizers"] == {"update"}
