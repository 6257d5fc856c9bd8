"""How callers reach an API in a cluster: an Ingress, TLS of the worker's listener."""

import json

import pytest
from harness.process import run, wait_until
from helpers import Function, children, get_trigger, names_of, trigger, wait_condition, worker_processes


@pytest.fixture
def function(cluster, namespace, image):
    return Function(
        cluster,
        namespace,
        image,
        options=[
            f"--answer={json.dumps({'statusCode': 200, 'headers': {}, 'body': 'hello', 'isBase64Encoded': False})}"
        ],
    )


def wait_url(cluster, namespace, url):
    wait_until(
        f"its address is {url}",
        lambda: get_trigger(cluster, namespace, "api")["status"]["address"]["url"] == url,
        30,
        explain=lambda: get_trigger(cluster, namespace, "api")["status"],
    )


def test_an_ingress_in_front_of_an_api(cluster, namespace, function):
    def api(**more):
        cluster.apply(trigger("api", {"apig": {"path": "/orders/{id}", **more}}), namespace=namespace)

    api(
        expose={
            "host": "api.example.com",
            "ingressClassName": "some",
            "tlsSecretName": "outside",
            "annotations": {"example.com/limit": "5"},
        }
    )
    wait_condition(cluster, namespace, "api", timeout=60)
    wait_url(cluster, namespace, "https://api.example.com/orders/{id}")
    ingress = cluster.get("ingress", "api-sluice", namespace=namespace)
    backend = {"service": {"name": "api-sluice", "port": {"name": "http"}}}
    assert ingress["spec"] == {
        "ingressClassName": "some",
        "tls": [{"hosts": ["api.example.com"], "secretName": "outside"}],
        "rules": [
            {
                "host": "api.example.com",
                "http": {"paths": [{"path": "/orders", "pathType": "Prefix", "backend": backend}]},
            }
        ],
    }
    assert ingress["metadata"]["annotations"] == {"example.com/limit": "5"}
    api()
    wait_url(cluster, namespace, f"http://api-sluice.{namespace}.svc/orders/{{id}}")
    wait_until("no Ingress", lambda: not cluster.get("ingress", "api-sluice", namespace=namespace), 20)
    api(expose={"host": "api.example.com"})
    wait_url(cluster, namespace, "http://api.example.com/orders/{id}")
    wait_until("the Ingress is back", lambda: cluster.get("ingress", "api-sluice", namespace=namespace), 20)
    cluster.delete("triggers.sluice.dev/api", namespace=namespace)
    wait_until(
        "nothing is left",
        lambda: not children(cluster, namespace),
        60,
        explain=lambda: names_of(children(cluster, namespace)),
    )


def certificate(folder, name, host):
    """A certificate that vouches for itself, and its Secret."""
    run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-addext",
            f"subjectAltName=DNS:{host}",
            "-keyout",
            folder / f"{name}.key",
            "-out",
            folder / f"{name}.crt",
        ]
    )
    text = {"tls.crt": (folder / f"{name}.crt").read_text(), "tls.key": (folder / f"{name}.key").read_text()}
    return folder / f"{name}.crt", {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "served"},
        "stringData": text,
    }


def test_tls_of_the_listener(cluster, namespace, function, tmp_path):
    host = f"api-sluice.{namespace}.svc"
    first, first_secret = certificate(tmp_path, "first", host)
    second, second_secret = certificate(tmp_path, "second", host)
    cluster.apply(
        trigger("api", {"apig": {"path": "/orders", "listener": {"tls": {"secretName": "served"}}}}),
        namespace=namespace,
    )
    wait_condition(
        cluster, namespace, "api", "WorkersAvailable", "False", words='secret "served" not found', timeout=60
    )
    cluster.apply(first_secret, namespace=namespace)
    wait_condition(cluster, namespace, "api", timeout=120)
    wait_url(cluster, namespace, f"https://{host}/orders")
    service = cluster.get("service", "api-sluice", namespace=namespace)
    assert [(p["name"], p["port"]) for p in service["spec"]["ports"]] == [("https", 443)]

    def call(ca):
        return cluster.run(
            "curl",
            "-sS",
            "--max-time",
            "5",
            "--cacert",
            ca,
            "--resolve",
            f"{host}:443:{service['spec']['clusterIP']}",
            f"https://{host}/orders",
            check=False,
        ).stdout

    wait_until("an answer", lambda: call(first) == "hello", 20, poll=0.5)
    assert call(second) == ""
    before = worker_processes(cluster, namespace, "api")
    cluster.apply(second_secret, namespace=namespace)
    wait_until(
        "the second certificate", lambda: call(second) == "hello", 120, poll=2
    )  # the kubelet takes up to a minute
    assert before and worker_processes(cluster, namespace, "api") == before
    cluster.delete("triggers.sluice.dev/api", namespace=namespace)
    wait_until(
        "nothing is left",
        lambda: not children(cluster, namespace),
        60,
        explain=lambda: names_of(children(cluster, namespace)),
    )
