"""A Kubernetes cluster for tests: one of its own (e2e/cluster), or the user's, when KUBECONFIG names it.

with Cluster() as cluster:
    cluster.load_image("build/image/sluice.oci.tar")
    cluster.apply(manifest)
    cluster.wait("deployment/function", "Available")
"""

import json
import os
import pathlib
import shutil

import yaml

from . import ROOT, TOOLS
from .process import Process, run, wait_until

SCRIPTS = ROOT / "e2e" / "cluster"
OWN_NODE_ADDRESS = "192.168.77.2"


class Cluster:
    """name: of a cluster that is kept running at the end; without one (and without $SLUICE_CLUSTER), a new cluster is made and removed."""

    def __init__(self, name=None, control_plane_only=False):
        self.external = os.environ.get("KUBECONFIG")
        self.keep = bool(name or os.environ.get("SLUICE_CLUSTER"))
        self.name = (
            None if self.external else name or os.environ.get("SLUICE_CLUSTER") or f"sluice-{os.getpid()}"
        )
        self.control_plane_only = control_plane_only
        self.env = {} if self.external else {"SLUICE_CLUSTER": self.name}
        if self.external:
            path = os.environ["PATH"]
            missing = [program for program in ("kubectl", "helm") if not shutil.which(program)]
            if missing:
                path = run([TOOLS / "node", *missing], timeout=1800).stdout.strip() + ":" + path
            self.env["PATH"] = path

    @property
    def netns(self):
        return self.name

    @property
    def node_address(self):
        """Where a program beside the cluster can be reached from its pods; None where that is not known."""
        return os.environ.get("SLUICE_NODE_ADDRESS") if self.external else OWN_NODE_ADDRESS

    @property
    def directory(self):
        return None if self.external else pathlib.Path(f"/tmp/sluice-cluster-{self.name}")

    @property
    def enter(self):
        """The beginning of a kubectl command for the cluster."""
        return [] if self.external else [str(SCRIPTS / "enter")]

    def __enter__(self):
        try:
            return self.up()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    def up(self):
        if not self.external:
            env = {**self.env, "CONTROL_PLANE_ONLY": "1" if self.control_plane_only else ""}
            run([SCRIPTS / "up"], env=env, timeout=3600)
        return self

    def close(self):
        if not self.external and not self.keep:
            run([SCRIPTS / "down"], env=self.env, timeout=120)

    def run(self, *command, check=True, timeout=120.0, input=None):
        return run([*self.enter, *command], check=check, timeout=timeout, input=input, env=self.env)

    def start(self, *command, **options):
        """A Process in the cluster's network, to be used in a with statement."""
        return Process([*self.enter, *command], env={**self.env, **options.pop("env", {})}, **options)

    def kubectl(self, *arguments, namespace=None, check=True, timeout=120.0, input=None):
        """Its standard output."""
        where = ["-n", namespace] if namespace else []
        return self.run("kubectl", *where, *arguments, check=check, timeout=timeout, input=input).stdout

    def helm(self, *arguments, check=True, timeout=180.0):
        return self.run("helm", *arguments, check=check, timeout=timeout)

    def get(self, *arguments, namespace=None):
        """kubectl get as an object; None when it does not exist."""
        text = self.kubectl("get", "--ignore-not-found", "-o", "json", *arguments, namespace=namespace)
        return json.loads(text) if text.strip() else None

    def items(self, *arguments, namespace=None):
        return (self.get(*arguments, namespace=namespace) or {}).get("items", [])

    def apply(self, *objects, namespace=None, check=True):
        """Applies manifests: dictionaries, or YAML text. With check=False, returns what kubectl said."""
        text = "\n---\n".join(o if isinstance(o, str) else yaml.safe_dump(o) for o in objects)
        where = ["-n", namespace] if namespace else []
        done = self.run(
            "kubectl",
            *where,
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
            input=text,
            check=check,
        )
        return done.stdout + done.stderr

    def delete(self, *arguments, namespace=None, timeout=60):
        return self.kubectl(
            "delete",
            "--ignore-not-found",
            f"--timeout={timeout}s",
            *arguments,
            namespace=namespace,
            timeout=timeout + 10,
        )

    def wait(self, what, condition, namespace=None, timeout=60):
        """Until KIND/NAME exists and its condition is True. (kubectl wait fails at once while the conditions of a definition are null.)"""

        def holds():
            conditions = ((self.get(what, namespace=namespace) or {}).get("status") or {}).get(
                "conditions"
            ) or []
            return any((c["type"], c["status"]) == (condition, "True") for c in conditions)

        wait_until(
            f"{what} is {condition}",
            holds,
            timeout,
            poll=0.2,
            explain=lambda: self.kubectl("describe", what, namespace=namespace, check=False),
        )

    def logs(self, what, namespace=None, *arguments):
        return self.kubectl("logs", "--tail=-1", *arguments, what, namespace=namespace, timeout=300)

    def load_image(self, archive):
        """Gives the node an image; a user's cluster must be able to pull it."""
        if not self.external:
            run([SCRIPTS / "load", archive], env=self.env, timeout=300)

    def node_processes(self, pod_uid):
        """The process ids of a pod's containers, without the one that holds its namespaces. Only where the node is this machine."""
        found = []
        for status in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (
                    f"pod{pod_uid}" in (status / "cgroup").read_text()
                    and (status / "comm").read_text().strip() != "pause"
                ):
                    found.append(int(status.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return sorted(found)

    def audit_position(self):
        """The current position in the audit log, for audit()."""
        return (self.directory / "audit.log").stat().st_size

    def audit(self, since=0, verbs=("create", "update", "patch", "delete", "deletecollection"), user=""):
        """The API server's audit events after a position: by default the writes, of users whose name starts with a prefix."""
        events = []
        with open(self.directory / "audit.log", "rb") as log:
            log.seek(since)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                event = json.loads(line)
                if event["verb"] in verbs and event["user"].get("username", "").startswith(user):
                    events.append(event)
        return events


def audit_line(event):
    """An audit event as a line for people."""
    ref = event.get("objectRef", {})
    resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
    code = event.get("responseStatus", {}).get("code")
    return f"{event['stageTimestamp']} {event['user']['username']} {event['verb']} {resource} {ref.get('namespace', '')}/{ref.get('name', '')} {code}"
