"""The image holds all that the program needs: its root read-only, as the user that pods have, nothing of this machine within reach."""

import contextlib
import http.server
import json
import shutil
import ssl
import threading

import pytest
import yaml
from harness.process import Process, run
from harness.server import Server
from helpers import trigger

LIMIT = 30 << 20  # bytes, compressed
# $0: the root; $1: a certificate to trust besides; the rest: the program's arguments
ENTER = """
mount --bind "$0" "$0"
[ -z "$1" ] || { cat "$0/etc/ssl/certs/ca-certificates.crt" "$1" >"$1.bundle"; mount --bind "$1.bundle" "$0/etc/ssl/certs/ca-certificates.crt"; }
mount -o remount,ro,bind "$0"
mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
shift
exec /usr/sbin/chroot --userspec=65532:65532 --groups= "$0" "$@"
"""

pytestmark = pytest.mark.node


def unpack(archive, directory):
    directory.mkdir(exist_ok=True)
    run(["tar", "-C", directory, "-xpf", archive])


class Image:
    """An OCI layout and its unpacked root."""

    def __init__(self, archive, directory):
        self.layout, self.root = directory / "layout", directory / "root"
        unpack(archive, self.layout)
        manifest = self.blob(json.loads((self.layout / "index.json").read_text())["manifests"][0])
        self.size = sum(layer["size"] for layer in manifest["layers"])
        self.config = self.blob(manifest["config"])["config"]
        for layer in manifest["layers"]:
            unpack(self.path(layer), self.root)

    def path(self, descriptor):
        return self.layout / "blobs" / descriptor["digest"].replace(":", "/")

    def blob(self, descriptor):
        return json.loads(self.path(descriptor).read_text())

    def command(self, *arguments, trust=""):
        shell = [
            "unshare",
            "--mount",
            "sh",
            "-euc",
            ENTER,
            self.root,
            trust,
            *self.config["Entrypoint"],
            *arguments,
        ]
        return ["env", "-i", *self.config["Env"], *shell]


@pytest.fixture(scope="module")
def unpacked(image, tmp_path_factory):
    if not image[1]:
        pytest.skip("needs the image's archive")
    unpacked = Image(image[1], tmp_path_factory.mktemp("image"))
    yield unpacked
    shutil.rmtree(unpacked.root)


@pytest.fixture
def tls_function(tmp_path):
    """(URL, certificate file, the bodies it got)"""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=function",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ]
    )
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    class Quiet(Server):
        def handle_error(self, *_):
            pass  # clients that do not trust it hang up

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}/", certificate, got
        server.shutdown()


@contextlib.contextmanager
def running(unpacked, *triggers, trust=""):
    (unpacked.root / "triggers.yaml").write_text(yaml.safe_dump_all(triggers))
    with Process(
        unpacked.command("run", "-f", "/triggers.yaml", "--state=/tmp/state", trust=trust), name="run"
    ) as p:
        yield p


def ticks(url, **timer):
    return trigger(
        "clock", {"timer": {"schedule": "*/1 * * * * *", "userEvent": "hello", **timer}}, {"uri": url}
    )


def test_its_size_and_its_user(unpacked):
    assert unpacked.size <= LIMIT
    assert unpacked.config["User"] == "65532:65532"
    assert run(unpacked.command("version")).stdout.startswith("sluice e2e\n")


def test_nothing_can_be_written(unpacked):
    (unpacked.root / "triggers.yaml").write_text(yaml.safe_dump(ticks("http://function/")))
    done = run(unpacked.command("run", "-f", "/triggers.yaml", "--state=/state"), check=False)
    assert done.returncode == 1 and "/state" in done.stderr and "Read-only" in done.stderr


def test_the_function_runs(unpacked):
    with Process(unpacked.command("display", "--listen=127.0.0.1:0"), name="display") as p:
        port = p.wait_for_output(r"listening on port (\d+)").group(1)
        p.wait_for_http(f"http://127.0.0.1:{port}/-/healthy")


def test_a_function_behind_tls_in_a_time_zone(unpacked, tls_function):
    url, certificate, got = tls_function
    with running(unpacked, ticks(url, timeZone="Europe/Berlin"), trust=certificate) as p:
        p.wait_until("ticks", lambda: len(got) >= 2)
    assert json.loads(got[0])["time"][-6:] in ("+01:00", "+02:00")


def test_a_function_that_is_not_trusted(unpacked, tls_function):
    url, _, got = tls_function
    with running(unpacked, ticks(url)) as p:
        p.wait_for_output("certificate")
    assert not got


def test_every_area_has_its_time_zones(unpacked):
    zones = (
        "America/New_York",
        "Africa/Cairo",
        "Asia/Shanghai",
        "Australia/Sydney",
        "Europe/Berlin",
        "Pacific/Auckland",
        "Etc/GMT+5",
        "UTC",
    )
    named = [
        {**ticks("http://function/", timeZone=zone), "metadata": {"name": f"zone-{n}"}}
        for n, zone in enumerate(zones)
    ]
    path = unpacked.root / "zones.yaml"
    path.write_text(yaml.safe_dump_all(named))
    run(unpacked.command("validate", "/zones.yaml"))
    path.write_text(yaml.safe_dump(ticks("http://function/", timeZone="Europe/Atlantis")))
    refused = run(unpacked.command("validate", "/zones.yaml"), check=False)
    assert refused.returncode == 1 and "Europe/Atlantis" in refused.stdout + refused.stderr
