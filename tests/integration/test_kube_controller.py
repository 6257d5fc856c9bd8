"""The controller and a worker against a real API server: no node, so what Kubernetes' own controllers would do is done by nobody."""

import datetime
import json
import os
import secrets
import signal
import time

import pytest
import yaml
from harness import ROOT, TOOLS
from harness.cluster import Cluster, audit_line
from harness.kafka import Kafka
from harness.pki import self_signed
from harness.ports import free_port
from harness.process import TimedOut, in_netns, run, wait_until
from harness.sluice import SLUICE
from harness.smn import Refused, Smn
from harness.worker import Worker, start_controller

CHILDREN = "serviceaccounts,roles,rolebindings,configmaps,deployments"
OURS = "app.kubernetes.io/managed-by=sluice"
WRITES = ("create", "update", "patch", "delete", "deletecollection")

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("KUBECONFIG")), reason="needs an API server whose audit log can be read"
)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(control_plane_only=True) as c:
        c.kubectl(
            "delete",
            "--ignore-not-found",
            "--wait=false",
            "-f",
            str(ROOT / "crds" / "triggers.sluice.dev.yaml"),
        )
        wait_until("an earlier definition is gone", lambda: not c.get("crd", "triggers.sluice.dev"), 30)
        c.apply((ROOT / "crds" / "triggers.sluice.dev.yaml").read_text())
        c.wait("crd/triggers.sluice.dev", "Established")
        yield c


def rights_of_the_chart(cluster, file):
    """A kubeconfig of the chart's service account, with the chart's rights and no others."""
    helm = run([TOOLS / "node", "helm"], timeout=1800).stdout.strip() + "/helm"
    rendered = yaml.safe_load_all(
        run([helm, "template", "sluice", ROOT / "charts" / "sluice", "--namespace=sluice-system"]).stdout
    )
    rights = [
        o
        for o in rendered
        if o
        and o["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
        and "helm.sh/hook" not in o["metadata"].get("annotations", {})
    ]
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "sluice-system"}}, *rights)
    account = yaml.safe_load((cluster.directory / "kubeconfig").read_text())
    account["users"][0]["user"] = {
        "token": cluster.kubectl(
            "create", "token", "sluice", "--duration=2h", namespace="sluice-system"
        ).strip()
    }
    file.write_text(json.dumps(account))
    return file


@pytest.fixture(scope="module")
def controller(cluster, tmp_path_factory):
    kubeconfig = rights_of_the_chart(cluster, tmp_path_factory.mktemp("controller") / "kubeconfig")
    with start_controller(cluster, f"--kubeconfig={kubeconfig}") as p:
        p.wait_for_output("the controller knows the cluster", 20)
        yield p
        print(p.describe())


@pytest.fixture
def namespace(cluster, controller, request):
    # Nobody here ends a namespace, so each run has its own.
    name = (
        request.node.name.removeprefix("test_").replace("_", "-")[:40].rstrip("-")
        + "-"
        + secrets.token_hex(3)
    )
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "triggers.sluice.dev", "--all", namespace=name)


def trigger(name, schedule="1h", sink=None, **spec):
    spec = {
        "source": {"timer": {"schedule": schedule}},
        "sink": sink or {"uri": "http://127.0.0.1:9/"},
        **spec,
    }
    return {"apiVersion": "sluice.dev/v1alpha1", "kind": "Trigger", "metadata": {"name": name}, "spec": spec}


def service(name, *ports):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": p, "name": f"p{p}"} for p in ports]},
    }


def status(cluster, namespace, name):
    return (cluster.get("triggers.sluice.dev", name, namespace=namespace) or {}).get("status", {})


def wait_condition(cluster, namespace, name, kind, value, reason, words=""):
    def holds():
        found = next(
            (c for c in status(cluster, namespace, name).get("conditions", []) if c["type"] == kind), {}
        )
        return (
            found
            if (found.get("status"), found.get("reason")) == (value, reason) and words in found["message"]
            else None
        )

    return wait_until(
        f"{name}: {kind} is {value} {reason} {words}",
        holds,
        15,
        poll=0.1,
        explain=lambda: yaml.safe_dump(status(cluster, namespace, name)),
    )


def wait_deployment(cluster, namespace, name, **fields):
    """The Deployment of a Trigger, once it exists and its fields of the spec are these."""

    def holds():
        found = cluster.get("deployment", f"{name}-sluice", namespace=namespace)
        return found if found and all(found["spec"][k] == v for k, v in fields.items()) else None

    return wait_until(f"the Deployment of {name} {fields or ''}", holds, 15, poll=0.1)


def hash_of(deployment):
    return deployment["metadata"]["annotations"]["sluice.dev/hash"]


def writes(cluster, since):
    """What the program wrote, apart from what tests do with kubectl."""
    return [e for e in cluster.audit(since, WRITES) if e["userAgent"] == "sluice"]


def wait_quiet(cluster, seconds=3):
    """A place in the audit log before which all is settled."""
    while True:
        since = cluster.audit_position()
        try:
            wait_until("a write", lambda: writes(cluster, since), seconds, poll=0.2)
        except AssertionError:
            return since


def assert_no_write(cluster, since, seconds):
    try:
        wait_until("a write", lambda: writes(cluster, since), seconds, poll=0.5)
    except AssertionError:
        return
    raise AssertionError("written:\n" + "\n".join(audit_line(e) for e in writes(cluster, since)))


