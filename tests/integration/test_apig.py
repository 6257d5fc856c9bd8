"""The API gateway: requests of real clients, a function of the test's own, signatures by the official SDK."""
import base64
import datetime
import http.client
import json
import socket
import struct
import threading

import pytest
from conftest import trigger
from harness import shapes
from harness.process import wait_until
from harness.shapes import strict
from harness.sink import Sink
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer


def answer(status=200, headers=None, body="", base64_=False):
    return 200, {"Content-Type": "application/json"}, json.dumps({"statusCode": status, "headers": headers or {}, "body": body, "isBase64Encoded": base64_}).encode()


@pytest.fixture
def sink():
    with Sink(lambda request: answer(body="hello")) as s:
        yield s


class Gateway:
    def __init__(self, runner, sink, triggers, options=()):
        self.run = runner.start(*triggers, options=["--listen=127.0.0.1:0", *options])
        self.port = int(self.run.wait_for_output(r"listening on port (\d+)", 20).group(1))

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


@pytest.fixture
def gateway(runner, sink):
    return lambda *triggers, options=(): Gateway(runner, sink, triggers, options)


def code(reply):
    status, headers, body = reply
    error = json.loads(body)
    assert set(error) == {"error_code", "error_msg", "request_id"} and headers["X-Request-Id"] == error["request_id"] and len(error["request_id"]) == 32
    return status, error["error_code"]


def test_the_classic_event_and_the_answer(gateway, sink):
    g = gateway(api("/orders/{id}/{rest+}", sink, stage="test", apiId="api-1"))
    sink.answer = lambda request: answer(201, {"X-Made": "yes", "Set-Cookie": ["a=1", "b=2"], "Content-Type": "text/html"}, "<p>\u00fc")
    status, headers, body = g.call("POST", "/orders/a%20b/x/y?name=me&n=1&n=2&empty=&e%26=%3D", b"text \xc3\xbc", {"X-One": "1", "Accept": "a"})
    assert (status, body.decode(), headers["X-Made"], headers["Content-Type"]) == (201, "<p>\u00fc", "yes", "text/html")
    (request,) = sink.taken()
    event = request.json
    assert list(event) == ["httpMethod", "path", "pathParameters", "queryStringParameters", "headers", "body", "isBase64Encoded", "requestContext"]
    assert (event["httpMethod"], event["path"], event["body"], event["isBase64Encoded"]) == ("POST", "/orders/a%20b/x/y", "text \u00fc", False)
    assert event["pathParameters"] == {"id": "a b", "rest": "x/y"}
    assert event["queryStringParameters"] == {"name": "me", "n": ["1", "2"], "empty": "", "e&": "="}
    assert event["headers"]["X-One"] == "1" and event["headers"]["Host"] == f"127.0.0.1:{g.port}"
    assert event["requestContext"] == {"stage": "test", "requestId": headers["X-Request-Id"], "apiId": "api-1"}
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
    g = gateway(api("/a/{x}", sink, "named"), api("/a/b", sink, "literal"), api("/a", sink, "prefix", match="Prefix"), api("/m", sink, "get", methods=["GET"]),
                api("/m", sink, "any"), api("/p/{all+}", sink, "rest"))  # fmt: skip
    for method, path, name in [("GET", "/a/b", "literal"), ("GET", "/a/c", "named"), ("GET", "/a/c/d", "prefix"), ("GET", "/a", "prefix"), ("GET", "/m", "get"),
                               ("POST", "/m", "any"), ("GET", "/p/1/2/3", "rest")]:  # fmt: skip
        assert g.call(method, path)[2].decode() == name, path
    for method, path in [("GET", "/"), ("GET", "/b"), ("GET", "/p"), ("GET", "/p/"), ("GET", "/m/x"), ("GET", "/ab")]:
        assert code(g.call(method, path)) == (404, "APIG.0101"), path


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b"{}", b'{"statusCode": "200"}', b'{"statusCode": 99}', b'{"statusCode": 200, "body": {}}',
                                  b'{"statusCode": 200, "isBase64Encoded": "true"}', b'{"statusCode": 200, "body": "%", "isBase64Encoded": true}', b'{"statusCode": 200, "headers": []}',
                                  b'{"statusCode": 200, "headers": {"a b": "c"}}', b'{"statusCode": 200, "headers": {"a": "b\\r\\nc: d"}}', b'{"statusCode": 200, "headers": {"a": {}}}'])  # fmt: skip
def test_malformed_answers_are_500(gateway, sink, body):
    g = gateway(api("/f", sink))
    sink.answer = lambda request: (200, {}, body)
    assert code(g.call("GET", "/f")) == (500, "APIG.0201")


def test_the_gateways_own_errors(gateway, sink):
    release = threading.Event()
    g = gateway(api("/slow", sink, "slow", timeout="200ms"), api("/busy", sink, "busy", {"maxInFlight": 1}), api("/rate", sink, "rate", {"rateLimit": {"eventsPerSecond": 1, "burst": 2}}))
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
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves by a reset: an end of sending might be a half-close
    sink.answer = lambda request: answer(body="next")
    assert wait_until("the place is free", lambda: (r := g.call("GET", "/f"))[0] == 200 and r, 10)[2] == b"next"
    release.set()


def test_a_function_that_is_down_and_a_stop_that_loses_nothing(runner, gateway, sink):
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


# ---- callers --------------------------------------------------------------------------------------------------------------------------


