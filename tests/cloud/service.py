"""The HTTP server of all services: routes, signatures, faults, and the clock by which windows and cursors expire."""

import dataclasses
import fnmatch
import http.server
import json
import re
import threading
import time
import urllib.parse
import uuid
from email.utils import formatdate

from harness.server import Server

PROCEED = object()  # returned by a fault before a call: the call takes effect nevertheless

REGION, PROJECT, DOMAIN = "cn-north-4", "b2b3853af40448fcb9e40d0000000001", "d0a1b2c3d4e5f60718293a4b5c6d7e8f"


@dataclasses.dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: list = dataclasses.field(default_factory=list)


class Refused(Exception):
    """A service's error: its code and message."""

    def __init__(self, service, code, status=None, message=None):
        super().__init__(f"{service} {code}")
        self.answer = refusal(service, code, status, message)


# service → code → (status, message)
CODES = {"gateway": {}, "iam": {}, "sts": {}, "dms": {}, "dis": {}, "metadata": {}}


def refusal(service, code, status=None, message=None):
    known = CODES.get(service, {}).get(code, (400, "refused"))
    status, message = status or known[0], message or known[1]
    if service == "dms":
        body = {"code": code, "message": message}
    elif service == "smn":
        body = {"code": code, "message": message, "request_id": uuid.uuid4().hex}
    elif service == "dis":
        body = {"errorCode": code, "message": message}
    elif service == "iam":
        body = {"error": {"code": status, "message": message, "title": str(code)}}
    elif service == "metadata":
        body = {"error": {"message": message, "code": status}}
    else:
        body = {"error_code": code, "error_msg": message, "request_id": uuid.uuid4().hex}
    return Answer(status, json.dumps(body).encode(), [("Content-Type", "application/json")])


@dataclasses.dataclass
class Fault:
    operation: str
    effect: object
    when: str
    times: int
    skip: int
    hits: int = 0


class Call:
    """A request in flight and its connection."""

    def __init__(self, cloud, handler, method, target, body):
        self.cloud, self.handler, self.method, self.body = cloud, handler, method, body
        url = urllib.parse.urlsplit(target)
        self.target, self.raw_path = target, url.path
        self.path = urllib.parse.unquote(url.path)
        self.pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        self.query = dict(self.pairs)
        self.headers = handler.headers
        self.operation, self.service, self.function, self.arguments = None, "gateway", None, {}
        self.principal = None

    @property
    def connection(self):
        return self.handler.connection

    def json(self):
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Refused(
                self.service,
                {"dms": 10540012, "dis": "DIS.4200"}.get(self.service, "BadRequest"),
                message="The message body is not in JSON format.",
            )
        return value

    def number(self, name, default, low, high, code):
        try:
            value = int(self.query.get(name) or default)
        except ValueError:
            raise Refused(self.service, code) from None
        if not low <= value <= high:
            raise Refused(self.service, code)
        return value

    def send_head(self, answer):
        self.handler.send_head(answer)

    def send_bytes(self, data):
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def hang_up(self):
        self.handler.close_connection = True
        self.handler.hung_up = True
        self.handler.rfile.close()
        self.handler.connection.close()


def operation(name, method, path, signed=True):
    """Decorates the method of a service that handles METHOD PATH; {names} in the path become arguments."""

    def mark(function):
        pattern = re.compile("^" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + "/?$")
        function.operations = [*getattr(function, "operations", []), (name, method, pattern, signed)]
        return function

    return mark