def test_a_trigger_gets_its_children(cluster, namespace):
    cluster.apply(trigger("clock"), namespace=namespace)
    deployment = wait_deployment(cluster, namespace, "clock", replicas=1)
    owner = cluster.get("triggers.sluice.dev", "clock", namespace=namespace)
    found = cluster.items(CHILDREN, "-l", f"{OURS},app.kubernetes.io/instance=clock", namespace=namespace)
    assert sorted((o["kind"], o["metadata"]["name"]) for o in found) == [
        ("ConfigMap", "clock-checkpoint"),
        ("ConfigMap", "clock-sluice"),
        ("Deployment", "clock-sluice"),
        ("Role", "clock-sluice"),
        ("RoleBinding", "clock-sluice"),
        ("ServiceAccount", "clock-sluice"),
    ]
    for o in found:
        assert o["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "sluice.dev/v1alpha1",
                "kind": "Trigger",
                "name": "clock",
                "uid": owner["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "x" and "--sink=http://127.0.0.1:9/" in container["args"]
    assert "data" not in cluster.get("configmap", "clock-checkpoint", namespace=namespace)
    wait_condition(cluster, namespace, "clock", "SinkResolved", "True", "SinkResolved")
    wait_condition(cluster, namespace, "clock", "Ready", "Unknown", "WorkerStarting")
    told = status(cluster, namespace, "clock")
    assert (told["observedGeneration"], told["source"], told["sinkUri"]) == (
        1,
        "timer",
        "http://127.0.0.1:9/",
    )


def test_the_worker_may_do_its_work_and_no_more(cluster, namespace):
    cluster.apply(trigger("clock"), trigger("other"), namespace=namespace)
    wait_deployment(cluster, namespace, "clock")
    wait_deployment(cluster, namespace, "other")

    who = f"--as=system:serviceaccount:{namespace}:clock-sluice"

    def may(*what):
        return cluster.kubectl("auth", "can-i", *what, who, namespace=namespace, check=False).strip() == "yes"

    assert may("patch", "configmaps/clock-checkpoint") and may("get", "configmaps/clock-checkpoint")
    assert not may("get", "configmaps/clock-sluice")
    assert may("create", "events.events.k8s.io") and not may("list", "events.events.k8s.io")
    assert may("patch", "triggers.sluice.dev/clock", "--subresource=status")
    assert (
        not may("patch", "configmaps/other-checkpoint")
        and not may("create", "configmaps")
        and not may("get", "secrets")
    )
    assert not may("patch", "triggers.sluice.dev/clock") and not may(
        "patch", "triggers.sluice.dev/other", "--subresource=status"
    )


def test_an_edit_rolls_the_worker(cluster, namespace):
    cluster.apply(trigger("clock"), namespace=namespace)
    before = wait_deployment(cluster, namespace, "clock")
    cluster.apply(trigger("clock", schedule="2h"), namespace=namespace)
    wait_until(
        "another hash",
        lambda: hash_of(cluster.get("deployment", "clock-sluice", namespace=namespace)) != hash_of(before),
        15,
    )
    after = wait_deployment(cluster, namespace, "clock")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["template"]["metadata"]["annotations"]["sluice.dev/hash"] == hash_of(after), (
        "its pods are replaced"
    )
    assert (
        json.loads(cluster.get("configmap", "clock-sluice", namespace=namespace)["data"]["trigger.json"])[
            "spec"
        ]["source"]["timer"]["schedule"]
        == "2h"
    )
    wait_until(
        "the status is of the new generation",
        lambda: status(cluster, namespace, "clock")["observedGeneration"] == 2,
        15,
    )


def test_a_label_on_a_trigger_rolls_nothing(cluster, namespace):
    cluster.apply(trigger("clock"), namespace=namespace)
    wait_deployment(cluster, namespace, "clock")
    since = wait_quiet(cluster)
    cluster.kubectl("label", "triggers.sluice.dev/clock", "team=a", namespace=namespace)
    assert_no_write(cluster, since, 2)


def test_suspended_is_ready_and_has_no_worker(cluster, namespace):
    cluster.apply(trigger("clock"), namespace=namespace)
    wait_deployment(cluster, namespace, "clock", replicas=1)
    cluster.apply(trigger("clock", suspend=True), namespace=namespace)
    wait_deployment(cluster, namespace, "clock", replicas=0)
    wait_condition(cluster, namespace, "clock", "Ready", "True", "Suspended")
    cluster.apply(trigger("clock", suspend=False), namespace=namespace)
    wait_deployment(cluster, namespace, "clock", replicas=1)
    wait_condition(cluster, namespace, "clock", "Ready", "Unknown", "WorkerStarting")
    assert all(c["type"] != "Suspended" for c in status(cluster, namespace, "clock")["conditions"])


def test_a_missing_service_is_named_and_found_when_it_comes(cluster, namespace):
    cluster.apply(
        trigger(
            "clock",
            sink={"ref": {"apiVersion": "v1", "kind": "Service", "name": "function"}, "uri": "/invoke"},
        ),
        namespace=namespace,
    )
    wait_condition(
        cluster, namespace, "clock", "SinkResolved", "False", "ServiceNotFound", f"{namespace}/function"
    )
    wait_condition(cluster, namespace, "clock", "Ready", "False", "ServiceNotFound")
    assert not cluster.items("deployments", namespace=namespace)
    cluster.apply(service("function", 8000), namespace=namespace)
    url = f"http://function.{namespace}.svc:8000/invoke"
    wait_condition(cluster, namespace, "clock", "SinkResolved", "True", "SinkResolved", url)
    deployment = wait_deployment(cluster, namespace, "clock")
    assert f"--sink={url}" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    cluster.delete("service/function", namespace=namespace)
    wait_condition(cluster, namespace, "clock", "SinkResolved", "False", "ServiceNotFound")
    assert hash_of(wait_deployment(cluster, namespace, "clock")) == hash_of(deployment), (
        "the worker goes on as it was"
    )


def test_a_spec_that_only_the_controller_can_judge(cluster, namespace):
    cluster.apply(trigger("clock"), namespace=namespace)
    before = wait_deployment(cluster, namespace, "clock")
    cluster.apply(trigger("clock", schedule="99 99 99 99 99"), namespace=namespace)
    wait_condition(cluster, namespace, "clock", "Ready", "False", "InvalidSpec", "spec.source.timer.schedule")
    after = wait_deployment(cluster, namespace, "clock")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], (
        "the children stay as they were"
    )
    cluster.apply(trigger("clock"), namespace=namespace)
    wait_condition(cluster, namespace, "clock", "Ready", "Unknown", "WorkerStarting")


def test_what_others_do_to_a_deployment_is_undone(cluster, namespace):
    cluster.apply(trigger("clock"), namespace=namespace)
    first = wait_deployment(cluster, namespace, "clock")
    cluster.kubectl(
        "delete", "deployment", "clock-sluice", "--cascade=orphan", "--wait=false", namespace=namespace
    )
    cluster.kubectl(
        "patch",
        "deployment",
        "clock-sluice",
        "--type=json",
        '-p=[{"op":"remove","path":"/metadata/finalizers"}]',
        namespace=namespace,
        check=False,
    )
    wait_until(
        "another Deployment",
        lambda: wait_deployment(cluster, namespace, "clock")["metadata"]["uid"] != first["metadata"]["uid"],
        15,
    )
    cluster.kubectl("scale", "deployment", "clock-sluice", "--replicas=3", namespace=namespace)
    wait_deployment(cluster, namespace, "clock", replicas=1)


def test_a_definition_that_is_newer_makes_no_spec_invalid(cluster, namespace, controller, tmp_path):
    """Strict is who checks files; who runs them passes by what it does not know, and says so once."""
    added = [
        {
            "op": "add",
            "path": f"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{path}",
            "value": {"type": "string"},
        }
        for path in ("newer", "delivery/properties/newest")
    ]
    cluster.kubectl("patch", "crd", "triggers.sluice.dev", "--type=json", f"-p={json.dumps(added)}")
    t = trigger("clock", newer="text", delivery={"newest": "text"})
    wait_until(
        "the API server keeps it",
        lambda: (
            cluster.apply(t, namespace=namespace)
            and cluster.get("triggers.sluice.dev", "clock", namespace=namespace)["spec"].get("newer")
        ),
        15,
    )
    wait_deployment(cluster, namespace, "clock")
    wait_condition(cluster, namespace, "clock", "Ready", "Unknown", "WorkerStarting")

    def said():
        cluster.kubectl(
            "label",
            "--overwrite",
            "triggers.sluice.dev/clock",
            f"a={secrets.token_hex(3)}",
            namespace=namespace,
        )
        return [
            line
            for line in controller.output.splitlines()
            if "members of another version" in line and namespace in line
        ]

    # A watch that began before the definition changed shows objects without the new members, until the API server ends it.
    told = wait_until("it is said", said, 120, poll=1)
    assert "first=spec.newer" in told[0] or "first=spec.delivery.newest" in told[0]
    for _ in range(3):
        said()
    wait_quiet(cluster)
    assert len(said()) == len(told), "once a generation"
    wait_condition(cluster, namespace, "clock", "Ready", "Unknown", "WorkerStarting")
    # The file of a worker may be newer, too.
    data = json.loads(cluster.get("configmap", "clock-sluice", namespace=namespace)["data"]["trigger.json"])
    assert "newer" not in data["spec"]
    data["spec"]["newer"] = "x"
    file = tmp_path / "trigger.json"
    file.write_text(json.dumps(data))
    with cluster.start(
        SLUICE,
        "worker",
        f"--trigger={file}",
        f"--checkpoint={tmp_path / 'state'}",
        "--admin=127.0.0.1:0",
        name="worker",
    ) as worker:
        worker.wait_for_output("members of another version.*first=spec.newer", 20)
        worker.wait_for_output(r"admin port \d+", 20)
    assert run([SLUICE, "validate", file], check=False).returncode == 1


def test_what_is_somebody_elses_is_left_alone(cluster, namespace):
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "clock-sluice"},
        "data": {"theirs": "yes"},
    }
    cluster.apply(theirs, namespace=namespace)
    before = cluster.get("configmap", "clock-sluice", namespace=namespace)
    cluster.apply(trigger("clock"), namespace=namespace)
    wait_condition(
        cluster,
        namespace,
        "clock",
        "Ready",
        "False",
        "ApplyFailed",
        f"ConfigMap {namespace}/clock-sluice exists, and is not Sluice's",
    )
    assert cluster.get("configmap", "clock-sluice", namespace=namespace) == before
    assert not cluster.items("deployments", namespace=namespace)
    cluster.delete("configmap/clock-sluice", namespace=namespace)
    wait_deployment(cluster, namespace, "clock")
    wait_condition(cluster, namespace, "clock", "Ready", "Unknown", "WorkerStarting")