def signed(port, method, path, query=(), body=None, ak="AK1", sk="secret-1", headers=None, date=None):
    """What the official SDK would send."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    if date:
        headers["X-Sdk-Date"] = date.strftime("%Y%m%dT%H%M%SZ")
    request = SdkRequest(method=method, schema="http", host=f"127.0.0.1:{port}", resource_path=path, query_params=list(query), header_params=headers, body=body or "")
    Signer(BasicCredentials(ak, sk)).sign(request)
    return request


def send(g, request, **changed):
    headers = {**request.header_params, **changed.get("headers", {})}
    return g.call(changed.get("method", request.method), changed.get("uri", request.uri), changed.get("body", request.body or None), headers)


@pytest.fixture
def secrets(tmp_path):
    folder = tmp_path / "secrets" / "callers"
    folder.mkdir(parents=True)
    for name, value in (("ak1", "AK1"), ("sk1", "secret-1"), ("ak2", "AK2"), ("sk2", "secret-2"), ("code", "app-code"), ("token", "a-token")):
        (folder / name).write_text(value + "\n")
    return folder


def ref(key):
    return {"name": "callers", "key": key}


KEYS = [{"accessKeySecretRef": ref(f"ak{n}"), "secretKeySecretRef": ref(f"sk{n}")} for n in (1, 2)]


@pytest.mark.parametrize("kind", ["App", "IAM"])
def test_signed_requests(gateway, sink, secrets, kind):
    g = gateway(api("/s/{x}", sink, authentication={"type": kind, "keys": KEYS}), options=[f"--secrets={secrets.parent}"])
    refused = (401, "APIG.0303" if kind == "App" else "APIG.0301")
    assert code(g.call("GET", "/s/1")) == refused
    for request in (signed(g.port, "GET", "/s/1"), signed(g.port, "GET", "/s/a b", [("q", "a b/\u00fc"), ("n", 2), ("a", ""), ("n", 1)]), signed(g.port, "POST", "/s/1", body='{"a": "\u00fc"}'),
                    signed(g.port, "POST", "/s/1", body="text", headers={"Content-Type": "text/plain"}), signed(g.port, "PUT", "/s/1", ak="AK2", sk="secret-2", headers={"X-Custom": "  v  w "})):  # fmt: skip
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
        "nothing": send(g, good, headers={"Authorization": "SDK-HMAC-SHA256 Access=AK1, SignedHeaders=host;x-sdk-date, Signature="}),
        "unsigned date": send(g, good, headers={"Authorization": good.header_params["Authorization"].replace("x-sdk-date", "x-other")}),
    }.items():
        assert code(reply) == refused, what
    before = len(sink.taken())
    (secrets / "sk1").write_text("rotated")
    wait_until("the new secret is used", lambda: send(g, signed(g.port, "GET", "/s/1", sk="rotated"))[0] == 200, 20, poll=0.5)
    assert code(send(g, signed(g.port, "GET", "/s/1"))) == refused and len(sink.taken()) == before + 1


def test_app_codes_and_tokens(gateway, sink, secrets):
    g = gateway(api("/app", sink, "app", authentication={"type": "App", "codes": [{"secretRef": ref("code")}]}),
                api("/iam", sink, "iam", authentication={"type": "IAM", "tokens": [{"secretRef": ref("token")}]}), options=[f"--secrets={secrets.parent}"])  # fmt: skip
    assert g.call("GET", "/app", headers={"X-Apig-AppCode": "app-code"})[0] == 200
    assert g.call("GET", "/iam", headers={"X-Auth-Token": "a-token"})[0] == 200
    for path, headers in (("/app", {"X-Apig-AppCode": "other"}), ("/app", {"X-Auth-Token": "a-token"}), ("/app", {}), ("/iam", {"X-Auth-Token": "a-toke"}), ("/iam", {"X-Apig-AppCode": "app-code"})):
        assert g.call("GET", path, headers=headers)[0] == 401
    assert len(sink.all()) == 2


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
    assert raw(b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n") == 400
    assert raw(b"GET /f HTTP/1.1\r\n\r\n") == 400
    assert sink.all() == []
    assert g.call("GET", "/f")[0] == 200


def test_tls_with_client_certificates_and_trusted_proxies(runner, sink, tmp_path):
    import ssl
    import subprocess

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", f"{name}.pem", "-extfile", "ext")
    t = api("/f", sink)
    t["spec"]["event"] = {"dialect": "Current"}
    options = [f"--tls-cert={tmp_path}/server.pem", f"--tls-key={tmp_path}/server.key", f"--tls-client-ca={tmp_path}/ca.pem", "--trusted-proxy=127.0.0.0/8"]
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

    from conftest import SLUICE

    t = trigger("t", {"apig": {"path": "/orders/{id}"}}, "http://f/", event={"dialect": "Current"})
    (tmp_path / "t.json").write_text(json.dumps(t))
    document = {"method": "POST", "path": "/orders/7", "query": {"n": ["1", "2"], "q": "x"}, "headers": {"X-One": "1"}, "body": {"a": 1}}
    done = subprocess.run([SLUICE, "preview", "-f", tmp_path / "t.json", "--record=-", "--body"], input=json.dumps(document), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    event = strict(json.loads(done.stdout), shapes.APIG)
    assert (event["httpMethod"], event["pathParameters"], event["queryStringParameters"]) == ("POST", {"id": "7"}, {"n": "1,2", "q": "x"})
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
        return int(next(line for line in open(f"/proc/{g.run.pid}/status") if line.startswith("VmHWM")).split()[1]) << 10

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
