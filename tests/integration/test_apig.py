"""The API gateway: requests of real clients, a function of the test's own, signatures by the official SDK."""

import base64
import contextlib
import datetime
import http.client
import json
import pathlib
import re
import select
import signal
import socket
import struct
import threading
import time

import pytest
from harness import pki, shapes
from harness.iam import Iam
from harness.ports import free_port
from harness.process import Later, wait_until
from harness.shapes import strict
from harness.sink import Sink
from harness.sluice import SLUICE, Sluice, trigger
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer


def answer(status=200, headers=None, body="", base64_=False):
    return (
        200,
        {"Content-Type": "application/json"},
        json.dumps(
            {"statusCode": status, "headers": headers or {}, "body": body, "isBase64Encoded": base64_}
        ).encode(),
    )


@pytest.fixture
def sink():
    with Sink(lambda request: answer(body="hello")) as s:
        yield s


class Gateway:
    def __init__(self, runner, sink, triggers, options=(), name="run"):
        self.run = runner.start(
            *triggers,
            name=name,
            options=["--listen=127.0.0.1:0", *options],
        )
        self.port = self.run.port

    def call(self, method, path, body=None, headers=None, timeout=20):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            r = connection.getresponse()
            return r.status, dict(r.getheaders()), r.read()
        finally:
            connection.close()


def api(path, sink, name="api", delivery=None, **source):
    return trigger(name, {"apig": {"path": path, **source}}, sink.uri, delivery)


def served_by_worker(trigger, folder):
    """`sluice worker`, without a cluster."""
    path = folder / "trigger.json"
    path.write_text(json.dumps(trigger))
    options = (f"--trigger={path}", f"--checkpoint={folder / 'state'}", "--listen=127.0.0.1:0")
    return Sluice("worker", *options, directory=folder / "output")


@pytest.fixture
def gateway(runner, sink):
    return lambda *triggers, **how: Gateway(runner, sink, triggers, **how)


def code(reply):
    status, headers, body = reply
    error = json.loads(body)
    assert (
        set(error) == {"error_code", "error_msg", "request_id"}
        and headers["X-Request-Id"] == error["request_id"]
        and len(error["request_id"]) == 32
    )
    return status, error["error_code"]


def test_the_classic_event_and_the_answer(gateway, sink):
    g = gateway(api("/orders/{id}/{rest+}", sink, stage="test", apiID="api-1"))
    sink.answer = lambda request: answer(
        201, {"X-Made": "yes", "Set-Cookie": ["a=1", "b=2"], "Content-Type": "text/html"}, "<p>\u00fc"
    )
    status, headers, body = g.call(
        "POST",
        "/orders/a%20b/x/y?name=me&n=1&n=2&empty=&e%26=%3D",
        b"text \xc3\xbc",
        {"X-One": "1", "Accept": "a"},
    )
    assert (status, body.decode(), headers["X-Made"], headers["Content-Type"]) == (
        201,
        "<p>\u00fc",
        "yes",
        "text/html",
    )
    (request,) = sink.taken()
    event = request.json
    assert list(event) == [
        "httpMethod",
        "path",
        "pathParameters",
        "queryStringParameters",
        "headers",
        "body",
        "isBase64Encoded",
        "requestContext",
    ]
    assert (event["httpMethod"], event["path"], event["body"], event["isBase64Encoded"]) == (
        "POST",
        "/orders/a%20b/x/y",
        "text \u00fc",
        False,
    )
    assert event["pathParameters"] == {"id": "a b", "rest": "x/y"}
    assert event["queryStringParameters"] == {"name": "me", "n": ["1", "2"], "empty": "", "e&": "="}
    assert event["headers"]["X-One"] == "1" and event["headers"]["Host"] == f"127.0.0.1:{g.port}"
    assert event["requestContext"] == {
        "stage": "test",
        "requestId": headers["X-Request-Id"],
        "apiId": "api-1",
    }
    assert request.id == headers["X-Request-Id"]


def test_the_current_event_and_binary_both_ways(gateway, sink):
    t = api("/b", sink)
    t["spec"]["event"] = {"dialect": "Current"}
    g = gateway(t)
    sink.answer = lambda request: answer(200, {}, base64.b64encode(b"\x00\xff").decode(), True)
    assert g.call("PUT", "/b?n=1&n=2", b"\xff\x00", {"X-Upper": "1"})[2] == b"\x00\xff"
    event = sink.taken()[0].json
    assert event["body"] == base64.b64encode(b"\xff\x00").decode() and event["isBase64Encoded"] is True
    assert event["headers"]["x-upper"] == "1" and event["queryStringParameters"] == {"n": "1,2"}
    strict(event, shapes.APIG)


def test_routes(gateway, sink):
    sink.answer = lambda request: answer(body=request.header("X-CFF-Func-Name"))
    g = gateway(
        api("/a/{x}", sink, "named"),
        api("/a/b", sink, "literal"),
        api("/a", sink, "prefix", match="Prefix"),
        api("/m", sink, "get", methods=["GET"]),
        api("/m", sink, "any"),
        api("/p/{all+}", sink, "rest"),
    )
    for method, path, name in [
        ("GET", "/a/b", "literal"),
        ("GET", "/a/c", "named"),
        ("GET", "/a/c/d", "prefix"),
        ("GET", "/a", "prefix"),
        ("GET", "/m", "get"),
        ("POST", "/m", "any"),
        ("GET", "/p/1/2/3", "rest"),
    ]:
        assert g.call(method, path)[2].decode() == name, path
    for method, path in [
        ("GET", "/"),
        ("GET", "/b"),
        ("GET", "/p"),
        ("GET", "/p/"),
        ("GET", "/m/x"),
        ("GET", "/ab"),
    ]:
        assert code(g.call(method, path)) == (404, "APIG.0101"), path


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b"{}",
        b'{"statusCode": "200"}',
        b'{"statusCode": 99}',
        b'{"statusCode": 200, "body": {}}',
        b'{"statusCode": 200, "isBase64Encoded": "true"}',
        b'{"statusCode": 200, "body": "%", "isBase64Encoded": true}',
        b'{"statusCode": 200, "headers": []}',
        b'{"statusCode": 200, "headers": {"a b": "c"}}',
        b'{"statusCode": 200, "headers": {"a": "b\\r\\nc: d"}}',
        b'{"statusCode": 200, "headers": {"a": {}}}',
    ],
)
def test_malformed_answers_are_500(gateway, sink, body):
    g = gateway(api("/f", sink))
    sink.answer = lambda request: (200, {}, body)
    assert code(g.call("GET", "/f")) == (500, "APIG.0201")


def raw(g, text):
    """The whole answer to a request that ends the connection."""
    with socket.create_connection(("127.0.0.1", g.port), 20) as s:
        s.sendall(text.encode())
        return b"".join(iter(lambda: s.recv(65536), b"")).decode()


def test_who_was_refused_or_failed_stands_in_the_log_once(gateway, sink):
    g = gateway(api("/f", sink))
    sink.answer = lambda request: answer(200, {"X-Request-Id": "of-the-function"})
    assert (
        raw(g, "GET /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").lower().count("x-request-id:") == 1
    )
    ids = [g.call("GET", "/nowhere")[1]["X-Request-Id"]]
    sink.answer = lambda request: (500, {}, b"oops")
    ids.append(g.call("GET", "/f")[1]["X-Request-Id"])
    sink.answer = lambda request: answer(body="x" * (9 << 20))
    failed = g.call("GET", "/f")
    assert failed[0] == 500 and b"larger than 8 MiB" in failed[2]
    ids += [
        failed[1]["X-Request-Id"],
        re.search(r"X-Request-Id: (\w+)", raw(g, "GET /f HTTP/1.1\r\nNo Header\r\n\r\n")).group(1),
    ]
    for i in ids:
        g.run.wait_for_output(f"request={i}", 5)
        assert g.run.output.count(i) == 1
    for _ in range(200):
        g.call("GET", "/nowhere")
    assert g.run.output.count("does not exist") < 150


def test_what_has_no_content_says_what_a_get_would(gateway, sink):
    g = gateway(api("/f", sink))
    for method, said, length, content in [
        ("HEAD", answer(200, {"Content-Length": "5"}), "5", ""),
        ("HEAD", answer(200, {"content-length": 5}), "5", ""),
        ("HEAD", answer(200, {"CONTENT-LENGTH": ["5"]}), "5", ""),
        ("HEAD", answer(200), None, ""),
        ("HEAD", answer(200, {"Content-Length": "x"}), None, ""),
        ("HEAD", answer(200, {"Content-Length": "9"}, "hello"), "5", ""),
        ("HEAD", answer(204, {"Content-Length": "5"}), None, ""),
        ("GET", answer(304, {"Content-Length": "5", "ETag": "e"}), "5", ""),
        ("GET", answer(304), None, ""),
        ("GET", answer(200, {"Content-Length": "9"}, "hello"), "5", "hello"),
        ("GET", answer(205, {}, "hello"), "0", ""),
        ("HEAD", answer(205, {}, "hello"), "0", ""),
    ]:
        sink.answer = lambda request, said=said: said
        head, _, body = raw(g, f"{method} /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").partition(
            "\r\n\r\n"
        )
        lengths = re.findall(r"(?im)^content-length: (.*?)\r?$", head)
        assert (lengths, body) == ([length] if length else [], content), (method, said, head)


