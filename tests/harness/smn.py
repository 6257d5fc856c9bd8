"""Simple Message Notification, as a subscriber sees it: signed messages, and the HTTPS server that has the certificate and takes confirmations.

with Smn(folder) as smn:
    body, headers = smn.notification("hello")
"""
import base64
import datetime
import http.server
import json
import pathlib
import ssl
import subprocess
import threading
import uuid

REGION = "cn-north-1"


def openssl(folder, *arguments, data=None):
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, input=data).stdout


class Smn:
    def __init__(self, folder, topic="orders"):
        self.folder = pathlib.Path(folder)
        self.urn = f"urn:smn:{REGION}:bb8695913bb74682b9ca82a8803b60d8:{topic}"
        self.asked, self.answers = [], {}  # paths; path → (status, body)
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
        (self.folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=smn")
        openssl(folder, "x509", "-req", "-in", "tls.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "tls.pem", "-extfile", "ext")
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "smn.key", "-out", "smn.pem", "-days", "2", "-subj", "/CN=SMN")
        secret = self.folder / "secrets" / "smn-ca"
        secret.mkdir(parents=True)
        (secret / "ca.pem").write_bytes((self.folder / "ca.pem").read_bytes())
        self.path = f"/smn/SMN_{REGION}_{uuid.uuid4().hex}.pem"
        self.answers[self.path] = 200, (self.folder / "smn.pem").read_bytes()

    def __enter__(self):
        smn = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                smn.asked.append(self.path)
                status, body = smn.answers.get(self.path, (404, b""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls.pem", self.folder / "tls.key")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def source(self):
        return {"topicUrn": self.urn, "trusted": {"hosts": [self.host], "caSecretRef": {"name": "smn-ca", "key": "ca.pem"}}}

    @property
    def options(self):
        return [f"--secrets={self.folder / 'secrets'}"]

    def sign(self, body, names):
        text = "".join(f"{n}\n{body[n]}\n" for n in names if n != "subject" or body.get("subject"))
        return base64.b64encode(openssl(self.folder, "dgst", "-sha256", "-sign", "smn.key", data=text.encode())).decode()

    def headers(self, body):
        return {"X-SMN-MESSAGE-TYPE": body["type"], "X-SMN-MESSAGE-ID": body["message_id"], "X-SMN-TOPIC-URN": body["topic_urn"],
                "X-SMN-SUBSCRIPTION-URN": body["topic_urn"] + ":a", "Content-Type": "application/json; charset=UTF-8"}  # fmt: skip

    def message(self, kind, message, names, **more):
        now = datetime.datetime.now(datetime.timezone.utc)
        body = {"type": kind, "message_id": uuid.uuid4().hex, "topic_urn": self.urn, "message": message, "signature_version": "v1", "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "signing_cert_url": f"https://{self.host}{self.path}", **more}  # fmt: skip
        body["signature"] = self.sign(body, names)
        return json.dumps(body).encode(), self.headers(body)

    def notification(self, message, **more):
        """The body and the headers."""
        more.setdefault("subject", "a subject")
        return self.message("Notification", message, ["message", "message_id", "subject", "timestamp", "topic_urn", "type"], unsubscribe_url=f"https://{self.host}/unsubscribe", **more)

    def confirmation(self, kind="SubscriptionConfirmation", **more):
        self.answers["/confirm?token=t"] = 200, b"{}"
        more.setdefault("subscribe_url", f"https://{self.host}/confirm?token=t")
        return self.message(kind, "You are invited to subscribe.", ["message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type"], **more)