class Cloud:
    """port 0: any free one."""

    def __init__(self, port=0, host="127.0.0.1"):
        from . import dis, dms, iam, metadata, smn

        self.host, self.port = host, port
        self.changed = threading.Condition(threading.RLock())
        self.advanced = (
            0.0  # seconds that the clock of windows, cursors and retention is ahead of the system's
        )
        self.skew = 0.0  # seconds that the clock of Date and of signatures is ahead of that
        self.faults, self.calls, self.last_answers = [], [], {}
        self.signed = []  # (access key, operation) of the calls whose signature was valid
        self.arrears = False
        self.waiting = 0  # calls that wait for an event, such as a message
        self.open = True
        self.iam = iam.Iam(self)
        self.metadata = metadata.Metadata(self)
        self.dms = dms.Dms(self)
        self.dis = dis.Dis(self)
        self.smn = smn.Smn(self)
        self.routes = [
            (*marked, function)
            for service in (self.iam, self.metadata, self.dms, self.dis, self.smn)
            for function in (getattr(service, n) for n in dir(service) if not n.startswith("_"))
            for marked in getattr(function, "operations", [])
        ]

    # ---- time -----------------------------------------------------------------------------------------------------------------------------------

    def now(self):
        return time.time() + self.advanced

    def wall(self):
        return time.time() + self.skew

    def advance(self, seconds):
        """Advances the clock of the services' state."""
        with self.changed:
            self.advanced += seconds
            self.changed.notify_all()

    def wait_for(self, ready, seconds):
        """Waits until ready() returns something true, or for so many seconds; returns its result. The caller holds the lock."""
        end = self.now() + seconds
        while not (result := ready()) and self.open and (left := end - self.now()) > 0:
            self.waiting += 1
            self.changed.wait(min(left, 0.05))
            self.waiting -= 1
        return result

    # ---- faults ---------------------------------------------------------------------------------------------------------------------------------

    def fault(self, operation, effect, when="before", times=1, skip=0):
        """The next calls of an operation ("dms.consume", "dis.*") fail: before they take effect, or after. Returns the fault, which counts its hits."""
        if when not in ("before", "after") or (when == "before" and getattr(effect, "of_answers", False)):
            raise ValueError(
                f"when={when!r}: it must be before or after, and after for what changes an answer"
            )
        made = Fault(operation, effect, when, times, skip)
        with self.changed:
            self.faults.append(made)
        return made

    def clear_faults(self):
        with self.changed:
            self.faults.clear()

    def due(self, name, when):
        with self.changed:
            for fault in self.faults:
                if (
                    fault.when != when
                    or fault.hits >= fault.times
                    or not fnmatch.fnmatch(name, fault.operation)
                ):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                return fault.effect
        return None

    def made(self, pattern="*"):
        """The calls of some operations so far: (operation, status, when)"""
        with self.changed:
            return [c for c in self.calls if fnmatch.fnmatch(c[0], pattern)]

    # ---- a call -----------------------------------------------------------------------------------------------------------------------------------

    def route(self, call):
        for name, method, pattern, signed, function in self.routes:
            if method == call.method and (found := pattern.match(call.path)):
                call.operation, call.service = name, name.split(".")[0]
                call.function, call.arguments = function, found.groupdict()
                return signed
        raise Refused(
            "gateway",
            "APIGW.0101",
            404,
            "The API does not exist or has not been published in the environment",
        )

    def serve(self, call):
        """The answer; None: a fault has handled the connection."""
        try:
            signed = self.route(call)
            effect = self.due(call.operation, "before")
            if effect and (sent := effect(call, None)) is not PROCEED:
                return self.note(call, sent)
            if signed:
                self.iam.authorize(call)
                self.signed.append((call.principal and call.principal.access, call.operation))
            with self.changed:
                answer = call.function(call, **call.arguments)
                self.changed.notify_all()
            if not isinstance(answer, Answer):
                status, value = answer if isinstance(answer, tuple) else (200, answer)
                answer = Answer(
                    status,
                    b"" if value is None else json.dumps(value).encode(),
                    [("Content-Type", "application/json")],
                )
        except Refused as e:
            answer = e.answer
        effect = call.operation and self.due(call.operation, "after")
        sent = effect(call, answer) if effect else answer
        self.last_answers[call.operation] = answer
        return self.note(call, sent)

    def note(self, call, answer):
        with self.changed:
            self.calls.append(
                (call.operation or call.method + " " + call.path, answer and answer.status, time.monotonic())
            )
        return answer

    def __enter__(self):
        cloud = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 120

            def serve(self):
                self.hung_up = False
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    answer = cloud.serve(Call(cloud, self, self.command, self.path, body))
                    if answer:
                        self.send_head(answer)
                        self.wfile.write(answer.body)
                        self.wfile.flush()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = serve

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except ValueError:  # a fault has closed the connection
                    if not self.hung_up:
                        raise

            def finish(self):
                if not getattr(self, "hung_up", False):
                    super().finish()

            def send_head(self, answer):
                self.send_response_only(answer.status)
                self.send_header("Date", formatdate(cloud.wall(), usegmt=True))
                self.send_header("X-Request-Id", uuid.uuid4().hex)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()

            def log_message(self, *_):
                pass

        class Listener(Server):
            request_queue_size = 512

        self.server = Listener((self.host, self.port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()
        return self

    def __exit__(self, *_):
        with self.changed:
            self.open = False
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def endpoint(self):
        return f"http://{self.host}:{self.port}"