def test_no_spelling_of_a_path_passes_authentication_by(gateway, sink, secrets):
    guarded = {"type": "App", "codes": [{"secretRef": ref("code")}]}
    g = gateway(
        api("/admin/{p+}", sink, "admin", authentication=guarded),
        api("/{p+}", sink, "site"),
        api("/my%2dapi/caf%c3%a9", sink, "cafe"),
        options=[f"--secrets={secrets.parent}"],
    )
    sink.answer = lambda request: answer(body=request.header("X-CFF-Func-Name"))
    for path in (
        "/%61dmin/users",
        "/adm%69n/users",
        "/x/../admin/users",
        "/x/%2e%2E/admin/users",
        "/./admin/users",
        "/admin/./users",
        "/admin//users",
        "/%61dmin/%2e/users",
    ):
        assert g.call("GET", path)[0] == 401, path
        assert g.call("GET", path, headers={"X-Apig-AppCode": "app-code"})[2] == b"admin", path
    for path in (
        "//admin/users",
        "///%61dmin/users",
        "/x/..//admin/users",
        "/x//../admin/users",
        "//x/../admin//users",
    ):
        assert code(g.call("GET", path)) == (400, "APIG.0201"), path
    for path in ("/admin%2Fusers", "/site//a", "/%2561dmin/users"):
        assert g.call("GET", path)[2] == b"site", path
    for path in ("/my-api/caf%c3%a9", "/my%2Dapi/caf%C3%A9", "/my-api/c%61f%C3%A9", "/x/../my-api/caf%C3%A9"):
        assert g.call("GET", path)[2] == b"cafe", path


def test_the_gateways_own_errors(gateway, sink):
    release = threading.Event()
    g = gateway(
        api("/slow", sink, "slow", timeout="200ms"),
        api("/busy", sink, "busy", {"maxInFlight": 1}),
        api("/rate", sink, "rate", {"rateLimit": {"eventsPerSecond": 1, "burst": 2}}),
    )
    sink.answer = lambda request: (500, {}, b"oops")
    assert code(g.call("GET", "/slow")) == (502, "APIG.0202")
    sink.answer = lambda request: (release.wait(20), answer())[1]
    assert code(g.call("GET", "/slow")) == (504, "APIG.0203")
    came = threading.Event()
    sink.answer = lambda request: (came.set(), release.wait(20), answer())[2]
    first = threading.Thread(target=g.call, args=("GET", "/busy"))
    first.start()
    assert came.wait(10)
    busy = g.call("GET", "/busy")
    assert code(busy) == (429, "APIG.0308") and busy[1]["Retry-After"] == "1"
    release.set()
    first.join()
    sink.answer = lambda request: answer()
    assert [g.call("GET", "/rate")[0] for _ in range(3)] == [200, 200, 429]
    assert code(g.call("GET", "/rate"))[1] == "APIG.0308"


def test_who_could_not_connect_in_time_is_told_so(gateway):
    """The API's own time-out bounds connecting, too: the function never had the request, and is not said to be slow."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        g = gateway(trigger("api", {"apig": {"path": "/", "timeout": "1s"}}, uri))
        assert code(g.call("GET", "/")) == (502, "APIG.0202")
        g.run.wait_for_output("no TLS session within 875 ms", 5)


def test_a_caller_that_leaves_frees_its_place(gateway, sink):
    release = threading.Event()
    came = threading.Event()

    def wait(request):
        came.set()
        release.wait(20)
        return answer(body="late")

    sink.answer = wait
    g = gateway(api("/f", sink, delivery={"maxInFlight": 1}, timeout="20s"))
    with socket.create_connection(("127.0.0.1", g.port)) as s:
        s.sendall(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
        assert came.wait(10)
        s.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # leaves by a reset: an end of sending might be a half-close
    sink.answer = lambda request: answer(body="next")
    assert (
        wait_until("the place is free", lambda: (r := g.call("GET", "/f"))[0] == 200 and r, 10)[2] == b"next"
    )
    release.set()


def test_a_stop_loses_no_call(runner, gateway, sink):
    release = threading.Event()
    arrived = threading.Semaphore(0)
    sink.answer = lambda request: (arrived.release(), release.wait(20), answer(body="whole"))[2]
    g = gateway(api("/f", sink, timeout="20s"))
    results = []
    callers = [threading.Thread(target=lambda: results.append(g.call("GET", "/f"))) for _ in range(8)]
    for c in callers:
        c.start()
    for _ in range(8):
        assert arrived.acquire(timeout=10)
    g.run.signal(15)
    release.set()
    for c in callers:
        c.join()
    assert [r[0] for r in results] == [200] * 8 and {r[2] for r in results} == {b"whole"}
    assert g.run.wait(20) == 0


def test_an_api_that_changes_serves_on_and_finishes_what_it_has(runner, gateway, sink):
    """No caller waits for the slowest one; that one gets its answer of the API that it called."""
    begun, release = threading.Event(), threading.Event()

    def handle(request):
        event = json.loads(request.body)
        if event["path"] == "/f/slow":
            begun.set()
            release.wait(60)
        return answer(body=event["requestContext"]["stage"])

    def wait_for_stage(stage):
        def answers():
            status, _, body = g.call("GET", "/f/x")
            assert status == 200, body
            return body.decode() == stage

        wait_until(f"{stage} answers", answers)

    def slow():
        replies.append(g.call("GET", "/f/slow", timeout=60))

    def write(*triggers):
        (runner.directory / "run.yaml").write_text("---\n".join(json.dumps(t) + "\n" for t in triggers))

    one, two = (api("/f", sink, match="Prefix", stage=stage, timeout="60s") for stage in ("one", "two"))
    other = api("/other", sink, name="other")
    replies = []
    sink.answer = handle
    g = gateway(one)
    caller = threading.Thread(target=slow)
    caller.start()
    assert begun.wait(20)
    write(two)
    wait_for_stage("two")
    assert metric(g, "sluice_requests_in_flight") == 0, "one API is shown, the new one"
    write(one)
    wait_for_stage("one")
    write(other)
    wait_until("it is nobody's at once", lambda: code(g.call("GET", "/f/x")) == (404, "APIG.0101"))
    write(two, other)
    wait_until("it is there again", lambda: g.call("GET", "/f/x")[2] == b"two")
    assert replies == []
    release.set()
    caller.join(20)
    assert [(status, body) for status, _, body in replies] == [(200, b"one")]
    assert g.run.stop() == 0


def test_a_stop_ends_what_a_change_left_behind(runner, gateway, sink):
    """A call of the former API has its own time, but no more than --grace once the process ends."""
    begun, release = threading.Event(), threading.Event()

    def handle(request):
        event = json.loads(request.body)
        if event["path"] == "/f/slow":
            begun.set()
            release.wait(60)
        return answer(body=event["requestContext"]["stage"])

    replies = []
    sink.answer = handle
    one, two = (api("/f", sink, match="Prefix", stage=stage, timeout="60s") for stage in ("one", "two"))
    g = gateway(one, options=["--grace=1s"])
    caller = threading.Thread(target=lambda: replies.append(g.call("GET", "/f/slow", timeout=60)))
    caller.start()
    assert begun.wait(20)
    (runner.directory / "run.yaml").write_text(json.dumps(two))
    wait_until("the new one answers", lambda: g.call("GET", "/f/x")[2] == b"two")
    g.run.stop()
    caller.join(20)
    release.set()
    assert [code(r) for r in replies] == [(504, "APIG.0203")]


def test_a_killed_worker_ends_the_call_and_sends_it_never_again(gateway, sink):
    arrived, release = threading.Semaphore(0), threading.Event()
    sink.answer = lambda request: (arrived.release(), release.wait(20), answer())[2]
    g = gateway(api("/f", sink))
    caller = http.client.HTTPConnection("127.0.0.1", g.port, timeout=20)
    caller.request("POST", "/f", b"one")
    assert arrived.acquire(timeout=10)
    g.run.kill()
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        caller.getresponse()
    release.set()
    assert gateway(api("/f", sink), name="again").call("POST", "/f", b"two")[0] == 200
    assert [r.json["body"] for r in sink.all()] == ["one", "two"]


# ---- callers --------------------------------------------------------------------------------------------------------------------------


def signed(port, method, path, query=(), body=None, ak="AK1", sk="secret-1", headers=None, date=None):
    """What the official SDK would send."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    if date:
        headers["X-Sdk-Date"] = date.strftime("%Y%m%dT%H%M%SZ")
    request = SdkRequest(
        method=method,
        schema="http",
        host=f"127.0.0.1:{port}",
        resource_path=path,
        query_params=list(query),
        header_params=headers,
        body=body or "",
    )
    Signer(BasicCredentials(ak, sk)).sign(request)
    return request


