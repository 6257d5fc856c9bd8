"""Kafka with users and TLS, on a real broker: who gets in, what is said of who doesn't, and Secrets that change."""

import copy
import ctypes
import itertools
import re
import socket
import struct
import subprocess
import threading

import pytest
import yaml
from harness import pki
from harness.kafka import Kafka
from harness.process import wait_until
from harness.sink import Sink
from harness.sluice import SLUICE, trigger

names = (f"secure-{n}" for n in itertools.count())
OTHERS_PASSWORD = "second-secret"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two authorities; the broker's certificates, one of them for another name; a client's of each authority."""
    folder = tmp_path_factory.mktemp("kafka-keys")
    pki.self_signed(folder, "ca", "authority")
    pki.self_signed(folder, "stranger", "another authority")
    pki.signed(folder, "server", "broker", "subjectAltName=IP:127.0.0.1")
    pki.signed(folder, "other", "broker", "subjectAltName=DNS:kafka.elsewhere")
    pki.signed(folder, "client", "client", "extendedKeyUsage=clientAuth")
    pki.signed(folder, "second", "second client", "extendedKeyUsage=clientAuth")
    pki.signed(folder, "unknown", "client", "extendedKeyUsage=clientAuth", authority="stranger")
    return folder


@pytest.fixture(scope="module")
def broker(keys):
    with Kafka(tls=keys, users={"me": "first-secret", "other": OTHERS_PASSWORD}) as k:
        yield k


@pytest.fixture
def topic(broker):
    name = next(names)
    broker.create_topic(name)
    return name


class Secrets:
    """The folder of Secrets: NAME/KEY."""

    def __init__(self, folder):
        self.folder = folder

    def put(self, **values):
        """KEY=value of the Secret kafka; None: there is none."""
        folder = self.folder / "kafka"
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            if value is None:
                (folder / key).unlink()
            else:
                (folder / f".{key}").write_text(value)
                (folder / f".{key}").rename(folder / key)


@pytest.fixture
def secrets(tmp_path, keys):
    s = Secrets(tmp_path / "secrets")
    s.put(
        user="me",
        password="first-secret",
        ca=(keys / "ca.pem").read_text(),
        stranger=(keys / "stranger.pem").read_text(),
        cert=(keys / "client.pem").read_text(),
        key=(keys / "client.key").read_text(),
    )
    return s


def ref(key):
    return {"name": "kafka", "key": key}


SASL = {"usernameSecretRef": ref("user"), "passwordSecretRef": ref("password")}
TLS = {"caSecretRef": ref("ca")}
MUTUAL = {**TLS, "certSecretRef": ref("cert"), "keySecretRef": ref("key")}


def reads(broker, topic, uri, listener, delivery=None, **access):
    """Named after the topic, so that each has a consumer group of its own."""
    at = broker.sasl_bootstrap if listener == "SASL_PLAINTEXT" else broker.tls_bootstrap(listener)
    source = {"bootstrapServers": [at], "topics": [topic], "startPosition": "Earliest", **access}
    return trigger(topic, {"kafka": source}, uri, delivery)


@pytest.fixture
def run(runner, secrets):
    def start(*triggers, **how):
        return runner.start(*triggers, options=[f"--secrets={secrets.folder}"], **how)

    return start


WAYS = {
    "user": ("SASL_PLAINTEXT", {"sasl": SASL}),
    "tls": ("SSL", {"tls": TLS}),
    "certificate": ("MUTUAL", {"tls": MUTUAL}),
    "user and tls": ("SASL_SSL", {"sasl": {**SASL, "mechanism": "PLAIN"}, "tls": TLS}),
    "another name": ("OTHER", {"tls": {**TLS, "verifyHostname": False}}),
}


@pytest.mark.parametrize("way", WAYS)
def test_who_is_known_reads(broker, topic, sink, run, way):
    listener, access = WAYS[way]
    broker.produce(topic, [f"message {i}" for i in range(100)])
    process = run(reads(broker, topic, sink.uri, listener, **access))
    assert [r.id for r in sink.wait_for(100)] == [f"{topic}/0/{i}" for i in range(100)]
    assert process.status()["sourceState"] == "Connected"
    assert "first-secret" not in process.output


PASSWORD_STEP = "check user name, password and mechanism"
CERTIFICATE_STEP = "check which authority its certificate comes from (tls.caSecretRef), and whether it is for this name (tls.verifyHostname)"
# listener, spec, changed values of the Secret, the state, and what its reason ends with
REFUSED = {
    "wrong password": (
        *("SASL_PLAINTEXT", {"sasl": SASL}, {"password": "wrong-secret"}),
        *("Disconnected", f"Invalid username or password: {PASSWORD_STEP}"),
    ),
    "unknown authority": (
        *("SSL", {"tls": {"caSecretRef": ref("stranger")}}, {}),
        *("Disconnected", f"certificate verify failed: {CERTIFICATE_STEP}"),
    ),
    "another name": (
        *("OTHER", {"tls": TLS}, {}),
        *("Disconnected", f"certificate verify failed: {CERTIFICATE_STEP}"),
    ),
    "no certificate": (
        *("MUTUAL", {"tls": TLS}, {}),
        *(
            "Disconnected",
            "the broker wants a certificate of ours that it trusts (tls.certSecretRef)",
        ),
    ),
    "no tls": (
        *("SSL", {}, {}),
        *("Disconnected", "this listener may expect TLS (tls) or a user (sasl), or is no broker's"),
    ),
    "tls to a plain listener": (
        *("SASL_PLAINTEXT", {"tls": TLS}, {}),
        *("Disconnected", "check that this listener speaks TLS"),
    ),
    "no user": (
        *("SASL_PLAINTEXT", {}, {}),
        *("Disconnected", "Disconnected: this listener expects a user (sasl)"),
    ),
    "no authority in it": (
        *("SSL", {"tls": TLS}, {"ca": "no certificate"}),
        *("Failed", "tls.caSecretRef must hold certificates in PEM"),
    ),
    "no certificate in it": (
        *("MUTUAL", {"tls": MUTUAL}, {"cert": "no certificate"}),
        *("Failed", "tls.certSecretRef must hold a certificate in PEM"),
    ),
    "another key": (
        *("MUTUAL", {"tls": {**MUTUAL, "keySecretRef": ref("stranger")}}, {}),
        *("Failed", "tls.keySecretRef must hold the key in PEM, without a password, of tls.certSecretRef"),
    ),
    "no password": (
        *("SASL_PLAINTEXT", {"sasl": SASL}, {"password": None}),
        *("Failed", "Secret kafka, key password, is missing or empty"),
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_who_is_not_known_is_told_why(broker, topic, sink, run, secrets, why):
    listener, access, changed, state, end = REFUSED[why]
    secrets.put(**changed)
    broker.produce(topic, ["one"])
    process = run(reads(broker, topic, sink.uri, listener, **access))

    def told():
        s = process.status()
        return s["sourceState"] == state and s["sourceReason"].endswith(end)

    process.wait_until("says why", told, 15)
    assert not sink.all() and not re.search("(first|wrong|second)-secret", process.output)


def test_a_secret_that_comes_later_is_read(broker, topic, sink, run, secrets):
    secrets.put(password=None)
    broker.produce(topic, ["one"])
    process = run(reads(broker, topic, sink.uri, "SASL_PLAINTEXT", sasl=SASL))
    process.wait_until("says what is missing", lambda: process.status()["sourceState"] == "Failed", 10)
    secrets.put(password="first-secret")
    sink.wait_for(1, 10)
    process.wait_until("reads", lambda: process.status()["sourceState"] == "Connected", 10)


def test_another_password_serves_from_the_next_connection_on(broker, topic, sink, run, secrets):
    process = run(reads(broker, topic, sink.uri, "SASL_SSL", sasl=SASL, tls=TLS))
    broker.produce(topic, ["one"])
    sink.wait_for(1)
    secrets.put(user="other", password=OTHERS_PASSWORD)
    broker.stop()
    broker.set_users({"other": OTHERS_PASSWORD})
    try:
        broker.start()
        broker.produce(topic, ["two"])
        sink.wait_for(2, 30)
        process.wait_until("reads", lambda: process.status()["sourceState"] == "Connected", 20)
    finally:
        broker.stop()
        broker.set_users({"me": "first-secret", "other": OTHERS_PASSWORD})
        broker.start()


def test_another_certificate_is_shown_and_nothing_is_lost(broker, topic, sink, run, secrets, keys):
    """Under load, several times: the consumer ends as at a stop, and another one goes on where it was."""
    process = run(reads(broker, topic, sink.uri, "MUTUAL", tls=MUTUAL))
    count = 0
    for number, who in enumerate(("second", "client", "second"), 1):
        broker.produce(topic, [f"message {i}" for i in range(500)])
        count += 500
        sink.wait_for(count - 400)
        secrets.put(key=(keys / f"{who}.key").read_text(), cert=(keys / f"{who}.pem").read_text())
        process.wait_until(
            "has noticed", lambda: process.output.count("certificates have changed") >= number, 10
        )
    sink.wait_for(count, 60)
    wait_until("all are there", lambda: len({r.id for r in sink.all()}) == count, 30)
    assert [r.id for r in sink.all()] == [f"{topic}/0/{i}" for i in range(count)]


@pytest.fixture(scope="module", params=["3", "4"])
def scram_broker(request, keys):
    """Debian 12's librdkafka can do SCRAM with Kafka 3 alone."""
    with Kafka(tls=keys, version=["3"] if request.param == "3" else []) as k:
        k.works = request.param == "3" or librdkafka() >= (2, 6, 1)
        yield k


