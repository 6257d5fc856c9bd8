"""Functions in bad weather, and the ledger of what was sent and what came."""

import collections
import contextlib
import http.client
import http.server
import re
import socket
import struct
import threading
import time

from harness.server import Server

MARK = re.compile(rb"weather:([a-z-]+):(\d+)")
ANSWER = b'{"statusCode": 200, "headers": {}, "isBase64Encoded": false, "body": "ok"}'  # as the API gateway wants it
RESET = struct.pack("ii", 1, 0)


class Ledger:
    """Who was to get what, and who got it. A mark, weather:SINK:NUMBER, lies in each event whose content is ours; timers' events are known by their id."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = collections.defaultdict(dict)  # sink → {number: what the sender was told}
        self.accepted = collections.defaultdict(
            collections.Counter
        )  # sink → {number or id: how often it said 2xx}
        self.seen = collections.defaultdict(collections.Counter)  # the same, whatever the answer
        self.order = collections.defaultdict(list)  # sink → numbers, as they came first
        self.astray = []

    def send(self, sink, told=None):
        """The next number for a sink, and the mark of it."""
        with self.lock:
            number = len(self.sent[sink])
            self.sent[sink][number] = told
            return number, f"weather:{sink}:{number}"

    def told(self, sink, number, what):
        with self.lock:
            self.sent[sink][number] = what

    def came(self, sink, handler, body, status):
        """Everything that a sink gets must name that sink: its path, its header, its events."""
        named = {handler.path.split("?")[0].strip("/").split("/")[0], handler.headers.get("X-Sink")}
        marks = set(MARK.findall(body))
        with self.lock:
            if named != {sink} or any(name.decode() != sink for name, _ in marks):
                self.astray.append(
                    f"{sink} got {handler.command} {handler.path} for {sorted(map(str, named))}: {body[:200]!r}"
                )
            keys = [int(n) for _, n in marks] or [handler.headers.get("X-Sluice-Event-Id", "")]
            for key in keys:
                if not self.seen[sink][key]:
                    self.order[sink].append(key)
                self.seen[sink][key] += 1
                self.accepted[sink][key] += 200 <= status <= 299

    def missing(self, sink):
        """Numbers that a sender was told to be taken, and that the sink never accepted."""
        with self.lock:
            return [
                n for n, told in self.sent[sink].items() if told == "taken" and not self.accepted[sink][n]
            ]


class Sink:
    """An HTTP function that can be restarted with requests in flight, hang, refuse, and move to another address."""

    def __init__(self, name, ledger, address="127.0.0.1", tls=None, tokens=None):
        """tokens(): the bearer tokens that are good now; None: nobody needs one."""
        self.name, self.ledger, self.address, self.port, self.tls, self.tokens = (
            name,
            ledger,
            address,
            0,
            tls,
            tokens,
        )
        self.status, self.refused = 200, 0
        self.released = threading.Event()
        self.released.set()
        self.connections = set()
        self.server = None
        self.listen()

    def listen(self):
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                sink.released.wait()
                status = sink.status
                if sink.tokens and self.headers.get("Authorization") not in [
                    f"Bearer {t}" for t in sink.tokens()
                ]:
                    status, sink.refused = 401, sink.refused + 1
                sink.ledger.came(sink.name, self, body, status)
                self.send_response(status)
                self.send_header("Content-Length", str(len(ANSWER)))
                self.end_headers()
                self.wfile.write(ANSWER)

            def log_message(self, *_):
                pass

        class Listening(Server):
            request_queue_size = 128

            def process_request(self, request, client_address):
                sink.connections.add(request)
                super().process_request(request, client_address)

            def shutdown_request(self, request):
                sink.connections.discard(request)
                super().shutdown_request(request)

            def handle_error(self, *_):  # what the weather does to a connection
                pass

        self.server = Listening((self.address, self.port), Handler)
        self.port = self.server.server_address[1]
        if self.tls:
            self.server.socket = self.tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def fall(self, reset=False):
        """It ends at once: nobody listens any more, and each connection is closed, or reset, whatever it carries."""
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    connection.close()
                else:
                    connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()
        self.released.set()

    def hang(self):
        """Requests are read and not answered until it falls or is released."""
        self.released.clear()

    def close(self):
        with contextlib.suppress(Exception):
            self.fall()

    def uri(self, host=None):
        return f"{'https' if self.tls else 'http'}://{host or self.address}:{self.port}/{self.name}"


class Probes:
    """Asks each address once a second, as the kubelet does; keeps what was wrong."""

    def __init__(self, addresses):
        self.addresses, self.answers, self.ended = addresses, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def ask(self, port, path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()
        except OSError as e:
            return 0, f"{type(e).__name__}: {e}"
        finally:
            connection.close()

    def run(self):
        while not self.ended.wait(1):
            for name, port in self.addresses.items():
                for path in ("/livez", "/readyz"):
                    self.answers.append((time.monotonic(), name, path, *self.ask(port, path)))

    def close(self):
        self.ended.set()
        self.thread.join()
