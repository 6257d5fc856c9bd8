"""Kafka with tokens (OAUTHBEARER), on a real broker: who gets in, what is said of who doesn't, and tokens that end."""

import base64
import itertools
import json
import re
import ssl
import subprocess
import time

import pytest
import yaml
from harness import pki
from harness.kafka import Kafka
from harness.ports import free_port
from harness.process import wait_until
from harness.sink import Sink
from harness.sluice import SLUICE, trigger

names = (f"tokens-{n}" for n in itertools.count())
SECRET = "s3cret of the client"
LIFE = 6


@pytest.fixture(scope="module")
def broker():
    """Takes tokens without a signature, which is all that Kafka's own validator can do without an issuer; ends a
    connection when its token does."""
    with Kafka(properties={"connections.max.reauth.ms": "3600000"}) as k:
        yield k


@pytest.fixture
def topic(broker):
    name = next(names)
    broker.create_topic(name)
    return name


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def token(life=LIFE):
    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': 'me', 'iat': now - 1, 'exp': now + life})}."


class Endpoint(Sink):
    """Gives tokens to the one client it knows."""

    def __init__(self, tls=None, life=LIFE):
        self.life, self.given, self.times, self.ill = life, [], [], None
        super().__init__(self.give, tls)

    def give(self, request):
        basic = base64.b64encode(f"the+client:{SECRET.replace(' ', '+')}".encode()).decode()
        if self.ill:
            return self.ill(request)
        if request.header("Authorization") != f"Basic {basic}":
            shown = base64.b64decode(request.header("Authorization").split()[1]).decode()
            quoted = {"error": "invalid_client", "error_description": f"not {shown}"}
            return 401, {}, json.dumps(quoted).encode()
        assert (
            request.method == "POST" and request.header("Content-Type") == "application/x-www-form-urlencoded"
        )
        assert request.body == b"grant_type=client_credentials&scope=kafka+more&audience=brokers"
        self.times.append(time.monotonic())
        self.given.append(token(self.life))
        answer = {"access_token": self.given[-1], "token_type": "Bearer", "expires_in": self.life}
        return 200, {}, json.dumps(answer).encode()


@pytest.fixture
def endpoint():
    with Endpoint() as e:
        yield e


@pytest.fixture
def secrets(tmp_path):
    folder = tmp_path / "secrets" / "client"
    folder.mkdir(parents=True)
    (folder / "id").write_text("the client")
    (folder / "secret").write_text(SECRET)
    return folder


def ref(key):
    return {"name": "client", "key": key}


def cluster(broker, url, **more):
    oauth = {
        "tokenURL": url,
        "clientIdSecretRef": ref("id"),
        "clientSecretSecretRef": ref("secret"),
        "scopes": ["kafka", "more"],
        "audience": "brokers",
        **more,
    }
    sasl = {"mechanism": "OAUTHBEARER", "oauth": oauth}
    return {"bootstrapServers": [broker.sasl_bootstrap], "sasl": sasl}


@pytest.fixture
def run(runner, secrets):
    def start(broker, topic, uri, url, delivery=None, **more):
        source = {**cluster(broker, url, **more), "topics": [topic], "startPosition": "Earliest"}
        return runner.start(
            trigger(topic, {"kafka": source}, uri, delivery), options=[f"--secrets={secrets.parent}"]
        )

    return start


def connected(process):
    s = process.status()
    return s["sourceState"] == "Connected" and not s["sourceReason"]


def test_a_token_lets_in_and_another_one_comes_before_it_ends(broker, topic, endpoint, sink, run):
    process = run(broker, topic, sink.uri, endpoint.uri + "token")
    broker.produce(topic, ["one"])
    sink.wait_for(1, 20)
    wait_until("three tokens were given", lambda: len(endpoint.given) >= 3, 4 * LIFE)
    assert all(b - a > 0.75 * LIFE for a, b in zip(endpoint.times, endpoint.times[1:]))  # four fifths
    broker.produce(topic, ["two"])  # the broker has ended the first connections
    sink.wait_for(2, 20)
    wait_until("all is well", lambda: connected(process), 10)
    assert [r.id for r in sink.all()] == [f"{topic}/0/0", f"{topic}/0/1"]
    assert SECRET not in process.output and not any(t in process.output for t in endpoint.given)


def test_a_token_ends_while_no_other_is_given(broker, topic, endpoint, sink, run):
    process = run(broker, topic, sink.uri, endpoint.uri)
    broker.produce(topic, ["one"])
    sink.wait_for(1, 20)
    endpoint.ill = lambda request: (503, {}, b"")

    def said(state, end):
        s = process.status()
        return s["sourceState"] == state and s["sourceReason"].endswith(end)

    wait_until(
        "it is said before it matters",
        lambda: said("Connected", "answered 503; the last one serves until it expires"),
        2 * LIFE,
    )
    wait_until("it is said", lambda: said("Disconnected", f"{endpoint.uri} answered 503"), 4 * LIFE)
    endpoint.ill = None
    broker.produce(topic, ["two"])
    sink.wait_for(2, 60)
    wait_until("all is well", lambda: connected(process), 20)