def librdkafka():
    """The version of the library that the program is linked with."""
    linked = subprocess.run(["ldd", SLUICE.resolve()], capture_output=True, text=True, check=True).stdout
    library = ctypes.CDLL(re.search(r"librdkafka\S* => (\S+)", linked).group(1))
    library.rd_kafka_version_str.restype = ctypes.c_char_p
    return tuple(int(n) for n in library.rd_kafka_version_str().decode().split("-")[0].split("."))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_is_proven_without_being_shown(scram_broker, sink, run, secrets, mechanism):
    broker, topic = scram_broker, next(names)
    broker.create_topic(topic)
    broker.produce(topic, ["one"])
    secrets.put(user=broker.user, password=broker.password)
    sasl = {**SASL, "mechanism": mechanism}
    process = run(reads(broker, topic, sink.uri, "SASL_SSL", sasl=sasl, tls=TLS))
    if broker.works:
        sink.wait_for(1)
        return
    process.wait_until(
        "says that the library is too old",
        lambda: process.status()["sourceReason"].endswith("can't do SCRAM with Kafka 4, 2.6.1 can"),
        15,
    )


def test_dead_letters_are_written_and_read_as_a_user(broker, topic, run, runner, secrets):
    """The producer of dead letters and `replay` have the cluster's sasl and tls, too."""
    letters = next(names)
    broker.create_topic(letters)
    access = {"sasl": SASL, "tls": MUTUAL}
    delivery = {
        "retry": {"maxAttempts": 1, "onExhausted": "DeadLetter"},
        "deadLetter": {
            "kafka": {"bootstrapServers": [broker.tls_bootstrap("SASL_SSL")], "topic": letters, **access}
        },
    }
    with Sink(lambda request: (400, {}, b"no")) as refuses:
        t = reads(broker, topic, refuses.uri, "SASL_SSL", delivery=copy.deepcopy(delivery), **access)
        process = run(t)
        broker.produce(topic, ["one"])
        wait_until("the letter is there", lambda: broker.end_offsets(letters, 1) == {0: 1}, 20)
        # The same with what the producer reads when it is made: the next letter is written by another one.
        for name, end in (("cert", ".pem"), ("key", ".key")):
            secrets.put(**{name: (broker.tls / f"second{end}").read_text()})
        broker.produce(topic, ["two"])
        wait_until("the second is there", lambda: broker.end_offsets(letters, 1) == {0: 2}, 30)
        process.stop()
    with Sink() as sink:
        t["spec"]["sink"] = {"uri": sink.uri}
        path = runner.directory / "replayed.yaml"
        path.write_text(yaml.safe_dump(t))
        done = subprocess.run(
            [SLUICE, "replay", "-f", path, f"--secrets={secrets.folder}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert [r.id for r in sink.all()] == [f"{topic}/0/0", f"{topic}/0/1"]
        assert "first-secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("who", "end"),
    [
        ("unknown", "(tls.certSecretRef)"),
        ("ca", "tls.keySecretRef must hold the key in PEM, without a password, of tls.certSecretRef"),
    ],
)
def test_a_certificate_that_is_refused_stops_nothing(broker, topic, sink, run, secrets, keys, who, end):
    """The one of before serves on, and the status says so, until there is one that the broker takes."""
    process = run(reads(broker, topic, sink.uri, "MUTUAL", tls=MUTUAL))
    broker.produce(topic, ["one"])
    sink.wait_for(1)
    secrets.put(cert=(keys / f"{who}.pem").read_text())
    if who == "unknown":
        secrets.put(key=(keys / f"{who}.key").read_text())
    process.wait_until("is told", lambda: process.status()["sourceReason"].endswith(end), 15)
    assert process.status()["sourceState"] == "Connected"
    broker.produce(topic, ["two"])
    sink.wait_for(2)
    assert "goes on with them" not in process.output
    secrets.put(cert=(keys / "second.pem").read_text(), key=(keys / "second.key").read_text())
    process.wait_for_output("goes on with them", 15)
    process.wait_until(
        "is well",
        lambda: (process.status()["sourceState"], process.status()["sourceReason"]) == ("Connected", ""),
        15,
    )
    broker.produce(topic, ["three"])
    sink.wait_for(3)
    assert [r.id for r in sink.all()] == [f"{topic}/0/{i}" for i in range(3)]


class Gossip:
    """A broker that speaks as much of the protocol as it takes to refuse a user of PLAIN, and quotes the name and the password."""

    API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(self.listener.getsockname()[1])
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def answer(self, key, version, request):
        if key == self.API_VERSIONS:
            known = [(self.API_VERSIONS, 0, 0), (self.HANDSHAKE, 0, 1), (self.AUTHENTICATE, 0, 0), (3, 0, 4)]
            listed = b"".join(struct.pack(">hhh", *k) for k in known)
            return struct.pack(">hi", 0 if version == 0 else 35, len(known)) + listed
        if key == self.HANDSHAKE:
            return struct.pack(">hih", 0, 1, 5) + b"PLAIN"
        _, user, password = request.rsplit(b"\0", 2)
        words = b"no user " + user[-7:] + b" with " + password
        return struct.pack(">hh", 58, len(words)) + words + struct.pack(">i", 0)

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while size := stream.read(4):
                request = stream.read(struct.unpack(">i", size)[0])
                key, version, number = struct.unpack(">hhi", request[:8])
                answer = self.answer(key, version, request)
                connection.sendall(struct.pack(">ii", 4 + len(answer), number) + answer)


def test_a_broker_that_quotes_the_password_is_quoted_without(runner, secrets, sink):
    secrets.put(user="alice-7", password="S3cret,pw")
    with Gossip() as gossip:
        source = {
            "bootstrapServers": [gossip.address],
            "topics": ["any"],
            "sasl": {
                "mechanism": "PLAIN",
                "usernameSecretRef": {"name": "kafka", "key": "user"},
                "passwordSecretRef": {"name": "kafka", "key": "password"},
            },
        }
        run = runner.start(
            trigger("gossip", {"kafka": source}, sink.uri),
            options=[f"--secrets={secrets.folder}", "--log-level=debug"],
        )
        run.wait_for_output(r"state=Disconnected reason=.*no user \*\*\* with \*\*\*", 20)
        assert "S3cret" not in run.output
