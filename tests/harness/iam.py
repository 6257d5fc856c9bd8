"""IAM for programs that verify tokens: GET /v3/auth/tokens. The official client drives it in test_apig.py.

with Iam() as iam:
    token = iam.token(project="p1", domain="d1")
"""

import datetime
import http.server
import json
import threading
import urllib.parse
import uuid

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from .server import Server


class Iam:
    ACCESS, SECRET = "AKGATEWAY", "a-secret-of-the-gateway"

    def __init__(self):
        self.tokens = {}
        self.asked = []  # (path, headers)
        self.answer = None  # asked(): (status, content type, body) instead of the service's own; None: go on
        self._lock = threading.Lock()

    def token(self, project=None, domain="d1", lifetime=3600, user="u1", text=None):
        """Makes a token, scoped to a project of the domain, or to the domain."""
        now = datetime.datetime.now(datetime.timezone.utc)
        text = text or uuid.uuid4().hex
        scope = {"id": domain, "name": f"name of {domain}"}
        self.tokens[text] = {
            "methods": ["password"],
            "issued_at": f"{now:%Y-%m-%dT%H:%M:%S.%f}Z",
            "expires_at": f"{now + datetime.timedelta(seconds=lifetime):%Y-%m-%dT%H:%M:%S.%f}Z",
            "user": {"id": user, "name": f"name of {user}", "domain": scope, "password_expires_at": ""},
            "roles": [{"id": "0", "name": "te_admin"}],
            **(
                {"project": {"id": project, "name": f"name of {project}", "domain": scope}}
                if project
                else {"domain": scope}
            ),
        }
        return text

    def valid(self, text):
        token = self.tokens.get(text)
        return (
            token
            and token["expires_at"] > f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
        )

    def signed(self, method, target, headers):
        """Is the request signed with our one key? By the official signer."""
        given = headers.get("Authorization", "")
        if not given.startswith(f"SDK-HMAC-SHA256 Access={self.ACCESS}, "):
            return False
        names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
        url = urllib.parse.urlsplit(target)
        request = SdkRequest(
            method=method,
            schema="http",
            host=headers["Host"],
            resource_path=url.path,
            query_params=urllib.parse.parse_qsl(url.query, True),
            header_params={name: headers[name] for name in names},
            body="",
        )
        Signer(BasicCredentials(self.ACCESS, self.SECRET)).sign(request)
        return {"host", "x-sdk-date"} <= set(names) and request.header_params["Authorization"] == given

    def reply(self, target, headers):
        if not self.valid(headers.get("X-Auth-Token")) and not self.signed("GET", target, headers):
            return 401, {
                "error": {
                    "code": 401,
                    "message": "The request you have made requires authentication.",
                    "title": "Unauthorized",
                }
            }
        subject = headers.get("X-Subject-Token")
        if not self.valid(subject):
            return 404, {"error": {"code": 404, "message": "Failed to validate token", "title": "Not Found"}}
        token = dict(self.tokens[subject])
        if not urllib.parse.parse_qs(urllib.parse.urlsplit(target).query).get("nocatalog"):
            token["catalog"] = [{"endpoints": [], "id": "c", "name": "iam", "type": "identity"}]
        return 200, {"token": token}

    def __enter__(self):
        iam = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                with iam._lock:
                    iam.asked.append((self.path, dict(self.headers.items())))
                other = iam.answer and iam.answer()
                if other:
                    status, kind, body = other
                elif self.path.split("?")[0] == "/v3/auth/tokens":
                    status, answer = iam.reply(self.path, self.headers)
                    kind, body = "application/json", json.dumps(answer).encode()
                else:
                    status, kind, body = 404, "text/html", b"<html>not found"
                self.send_response(status)
                if status == 200 and not other:
                    self.send_header("X-Subject-Token", self.headers["X-Subject-Token"])
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