LABELS = {
    "app.kubernetes.io/name": "sluice",
    "app.kubernetes.io/managed-by": "sluice",
    "app.kubernetes.io/component": "worker",
    "app.kubernetes.io/instance": "clock",
}


def test_labels_make_nothing_ours(cluster, namespace):
    labels = {"name": "clock-sluice", "labels": LABELS}
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": labels,
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": pod},
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": labels, "data": {"theirs": "yes"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**labels, "name": "clock-checkpoint"},
            "data": {"timer": "theirs"},
        },
        namespace=namespace,
    )
    kept = ("configmap/clock-sluice", "configmap/clock-checkpoint", "deployment/clock-sluice")
    before = [cluster.get(what, namespace=namespace) for what in kept]
    cluster.apply(trigger("clock"), namespace=namespace)
    for what in kept:
        kind = {"configmap": "ConfigMap", "deployment": "Deployment"}[what.split("/")[0]]
        wait_condition(
            cluster,
            namespace,
            "clock",
            "Ready",
            "False",
            "ApplyFailed",
            f"{kind} {namespace}/{what.split('/')[1]} exists, and is not Sluice's",
        )
        assert (
            cluster.get(what, namespace=namespace)["metadata"]["uid"]
            == before[kept.index(what)]["metadata"]["uid"]
        )
        assert "ownerReferences" not in cluster.get(what, namespace=namespace)["metadata"]
        cluster.delete(what, namespace=namespace)
    wait_condition(cluster, namespace, "clock", "Ready", "Unknown", "WorkerStarting")


def test_a_foreign_service_survives_another_kind_of_source(cluster, namespace):
    cluster.apply(
        trigger("api"), {**service("api-sluice", 80), "metadata": {"name": "api-sluice"}}, namespace=namespace
    )
    wait_deployment(cluster, namespace, "api")
    before = cluster.get("service", "api-sluice", namespace=namespace)
    t = trigger("api")
    t["spec"]["source"] = {"apig": {"path": "/orders"}}
    cluster.apply(t, namespace=namespace)
    wait_condition(
        cluster,
        namespace,
        "api",
        "Ready",
        "False",
        "ApplyFailed",
        f"Service {namespace}/api-sluice exists, and is not Sluice's",
    )
    cluster.apply(trigger("api"), namespace=namespace)
    wait_condition(cluster, namespace, "api", "Ready", "Unknown", "WorkerStarting")
    assert cluster.get("service", "api-sluice", namespace=namespace) == before


def test_the_name_of_what_requests_reach_may_begin_with_a_digit(cluster, namespace):
    t = trigger("7up")
    t["spec"]["source"] = {"apig": {"path": "/orders"}}
    cluster.apply(t, namespace=namespace)
    wait_deployment(cluster, namespace, "7up")
    assert cluster.get("service", "sluice-7up-svc", namespace=namespace)
    assert (
        status(cluster, namespace, "7up")["address"]["url"] == f"http://sluice-7up-svc.{namespace}.svc/orders"
    )


