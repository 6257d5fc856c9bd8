"""What the end-to-end tests share: the function, Triggers, and what can be asked of them."""

import base64
import collections
import os
import re
import shutil
import signal

import yaml
from harness.cluster import SCRIPTS
from harness.process import run, wait_until
from harness.sluice import FunctionClient

RESTRICTED_POD = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class Function(FunctionClient):
    """`sluice display` as a Deployment and a Service of a namespace."""

    patience = 60

    def __init__(self, cluster, namespace, image, name="function", options=()):
        self.cluster, self.namespace, self.name = cluster, namespace, name
        labels = {"app": name}
        container = {
            "name": "function",
            "image": image[0],
            "imagePullPolicy": "Never" if image[1] else "IfNotPresent",
            "args": ["display", "--listen=:8080", "--keep=20000", "--quiet", *options],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/-/healthy", "port": "http"}, "periodSeconds": 1},
            "securityContext": RESTRICTED_CONTAINER,
        }
        pod = {
            "metadata": {"labels": labels},
            "spec": {"securityContext": RESTRICTED_POD, "containers": [container]},
        }
        cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": labels}, "template": pod},
            },
            self.service(),
            namespace=namespace,
        )
        cluster.wait(f"deployment/{name}", "Available", namespace=namespace)

    def service(self):
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name},
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            },
        }

    def ask(self, path, data=None):
        pod = self.cluster.items("pods", "-l", f"app={self.name}", namespace=self.namespace)[0]
        return self.cluster.run(
            "curl",
            "-sS",
            "--fail",
            "--max-time",
            "20",
            *([] if data is None else ["--data-binary", "@-"]),
            f"http://{pod['status']['podIP']}:8080{path}",
            input=None if data is None else data.decode(),
        ).stdout

    def of(self, topic):
        """The accepted events of a topic."""
        return [e for e in self.events() if e["id"].startswith(f"{topic}/")]


class Caller:
    """A pod that sends requests, as any other program in the cluster does."""

    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace
        run([SCRIPTS / "load", "-p", "localhost/busybox:1", shutil.which("busybox")], env=cluster.env)
        container = {
            "name": "caller",
            "image": "localhost/busybox:1",
            "imagePullPolicy": "Never",
            "args": ["sleep", "3600"],
            "securityContext": RESTRICTED_CONTAINER,
        }
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "caller"},
                "spec": {
                    "securityContext": RESTRICTED_POD,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [container],
                },
            },
            namespace=namespace,
        )
        cluster.wait("pod/caller", "Ready", namespace=namespace)

    def post(self, url, body, headers, timeout=30):
        """The status; None without an answer. The rest of what was said stands in `said`."""
        options = [f"--header={k}: {v}" for k, v in headers.items()]
        where = [
            "-n",
            self.namespace,
            "exec",
            "-i",
            "caller",
            "--",
            "/bin/busybox",
            "timeout",
            str(timeout),
            "/bin/busybox",
        ]
        done = self.cluster.run(
            "kubectl",
            *where,
            "wget",
            "-q",
            "-S",
            "-O",
            "-",
            "--no-check-certificate",
            "--post-file=/dev/stdin",
            *options,
            url,
            check=False,
            input=body.decode(),
        )
        self.said = done.stdout + done.stderr
        status = re.search(r"HTTP/1\.1 (\d{3})", self.said)
        return int(status.group(1)) if status else None