def send(g, request, **changed):
    headers = {**request.header_params, **changed.get("headers", {})}
    return g.call(
        changed.get("method", request.method),
        changed.get("uri", request.uri),
        changed.get("body", request.body or None),
        headers,
    )


@pytest.fixture
def secrets(tmp_path):
    folder = tmp_path / "secrets" / "callers"
    folder.mkdir(parents=True)
    for name, value in (
        ("ak1", "AK1"),
        ("sk1", "secret-1"),
        ("ak2", "AK2"),
        ("sk2", "secret-2"),
        ("code", "app-code"),
        ("token", "a-token"),
    ):
        (folder / name).write_text(value + "\n")
    return folder


def ref(key):
    return {"name": "callers", "key": key}


KEYS = [{"accessKeySecretRef": ref(f"ak{n}"), "secretKeySecretRef": ref(f"sk{n}")} for n in (1, 2)]


@pytest.mark.parametrize("kind", ["App", "IAM"])
def test_signed_requests(gateway, sink, secrets, kind):
    g = gateway(
        api("/s/{x}", sink, authentication={"type": kind, "keys": KEYS}),
        options=[f"--secrets={secrets.parent}"],
    )
    refused = (401, "APIG.0303" if kind == "App" else "APIG.0301")
    assert code(g.call("GET", "/s/1")) == refused
    for request in (
        signed(g.port, "GET", "/s/1"),
        signed(g.port, "GET", "/s/a b", [("q", "a b/\u00fc"), ("n", 2), ("a", ""), ("n", 1)]),
        signed(g.port, "POST", "/s/1", body='{"a": "\u00fc"}'),
        signed(g.port, "POST", "/s/1", body="text", headers={"Content-Type": "text/plain"}),
        signed(g.port, "PUT", "/s/1", ak="AK2", sk="secret-2", headers={"X-Custom": "  v  w "}),
    ):
        request.uri = request.uri.replace(" ", "%20")
        reply = send(g, request)
        assert reply[0] == 200, (request.uri, reply)
    good = signed(g.port, "POST", "/s/1", [("a", "1")], body='{"a": 1}')
    assert send(g, good)[0] == 200
    now = datetime.datetime.now(datetime.timezone.utc)
    for what, reply in {
        "body": send(g, good, body='{"a": 2}'),
        "query": send(g, good, uri=good.uri.replace("a=1", "a=2")),
        "path": send(g, good, uri=good.uri.replace("/s/1", "/s/2")),
        "method": send(g, good, method="PUT"),
        "header": send(g, good, headers={"Content-Type": "application/json; x"}),
        "secret": send(g, signed(g.port, "GET", "/s/1", sk="secret-2")),
        "key": send(g, signed(g.port, "GET", "/s/1", ak="AK3")),
        "old": send(g, signed(g.port, "GET", "/s/1", date=now - datetime.timedelta(minutes=16))),
        "future": send(g, signed(g.port, "GET", "/s/1", date=now + datetime.timedelta(minutes=16))),
        "nothing": send(
            g,
            good,
            headers={
                "Authorization": "SDK-HMAC-SHA256 Access=AK1, SignedHeaders=host;x-sdk-date, Signature="
            },
        ),
        "unsigned date": send(
            g,
            good,
            headers={"Authorization": good.header_params["Authorization"].replace("x-sdk-date", "x-other")},
        ),
    }.items():
        assert code(reply) == refused, what
    before = len(sink.taken())
    (secrets / "sk1").write_text("rotated")
    wait_until(
        "the new secret is used",
        lambda: send(g, signed(g.port, "GET", "/s/1", sk="rotated"))[0] == 200,
        20,
        poll=0.5,
    )
    assert code(send(g, signed(g.port, "GET", "/s/1"))) == refused and len(sink.taken()) == before + 1


def test_app_codes_and_tokens(gateway, sink, secrets):
    g = gateway(
        api("/app", sink, "app", authentication={"type": "App", "codes": [{"secretRef": ref("code")}]}),
        api("/iam", sink, "iam", authentication={"type": "IAM", "tokens": [{"secretRef": ref("token")}]}),
        options=[f"--secrets={secrets.parent}"],
    )
    assert g.call("GET", "/app", headers={"X-Apig-AppCode": "app-code"})[0] == 200
    assert g.call("GET", "/iam", headers={"X-Auth-Token": "a-token"})[0] == 200
    for path, headers in (
        ("/app", {"X-Apig-AppCode": "other"}),
        ("/app", {"X-Auth-Token": "a-token"}),
        ("/app", {}),
        ("/iam", {"X-Auth-Token": "a-toke"}),
        ("/iam", {"X-Apig-AppCode": "app-code"}),
    ):
        assert g.call("GET", path, headers=headers)[0] == 401
    assert len(sink.all()) == 2


def test_what_is_removed_from_a_secret_lets_nobody_in(gateway, sink, secrets):
    code_of = {
        "type": "App",
        "keys": KEYS,
        "codes": [{"secretRef": ref("code")}, {"secretRef": ref("never")}],
    }
    g = gateway(
        api("/app", sink, "app", authentication=code_of),
        api("/iam", sink, "iam", authentication={"type": "IAM", "tokens": [{"secretRef": ref("token")}]}),
        options=[f"--secrets={secrets.parent}"],
    )

    def statuses():
        return [
            g.call("GET", "/app", headers={"X-Apig-AppCode": "app-code"})[0],
            send(g, signed(g.port, "GET", "/app"))[0],
            send(g, signed(g.port, "GET", "/app", ak="AK2", sk="secret-2"))[0],
            g.call("GET", "/iam", headers={"X-Auth-Token": "a-token"})[0],
        ]

    def reason(trigger):
        return g.run.status(trigger).get("sourceReason", "")

    assert (
        statuses() == [200, 200, 200, 200]
        and "Secret callers, key never, is missing or empty" in reason("app")
        and reason("iam") == ""
    )
    (secrets / "code").unlink()
    (secrets / "sk1").write_text("")
    wait_until("what was removed is refused", lambda: statuses() == [401, 401, 200, 200], 15, poll=0.5)
    assert "key code, is missing" in reason("app") and "key sk1, is missing" in reason("app")
    for headers in (
        {"X-Apig-AppCode": ""},
        {"Authorization": "SDK-HMAC-SHA256 Access=, SignedHeaders=host;x-sdk-date, Signature=" + 64 * "0"},
    ):
        assert g.call("GET", "/app", headers=headers)[0] == 401
    secrets.rename(secrets.parent / "gone")
    wait_until("no key of a removed Secret counts", lambda: statuses() == [401, 401, 401, 401], 15, poll=0.5)
    wait_until(
        "and the status says so without a request",
        lambda: "key token, is missing" in reason("iam"),
        15,
        poll=0.5,
    )
    (secrets.parent / "gone").rename(secrets)
    (secrets / "code").write_text("app-code")
    (secrets / "sk1").write_text("secret-1")
    wait_until("what is back counts again", lambda: statuses() == [200, 200, 200, 200], 15, poll=0.5)
    wait_until(
        "and nothing is missing", lambda: "code" not in reason("app") and reason("iam") == "", 15, poll=0.5
    )


# ---- authorizers ----------------------------------------------------------------------------------------------------------------------


def says(status, context=None, **other):
    """An authorizer's answer."""
    body = {"status": status, **({} if context is None else {"context": context})}
    return (
        200,
        {"Content-Type": "application/json"},
        json.dumps({"statusCode": 200, "body": json.dumps(body), **other}).encode(),
    )


@pytest.fixture
def authorizer():
    with Sink(lambda request: says("allow")) as s:
        yield s


def custom(authorizer, *identity, **options):
    if identity:
        options["identity"] = [{"name": i} if isinstance(i, str) else i for i in identity]
    return {
        "type": "Custom",
        "authorizer": {
            "uri": authorizer if isinstance(authorizer, str) else authorizer.uri + "check?a=b",
            **options,
        },
    }


