"""A registry of images that asks for a password: what `docker pull` needs of the distribution API, for one image out of an OCI archive.

python3 -m harness.registry ARCHIVE NAME USER PASSWORD      prints "registry on port N", and a line for each request
"""

import base64
import http.server
import json
import re
import sys
import tarfile


class Registry(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, archive, name, user, password, address=("127.0.0.1", 0)):
        self.name, self.authorization = (
            name,
            "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(),
        )
        self.blobs = {}
        with tarfile.open(archive) as tar:
            for member in tar:
                if found := re.fullmatch(r"(?:\./)?blobs/sha256/([0-9a-f]{64})", member.name):
                    self.blobs[f"sha256:{found[1]}"] = tar.extractfile(member).read()
                elif member.name.removeprefix("./") == "index.json":
                    self.top = json.load(tar.extractfile(member))["manifests"][0]
        super().__init__(address, Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        print(self.command, self.path, *arguments[1:2], flush=True)

    def answer(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        server = self.server
        if self.headers.get("Authorization") != server.authorization:
            self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate='Basic realm="tests"')
            return
        if self.path == "/v2/":
            self.answer(200, b"{}")
            return
        found = re.fullmatch(rf"/v2/{re.escape(server.name)}/(manifests|blobs)/([^/?]+)", self.path)
        digest = found and (found[2] if found[2].startswith("sha256:") else server.top["digest"])
        body = found and server.blobs.get(digest)
        if body is None:
            self.answer(404, b'{"errors":[{"code":"NOT_FOUND"}]}')
            return
        kind = "application/octet-stream"
        if found[1] == "manifests":
            kind = json.loads(body).get("mediaType") or server.top["mediaType"]
        self.answer(200, body, kind, Docker_Content_Digest=digest)

    do_HEAD = do_GET


if __name__ == "__main__":
    registry = Registry(*sys.argv[1:5])
    print(f"registry on port {registry.server_port}", flush=True)
    registry.serve_forever()