def test_an_ingress_comes_and_goes(cluster, namespace):
    def apply(expose=None, timer=False, **more):
        t = trigger("api")
        if not timer:
            t["spec"]["source"] = {
                "apig": {"path": "/orders/{id}", **({"expose": expose} if expose else {}), **more}
            }
        cluster.apply(t, namespace=namespace)

    def reached(url):
        wait_until(
            f"its address is {url}",
            lambda: status(cluster, namespace, "api").get("address", {}).get("url") == url,
            15,
            explain=lambda: status(cluster, namespace, "api"),
        )

    def ingress():
        return cluster.get("ingress", "api-sluice", namespace=namespace)

    inside = f"http://api-sluice.{namespace}.svc/orders/{{id}}"
    apply()
    reached(inside)
    assert not ingress()
    apply({"host": "api.example.com", "ingressClassName": "nginx", "annotations": {"example.com/a": "b"}})
    reached("http://api.example.com/orders/{id}")
    found = wait_until("the Ingress", ingress, 15)
    assert (
        found["metadata"]["annotations"] == {"example.com/a": "b"}
        and found["metadata"]["ownerReferences"][0]["name"] == "api"
    )
    backend = {"service": {"name": "api-sluice", "port": {"name": "http"}}}
    assert found["spec"] == {
        "ingressClassName": "nginx",
        "rules": [
            {
                "host": "api.example.com",
                "http": {"paths": [{"path": "/orders", "pathType": "Prefix", "backend": backend}]},
            }
        ],
    }
    apply({"host": "api.example.com", "tlsSecretName": "cert"}, listener={"tls": {"secretName": "served"}})
    reached("https://api.example.com/orders/{id}")
    found = wait_until("TLS", lambda: (i := ingress())["spec"].get("tls") and i, 15)
    assert (
        found["spec"]["tls"] == [{"hosts": ["api.example.com"], "secretName": "cert"}]
        and "ingressClassName" not in found["spec"]
        and "annotations" not in found["metadata"]
    )
    assert found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] == {"name": "https"}
    ports = cluster.get("service", "api-sluice", namespace=namespace)["spec"]["ports"]
    assert [(p["name"], p["port"], p["targetPort"], p["appProtocol"]) for p in ports] == [
        ("https", 443, 8080, "https")
    ]
    apply()
    reached(inside)
    wait_until("no Ingress", lambda: not ingress(), 15)
    # What is another's is left alone, and said.
    cluster.apply(
        {**found, "metadata": {"name": "api-sluice", "labels": {"app.kubernetes.io/managed-by": "somebody"}}},
        namespace=namespace,
    )
    apply(timer=True)
    wait_until("no Service", lambda: not cluster.get("service", "api-sluice", namespace=namespace), 15)
    wait_until("no address", lambda: "address" not in status(cluster, namespace, "api"), 15)
    assert ingress(), "it is not ours"


