"""`sluice worker` and `sluice controller` beside an API server of the tests' own, without a node."""

import json

import yaml

from .sluice import SLUICE


def start_controller(cluster, *options, name="controller"):
    command = ["controller", "--worker-image=x", "--admin=127.0.0.1:0", "--log-level=info", *options]
    return cluster.start(SLUICE, *command, name=name)


class Worker:
    """`sluice worker` as a pod would run it: with its pod's name, the ConfigMap's file and the service account's rights."""

    def __init__(self, cluster, namespace, trigger, pod, directory, options=()):
        """The last option of a name counts: --admin may be among them."""
        self.pod = pod
        labels = {
            "app.kubernetes.io/managed-by": "sluice",
            "app.kubernetes.io/component": "worker",
            "app.kubernetes.io/instance": trigger,
        }
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod, "labels": labels},
                "spec": {
                    "serviceAccountName": f"{trigger}-sluice",
                    "automountServiceAccountToken": False,
                    "containers": [{"name": "worker", "image": "x"}],
                },
            },
            namespace=namespace,
        )
        account = yaml.safe_load((cluster.directory / "kubeconfig").read_text())
        account["users"][0]["user"] = {
            "token": cluster.kubectl("create", "token", f"{trigger}-sluice", namespace=namespace).strip()
        }
        kubeconfig, file = directory / f"{pod}.kubeconfig", directory / f"{pod}.json"
        kubeconfig.write_text(json.dumps(account))
        file.write_text(
            cluster.get("configmap", f"{trigger}-sluice", namespace=namespace)["data"]["trigger.json"]
        )
        command = [
            SLUICE,
            "worker",
            f"--trigger={file}",
            f"--kubeconfig={kubeconfig}",
            "--admin=127.0.0.1:0",
            "--log-level=info",
            *options,
        ]
        self.process = cluster.start(*command, name=pod, env={"POD_NAME": pod})

    def __enter__(self):
        self.process.__enter__()
        return self

    def __exit__(self, *how):
        self.process.__exit__(*how)
