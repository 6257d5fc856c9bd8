"""An HTTP server of the tests' own that keeps every request whole and answers as told.

with Sink() as sink:
    sink.answer = lambda request: (503, {"Retry-After": "1"}, b"busy")
    sink.wait_for(10)
"""

import dataclasses
import http.server
import json
import threading
import types

from .process import wait_until
from .server import Server


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: list  # of (name, value), as sent
    body: bytes
    status: int = 0

    def header(self, name):
        """The only value of a header; None without one."""
        values = [v for k, v in self.headers if k.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def id(self):
        return self.header("X-Sluice-Event-Id")

    @property
    def ids(self):
        return (self.header("X-Sluice-Record-Ids") or self.id).split(",")

    @property
    def json(self):
        return json.loads(self.body)


class Sink:
    def __init__(self, answer=None, tls=None):
        """answer(request): a status, or (status, headers, body). tls: an ssl.SSLContext."""
        self.tls = tls
        self.answer = answer or (lambda request: 200)
        self.requests = []
        self._lock = threading.Lock()

    def __enter__(self):
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self):
                length = int(self.headers.get("Content-Length", 0))
                request = Request(self.command, self.path, self.headers.items(), self.rfile.read(length))
                answer = sink.answer(request)
                status, headers, body = answer if isinstance(answer, tuple) else (answer, {}, b"")
                request.status = status
                with sink._lock:
                    sink.requests.append(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_PATCH = do_GET = handle_any

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if self.tls:
            self.server.socket = self.tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def hold(self, word, most):
        """A request that holds the word is answered once what this returns is opened, after so many seconds at the
        latest; entered is set when the first one came. Any other is answered at once."""
        gate = types.SimpleNamespace(entered=threading.Event(), opened=threading.Event())

        def answer(request):
            if word in request.body:
                gate.entered.set()
                gate.opened.wait(most)
            return 200

        self.answer = answer
        return gate

    @property
    def port(self):
        return self.server.server_address[1]

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}/"

    def taken(self):
        """The requests that were accepted so far."""
        with self._lock:
            return [r for r in self.requests if 200 <= r.status <= 299]

    def all(self):
        with self._lock:
            return list(self.requests)

    def wait_for(self, count, timeout=20.0):
        wait_until(
            f"{count} accepted requests",
            lambda: len(self.taken()) >= count,
            timeout,
            explain=lambda: f"{len(self.taken())} of {len(self.all())} requests were accepted",
        )
        return self.taken()

    def wait_for_records(self, count, timeout=20.0):
        wait_until(
            f"{count} accepted records",
            lambda: len({i for r in self.taken() for i in r.ids}) >= count,
            timeout,
        )
        return self.taken()