def test_why_a_worker_crashes_is_told(cluster, namespace):
    cluster.apply(trigger("clock"), namespace=namespace)
    wait_deployment(cluster, namespace, "clock")
    labels = {
        "app.kubernetes.io/managed-by": "sluice",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/instance": "clock",
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "clock-a", "labels": labels},
        "spec": {
            "serviceAccountName": "clock-sluice",
            "automountServiceAccountToken": False,
            "containers": [{"name": "worker", "image": "x"}],
        },
    }
    cluster.apply(pod, namespace=namespace)

    def report(state, last=None):
        container = {
            "name": "worker",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 1,
            "state": state,
            **({"lastState": last} if last else {}),
        }
        cluster.kubectl(
            "patch",
            "pod",
            "clock-a",
            "--subresource=status",
            f"-p={json.dumps({'status': {'containerStatuses': [container]}})}",
            namespace=namespace,
        )

    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "sluice worker: no such file\n"}}
    report(ended)
    wait_condition(
        cluster,
        namespace,
        "clock",
        "WorkersAvailable",
        "False",
        "CrashLoopBackOff",
        "Error, exit code 1: sluice worker: no such file",
    )
    since = wait_quiet(cluster)
    report(
        {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}},
        ended,
    )
    assert_no_write(cluster, since, 2)
    report({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    wait_condition(cluster, namespace, "clock", "Ready", "False", "ImagePullBackOff", "no such image")


def kill_api_server(cluster):
    os.kill(int((cluster.directory / "pid" / "kube-apiserver").read_text()), signal.SIGKILL)
    wait_until(
        "the API server is gone",
        lambda: (
            cluster.run("kubectl", "get", "--raw", "/livez", "--request-timeout=2s", check=False).returncode
        ),
        30,
    )


def test_a_watch_whose_version_is_gone_goes_on(cluster, namespace, controller):
    """The controller is held while its watches break, things change, and the versions that it would go on at are compacted away."""
    cluster.apply(trigger("clock"), trigger("old"), namespace=namespace)
    wait_deployment(cluster, namespace, "clock")
    wait_deployment(cluster, namespace, "old")
    since = wait_quiet(cluster)
    controller.signal(signal.SIGSTOP)
    try:
        kill_api_server(cluster)
        cluster.up()
        cluster.delete("triggers.sluice.dev/old", namespace=namespace)
        cluster.apply(trigger("clock", schedule="2h"), namespace=namespace)
        version = cluster.get("triggers.sluice.dev", "clock", namespace=namespace)["metadata"][
            "resourceVersion"
        ]
        kill_api_server(cluster)
        cluster.run(
            "curl",
            "-sS",
            "--fail",
            "http://127.0.0.1:2379/v3/kv/compaction",
            "-d",
            json.dumps({"revision": version, "physical": True}),
        )
        cluster.up()
    finally:
        controller.signal(signal.SIGCONT)
    wait_until(
        "the change is seen",
        lambda: status(cluster, namespace, "clock").get("observedGeneration") == 2,
        60,
        poll=0.5,
    )
    lists = [
        e
        for e in cluster.audit(since, ("list",))
        if e["userAgent"] == "sluice" and e["objectRef"]["resource"] == "triggers"
    ]
    assert lists, "the version was gone: it listed again"
    assert controller.alive()


def test_what_the_api_server_refuses_is_told_and_tried_less_and_less(cluster, namespace):
    resources = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
    since = cluster.audit_position()
    cluster.apply(trigger("greedy", worker={"resources": resources}), namespace=namespace)
    wait_condition(
        cluster,
        namespace,
        "greedy",
        "Ready",
        "False",
        "ApplyFailed",
        "must be less than or equal to cpu limit",
    )

    def attempts(position):
        return [e for e in writes(cluster, position) if e["responseStatus"]["code"] == 422]

    wait_until("it is tried again", lambda: len(attempts(since)) > 7, 10)
    later = cluster.audit_position()
    with pytest.raises(TimedOut):
        wait_until("one attempt after the other", lambda: len(attempts(later)) > 4, 5, poll=0.5)
    cluster.apply(trigger("clock"), namespace=namespace)
    wait_deployment(cluster, namespace, "clock")  # others are not held up
    cluster.apply(
        trigger("greedy", worker={"resources": {**resources, "limits": {"cpu": "3"}}}), namespace=namespace
    )
    wait_deployment(cluster, namespace, "greedy")  # at once, whatever the back-off
    wait_condition(cluster, namespace, "greedy", "Ready", "Unknown", "WorkerStarting")


def test_events_tell_what_changed(cluster, namespace):
    cluster.apply(
        trigger("clock", sink={"ref": {"apiVersion": "v1", "kind": "Service", "name": "function"}}),
        namespace=namespace,
    )
    wait_condition(cluster, namespace, "clock", "SinkResolved", "False", "ServiceNotFound")

    def told(reason):
        return [
            e for e in cluster.items("events.events.k8s.io", namespace=namespace) if e["reason"] == reason
        ]

    wait_until("the event", lambda: told("ServiceNotFound"), 10)
    [event] = told("ServiceNotFound")
    assert event["type"] == "Warning" and f"{namespace}/function" in event["note"]
    assert (event["regarding"]["kind"], event["regarding"]["name"], event["reportingController"]) == (
        "Trigger",
        "clock",
        "sluice.dev/controller",
    )
    cluster.apply(service("function", 80), namespace=namespace)
    wait_until("the event", lambda: told("SinkResolved") and told("Applied"), 10)


def test_nothing_is_written_while_nothing_changes(cluster, namespace, controller):
    began = cluster.audit_position()
    cluster.apply(
        *(trigger(f"clock-{n}") for n in range(10)),
        trigger("wrong", schedule="99 99 99 99 99"),
        namespace=namespace,
    )
    for n in range(10):
        wait_condition(cluster, namespace, f"clock-{n}", "Ready", "Unknown", "WorkerStarting")
    wait_condition(cluster, namespace, "wrong", "Ready", "False", "InvalidSpec")
    since = wait_quiet(cluster)
    assert len(writes(cluster, began)) >= 10 * 7, (
        "the log shows what it wrote: six children and a status each"
    )
    assert_no_write(cluster, since, 20)
    # Nor when it starts anew.
    assert controller.stop() == 0
    controller.start()
    wait_until(
        "it knows the cluster again",
        lambda: controller.output.count("the controller knows the cluster") >= 2,
        20,
    )
    assert_no_write(cluster, since, 5)


def test_the_api_server_restarts(cluster, namespace, controller):
    cluster.apply(trigger("clock"), namespace=namespace)
    wait_deployment(cluster, namespace, "clock")
    kill_api_server(cluster)
    cluster.up()
    cluster.apply(trigger("clock", schedule="2h"), namespace=namespace)
    wait_until(
        "the change is seen",
        lambda: status(cluster, namespace, "clock").get("observedGeneration") == 2,
        60,
        poll=0.5,
    )
    assert controller.alive()


def test_a_certificate_authority_that_changes_is_read_again(cluster, controller, tmp_path):
    """Also: the server's certificate is checked, and a name for it that the kubeconfig gives is used."""
    config = yaml.safe_load((cluster.directory / "kubeconfig").read_text())
    self_signed(tmp_path, "ca", "wrong")
    target = config["clusters"][0]["cluster"]
    del target["certificate-authority-data"]
    target |= {
        "certificate-authority": "ca.pem",
        "server": "https://127.0.0.1:6443",
        "tls-server-name": "kubernetes.default.svc",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    options = ("--namespace=nobody", f"--kubeconfig={tmp_path / 'config'}")
    with start_controller(cluster, *options, name="another") as p:
        p.wait_for_output("a list failed.*certificate", 10)
        (tmp_path / "ca.pem").write_text((cluster.directory / "pki" / "ca.crt").read_text())
        p.wait_for_output("the controller knows the cluster", 30)


# ---- the worker ------------------------------------------------------------------------------------------------------------------------


def entries(cluster, namespace, name):
    return {w["pod"]: w for w in status(cluster, namespace, name).get("workers", [])}


@pytest.fixture
def ticking(cluster, namespace):
    """A Trigger that ticks often, and its function."""
    with cluster.start(SLUICE, "display", "--listen=127.0.0.1:0", "--quiet", name="function") as function:
        port = function.wait_for_output(r"listening on port (\d+)").group(1)
        cluster.apply(
            trigger("clock", schedule="@every 200ms", sink={"uri": f"http://127.0.0.1:{port}/"}),
            namespace=namespace,
        )
        wait_deployment(cluster, namespace, "clock")
        yield "clock"


def test_a_worker_tells_its_state_and_keeps_its_position(cluster, namespace, ticking, tmp_path):
    with Worker(cluster, namespace, ticking, "clock-a", tmp_path) as worker:
        wait_until(
            "its entry",
            lambda: entries(cluster, namespace, ticking).get("clock-a", {}).get("sourceState") == "Connected",
            15,
        )
        wait_condition(cluster, namespace, ticking, "SourceConnected", "True", "Connected")
        entry = entries(cluster, namespace, ticking)["clock-a"]
        assert entry["observedGeneration"] == 1 and entry["deliveryState"] == "Delivering"
        assert entry["nextRunTime"].endswith("Z")

        def position():
            return cluster.get("configmap", "clock-checkpoint", namespace=namespace).get("data", {})

        wait_until("a position", position, 15)
        before = position()
        wait_until("it moves", lambda: position() != before, 15)
        assert len(before) == 1
        since = cluster.audit_position()
        assert worker.process.stop() == 0
        assert all(
            e["responseStatus"]["code"] == 200
            for e in cluster.audit(since, ("patch",), user=f"system:serviceaccount:{namespace}:")
        )
    cluster.kubectl("delete", "pod", "clock-a", "--grace-period=0", "--force", namespace=namespace)
    wait_until(
        "the entry of the pod that is gone is removed", lambda: not entries(cluster, namespace, ticking), 15
    )


@pytest.fixture
def kafka(cluster):
    """A broker where the cluster's workers run."""
    with Kafka(netns=cluster.netns) as k:
        yield k


def test_what_a_source_lost_is_an_event_of_its_trigger(cluster, namespace, kafka, tmp_path):
    """Written with the worker's own rights, and found by those who describe the Trigger."""
    kafka.create_topic("orders")
    kafka.produce("orders", [str(n) for n in range(20)])
    kafka.commit(f"sluice.{namespace}.orders", "orders", {0: 3})
    kafka.purge("orders", {0: 12})
    source = {"kafka": {"bootstrapServers": [kafka.bootstrap], "topics": ["orders"]}}
    cluster.apply(trigger("orders", source=source), namespace=namespace)
    wait_deployment(cluster, namespace, "orders")
    with Worker(cluster, namespace, "orders", "orders-a", tmp_path):
        (told,) = wait_until(
            "the event",
            lambda: [
                e
                for e in cluster.items("events.events.k8s.io", namespace=namespace)
                if e["reason"] == "RecordsExpired"
            ],
            30,
        )
    lost = "topic orders, partition 0: 9 records are gone before they were delivered, offsets 3 to 11:"
    assert told["note"].startswith(lost) and told["type"] == "Warning"
    assert (told["reportingController"], told["reportingInstance"]) == ("sluice.dev/worker", "orders-a")
    assert lost in cluster.kubectl("describe", "triggers.sluice.dev", "orders", namespace=namespace)


def test_a_deleted_triggers_worker_does_not_speak_for_its_successor(cluster, namespace, ticking, tmp_path):
    """Nobody collects garbage here: what the first one had stays, its worker's rights among it."""
    with Worker(cluster, namespace, ticking, "clock-a", tmp_path) as worker:
        wait_until(
            "its entry",
            lambda: entries(cluster, namespace, ticking).get("clock-a", {}).get("sourceState") == "Connected",
            15,
        )
        before = cluster.get("triggers.sluice.dev", "clock", namespace=namespace)
        cluster.delete("triggers.sluice.dev/clock", namespace=namespace)
        cluster.apply({**trigger("clock"), "spec": before["spec"]}, namespace=namespace)
        wait_condition(
            cluster,
            namespace,
            "clock",
            "Ready",
            "False",
            "ApplyFailed",
            "is still that of the Trigger of this name that was deleted",
        )
        # As a worker says it.
        apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--subresource=status",
            "--field-manager=sluice-worker-clock-a",
            "-f",
            "-",
        ]
        entry = {
            "pod": "clock-a",
            "triggerUID": before["metadata"]["uid"],
            "observedGeneration": 1,
            "sourceState": "Connected",
            "deliveryState": "Delivering",
        }
        said = {
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "Trigger",
            "metadata": {"name": "clock", "namespace": namespace},
            "status": {"workers": [entry]},
        }
        cluster.run("kubectl", "-n", namespace, *apply, input=json.dumps(said))
        wait_until("it is removed", lambda: not entries(cluster, namespace, ticking), 15)
        wait_condition(cluster, namespace, "clock", "SourceConnected", "Unknown", "WorkerStarting")
        assert worker.process.alive()


def test_of_two_workers_of_a_checkpoint_one_stands_by(cluster, namespace, ticking, tmp_path):
    with Worker(cluster, namespace, ticking, "clock-a", tmp_path):
        wait_until(
            "its entry",
            lambda: entries(cluster, namespace, ticking).get("clock-a", {}).get("sourceState") == "Connected",
            15,
        )
        with Worker(cluster, namespace, ticking, "clock-b", tmp_path):

            def waiting():
                return [
                    w for w in entries(cluster, namespace, ticking).values() if w["sourceState"] == "Standby"
                ]

            wait_until(
                "one of them stands by", waiting, 15, explain=lambda: entries(cluster, namespace, ticking)
            )
            assert "another worker writes this checkpoint" in waiting()[0]["sourceMessage"]
            # The other goes on.
            read = lambda: cluster.get("configmap", "clock-checkpoint", namespace=namespace)["data"]  # noqa: E731
            before = read()
            wait_until("the position moves", lambda: read() != before, 10)
            assert len(waiting()) == 1 and len(entries(cluster, namespace, ticking)) == 2


def test_two_workers_of_a_timer_post_each_tick_once(cluster, namespace, tmp_path):
    options = ["--listen=127.0.0.1:0", "--quiet", "--delay=500ms", "--keep=100000"]
    with cluster.start(SLUICE, "display", *options, name="function") as function:
        port = function.wait_for_output(r"listening on port (\d+)").group(1)
        timer = {"schedule": "@every 100ms", "concurrencyPolicy": "Allow", "misfirePolicy": "CatchUp"}
        made = trigger("clock", sink={"uri": f"http://127.0.0.1:{port}/"})
        made["spec"]["source"]["timer"] = timer
        cluster.apply(made, namespace=namespace)
        wait_deployment(cluster, namespace, "clock")

        def ids():
            pages, after = [], 0
            while True:
                shown = cluster.run("curl", "-s", f"http://127.0.0.1:{port}/-/events?after={after}").stdout
                page = json.loads(shown)["events"]
                if not page:
                    return pages
                pages += [e["id"] for e in page]
                after = page[-1]["number"]

        with Worker(cluster, namespace, "clock", "clock-a", tmp_path):
            wait_until("its ticks come", ids, 15)
            since = cluster.audit_position()
            with Worker(cluster, namespace, "clock", "clock-b", tmp_path):
                come = wait_until("many ticks come", lambda: len(found := ids()) >= 150 and found, 40)
            writes = [
                datetime.datetime.fromisoformat(e["requestReceivedTimestamp"].replace("Z", "+00:00"))
                for e in cluster.audit(since, ("patch",), user=f"system:serviceaccount:{namespace}:")
                if e["objectRef"]["name"] == "clock-checkpoint" and e["responseStatus"]["code"] == 200
            ]
    assert len(set(come)) == len(come), "none is posted twice"
    times = sorted(
        round(datetime.datetime.fromisoformat(i.rsplit("/", 1)[1].replace("Z", "+00:00")).timestamp() * 10)
        for i in come
    )
    assert times == list(range(times[0], times[0] + len(times))), "none is missed"
    span = (writes[-1] - writes[0]).total_seconds()
    assert len(writes) <= span + 2, f"{len(writes)} writes of the checkpoint in {span:.1f} s"


def test_a_checkpoint_that_is_made_again_does_not_stop_a_timer(cluster, namespace, ticking, tmp_path):
    def position():
        return cluster.get("configmap", "clock-checkpoint", namespace=namespace).get("data", {}).get("timer")

    with Worker(cluster, namespace, ticking, "clock-a", tmp_path):
        wait_until("a position", position, 15)
        cluster.delete("configmap/clock-checkpoint", namespace=namespace)
        before = wait_until(
            "a position in the new one",
            lambda: (
                "clock-checkpoint"
                in [m["metadata"]["name"] for m in cluster.items("configmaps", namespace=namespace)]
                and position()
            ),
            30,
        )
        wait_until("it moves", lambda: position() != before, 15)


# ---- what is outside the cluster ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def smn(cluster, tmp_path):
    folder = tmp_path / "smn"
    folder.mkdir()
    with Smn(folder, netns=cluster.netns) as s:
        yield s


def subscribed(cluster, smn, namespace, manage=True, **spec):
    """A Trigger with a managed subscription, and the options of its workers."""
    port = in_netns(cluster.netns, free_port)
    endpoint = f"http://127.0.0.1:{port}/{namespace}/topic"
    source = {
        "smn": {**smn.source, "subscription": {"manage": manage, "endpoint": endpoint}, "cloud": smn.cloud}
    }
    return {**trigger("topic"), "spec": {"source": source, "sink": {"uri": "http://127.0.0.1:9/"}, **spec}}, [
        f"--listen=127.0.0.1:{port}",
        *smn.options,
    ]


def finalizers(cluster, namespace):
    return (
        (cluster.get("triggers.sluice.dev", "topic", namespace=namespace) or {})
        .get("metadata", {})
        .get("finalizers")
    )


def delete(cluster, namespace):
    cluster.kubectl("delete", "triggers.sluice.dev/topic", "--wait=false", namespace=namespace)


def wait_gone(cluster, namespace, timeout=15):
    wait_until(
        "the Trigger is gone",
        lambda: not cluster.get("triggers.sluice.dev", "topic", namespace=namespace),
        timeout,
        explain=lambda: yaml.safe_dump(status(cluster, namespace, "topic")),
    )


def test_a_deleted_trigger_waits_for_its_subscription_to_be_cancelled(cluster, namespace, smn, tmp_path):
    t, options = subscribed(cluster, smn, namespace)
    cluster.apply(t, namespace=namespace)
    before = wait_deployment(cluster, namespace, "topic", replicas=1)
    assert finalizers(cluster, namespace) == ["sluice.dev/external-resources"]
    with Worker(cluster, namespace, "topic", "topic-a", tmp_path, options):
        wait_condition(cluster, namespace, "topic", "SourceConnected", "True", "Connected")
        (urn,) = smn.subscriptions
        delete(cluster, namespace)
        c = wait_condition(
            cluster,
            namespace,
            "topic",
            "Ready",
            "False",
            "Ending",
            f"the subscription of {smn.urn} to http://127.0.0.1:",
        )
        assert c["observedGeneration"] == 2
        after = wait_until(
            "a Deployment that takes back",
            lambda: (
                (d := wait_deployment(cluster, namespace, "topic")) and hash_of(d) != hash_of(before) and d
            ),
            15,
        )
        assert "--ending" in after["spec"]["template"]["spec"]["containers"][0]["args"] and after["spec"][
            "strategy"
        ] == {"type": "Recreate"}
        assert all(
            v["secret"]["optional"] for v in after["spec"]["template"]["spec"]["volumes"] if "secret" in v
        )
        assert list(smn.subscriptions) == [urn]
    smn.refuse = lambda method, path: Refused(403, "SMN.00010002", "The account is frozen.")
    with Worker(cluster, namespace, "topic", "topic-b", tmp_path, [*options, "--ending"]):
        wait_condition(
            cluster,
            namespace,
            "topic",
            "SourceConnected",
            "False",
            "SourceDisconnected",
            "403 SMN.00010002: The account is frozen.",
        )
        assert finalizers(cluster, namespace) == ["sluice.dev/external-resources"]
        smn.refuse = lambda method, path: None
        wait_gone(cluster, namespace, 30)
    assert smn.subscriptions == {}
    assert [m for m, _ in smn.calls if m != "GET"] == ["POST", "DELETE"]


def test_what_never_began_is_deleted_at_once(cluster, namespace, smn):
    t, _ = subscribed(cluster, smn, namespace)
    cluster.apply(t, namespace=namespace)
    wait_deployment(cluster, namespace, "topic")
    delete(cluster, namespace)
    wait_gone(cluster, namespace)
    cluster.delete("deployment/topic-sluice", "configmap/topic-checkpoint", namespace=namespace)
    t["spec"]["sink"] = {"ref": {"apiVersion": "v1", "kind": "Service", "name": "nobody"}}
    cluster.apply(t, namespace=namespace)
    wait_condition(cluster, namespace, "topic", "SinkResolved", "False", "ServiceNotFound")
    assert not finalizers(cluster, namespace)
    delete(cluster, namespace)
    wait_gone(cluster, namespace)


def test_a_worker_that_starts_too_late_makes_nothing(cluster, namespace, smn, tmp_path):
    """Its pod may be under way when the Trigger is deleted: nobody would take back what it made."""
    t, options = subscribed(cluster, smn, namespace)
    cluster.apply(t, namespace=namespace)
    wait_deployment(cluster, namespace, "topic")
    delete(cluster, namespace)
    wait_gone(cluster, namespace)
    with Worker(cluster, namespace, "topic", "topic-late", tmp_path, options) as worker:
        worker.process.wait_for_output("topic-checkpoint: 404", 20)
        assert smn.calls == []


def test_a_lost_checkpoint_and_a_lost_sink_do_not_hide_a_subscription(cluster, namespace, smn):
    """As the deletion of a namespace takes them before the Trigger."""
    t, _ = subscribed(cluster, smn, namespace)
    cluster.apply(
        service("function", 8000),
        {
            **t,
            "spec": {
                **t["spec"],
                "sink": {"ref": {"apiVersion": "v1", "kind": "Service", "name": "function"}},
            },
        },
        namespace=namespace,
    )
    wait_deployment(cluster, namespace, "topic")
    wait_condition(cluster, namespace, "topic", "SinkResolved", "True", "SinkResolved")
    cluster.delete("service/function", namespace=namespace)
    wait_condition(cluster, namespace, "topic", "SinkResolved", "False", "ServiceNotFound")
    cluster.delete("deployment/topic-sluice", "configmap/topic-checkpoint", namespace=namespace)
    delete(cluster, namespace)
    wait_condition(
        cluster,
        namespace,
        "topic",
        "Ready",
        "False",
        "Ending",
        f"the subscription of {smn.urn} to http://127.0.0.1:",
    )
    ending = wait_deployment(cluster, namespace, "topic")
    assert "--ending" in ending["spec"]["template"]["spec"]["containers"][0]["args"]
    assert finalizers(cluster, namespace) == ["sluice.dev/external-resources"]
    cluster.kubectl(
        "patch",
        "triggers.sluice.dev/topic",
        "--type=merge",
        '-p={"metadata":{"finalizers":null}}',
        namespace=namespace,
    )


def test_a_subscription_that_is_no_longer_managed_is_its_users(cluster, namespace, smn, tmp_path):
    t, options = subscribed(cluster, smn, namespace)
    cluster.apply(t, namespace=namespace)
    wait_deployment(cluster, namespace, "topic")
    with Worker(cluster, namespace, "topic", "topic-a", tmp_path, options):
        wait_condition(cluster, namespace, "topic", "SourceConnected", "True", "Connected")
    t["spec"]["source"]["smn"]["subscription"]["manage"] = False
    cluster.apply(t, namespace=namespace)
    wait_until("no finalizer", lambda: not finalizers(cluster, namespace), 15)
    delete(cluster, namespace)
    wait_gone(cluster, namespace)
    assert len(smn.subscriptions) == 1


def remains(cluster, namespace):
    return [
        e["note"]
        for e in cluster.items("events.events.k8s.io", namespace=namespace)
        if e["reason"] == "OutsideRemains" and e["type"] == "Warning"
    ]


def test_what_cannot_be_taken_back_in_time_is_named(cluster, namespace, smn):
    t, _ = subscribed(cluster, smn, namespace, suspend=True)
    cluster.apply(t, namespace=namespace)
    wait_deployment(cluster, namespace, "topic", replicas=0)
    cluster.kubectl(
        "patch",
        "configmap",
        "topic-checkpoint",
        "--type=merge",
        '-p={"data":{"subscription":"{\\"endpoint\\":\\"http://somewhere/\\"}"}}',
        namespace=namespace,
    )
    delete(cluster, namespace)
    wait_deployment(cluster, namespace, "topic", replicas=1)  # though it was suspended
    wait_condition(cluster, namespace, "topic", "Ready", "False", "Ending")
    options = (f"--namespace={namespace}", "--ending-deadline=3s")
    with start_controller(cluster, *options, name="impatient") as impatient:
        wait_gone(cluster, namespace)
        said = wait_until("it is said", lambda: remains(cluster, namespace), 10)
        assert (
            f"the subscription of {smn.urn} to http://127.0.0.1:" in said[0]
            and "remains outside the cluster" in said[0]
        )
        assert "remains outside the cluster" in impatient.output


def test_the_last_job_leaves_triggers_alone_while_there_is_a_controller(cluster, namespace, smn):
    t, _ = subscribed(cluster, smn, namespace)
    cluster.apply(t, namespace=namespace)
    wait_deployment(cluster, namespace, "topic")
    assert finalizers(cluster, namespace) == ["sluice.dev/external-resources"]
    strip = [SLUICE, "controller", "--strip-finalizers", f"--namespace={namespace}", "--log-level=info"]
    kept = cluster.run(*strip, f"--unless-deployment={namespace}/topic-sluice")
    assert (
        "its Triggers are left alone" in kept.stdout + kept.stderr
        and "remains outside" not in kept.stdout + kept.stderr
    )
    assert finalizers(cluster, namespace) == ["sluice.dev/external-resources"]
    done = cluster.run(*strip, f"--unless-deployment={namespace}/nobody")
    assert (
        f"Trigger {namespace}/topic: the subscription of {smn.urn}" in done.stdout
        and "remains outside the cluster" in done.stdout
    )
    cluster.kubectl(
        "patch",
        "triggers.sluice.dev/topic",
        "--type=merge",
        '-p={"metadata":{"finalizers":null}}',
        namespace=namespace,
    )


def test_a_deletion_in_the_foreground_does_not_take_the_worker_away(cluster, namespace, smn):
    t, _ = subscribed(cluster, smn, namespace)
    cluster.apply(t, namespace=namespace)
    wait_deployment(cluster, namespace, "topic")
    cluster.kubectl(
        "patch",
        "configmap",
        "topic-checkpoint",
        "--type=merge",
        '-p={"data":{"subscription":"{}"}}',
        namespace=namespace,
    )
    cluster.kubectl(
        "delete", "triggers.sluice.dev/topic", "--cascade=foreground", "--wait=false", namespace=namespace
    )
    wait_until(
        "it is held by ours alone",
        lambda: finalizers(cluster, namespace) == ["sluice.dev/external-resources"],
        15,
    )
    wait_condition(cluster, namespace, "topic", "Ready", "False", "Ending")
    # The garbage collector may have been faster with what the worker wrote down, and with the Deployment.
    first = wait_deployment(cluster, namespace, "topic")
    for what in ("configmap/topic-checkpoint", "deployment/topic-sluice"):
        cluster.kubectl("delete", what, "--cascade=orphan", "--wait=false", namespace=namespace)
        cluster.kubectl(
            "patch",
            what,
            "--type=json",
            '-p=[{"op":"remove","path":"/metadata/finalizers"}]',
            namespace=namespace,
            check=False,
        )
    again = wait_until(
        "another Deployment",
        lambda: (
            (d := wait_deployment(cluster, namespace, "topic"))["metadata"]["uid"] != first["metadata"]["uid"]
            and d
        ),
        15,
    )
    assert "--ending" in again["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "data" not in wait_until(
        "another checkpoint", lambda: cluster.get("configmap", "topic-checkpoint", namespace=namespace), 15
    )
    cluster.kubectl("label", "triggers.sluice.dev/topic", "a=b", namespace=namespace)  # looked at once more
    wait_quiet(cluster)
    assert finalizers(cluster, namespace) == ["sluice.dev/external-resources"]
    cluster.kubectl(
        "patch",
        "triggers.sluice.dev/topic",
        "--type=merge",
        '-p={"metadata":{"finalizers":null}}',
        namespace=namespace,
    )


def test_workers_share_the_leases_of_their_trigger(cluster, namespace, tmp_path):
    """Whether the cloud answers does not matter to them."""
    spec = trigger("shared", replicas=2)
    cloud = {"region": "cn-north-4", "credentials": {"type": "Environment"}}
    spec["spec"]["source"] = {"dis": {"streamName": "orders", "cloud": cloud}}
    cluster.apply(spec, namespace=namespace)
    wait_deployment(cluster, namespace, "shared", replicas=2)

    def holders():
        found = cluster.items("leases", namespace=namespace)
        assert [l["metadata"]["name"] for l in found] == ["shared-sluice-0", "shared-sluice-1"]
        return [l.get("spec", {}).get("holderIdentity") or None for l in found]

    def held_by(*pods):
        return lambda: sorted(map(str, holders())) == sorted(pods)

    assert holders() == [None, None]
    with Worker(cluster, namespace, "shared", "shared-a", tmp_path) as first:
        wait_until("the first holds both", held_by("shared-a", "shared-a"), 10)
        with Worker(cluster, namespace, "shared", "shared-b", tmp_path) as second:
            wait_until("each holds one", held_by("shared-a", "shared-b"), 30)
            started = time.monotonic()
            first.process.signal(signal.SIGTERM)
            wait_until("the other holds both", held_by("shared-b", "shared-b"), 10)
            assert time.monotonic() - started <= 3.5  # with kubectl's own time
            # What its parent says again is not what the worker wrote.
            cluster.kubectl(
                "annotate", "triggers.sluice.dev", "shared", "a=b", "--overwrite", namespace=namespace
            )
            with Worker(cluster, namespace, "shared", "shared-c", tmp_path):
                wait_until("each holds one", held_by("shared-b", "shared-c"), 30)
                second.process.kill()
                killed = time.monotonic()
                wait_until("what the killed one held", held_by("shared-c", "shared-c"), 40)
                assert 5 < time.monotonic() - killed <= 25