def metric(g, name, trigger="api"):
    return g.run.metric(name, trigger=trigger)


def test_an_authorizer_allows_and_hands_over_its_context(gateway, sink, authorizer):
    current = api(
        "/current/{x}",
        sink,
        "current",
        authentication=custom(authorizer, userData="what the authorizer knows"),
    )
    current["spec"]["event"] = {"dialect": "Current"}
    g = gateway(
        api("/orders/{id}", sink, authentication=custom(authorizer, userData="u"), stage="test"), current
    )
    authorizer.answer = lambda request: says(
        "allow", {"user": "abc", "n": 7, "ok": True, "text": '\u00fc"\\'}, isBase64Encoded=False
    )
    assert g.call("POST", "/orders/7?a=1&a=2", b"the body", {"X-Token": "t"})[0] == 200
    context = {"user": "abc", "n": "7", "ok": "true", "text": '\u00fc"\\'}
    (asked,), (request,) = authorizer.taken(), sink.taken()
    event = asked.json
    assert (asked.method, asked.path, asked.header("Content-Type")) == (
        "POST",
        "/check?a=b",
        "application/json",
    )
    assert (event["httpMethod"], event["path"], event["pathParameters"], event["queryStringParameters"]) == (
        "POST",
        "/orders/7",
        {"id": "7"},
        {"a": ["1", "2"]},
    )
    assert (
        event["headers"]["X-Token"] == "t"
        and event["user_data"] == "u"
        and (event["body"], event["isBase64Encoded"]) == ("", False)
    )
    assert (
        event["requestContext"]["stage"] == "test"
        and event["requestContext"]["requestId"] == request.id
        and "authorizer" not in event["requestContext"]
    )
    assert (
        request.json["requestContext"]["authorizer"] == context
        and "user_data" not in request.json
        and request.json["body"] == "the body"
    )
    assert g.call("POST", "/current/7", b"the body")[0] == 200
    event, request = authorizer.taken()[1].json, sink.taken()[1].json
    assert strict(event, shapes.APIG)["user_data"] == "what the authorizer knows" and event["body"] == ""
    assert json.loads(strict(request, shapes.APIG)["user_data"]) == context


def test_an_authorizer_denies(gateway, sink, authorizer):
    g = gateway(api("/f", sink, authentication=custom(authorizer)))
    authorizer.answer = lambda request: says("deny", {"why": "so"})
    assert code(g.call("GET", "/f")) == (401, "APIG.0305") == code(g.call("GET", "/f"))
    assert (
        len(authorizer.taken()) == 2 and sink.all() == [] and metric(g, "sluice_callers_refused_total") == 2
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"allow",
        b"[]",
        b"{}",
        b'{"statusCode": 200}',
        b'{"statusCode": 200, "body": {"status": "allow"}}',
        b'{"statusCode": "200", "body": "{\\"status\\":\\"allow\\"}"}',
        b'{"statusCode": 500, "body": "{\\"status\\":\\"allow\\"}"}',
        b'{"statusCode": 200, "body": "{\\"status\\":\\"Allow\\"}"}',
        b'{"statusCode": 200, "body": "{\\"status\\":true}"}',
        b'{"statusCode": 200, "body": "{\\"status\\":\\"allow\\",\\"status\\":\\"deny\\"}"}',
        b'{"statusCode": 200, "body": "{\\"status\\":\\"allow\\",\\"context\\":[]}"}',
        b'{"statusCode": 200, "body": "{\\"status\\":\\"allow\\",\\"context\\":{\\"a\\":{}}}"}',
        b'{"statusCode": 200, "body": "{\\"status\\":\\"allow\\"}", "isBase64Encoded": true}',
        b'{"statusCode": 200, "body": "\\"allow\\""}',
        json.dumps(
            {"statusCode": 200, "body": json.dumps({"status": "allow", "context": {"a": "b" * 20000}})}
        ).encode(),
        json.dumps(
            {"statusCode": 200, "body": json.dumps({"status": "allow", "context": {"a": "b" * 2000000}})}
        ).encode(),
    ],
)
def test_a_malformed_answer_of_an_authorizer_lets_nobody_through(gateway, sink, authorizer, body):
    g = gateway(api("/f", sink, authentication=custom(authorizer, "X-Token", cacheTTL="1h")))
    authorizer.answer = lambda request: (200, {}, body)
    assert [code(g.call("GET", "/f", headers={"X-Token": "t"})) for _ in range(2)] == [(500, "APIG.0201")] * 2
    assert len(authorizer.all()) == 2 and sink.all() == []  # nothing of it was kept
    g.run.wait_for_output(r"level=warn .*msg=authorizer .*trigger=api .*reason=", 5)
    assert wait_until("the status says so", lambda: g.run.status()["sourceReason"]).startswith("authorizer: ")
    assert (metric(g, "sluice_authorizer_requests_total"), metric(g, "sluice_authorizer_failures_total")) == (
        2,
        2,
    )
    authorizer.answer = lambda request: says("allow")
    assert g.call("GET", "/f", headers={"X-Token": "t"})[0] == 200


def test_an_authorizer_that_fails_or_is_slow_or_gone_lets_nobody_through(gateway, sink, authorizer):
    release = threading.Event()
    nobody = f"http://127.0.0.1:{free_port()}/"
    g = gateway(
        api("/failing", sink, "failing", authentication=custom(authorizer)),
        api("/gone", sink, "gone", authentication=custom(nobody)),
        api("/slow", sink, "slow", authentication=custom(authorizer, timeout="1s"), timeout="20s"),
        api("/together", sink, "together", authentication=custom(authorizer, timeout="20s"), timeout="1s"),
    )
    authorizer.answer = lambda request: (503, {}, b"oops")
    assert code(g.call("GET", "/failing")) == (502, "APIG.0202") == code(g.call("GET", "/gone"))
    g.run.wait_for_output("answered 503: oops", 5)
    authorizer.answer = lambda request: (release.wait(20), says("allow"))[1]
    assert code(g.call("GET", "/slow")) == (504, "APIG.0203") == code(g.call("GET", "/together"))
    assert sink.all() == [] and metric(g, "sluice_authorizer_failures_total", "slow") == 1
    authorizer.answer = lambda request: says("allow")
    assert [g.call("GET", path)[0] for path in ("/failing", "/slow", "/together")] == [200] * 3
    release.set()


def test_what_an_authorizer_repeats_of_its_caller_is_not_told(gateway, sink, authorizer):
    g = gateway(api("/f", sink, authentication=custom(authorizer)))
    authorizer.answer = lambda request: (
        500,
        {},
        f"no {request.json['headers']['X-Token']} and {request.json['queryStringParameters']['key']}".encode(),
    )
    assert code(g.call("GET", "/f?key=parameter%2Dsecret", headers={"X-Token": "header-secret"})) == (
        502,
        "APIG.0202",
    )
    g.run.wait_for_output(r"answered 500: no \*\*\* and \*\*\*", 5)
    assert "-secret" not in g.run.out + g.run.err + g.run.ask("/status")[1]


def test_an_authorizers_answers_are_kept_for_a_while(gateway, sink, authorizer):
    query = {"name": "key", "location": "Query"}
    g = gateway(
        api("/f", sink, authentication=custom(authorizer, "X-Token", query, cacheTTL="1h")),
        api("/brief", sink, "brief", authentication=custom(authorizer, "X-Token", cacheTTL="300ms")),
    )
    authorizer.answer = lambda request: says(
        "deny" if request.json["headers"]["X-Token"] == "bad" else "allow",
        {"user": request.json["queryStringParameters"].get("key", "-")},
    )
    for token, key, status in [("good", "1", 200), ("good", "2", 200), ("bad", "1", 401), ("goo", "d1", 200)]:
        before = len(authorizer.all())
        for _ in range(3):
            assert (
                g.call(
                    "GET", f"/f?other={before}&key={key}", headers={"X-Token": token, "X-Other": str(before)}
                )[0]
                == status
            )
        assert len(authorizer.all()) == before + 1
    assert [r.json["requestContext"]["authorizer"]["user"] for r in sink.taken()] == ["1"] * 3 + ["2"] * 3 + [
        "d1"
    ] * 3
    before = len(authorizer.all())
    assert (
        g.call("GET", "/brief", headers={"X-Token": "good"})[0] == 200
        and g.call("GET", "/f?k%65y=%31", headers={"x-token": "good"})[0] == 200
    )
    assert len(authorizer.all()) == before + 1  # /f knows it: decoded it is the same
    wait_until(
        "the answer expires",
        lambda: (
            g.call("GET", "/brief", headers={"X-Token": "good"})[0] == 200
            and len(authorizer.all()) > before + 1
        ),
        10,
    )


