"""Simple Message Notification: signed messages as a subscriber sees them, the HTTPS server that has the certificate and takes confirmations, and the
service's own API (subscribe, list, cancel), which checks signatures with the official client's code.

with Smn(folder) as smn:
    body, headers = smn.notification("hello")

netns: the servers listen in this network namespace, and messages are sent from there.
"""

import base64
import contextlib
import datetime
import hmac
import http.client
import http.server
import json
import pathlib
import ssl
import threading
import urllib.parse
import uuid

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from .pki import openssl, self_signed, signed
from .process import in_netns
from .server import Server

REGION, PROJECT = "cn-north-1", "bb8695913bb74682b9ca82a8803b60d8"
UNCONFIRMED, CONFIRMED, CANCELLED = 0, 1, 3


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection.settimeout(30)

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Refused(Exception):
    def __init__(self, status, code, message, headers=()):
        self.answer = (
            status,
            json.dumps({"request_id": uuid.uuid4().hex, "code": code, "message": message}).encode(),
            headers,
        )


class Smn:
    def __init__(self, folder, topic="orders", host="127.0.0.1", netns=None):
        self.folder = pathlib.Path(folder)
        self.address, self.netns = host, netns
        self.urn = f"urn:smn:{REGION}:{PROJECT}:{topic}"
        self.asked, self.answers = [], {}  # paths; path → (status, body)
        self.keys = {"AKEXAMPLE": "SKexample0123456789"}
        self.topics, self.subscriptions, self.confirming = (
            {self.urn},
            {},
            {},
        )  # urn → subscription; token → urn
        self.calls, self.sent = [], []  # (method, path); (urn of the subscription, type, status or error)
        self.refuse = lambda method, path: None  # a Refused to answer with
        self.resolve = lambda host: host
        self_signed(folder, "ca", "test authority")
        signed(folder, "tls", "smn", f"subjectAltName=IP:{host},IP:127.0.0.1,DNS:localhost")
        self_signed(folder, "smn", "SMN")
        self.secrets = {
            "smn-ca": {"ca.pem": (self.folder / "ca.pem").read_text()},
            "cloud": {"ak": "AKEXAMPLE", "sk": self.keys["AKEXAMPLE"]},
        }
        for name, values in self.secrets.items():
            (self.folder / "secrets" / name).mkdir(parents=True)
            for key, value in values.items():
                (self.folder / "secrets" / name / key).write_text(value)
        self.path = f"/smn/SMN_{REGION}_{uuid.uuid4().hex}.pem"
        self.answers[self.path] = 200, (self.folder / "smn.pem").read_bytes()

    def __enter__(self):
        smn = self

        class Files(Handler):
            def do_GET(self):
                smn.asked.append(self.path)
                smn.confirm(self.path)
                self.reply(*smn.answers.get(self.path, (404, b"")))

        class Service(Handler):
            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                smn.calls.append((self.command, urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)))
                try:
                    smn.check_signature(self.command, self.path, self.headers, body)
                    if refused := smn.refuse(self.command, self.path):
                        raise refused
                    self.reply(*smn.api(self.command, self.path, body))
                except Refused as e:
                    self.reply(*e.answer)

            do_GET = do_POST = do_DELETE = serve

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls.pem", self.folder / "tls.key")
        self.servers = []
        for handler in (Files, Service):
            server = in_netns(self.netns, lambda h=handler: Server((self.address, 0), h))
            self.servers.append(server)
        self.servers[0].socket = context.wrap_socket(
            self.servers[0].socket, server_side=True, do_handshake_on_connect=False
        )
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.host, self.api_host = (f"{self.address}:{s.server_address[1]}" for s in self.servers)
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    # ---- the service's API ------------------------------------------------------------------------------------------------------------------

    @property
    def endpoint(self):
        return f"http://{self.api_host}"

    @property
    def cloud(self):
        return {
            "endpoint": self.endpoint,
            "credentials": {
                f"{k}SecretRef": {"name": "cloud", "key": v}
                for k, v in (("accessKey", "ak"), ("secretKey", "sk"))
            },
        }

    def check_signature(self, method, target, headers, body):
        """Is the signature the one that the official client would make?"""
        given = dict(
            part.strip().split("=", 1)
            for part in headers.get("Authorization", "").removeprefix("SDK-HMAC-SHA256 ").split(",")
            if "=" in part
        )
        secret, names = self.keys.get(given.get("Access")), given.get("SignedHeaders", "").split(";")
        url = urllib.parse.urlsplit(target)
        if not secret or not {"host", "x-sdk-date"} <= set(names):
            raise Refused(
                401, "APIGW.0301", "Incorrect IAM authentication information: unknown key or unsigned headers"
            )
        request = SdkRequest(
            method=method,
            schema="http",
            host=headers["Host"],
            resource_path=url.path,
            query_params=urllib.parse.parse_qsl(url.query, keep_blank_values=True),
            header_params={n: headers[n] for n in names},
            body=body,
        )
        wanted = (
            Signer(BasicCredentials(given["Access"], secret)).sign(request).header_params["Authorization"]
        )
        if not hmac.compare_digest(wanted, headers["Authorization"]):
            raise Refused(
                401, "APIGW.0301", "Incorrect IAM authentication information: verify aksk signature fail"
            )
        age = abs(
            datetime.datetime.now(datetime.timezone.utc)
            - datetime.datetime.strptime(headers["X-Sdk-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
        )
        if age > datetime.timedelta(minutes=15):
            raise Refused(
                401, "APIGW.0301", "Incorrect IAM authentication information: the date is too far off"
            )

    def api(self, method, target, body):
        url = urllib.parse.urlsplit(target)
        match urllib.parse.unquote(url.path).strip("/").split("/"):
            case ["v2", project, "notifications", "topics", urn, "subscriptions"] if urn.split(":")[
                3
            ] == project and method in ("GET", "POST"):
                if urn not in self.topics:
                    raise Refused(404, "SMN.00010021", f"The topic {urn} does not exist.")
                query = dict(urllib.parse.parse_qsl(url.query))
                return (
                    self.list(urn, int(query.get("offset", 0)), int(query.get("limit", 100)))
                    if method == "GET"
                    else self.subscribe(urn, json.loads(body))
                )
            case ["v2", project, "notifications", "subscriptions", urn] if (
                urn.split(":")[3] == project and method == "DELETE"
            ):
                if not self.subscriptions.pop(urn, None):
                    raise Refused(404, "SMN.00010022", "The subscription does not exist.")
                return 200, json.dumps({"request_id": uuid.uuid4().hex}).encode()
        raise Refused(
            404, "APIGW.0101", "The API does not exist or has not been published in the environment"
        )

    def list(self, topic, offset, limit):
        found = [s for s in self.subscriptions.values() if s["topic_urn"] == topic]
        return 200, json.dumps(
            {
                "request_id": uuid.uuid4().hex,
                "subscription_count": len(found),
                "subscriptions": found[offset : offset + min(limit, 100)],
            }
        ).encode()

    def subscribe(self, topic, body):
        if body["protocol"] not in ("http", "https") or not body["endpoint"].startswith(
            body["protocol"] + "://"
        ):
            raise Refused(400, "SMN.00011106", "The endpoint does not match the protocol.")
        there = next(
            (
                s
                for s in self.subscriptions.values()
                if s["topic_urn"] == topic and s["endpoint"] == body["endpoint"]
            ),
            None,
        )
        found = there or {
            "topic_urn": topic,
            "protocol": body["protocol"],
            "subscription_urn": f"{topic}:{uuid.uuid4().hex}",
            "owner": PROJECT,
            "endpoint": body["endpoint"],
            "remark": body.get("remark", ""),
            "status": UNCONFIRMED,
        }
        self.subscriptions[found["subscription_urn"]] = found
        if found["status"] != CONFIRMED:
            token = uuid.uuid4().hex
            self.confirming[f"/confirm?token={token}"] = found["subscription_urn"]
            self.answers[f"/confirm?token={token}"] = 200, b"{}"
            message = self.confirmation(subscribe_url=f"https://{self.host}/confirm?token={token}")
            threading.Thread(
                target=in_netns, args=(self.netns, lambda: self.send(found, message)), daemon=True
            ).start()
        return 200 if there else 201, json.dumps(
            {"request_id": uuid.uuid4().hex, "subscription_urn": found["subscription_urn"]}
        ).encode()

    def confirm(self, path):
        if found := self.subscriptions.get(self.confirming.get(path)):
            found["status"] = CONFIRMED

    def publish(self, text):
        """Sends to all confirmed subscriptions: [(subscription, status)]"""
        message = self.notification(text)
        return [
            (urn, in_netns(self.netns, lambda s=s: self.send(s, message)))
            for urn, s in list(self.subscriptions.items())
            if s["status"] == CONFIRMED
        ]

    def send(self, subscription, message):
        """Posts a message to a subscription's endpoint: the status, or the error as text."""
        url = urllib.parse.urlsplit(subscription["endpoint"])
        context = (
            ssl._create_unverified_context()
        )  # as SMN itself, which asks for no certificate that it could check
        host, port = self.resolve(url.hostname), url.port or (443 if url.scheme == "https" else 80)
        connection = (
            http.client.HTTPSConnection(host, port, timeout=5, context=context)
            if url.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=5)
        )
        try:
            with contextlib.closing(connection):
                connection.request("POST", url.path or "/", message[0], {**message[1], "Host": url.netloc})
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as e:
            status = f"{type(e).__name__}: {e}"
        self.sent.append((subscription["subscription_urn"], message[1]["X-SMN-MESSAGE-TYPE"], status))
        return status

    # ---- messages ---------------------------------------------------------------------------------------------------------------------------

    @property
    def source(self):
        return {
            "topicURN": self.urn,
            "trusted": {"hosts": [self.host], "caSecretRef": {"name": "smn-ca", "key": "ca.pem"}},
        }

    @property
    def options(self):
        return [f"--secrets={self.folder / 'secrets'}"]

    def sign(self, body, names):
        text = "".join(f"{n}\n{body[n]}\n" for n in names if n != "subject" or body.get("subject"))
        return base64.b64encode(
            openssl(self.folder, "dgst", "-sha256", "-sign", "smn.key", data=text.encode())
        ).decode()

    def headers(self, body):
        return {
            "X-SMN-MESSAGE-TYPE": body["type"],
            "X-SMN-MESSAGE-ID": body["message_id"],
            "X-SMN-TOPIC-URN": body["topic_urn"],
            "X-SMN-SUBSCRIPTION-URN": body["topic_urn"] + ":a",
            "Content-Type": "application/json; charset=UTF-8",
        }

    def message(self, kind, message, names, **more):
        now = datetime.datetime.now(datetime.timezone.utc)
        body = {
            "type": kind,
            "message_id": uuid.uuid4().hex,
            "topic_urn": self.urn,
            "message": message,
            "signature_version": "v1",
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "signing_cert_url": f"https://{self.host}{self.path}",
            **more,
        }
        body["signature"] = self.sign(body, names)
        return json.dumps(body).encode(), self.headers(body)

    def notification(self, message, **more):
        """The body and the headers."""
        more.setdefault("subject", "a subject")
        return self.message(
            "Notification",
            message,
            ["message", "message_id", "subject", "timestamp", "topic_urn", "type"],
            unsubscribe_url=f"https://{self.host}/unsubscribe",
            **more,
        )

    def confirmation(self, kind="SubscriptionConfirmation", **more):
        self.answers["/confirm?token=t"] = 200, b"{}"
        more.setdefault("subscribe_url", f"https://{self.host}/confirm?token=t")
        return self.message(
            kind,
            "You are invited to subscribe.",
            ["message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type"],
            **more,
        )