CLIENT_STEP = "check sasl.oauth.clientIdSecretRef and clientSecretSecretRef"
URL_STEP = "check sasl.oauth.tokenURL, and that it is reached from here"


def gives(**answer):
    return lambda request: (200, {}, json.dumps(answer).encode())


# how the endpoint answers or where it is, the Secret's value, and what the reason is like
REFUSED = {
    "name": ("http://idp.invalid/token", SECRET, f"token: .*idp[.]invalid.*: {URL_STEP}"),
    "refused": ("closed", SECRET, f"token: connect to .*: Failed to connect .*: {URL_STEP}"),
    "client": (None, "wrong", rf"answered 401: invalid_client, not the[+]client:[*][*][*]: {CLIENT_STEP}"),
    "no client": (None, None, "token: Secret client, key secret, is missing or empty"),
    "no token": (gives(token="x"), SECRET, "answered 200 without an access_token: is sasl.oauth.tokenURL .*"),
    "no JSON": (lambda r: (200, {}, b"<html>"), SECRET, "answered 200 without an access_token: .*"),
    "over": (
        gives(access_token="x", expires_in=0),
        SECRET,
        "answered 200 with a token that has expired already .*",
    ),
    "broken": (lambda r: (500, {}, b"no"), SECRET, "answered 500"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_why_there_is_no_token_is_told(broker, topic, endpoint, sink, run, secrets, why):
    how, secret, reason = REFUSED[why]
    endpoint.ill = how if callable(how) else None
    url = how if how and not callable(how) else endpoint.uri
    if how == "closed":
        url = f"http://127.0.0.1:{free_port()}/"
    if secret is None:
        (secrets / "secret").unlink()
    else:
        (secrets / "secret").write_text(secret)
    broker.produce(topic, ["one"])
    process = run(broker, topic, sink.uri, url)

    def told():
        s = process.status()
        return s["sourceState"] == "Failed" and re.search(f"{reason}$", s["sourceReason"])

    process.wait_until("says why", told, 15)
    assert not sink.all() and SECRET not in process.output
    if url != endpoint.uri:
        return
    endpoint.ill = None
    (secrets / "secret").write_text(SECRET)
    sink.wait_for(1, 60)  # it has asked again


def test_brokers_that_refuse_the_token_are_quoted_without_it(broker, topic, endpoint, sink, run):
    endpoint.life = -100
    endpoint.ill = lambda r: (200, {}, json.dumps({"access_token": token(-100), "expires_in": 60}).encode())
    process = run(broker, topic, sink.uri, endpoint.uri)

    def told():
        s = process.status()
        return s["sourceState"] == "Disconnected" and s["sourceReason"].endswith(
            "check its issuer, audience and scopes (sasl.oauth), and the clocks"
        )

    process.wait_until("says why", told, 20)
    endpoint.ill, endpoint.life = None, LIFE
    broker.produce(topic, ["one"])
    sink.wait_for(1, 60)  # another one was asked for


def test_dead_letters_are_written_and_read_with_tokens(broker, topic, run, runner, secrets, tmp_path):
    """The endpoint speaks TLS, with a certificate of an authority of its own."""
    letters = next(names)
    broker.create_topic(letters)
    pki.self_signed(tmp_path, "ca", "authority")
    pki.signed(tmp_path, "server", "endpoint", "subjectAltName=IP:127.0.0.1")
    (secrets / "ca").write_text((tmp_path / "ca.pem").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with Endpoint(context, life=3600) as endpoint:
        url = f"https://127.0.0.1:{endpoint.port}/"
        delivery = {
            "retry": {"maxAttempts": 1, "onExhausted": "DeadLetter"},
            "deadLetter": {
                "kafka": {**cluster(broker, url, caSecretRef=ref("ca")), "topic": letters},
            },
        }
        broker.produce(topic, ["one"])
        with Sink(lambda request: (400, {}, b"no")) as refuses:
            process = run(broker, topic, refuses.uri, url, delivery, caSecretRef=ref("ca"))
            wait_until("the letter is there", lambda: broker.end_offsets(letters, 1) == {0: 1}, 30)
            assert process.stop() == 0
        with Sink() as sink:
            source = {**cluster(broker, url, caSecretRef=ref("ca")), "topics": [topic]}
            path = tmp_path / "replayed.yaml"
            path.write_text(yaml.safe_dump(trigger(topic, {"kafka": source}, sink.uri, delivery)))
            done = subprocess.run(
                [SLUICE, "replay", "-f", path, f"--secrets={secrets.parent}"],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert [r.id for r in sink.all()] == [f"{topic}/0/0"]