def test_what_tells_who_calls_must_be_there_and_is_all_of_it(gateway, sink, authorizer):
    g = gateway(
        api(
            "/f",
            sink,
            authentication=custom(authorizer, "X-Token", {"name": "key", "location": "Query"}, cacheTTL="1h"),
        )
    )
    for path, headers in [
        ("/f", {}),
        ("/f?key=1", {}),
        ("/f", {"X-Token": "t"}),
        ("/f?key=", {"X-Token": "t"}),
        ("/f?key=1", {"X-Token": ""}),
        ("/f?Key=1", {"X-Token": "t"}),
    ]:
        assert code(g.call("GET", path, headers=headers)) == (401, "APIG.0305"), path
    assert authorizer.all() == [] and sink.all() == []
    assert g.call("GET", "/f?key=1", headers={"X-Token": "t"})[0] == 200
    authorizer.answer = lambda request: says("deny")
    for path, token in [
        ("/f?key=1&key=2", "t"),
        ("/f?key=1", "t, u"),
        ("/f?key=1", "T"),
    ]:  # another value beside a known one is someone else
        assert code(g.call("GET", path, headers={"X-Token": token})) == (401, "APIG.0305")
    with socket.create_connection(("127.0.0.1", g.port), timeout=20) as s:
        s.sendall(
            b"GET /f?key=1 HTTP/1.1\r\nHost: a\r\nX-Token: t\r\nX-Token: u\r\nConnection: close\r\n\r\n"
        )
        assert s.recv(100).split()[1] == b"401"
    assert len(authorizer.all()) == 5


def test_callers_who_are_the_same_share_one_question(gateway, sink, authorizer):
    release = threading.Event()
    g = gateway(api("/f", sink, authentication=custom(authorizer, "X-Token", cacheTTL="1h"), timeout="20s"))
    authorizer.answer = lambda request: (release.wait(20), says("allow"))[1]
    callers = [Later(g.call, "GET", "/f", headers={"X-Token": "ab"[i % 2]}) for i in range(10)]
    wait_until("all wait", lambda: metric(g, "sluice_requests_in_flight") == 10)
    release.set()
    assert (
        [c.get()[0] for c in callers] == [200] * 10 and len(authorizer.all()) == 2 and len(sink.taken()) == 10
    )
    assert metric(g, "sluice_requests_in_flight") == 0
    # A failure is shared, too, and forgotten.
    release.clear()
    authorizer.answer = lambda request: (release.wait(20), (500, {}, b""))[1]
    callers = [Later(g.call, "GET", "/f", headers={"X-Token": "c"}) for i in range(5)]
    wait_until("all wait", lambda: metric(g, "sluice_requests_in_flight") == 5)
    release.set()
    assert [code(c.get()) for c in callers] == [(502, "APIG.0202")] * 5 and len(authorizer.all()) == 3
    authorizer.answer = lambda request: says("allow")
    assert g.call("GET", "/f", headers={"X-Token": "c"})[0] == 200