def secret(name, **values):
    """KEY_EXT stands for the key KEY.EXT."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "data": {k.replace("_", "."): base64.b64encode(v.encode()).decode() for k, v in values.items()},
    }


def trigger(name, source, sink=None, **spec):
    sink = sink or {"ref": {"apiVersion": "v1", "kind": "Service", "name": "function"}}
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": name},
        "spec": {"source": source, "sink": sink, **spec},
    }


def kafka_source(kafka, topic, **more):
    return {
        "kafka": {
            "bootstrapServers": [kafka.bootstrap],
            "topics": [topic],
            "startPosition": "Earliest",
            **more,
        }
    }


def get_trigger(cluster, namespace, name):
    return cluster.get("triggers.sluice.dev", name, namespace=namespace)


def condition(cluster, namespace, name, kind="Ready"):
    found = get_trigger(cluster, namespace, name) or {}
    return next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def wait_condition(
    cluster, namespace, name, kind="Ready", status="True", reason=None, words=None, timeout=30
):
    """The condition, once it has the status, the reason and the words."""

    def holds():
        c = condition(cluster, namespace, name, kind)
        fine = (
            c.get("status") == status
            and (reason is None or c["reason"] == reason)
            and (words is None or words in c["message"])
        )
        return c if fine else None

    return wait_until(
        f"{name}: {kind} is {status} {reason or ''} {words or ''}",
        holds,
        timeout,
        poll=0.2,
        explain=lambda: yaml.safe_dump((get_trigger(cluster, namespace, name) or {}).get("status")),
    )


def wait_observed(cluster, namespace, name, timeout=10):
    """The Trigger, once its status is about its present generation."""

    def observed():
        found = get_trigger(cluster, namespace, name)
        return found if found["status"]["observedGeneration"] == found["metadata"]["generation"] else None

    return wait_until(f"{name}: it is observed", observed, timeout, poll=0.2)


def numbered(count, partitions=4):
    return [{"value": f"message {i}", "partition": i % partitions} for i in range(count)]


def offsets(events):
    found = collections.defaultdict(list)
    for e in events:
        _, partition, offset = e["id"].rsplit("/", 2)
        found[int(partition)].append(int(offset))
    return found


def assert_whole_and_ordered(events, count, partitions=4):
    """Nothing is missing, and the first deliveries of each partition are in order."""
    seen = offsets(events)
    assert sorted(seen) == list(range(partitions))
    for partition, arrived in seen.items():
        highest = -1
        for offset in arrived:
            assert offset <= highest + 1, f"partition {partition}: {offset} came after {highest}"
            highest = max(highest, offset)
        assert highest == count // partitions - 1, f"partition {partition} ends at {highest}"


def duplicates(events):
    return len(events) - len({e["id"] for e in events})


def worker_pods(cluster, namespace, name):
    return cluster.items(
        "pods",
        "-l",
        f"app.kubernetes.io/instance={name},app.kubernetes.io/component=worker",
        namespace=namespace,
    )


def children(cluster, namespace, selector="app.kubernetes.io/managed-by=sluice"):
    return cluster.items(
        "deployments,pods,configmaps,serviceaccounts,roles,rolebindings,services,ingresses",
        "-l",
        selector,
        namespace=namespace,
    )


CHILDREN = {
    "ConfigMap/{}-checkpoint",
    "ConfigMap/{}-sluice",
    "Deployment/{}-sluice",
    "Role/{}-sluice",
    "RoleBinding/{}-sluice",
    "ServiceAccount/{}-sluice",
}


def kill_worker(cluster, namespace, name):
    """kill -9 of the one worker: its pod."""
    (pod,) = worker_pods(cluster, namespace, name)
    processes = cluster.node_processes(pod["metadata"]["uid"])
    assert processes
    for process in processes:
        os.kill(process, signal.SIGKILL)
    return pod


def wait_restarted(cluster, namespace, name, pod):
    """Until the pod that was killed tells of its one restart. The kubelet reports it after the worker serves again."""

    def restarted():
        (same,) = worker_pods(cluster, namespace, name)
        return (same["metadata"]["uid"], restarts(same)) == (pod["metadata"]["uid"], 1)

    wait_until("the same pod, restarted once", restarted, 30, poll=0.5)


def restarts(pod):
    return pod["status"]["containerStatuses"][0]["restartCount"]


def worker_processes(cluster, namespace, name):
    """The processes of the one worker: who asks twice knows whether it was restarted, or another pod took its place."""
    (pod,) = worker_pods(cluster, namespace, name)
    return cluster.node_processes(pod["metadata"]["uid"])


def names_of(objects):
    return {f"{o['kind']}/{o['metadata']['name']}" for o in objects}


def events_of(cluster, namespace, name):
    """What the Kubernetes events of a Trigger say, in words."""
    return [
        e["message"]
        for e in cluster.items(
            "events",
            "--field-selector",
            f"involvedObject.kind=Trigger,involvedObject.name={name}",
            namespace=namespace,
        )
    ]