def leave(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def test_a_caller_that_waits_for_the_authorizer_has_a_place_and_may_leave(gateway, sink, authorizer):
    release = threading.Event()
    g = gateway(
        api(
            "/f",
            sink,
            delivery={"maxInFlight": 2},
            authentication=custom(authorizer, "X-Token", cacheTTL="1h"),
            timeout="20s",
        )
    )
    authorizer.answer = lambda request: (release.wait(20), says("allow"))[1]
    leaves = socket.create_connection(("127.0.0.1", g.port))
    leaves.sendall(b"GET /f HTTP/1.1\r\nHost: a\r\nX-Token: t\r\n\r\n")
    wait_until("it waits", lambda: metric(g, "sluice_requests_in_flight") == 1)
    stays = Later(g.call, "GET", "/f", headers={"X-Token": "t"})
    wait_until("both wait", lambda: metric(g, "sluice_requests_in_flight") == 2)
    full = g.call("GET", "/f", headers={"X-Token": "u"})
    assert code(full) == (429, "APIG.0308") and full[1]["Retry-After"] == "1"
    leave(leaves)
    wait_until("one place is free", lambda: metric(g, "sluice_requests_in_flight") == 1)
    release.set()
    assert stays.get()[0] == 200  # the question was not its alone
    assert len(sink.taken()) == 1 and metric(g, "sluice_authorizer_requests_total") == 1
    # When all have left nobody is asked any more.
    release.clear()
    leaves = socket.create_connection(("127.0.0.1", g.port))
    leaves.sendall(b"GET /f HTTP/1.1\r\nHost: a\r\nX-Token: v\r\n\r\n")
    wait_until("it waits", lambda: metric(g, "sluice_authorizer_requests_total") == 2)
    leave(leaves)
    wait_until("its place is free", lambda: metric(g, "sluice_requests_in_flight") == 0)
    release.set()
    authorizer.answer = lambda request: says("deny")
    assert code(g.call("GET", "/f", headers={"X-Token": "v"})) == (
        401,
        "APIG.0305",
    )  # the answer that came too late was not kept
    assert len(sink.taken()) == 1 and metric(g, "sluice_authorizer_failures_total") == 0


def test_callers_who_are_not_known_yet_keep_out_nobody_who_is(gateway, sink, authorizer, iam):
    release = threading.Event()
    key = {"name": "t", "location": "Query"}
    g = gateway(
        api(
            "/custom",
            sink,
            "custom",
            {"maxInFlight": 1},
            authentication=custom(authorizer, key, cacheTTL="1h"),
            timeout="20s",
        ),
        api(
            "/iam", sink, "iam", {"maxInFlight": 1}, authentication=by_iam(iam, cacheTTL="1h"), timeout="20s"
        ),
    )
    known = iam.token(project="p1")
    assert (
        g.call("GET", "/custom?t=known")[0] == 200
        and g.call("GET", "/iam", headers={"X-Auth-Token": known})[0] == 200
    )
    authorizer.answer = lambda request: (release.wait(20), says("deny"))[1]
    iam.answer = lambda: release.wait(20) and None
    strangers = [
        Later(g.call, "GET", "/custom?t=stranger"),
        Later(g.call, "GET", "/iam", headers={"X-Auth-Token": "stranger"}),
    ]
    wait_until(
        "they wait",
        lambda: (
            metric(g, "sluice_requests_in_flight", "custom")
            == metric(g, "sluice_requests_in_flight", "iam")
            == 1
        ),
    )
    assert code(g.call("GET", "/custom?t=other"))[0] == 429
    for _ in range(5):
        assert (
            g.call("GET", "/custom?t=known")[0] == 200
            and g.call("GET", "/iam", headers={"X-Auth-Token": known})[0] == 200
        )
    release.set()
    assert [s.get()[0] for s in strangers] == [401, 401]


def test_a_stop_waits_for_the_authorizer(gateway, sink, authorizer):
    release, came = threading.Event(), threading.Event()
    g = gateway(api("/f", sink, authentication=custom(authorizer), timeout="20s"))
    authorizer.answer = lambda request: (came.set(), release.wait(20), says("allow"))[2]
    waits = Later(g.call, "GET", "/f")
    assert came.wait(10)
    g.run.signal(15)
    wait_until("it stops", lambda: "draining" in g.run.ask("/readyz")[1])
    release.set()
    assert waits.get()[0] == 200 and g.run.wait(20) == 0 and len(sink.taken()) == 1


def test_an_authorizer_over_tls(gateway, sink, tmp_path):
    import ssl

    folder = tmp_path / "secrets" / "ca"
    folder.mkdir(parents=True)
    for name in ("server", "other"):
        pki.self_signed(folder, name, "a", "-addext", "subjectAltName=IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    with Sink(lambda request: says("allow"), tls=context) as authorizer:
        uri = f"https://127.0.0.1:{authorizer.port}/"
        ca = lambda name: {"name": "ca", "key": f"{name}.pem"}  # noqa: E731
        g = gateway(
            api("/good", sink, "good", authentication=custom(uri, caSecretRef=ca("server"))),
            api("/bad", sink, "bad", authentication=custom(uri, caSecretRef=ca("other"))),
            api("/system", sink, "system", authentication=custom(uri)),
            api(
                "/delivery",
                sink,
                "delivery",
                delivery={"tls": {"caSecretRef": ca("server")}},
                authentication=custom(uri),
            ),
            options=[f"--secrets={tmp_path / 'secrets'}"],
        )
        assert [g.call("GET", path)[0] for path in ("/good", "/delivery")] == [200, 200]
        assert [code(g.call("GET", path)) for path in ("/bad", "/system")] == [(502, "APIG.0202")] * 2
        assert len(authorizer.all()) == 2


# ---- IAM ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def iam():
    with Iam() as i:
        yield i


def by_iam(iam, **options):
    return {
        "type": "IAM",
        "iam": {
            "endpoint": iam.endpoint,
            **({} if "domains" in options else {"projects": ["p1"]}),
            **options,
        },
    }


def test_the_emulator_of_iam_as_the_official_client_sees_it(iam):
    from huaweicloudsdkcore.auth.credentials import GlobalCredentials
    from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
    from huaweicloudsdkiam.v3 import IamClient, KeystoneValidateTokenRequest

    def client(secret):
        return (
            IamClient.new_builder()
            .with_credentials(GlobalCredentials(Iam.ACCESS, secret, "d1"))
            .with_endpoint(iam.endpoint)
            .build()
        )

    token = iam.token(project="p1", user="me")
    answer = client(Iam.SECRET).keystone_validate_token(
        KeystoneValidateTokenRequest(x_subject_token=token, nocatalog="true")
    )
    assert (
        answer.x_subject_token,
        answer.token.user.id,
        answer.token.project.id,
        answer.token.project.domain.id,
        answer.token.catalog,
    ) == (token, "me", "p1", "d1", None)
    assert answer.token.expires_at > answer.token.issued_at
    whole = client(Iam.SECRET).keystone_validate_token(
        KeystoneValidateTokenRequest(x_subject_token=iam.token(domain="d2"))
    )
    assert whole.token.catalog and whole.token.domain.id == "d2" and whole.token.project is None
    for secret, subject, status in [
        (Iam.SECRET, "unknown", 404),
        (Iam.SECRET, iam.token(lifetime=-1), 404),
        ("wrong", token, 401),
    ]:
        with pytest.raises(ClientRequestException) as e:
            client(secret).keystone_validate_token(KeystoneValidateTokenRequest(x_subject_token=subject))
        assert e.value.status_code == status


def test_tokens_that_iam_knows(gateway, sink, iam):
    current = api("/current", sink, "current", authentication=by_iam(iam))
    current["spec"]["event"] = {"dialect": "Current"}
    g = gateway(
        api("/f", sink, authentication=by_iam(iam)),
        api("/domain", sink, "domain", authentication=by_iam(iam, domains=["d1", "d9"])),
        current,
    )

    def call(token, path="/f"):
        return g.call("GET", path, headers={"X-Auth-Token": token})

    token = iam.token(project="p1", user="me")
    assert [call(token)[0] for _ in range(3)] == [200] * 3 and len(iam.asked) == 1
    path, headers = iam.asked[0]
    assert (
        path == "/v3/auth/tokens?nocatalog=true"
        and headers["X-Auth-Token"] == headers["X-Subject-Token"] == token
    )
    who = {
        "userId": "me",
        "userName": "name of me",
        "projectId": "p1",
        "projectName": "name of p1",
        "domainId": "d1",
        "domainName": "name of d1",
    }
    assert sink.taken()[0].json["requestContext"]["authorizer"] == who
    assert (
        call(token, "/current")[0] == 200
        and json.loads(strict(sink.taken()[-1].json, shapes.APIG)["user_data"]) == who
    )
    other, of_domain = iam.token(project="p2"), iam.token(domain="d9")
    refused = [
        ("unknown", "/f", 401, "APIG.0301"),
        (iam.token(project="p1", lifetime=-5), "/f", 401, "APIG.0301"),
        (other, "/f", 403, "APIG.0302"),
        (iam.token(domain="d1"), "/f", 403, "APIG.0302"),
        (iam.token(project="p1", domain="d2"), "/domain", 403, "APIG.0302"),
        (iam.token(domain="d2"), "/domain", 403, "APIG.0302"),
    ]
    count = len(sink.all())
    for token, path, status, error in refused:
        before = len(iam.asked)
        assert [code(call(token, path)) for _ in range(2)] == [(status, error)] * 2 and len(
            iam.asked
        ) == before + 1, (token, path)
    assert code(g.call("GET", "/f")) == (401, "APIG.0301") and len(sink.all()) == count
    assert call(other, "/domain")[0] == 200 == call(of_domain, "/domain")[0]
    assert sink.taken()[-1].json["requestContext"]["authorizer"] == {
        "userId": "u1",
        "userName": "name of u1",
        "domainId": "d9",
        "domainName": "name of d9",
    }


def test_a_token_is_accepted_until_it_expires_and_not_longer(gateway, sink, iam):
    g = gateway(
        api("/f", sink, authentication=by_iam(iam, cacheTTL="1h")),
        api("/brief", sink, "brief", authentication=by_iam(iam, cacheTTL="300ms")),
    )
    short, revoked = iam.token(project="p1", lifetime=3), iam.token(project="p1")

    def status(token, path="/f"):
        return g.call("GET", path, headers={"X-Auth-Token": token})[0]

    assert status(short) == 200 == status(revoked, "/brief") and len(iam.asked) == 2
    del iam.tokens[revoked]
    wait_until("the cached answer expires", lambda: status(revoked, "/brief") == 401, 10)
    wait_until("the token expires", lambda: status(short) == 401, 10)
    iam.tokens[short]["expires_at"] = "2020-01-01T00:00:00.000000Z"
    iam.answer = lambda: (200, "application/json", json.dumps({"token": iam.tokens[short]}).encode())
    assert code(g.call("GET", "/brief", headers={"X-Auth-Token": short})) == (
        401,
        "APIG.0307",
    )  # IAM's clock is behind


def test_iam_that_is_down_or_someone_else_lets_nobody_through(gateway, sink, iam, secrets):
    release = threading.Event()
    g = gateway(
        api(
            "/f",
            sink,
            authentication={**by_iam(iam, timeout="1s"), "tokens": [{"secretRef": ref("token")}]},
            timeout="20s",
        ),
        api(
            "/gone",
            sink,
            "gone",
            authentication={
                "type": "IAM",
                "iam": {"endpoint": f"http://127.0.0.1:{free_port()}", "projects": ["p1"]},
            },
        ),
        options=[f"--secrets={secrets.parent}", "--log-level=debug"],
    )
    token = iam.token(project="p1")

    def call(path="/f", token=token):
        return g.call("GET", path, headers={"X-Auth-Token": token})

    assert code(call("/gone")) == (502, "APIG.0202")
    whole = {"user": {"id": "u"}, "project": {"id": "p1"}, "expires_at": "2099-01-01T00:00:00.000000Z"}
    for other, error in [
        ((503, "application/json", b"{}"), (502, "APIG.0202")),
        ((404, "text/html", b"<html>"), (502, "APIG.0202")),
        ((200, "text/html", b"<html>"), (500, "APIG.0201")),
        ((200, "application/json", b"{}"), (500, "APIG.0201")),
        (
            (200, "application/json", json.dumps({"token": {**whole, "expires_at": "soon"}}).encode()),
            (500, "APIG.0201"),
        ),
        (
            (200, "application/json", json.dumps({"token": {**whole, "user": {}}}).encode()),
            (500, "APIG.0201"),
        ),
        ((403, "application/json", b"{}"), (502, "APIG.0202")),
    ]:
        iam.answer = lambda other=other: other
        assert code(call()) == error, other
    iam.answer = lambda: release.wait(20) and None
    assert code(call()) == (504, "APIG.0203")
    release.set()
    asked = len(iam.asked)
    assert call(token="a-token")[0] == 200 and len(iam.asked) == asked  # that of the Secret needs no IAM
    assert (
        call()[0] == 200
        and metric(g, "sluice_authorizer_failures_total") == 8
        and metric(g, "sluice_callers_refused_total") == 0
    )
    assert token not in g.run.output and "a-token" not in g.run.output


def test_requests_to_iam_are_signed(gateway, sink, iam, secrets):
    (secrets / "iam-ak").write_text(Iam.ACCESS)
    (secrets / "iam-sk").write_text("not yet")
    keys = {"accessKeySecretRef": ref("iam-ak"), "secretKeySecretRef": ref("iam-sk")}
    g = gateway(
        api("/f", sink, authentication=by_iam(iam, cacheTTL="0s", credentials={**keys, "domainID": "d7"})),
        api("/g", sink, "g", authentication=by_iam(iam, credentials=keys)),
        api("/self", sink, "self", authentication=by_iam(iam)),
        options=[f"--secrets={secrets.parent}"],
    )
    token = iam.token(project="p1", text="MII" + "x" * 9500)
    # That the gateway's own key is wrong is not the caller's fault, is told and counted, and not remembered.
    assert [code(g.call("GET", path, headers={"X-Auth-Token": token})) for path in ("/f", "/g")] == [
        (502, "APIG.0202")
    ] * 2
    g.run.wait_for_output("it refuses our own key", 5)
    assert metric(g, "sluice_authorizer_failures_total", "g") == 1
    (secrets / "iam-sk").write_text(Iam.SECRET)
    wait_until(
        "the changed key is used",
        lambda: g.call("GET", "/f", headers={"X-Auth-Token": token})[0] == 200,
        20,
        poll=0.5,
    )
    assert iam.asked[-1][1]["X-Domain-Id"] == "d7" and "X-Auth-Token" not in iam.asked[-1][1]
    assert g.call("GET", "/g", headers={"X-Auth-Token": token})[0] == 200
    before = len(iam.asked)
    assert (
        code(g.call("GET", "/self", headers={"X-Auth-Token": token})) == (401, "APIG.0301")
        and len(iam.asked) == before
    )  # too long to ask about itself
    assert token not in g.run.output


# ---- how fast callers go --------------------------------------------------------------------------------------------------------------


def limited(reply):
    assert code(reply) == (429, "APIG.0308")
    return int(reply[1]["Retry-After"])


def test_each_key_has_its_own_rate(gateway, sink, secrets):
    g = gateway(
        api(
            "/s",
            sink,
            authentication={"type": "App", "keys": KEYS, "codes": [{"secretRef": ref("code")}]},
            callerRateLimit={"requests": 2, "period": "1m"},
        ),
        api(
            "/burst",
            sink,
            "burst",
            authentication={"type": "IAM", "tokens": [{"secretRef": ref("token")}]},
            callerRateLimit={"requests": 60, "period": "1m", "burst": 1},
        ),
        options=[f"--secrets={secrets.parent}"],
    )
    for ak, sk in (("AK1", "secret-1"), ("AK2", "secret-2")):
        assert [send(g, signed(g.port, "GET", "/s", [("n", n)], ak=ak, sk=sk))[0] for n in range(2)] == [
            200,
            200,
        ]
        assert 25 <= limited(send(g, signed(g.port, "GET", "/s", [("n", 3)], ak=ak, sk=sk))) <= 30
    assert (
        code(send(g, signed(g.port, "GET", "/s", ak="AK1", sk="wrong")))[0] == 401
    )  # who is not known is not counted
    code_ = {"X-Apig-AppCode": "app-code"}
    assert [g.call("GET", "/s", headers=code_)[0] for _ in range(3)] == [200, 200, 429]
    assert metric(g, "sluice_callers_limited_total") == 3 and len(sink.taken()) == 6
    # What is asked for is true: after that time it may.
    token = {"X-Auth-Token": "a-token"}
    assert (
        g.call("GET", "/burst", headers=token)[0] == 200
        and limited(g.call("GET", "/burst", headers=token)) == 1
    )
    began = time.monotonic()
    wait_until("it may again", lambda: g.call("GET", "/burst", headers=token)[0] == 200, 10)
    assert time.monotonic() - began < 3


def test_each_address_has_its_own_rate_before_anyone_is_asked(gateway, sink, authorizer):
    limit = {"requests": 2, "period": "1h", "by": "Address"}
    g = gateway(
        api("/f", sink, authentication=custom(authorizer), callerRateLimit=limit),
        api("/open", sink, "open", callerRateLimit={"requests": 2, "period": "1h"}),
        options=["--trusted-proxy=127.0.0.0/8"],
    )

    def call(address, path="/f"):
        return g.call("GET", path, headers={"X-Forwarded-For": address} if address else {})

    for path in ("/f", "/open"):  # without authentication the address is all there is
        for address in (None, "203.0.113.7", "203.0.113.8", "198.51.100.1, 203.0.113.9", "2001:db8:1:2::1"):
            assert [call(address, path)[0] for _ in range(2)] == [200, 200], address
            assert 1790 <= limited(call(address, path)) <= 1800
        assert limited(call("198.51.100.2, 203.0.113.9", path)) and limited(
            call("2001:db8:1:2:ffff::7", path)
        )  # what the client itself wrote counts for nothing; a /64 is one
        assert call("2001:db8:1:3::1", path)[0] == 200
    assert len(authorizer.all()) == 11
    authorizer.answer = lambda request: says("deny")
    assert [code(call("203.0.113.20"))[0] for _ in range(3)] == [401, 401, 429] and len(
        authorizer.all()
    ) == 13  # guessing is limited as well


def test_addresses_are_not_believed_without_a_trusted_proxy(gateway, sink):
    g = gateway(api("/f", sink, callerRateLimit={"requests": 1, "period": "1h"}))
    assert g.call("GET", "/f", headers={"X-Forwarded-For": "203.0.113.7"})[0] == 200
    assert limited(g.call("GET", "/f", headers={"X-Forwarded-For": "203.0.113.8"}))


def test_callers_are_who_the_authorizer_or_iam_says(gateway, sink, authorizer, iam):
    limit = {"requests": 2, "period": "1h"}
    g = gateway(
        api(
            "/kept",
            sink,
            "kept",
            authentication=custom(authorizer, "X-Token", cacheTTL="1h"),
            callerRateLimit=limit,
        ),
        api("/asked", sink, "asked", authentication=custom(authorizer, "X-Token"), callerRateLimit=limit),
        api(
            "/named",
            sink,
            "named",
            authentication=custom(authorizer, "X-Token", principal="tenant"),
            callerRateLimit=limit,
        ),
        api("/iam", sink, "iam", authentication=by_iam(iam), callerRateLimit=limit),
    )
    users = {"t1": "me", "t2": "me", "t3": "you"}

    def answer(request):
        token = request.json["headers"]["X-Token"]
        return (
            says("deny")
            if token == "bad"
            else says("allow", {"user": users[token], "tenant": "all"} if token in users else {})
        )

    authorizer.answer = answer
    for path in ("/kept", "/asked"):
        statuses = [
            (t, g.call("GET", path, headers={"X-Token": t}))
            for t in ("bad", "t1", "t2", "t1", "t2", "t3", "t3", "t3", "x", "x", "x", "y")
        ]
        assert [(t, r[0]) for t, r in statuses] == [
            ("bad", 401),
            ("t1", 200),
            ("t2", 200),
            ("t1", 429),
            ("t2", 429),
            ("t3", 200),
            ("t3", 200),
            ("t3", 429),
            ("x", 200),
            ("x", 200),
            ("x", 429),
            ("y", 200),
        ], path
        assert 1790 <= limited(statuses[3][1]) <= 1800
    assert [g.call("GET", "/named", headers={"X-Token": t})[0] for t in ("t1", "t3", "t2")] == [200, 200, 429]
    mine, mine_too, yours = (
        iam.token(project="p1", user="me"),
        iam.token(project="p1", user="me"),
        iam.token(project="p1", user="you"),
    )
    assert [
        g.call("GET", "/iam", headers={"X-Auth-Token": t})[0] for t in (mine, mine_too, mine, mine_too, yours)
    ] == [200, 200, 429, 429, 200]


# ---- the listener ---------------------------------------------------------------------------------------------------------------------


def test_limits_and_malformed_requests_have_the_gateways_shape(gateway, sink):
    g = gateway(api("/f", sink))

    def raw(request):
        with socket.create_connection(("127.0.0.1", g.port), timeout=20) as s:
            try:
                s.sendall(request)
            except ConnectionError:
                pass
            data = b""
            while part := s.recv(65536):
                data += part
        head, _, body = data.partition(b"\r\n\r\n")
        error = json.loads(body)
        assert set(error) == {"error_code", "error_msg", "request_id"} and error["error_code"] == "APIG.0201"
        return int(head.split()[1])

    assert raw(b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 414
    assert raw(b"GET /f HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40000 + b"\r\n\r\n") == 494
    assert raw(b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 13000000\r\n\r\n") == 413
    assert (
        raw(b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n") == 400
    )
    assert raw(b"GET /f HTTP/1.1\r\n\r\n") == 400
    assert sink.all() == []
    assert g.call("GET", "/f")[0] == 200


def test_tls_with_client_certificates_and_trusted_proxies(runner, sink, tmp_path):
    import ssl

    pki.self_signed(tmp_path, "ca", "authority")
    for name in ("server", "client"):
        pki.signed(tmp_path, name, name, "subjectAltName=IP:127.0.0.1")
    t = api("/f", sink)
    t["spec"]["event"] = {"dialect": "Current"}
    options = [
        f"--tls-cert={tmp_path}/server.pem",
        f"--tls-key={tmp_path}/server.key",
        f"--tls-client-ca={tmp_path}/ca.pem",
        "--trusted-proxy=127.0.0.0/8",
    ]
    g = Gateway(runner, sink, [t], options)
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_call(g.port, context)
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    assert tls_call(g.port, context, {"X-Forwarded-For": "203.0.113.9, 10.0.0.1"}) == 200
    assert sink.taken()[0].json["requestContext"]["sourceIp"] == "10.0.0.1"


def tls_call(port, context, headers=None):
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    try:
        connection.request("GET", "/f", headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_preview_shows_the_event_of_a_request(tmp_path):
    import subprocess

    t = trigger("t", {"apig": {"path": "/orders/{id}"}}, "http://f/", event={"dialect": "Current"})
    (tmp_path / "t.json").write_text(json.dumps(t))
    document = {
        "method": "POST",
        "path": "/orders/7",
        "query": {"n": ["1", "2"], "q": "x"},
        "headers": {"X-One": "1"},
        "body": {"a": 1},
    }
    done = subprocess.run(
        [SLUICE, "preview", "-f", tmp_path / "t.json", "--record=-", "--body"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    event = strict(json.loads(done.stdout), shapes.APIG)
    assert (event["httpMethod"], event["pathParameters"], event["queryStringParameters"]) == (
        "POST",
        {"id": "7"},
        {"n": "1,2", "q": "x"},
    )
    assert base64.b64decode(event["body"]) == b'{"a":1}' and event["headers"] == {"x-one": "1"}


def test_large_bodies_are_bounded_in_memory(gateway, sink):
    """64 callers send 6 MB at once to a function that takes its time: 256 MiB of requests and events, and the rest is told 503."""
    uploads, size, base = 64, 6_000_000, 64 << 20
    g = gateway(api("/upload", sink, delivery={"maxInFlight": uploads}, timeout="60s"))
    release, results, came = threading.Event(), [], []
    sink.answer = lambda request: (came.append(1), release.wait(60), answer(body=str(len(request.body))))[2]
    body = b"x" * size

    def upload():
        try:
            status, headers, text = g.call("POST", "/upload", body, timeout=60)
            found = (status, int(text) if status == 200 else json.loads(text)["error_code"])
        except (ConnectionError, http.client.HTTPException):  # refused and closed while it was still sending
            found = (503, "closed")
        results.append(found)

    def peak():
        return (
            int(
                next(line for line in open(f"/proc/{g.run.pid}/status") if line.startswith("VmHWM")).split()[
                    1
                ]
            )
            << 10
        )

    callers = [threading.Thread(target=upload) for _ in range(uploads)]
    for c in callers:
        c.start()
    wait_until("each is refused or at the function", lambda: len(results) + len(came) >= uploads, 60)
    release.set()
    for c in callers:
        c.join()
    statuses = [status for status, _ in results]
    assert set(statuses) == {200, 503} and statuses.count(200) >= 8, statuses
    assert all(n > size for status, n in results if status == 200)
    assert peak() < (256 << 20) + base, f"{peak() >> 20} MiB"
    assert g.call("POST", "/upload", b"small")[0] == 200


class Flood:
    """A function that answers without end, as fast as it can: HEAD once, then the same again and again, until the caller leaves."""

    def __init__(self, head, again):
        self.head, self.again = head, again * (65536 // len(again) + 1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}/"

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                try:
                    peer.recv(65536)
                    peer.sendall(self.head)
                    while True:
                        peer.sendall(self.again)
                except OSError:
                    continue


@pytest.mark.parametrize(
    "head, again, status",
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 500),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + b"a" * 65536 + b"\r\n",
            500,
        ),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 502),
        (b"HTTP/1.1 200 ", b"OK", 502),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", b";name=value", 502),
    ],
)
def test_a_function_that_answers_without_end_takes_its_turn(gateway, sink, head, again, status):
    with Flood(head, again) as flood:
        g = gateway(api("/flood", flood, name="flood", timeout="3s"), api("/good", sink, name="good"))
        g.call("GET", "/good")
        began, longest = time.monotonic(), 0
        caller = Later(g.call, "GET", "/flood")
        while time.monotonic() - began < 2.5:
            before = time.monotonic()
            assert g.call("GET", "/good")[0] == 200
            longest = max(longest, time.monotonic() - before)
        assert longest < 1, "the other API waits"
        assert caller.get()[0] == status and time.monotonic() - began < 6


def test_a_worker_that_ends_serves_those_who_have_not_heard_of_it(sink, tmp_path):
    """A node may still send new connections long after the pod was told to end: as long as they come, they are answered."""
    sink.answer = lambda request: answer(body="hello")

    def call(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/orders")
        r = connection.getresponse()
        assert (r.status, r.read()) == (200, b"hello")

    with served_by_worker(api("/orders", sink), tmp_path) as worker:
        port = worker.port
        worker.signal(signal.SIGTERM)
        told = time.monotonic()
        while time.monotonic() < told + 11:  # a worker that nobody calls ends after 8 s
            call(port)
            time.sleep(0.2)
        last = time.monotonic()
        assert worker.wait(20) == 0
        assert 3 < time.monotonic() - last < 12


def test_who_is_refused_for_memory_may_try_again(gateway, sink):
    """The 503 of a body that was under way is the gateway's own, as that of a whole one."""
    g = gateway(api("/f", sink))
    head = b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (12 << 20)
    halves = []
    try:
        while len(halves) < 40:
            s = socket.create_connection(("127.0.0.1", g.port), timeout=20)
            halves.append(s)
            with contextlib.suppress(OSError):  # it may be refused while it sends
                s.sendall(head + b"a" * (11 << 20))
            readable = select.select(halves, [], [], 0)[0]
            if readable:
                break
        r = http.client.HTTPResponse(readable[0])
        r.begin()
        assert code((r.status, dict(r.getheaders()), r.read())) == (503, "APIG.0202")
        assert r.getheader("Retry-After") == "1"
    finally:
        for s in halves:
            s.close()


# ---- the end --------------------------------------------------------------------------------------------------------------------------

LARGE = 7 << 20


def listens(port):
    """Without connecting, which a worker that ends would take for a caller that has not heard of it."""
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@pytest.fixture(params=["run", "worker"])
def ending(request, gateway, sink, tmp_path):
    """A process with one API: its port, and the process. Both roles end in the same way."""
    one = api("/f", sink)
    if request.param == "run":
        g = gateway(one)
        yield g.port, g.run
        return
    with served_by_worker(one, tmp_path) as worker:
        yield worker.port, worker


def slow_reader(port):
    """Its answer has begun to arrive, and most of it has no room yet but in the process."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    s.settimeout(20)
    s.connect(("127.0.0.1", port))
    s.sendall(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n")
    return s, s.recv(4096)


def test_a_slow_reader_has_its_whole_answer_before_the_end(ending, sink):
    port, process = ending
    sink.answer = lambda request: answer(body="x" * LARGE)
    s, got = slow_reader(port)
    with s:
        process.signal(signal.SIGTERM)
        wait_until("it listens no more", lambda: not listens(port), 20)
        head, body = got.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 200 ")
        n = len(body)
        while n < LARGE and (more := s.recv(65536)):
            n += len(more)
    assert n == LARGE
    assert process.wait(10) == 0


def test_a_body_under_way_at_the_end_is_told_so(ending):
    port, process = ending
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
        process.signal(signal.SIGTERM)
        wait_until("it listens no more", lambda: not listens(port), 20)
        s.sendall(b"67890")
        r = http.client.HTTPResponse(s)
        r.begin()
        assert code((r.status, dict(r.getheaders()), r.read())) == (503, "APIG.0202")
        assert r.getheader("Connection") == "close" and r.getheader("Retry-After")
    assert process.wait(10) == 0


def test_kept_connections_do_not_put_off_the_end(gateway, sink):
    g = gateway(api("/f", sink))
    kept = http.client.HTTPConnection("127.0.0.1", g.port, timeout=20)
    kept.request("GET", "/f")
    assert kept.getresponse().read() == b"hello"
    with socket.create_connection(("127.0.0.1", g.port)):  # nor one that has said nothing yet
        g.run.signal(signal.SIGTERM)
        began = time.monotonic()
        assert g.run.wait(20) == 0 and time.monotonic() - began < 10
    kept.close()


def test_who_does_not_read_puts_off_the_end_for_the_grace_alone(gateway, sink):
    sink.answer = lambda request: answer(body="x" * LARGE)
    g = gateway(api("/f", sink), options=["--grace=1s"])
    s, _ = slow_reader(g.port)
    with s:
        g.run.signal(signal.SIGTERM)
        assert g.run.wait(10) == 0
    assert "are given up" in g.run.output


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(ending, sink, number, code):
    port, process = ending
    arrived, release = threading.Event(), threading.Event()
    sink.answer = lambda request: (arrived.set(), release.wait(20), answer())[2]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n")
        assert arrived.wait(20)
        process.signal(signal.SIGTERM)
        process.wait_for_output("stopping")
        process.signal(number)
        assert process.wait(5) == code
    release.set()
