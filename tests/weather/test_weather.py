"""Many Triggers of all sources for a while at low, irregular rates, in one process and in workers, while the weather changes: functions fall with
requests in flight, move, hang and vanish behind a firewall; the broker and the API server go away; topics are made again and grow; Secrets are
rotated; and in between nothing happens for longer than any library keeps a connection. In the end nothing may be lost, nothing may have come to
another's function, and no probe may have been wrong.

Usage: "$(tools/venv)/bin/pytest" -q tests/weather          WEATHER_SECONDS: how long (90); WEATHER_SEED: another course of it
"""

import collections
import contextlib
import http.client
import json
import os
import random
import statistics
import threading
import time

import pytest
import yaml
from confluent_kafka import Producer
from harness import ROOT
from harness.cluster import Cluster
from harness.kafka import Kafka
from harness.ports import free_port
from harness.process import Process, in_netns, run, wait_until
from harness.sluice import SLUICE
from harness.smn import Smn
from harness.worker import Worker, start_controller
from sinks import Ledger, Probes, Sink

SECONDS = float(os.environ.get("WEATHER_SECONDS", "90"))
SEED = int(os.environ.get("WEATHER_SEED", "1"))
CALM = 130.0  # no library keeps an idle connection longer
TOPICS = {"orders": 2, "audit": 1, "secure": 1, "moving": 1, "again": 1, "stock": 1}
TOKEN_GRACE = 35.0

pytestmark = [
    pytest.mark.skipif(bool(os.environ.get("KUBECONFIG")), reason="needs an API server of its own"),
    pytest.mark.timeout(SECONDS + 240),
]


def trigger(name, source, sink, uri=None, delivery=None, **spec):
    delivery = {"timeout": "3s", "retry": {"initialBackoff": "100ms", "maxBackoff": "1s"}, **(delivery or {})}
    delivery["headers"] = [{"name": "X-Sink", "value": sink.name}]
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": name, "namespace": "weather"},
        "spec": {"source": source, "sink": {"uri": uri or sink.uri()}, "delivery": delivery, **spec},
    }


class World:
    def __init__(self, stack, cluster, folder):
        self.stack, self.cluster, self.folder = stack, cluster, folder
        self.random, self.ledger, self.notes = random.Random(SEED), Ledger(), []
        self.ended, self.threads, self.windows = threading.Event(), [], []
        self.quiet = None  # a topic that nobody writes to for now
        self.hosts = folder / "hosts"
        self.tokens = {"audit": [("first", 0.0)], "photos": [("first", 0.0)]}

    def note(self, text):
        self.notes.append(f"{time.monotonic() - self.began:6.1f} {text}")
        print(self.notes[-1], flush=True)

    # ---- secrets: the newest is used at once, older ones for a while

    def rotate(self, name):
        token = f"token-{len(self.tokens[name])}"
        self.tokens[name].append((token, time.monotonic()))
        (self.folder / "smn" / "secrets" / name / "token").write_text(token)
        self.note(f"the token of {name} is rotated")

    def good_tokens(self, name):
        """Of the function: the newest, and the one before it until everybody has read the new one."""
        now, kept = time.monotonic(), self.tokens[name][-2:]
        return [t for t, _ in kept if t == kept[-1][0] or now - kept[-1][1] < TOKEN_GRACE]

    # ---- what stands

    def start(self):
        self.began = time.monotonic()
        folder = self.folder / "smn"
        folder.mkdir()
        self.smn = self.stack.enter_context(Smn(folder))
        for name in self.tokens:
            (folder / "secrets" / name).mkdir()
            (folder / "secrets" / name / "token").write_text("first")
        self.kafka = self.stack.enter_context(Kafka())
        for topic, partitions in TOPICS.items():
            self.kafka.create_topic(topic, partitions)
        # In this network namespace, as all that its threads open.
        self.producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "acks": "all",
                "linger.ms": 0,
                "enable.idempotence": True,
                "message.timeout.ms": 60000,
                "log_level": 0,
            }
        )
        tls = self.smn_tls()
        self.sinks = {
            name: Sink(
                name,
                self.ledger,
                tls=tls if name == "secure" else None,
                tokens=(lambda: self.good_tokens("audit")) if name == "audit" else None,
            )
            for name in (
                "clock",
                "slow-clock",
                "orders",
                "audit",
                "secure",
                "moving",
                "again",
                "api",
                "rare",
                "topic",
                "alarm",
                "photos",
                "beat",
                "stock",
            )
        }
        for s in self.sinks.values():
            self.stack.callback(s.close)
        self.hosts.write_text(f"127.0.0.1 localhost\n{self.sinks['moving'].address} moving.weather.test\n")
        self.start_run()
        self.start_workers()
        self.probes = Probes(self.admin)
        self.stack.callback(self.probes.close)

    def smn_tls(self):
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.smn.folder / "tls.pem", self.smn.folder / "tls.key")
        return context

    def triggers(self):
        s, bootstrap = self.sinks, [self.kafka.bootstrap]

        def topic(name, **more):
            return {
                "kafka": {
                    "bootstrapServers": bootstrap,
                    "topics": [name],
                    "consumerGroup": name,
                    "startPosition": "Earliest",
                    **more,
                }
            }

        return [
            trigger("clock", {"timer": {"schedule": "@every 2s", "misfirePolicy": "CatchUp"}}, s["clock"]),
            trigger(
                "slow-clock",
                {"timer": {"schedule": "@every 41s", "misfirePolicy": "CatchUp"}},
                s["slow-clock"],
            ),
            trigger("orders", topic("orders"), s["orders"], delivery={"ordering": "Partition"}),
            trigger(
                "audit",
                topic("audit"),
                s["audit"],
                delivery={
                    "ordering": "None",
                    "authentication": {"bearer": {"tokenSecretRef": {"name": "audit", "key": "token"}}},
                },
            ),
            trigger(
                "secure",
                topic("secure"),
                s["secure"],
                delivery={
                    "ordering": "Key",
                    "httpVersion": "Auto",
                    "tls": {"caSecretRef": {"name": "smn-ca", "key": "ca.pem"}},
                },
            ),
            trigger("moving", topic("moving"), s["moving"], uri=s["moving"].uri("moving.weather.test")),
            trigger("again", topic("again"), s["again"]),
            trigger("api", {"apig": {"path": "/api", "match": "Prefix"}}, s["api"]),
            trigger("rare", {"apig": {"path": "/rare"}}, s["rare"]),
            trigger("topic", {"smn": self.smn.source}, s["topic"]),
            trigger("alarm", {"cloudEye": self.smn.source}, s["alarm"]),
            trigger(
                "photos",
                {
                    "obs": {
                        "bucket": "photos",
                        "from": "Webhook",
                        "tokenSecretRef": {"name": "photos", "key": "token"},
                    }
                },
                s["photos"],
            ),
        ]

    def start_run(self):
        path = self.folder / "run.yaml"
        path.write_text("---\n".join(yaml.safe_dump(t) for t in self.triggers()))
        self.port, admin = free_port(), free_port()
        command = [
            SLUICE,
            "run",
            "-f",
            path,
            f"--state={self.folder / 'state'}",
            f"--admin=127.0.0.1:{admin}",
            f"--listen=127.0.0.1:{self.port}",
            "--log-level=info",
            *self.smn.options,
        ]
        # Its own /etc/hosts, which can be written while it runs.
        inside = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" /etc/hosts && exec "$@"',
            str(self.hosts),
            *map(str, command),
        ]
        self.run = self.stack.enter_context(Process(inside, name="run", directory=self.folder / "run"))
        self.run.wait_for_output(r"listening on port \d+", 20)
        self.admin = {"run": admin}

    def start_workers(self):
        c = self.cluster
        c.apply((ROOT / "crds" / "triggers.sluice.dev.yaml").read_text())
        c.wait("crd/triggers.sluice.dev", "Established")
        c.kubectl("create", "namespace", "weather")
        self.stack.enter_context(start_controller(c)).wait_for_output("the controller knows the cluster", 20)
        kafka = {
            "kafka": {
                "bootstrapServers": [self.kafka.bootstrap],
                "topics": ["stock"],
                "consumerGroup": "stock",
                "startPosition": "Earliest",
            }
        }
        c.apply(
            trigger(
                "beat", {"timer": {"schedule": "@every 3s", "misfirePolicy": "CatchUp"}}, self.sinks["beat"]
            ),
            trigger("stock", kafka, self.sinks["stock"]),
        )
        for name in ("beat", "stock"):
            wait_until(
                "its Deployment", lambda n=name: c.get("deployment", f"{n}-sluice", namespace="weather"), 20
            )
            self.admin[name] = free_port()
            worker = self.stack.enter_context(
                Worker(
                    c, "weather", name, f"{name}-a", self.folder, [f"--admin=127.0.0.1:{self.admin[name]}"]
                )
            )
            worker.process.wait_for_http(f"http://127.0.0.1:{self.admin[name]}/readyz", timeout=30)

    # ---- the load: low and irregular

    def now_and_then(self, act, mean):
        rng = random.Random(self.random.random())

        def go():
            while not self.ended.wait(min(rng.expovariate(1 / mean), 4 * mean)):
                act(rng)

        self.threads.append(threading.Thread(target=go, daemon=True))

    def produce(self, topic, sink=None):
        sink = sink or topic

        def act(rng):
            if topic == self.quiet:
                return
            number, mark = self.ledger.send(sink)
            value = json.dumps({"mark": mark, "fill": "x" * rng.randrange(2000)})
            self.producer.produce(
                topic,
                value=value,
                key=str(rng.randrange(5)),
                on_delivery=lambda e, m: self.ledger.told(sink, number, f"not sent: {e}" if e else "taken"),
            )
            self.producer.poll(0)

        return act

    def call(self, path, sink, body=None, headers=None, until_taken=False):
        """One request; until_taken: sent again, as the cloud's services do, until it is accepted."""

        def act(rng):
            number, mark = self.ledger.send(sink)
            text, more = (json.dumps({"mark": mark}), {}) if body is None else body(mark)
            while True:
                status = self.post(path, text, {**(headers() if headers else {}), **more})
                if status == 200:
                    self.ledger.told(sink, number, "taken")
                    return
                if not until_taken:
                    self.ledger.told(sink, number, f"answered {status}")
                    return
                if self.ended.wait(0.5) and time.monotonic() > self.over_at + 30:
                    return

        return act

    def post(self, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except OSError as e:
            return f"{type(e).__name__}: {e}"
        finally:
            connection.close()

    def photo(self, mark):
        o = {"key": mark, "size": 1, "eTag": "e", "sequencer": mark}
        record = {
            "eventVersion": "2.0",
            "eventSource": "aws:s3",
            "awsRegion": "",
            "eventTime": "2026-11-24T10:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "userIdentity": {"principalId": "u"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"},
            "responseElements": {"x-amz-request-id": "1", "x-amz-id-2": "2"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "c",
                "bucket": {
                    "name": "photos",
                    "ownerIdentity": {"PrincipalId": "u"},
                    "arn": "arn:aws:s3:::photos",
                },
                "object": o,
            },
        }
        return json.dumps({"Records": [record]}), {"Content-Type": "application/json"}

    def alarm(self, mark):
        return self.smn.notification(
            json.dumps(
                {
                    "message_type": "alarm",
                    "alarm_id": mark,
                    "alarm_name": "cpu",
                    "alarm_status": "alarm",
                    "alarm_level": 2,
                }
            )
        )

    def load(self):
        for topic in ("orders", "audit", "secure", "moving", "again", "stock"):
            self.now_and_then(self.produce(topic), 1.0)
        self.now_and_then(self.call("/api/x", "api"), 0.7)
        self.now_and_then(self.call("/rare", "rare"), min(40.0, SECONDS / 6))
        # As their senders do; each signature takes openssl a moment.
        self.now_and_then(
            self.call("/weather/topic", "topic", lambda mark: self.smn.notification(mark), until_taken=True),
            4.0,
        )
        self.now_and_then(self.call("/weather/alarm", "alarm", self.alarm, until_taken=True), 6.0)
        self.now_and_then(
            self.call(
                "/weather/photos",
                "photos",
                self.photo,
                lambda: {"Authorization": f"Bearer {self.tokens['photos'][-1][0]}"},
                until_taken=True,
            ),
            2.0,
        )
        for t in self.threads:
            t.start()

    # ---- the weather

    def pause(self, seconds):
        """Goes on when the time has passed, or the end is near."""
        return self.ended.wait(max(0.0, min(seconds, self.over_at - time.monotonic())))

    def fall(self, name, down, reset=False, in_flight=True):
        s = self.sinks[name]
        if in_flight:
            s.hang()
            self.pause(1.5)
        self.note(f"{name} falls for {down} s" + (", by a reset" if reset else ""))
        s.fall(reset)
        self.pause(down)
        s.listen()

    def broker_away(self, seconds):
        self.note(f"the broker is killed for {seconds} s")
        began = time.monotonic()
        self.kafka.kill()
        self.pause(seconds)
        self.kafka.start()
        self.windows.append((began, time.monotonic() + 20))

    def firewall(self, port, seconds, what):
        self.note(f"{what} is behind a firewall for {seconds} s")
        rules = [["-p", "tcp", side, str(port), "-j", "DROP"] for side in ("--dport", "--sport")]
        for r in rules:
            run(["iptables", "-I", "INPUT", *r])
        try:
            self.pause(seconds)
        finally:
            for r in rules:
                run(["iptables", "-D", "INPUT", *r])

    def api_server_away(self, seconds):
        """A timer can't claim its ticks meanwhile, and its worker is not ready."""
        began = time.monotonic()
        self.firewall(6443, seconds, "the API server")
        self.windows.append((began, time.monotonic() + 20))

    def move(self):
        s = self.sinks["moving"]
        old, s.address = s.address, "127.0.0.2" if s.address == "127.0.0.1" else "127.0.0.1"
        self.note(f"moving goes from {old} to {s.address}")
        s.fall()
        s.listen()
        self.hosts.write_text(f"127.0.0.1 localhost\n{s.address} moving.weather.test\n")

    def recreate(self, topic):
        """Once all of it has arrived: what lies in a topic that is deleted is gone by request."""
        self.note(f"{topic} is deleted and made again")
        self.quiet = topic
        self.producer.flush(30)
        wait_until(f"{topic} is delivered", lambda: not self.ledger.missing(topic), 30)
        self.kafka.delete_topic(topic)
        wait_until("it is gone", lambda: topic not in self.producer.list_topics(timeout=10).topics, 20)
        self.kafka.create_topic(topic, 1)
        self.quiet = None

    def refuse(self, name, status, seconds):
        self.note(f"{name} answers {status} for {seconds} s")
        self.sinks[name].status = status
        self.pause(seconds)
        self.sinks[name].status = 200

    def storm(self):
        steps = [
            lambda: self.fall("clock", 1),
            lambda: self.fall("orders", 2, reset=True),
            lambda: self.rotate("audit"),
            lambda: self.broker_away(3),
            lambda: self.fall("api", 1),
            lambda: self.move(),
            lambda: self.recreate("again"),
            lambda: self.firewall(self.sinks["secure"].port, 5, "secure"),
            lambda: self.rotate("photos"),
            lambda: self.api_server_away(8),
            lambda: self.fall("beat", 1, reset=True),
            lambda: self.refuse("stock", 503, 3),
            lambda: self.grow("orders"),
            lambda: self.fall("topic", 1, in_flight=False),
            lambda: self.fall("photos", 1, reset=True, in_flight=False),
            lambda: self.fall("secure", 1),
        ]
        self.random.shuffle(steps)
        for step in steps:
            if self.pause(self.random.uniform(0.2, 1.5)) or time.monotonic() >= self.over_at:
                return
            step()

    def grow(self, topic):
        TOPICS[topic] += 1
        self.note(f"{topic} gets partition {TOPICS[topic] - 1}")
        self.kafka.grow_topic(topic, TOPICS[topic])

    def blow(self):
        self.over_at = time.monotonic() + SECONDS
        self.load()
        while time.monotonic() < self.over_at:
            self.storm()
            if self.over_at - time.monotonic() > CALM:
                self.note("calm")
                self.pause(CALM)
        self.ended.set()
        for t in self.threads:
            t.join(60)
        self.producer.flush(60)

    # ---- the reckoning

    def resident(self):
        with open(f"/proc/{self.run.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def watch_memory(world, samples):
    while not world.ended.wait(1):
        samples.append(world.resident())


def check(world, samples):
    ledger, probes = world.ledger, world.probes
    for topic in (
        "orders",
        "audit",
        "secure",
        "moving",
        "again",
        "stock",
        "topic",
        "alarm",
        "photos",
        "api",
        "rare",
    ):
        wait_until(
            f"all of {topic} is delivered",
            lambda t=topic: not ledger.missing(t),
            60,
            poll=0.2,
            explain=lambda t=topic: f"missing: {ledger.missing(t)[:20]} of {len(ledger.sent[t])}",
        )
    assert not ledger.astray, ledger.astray[:5]
    for name in ("api", "rare"):
        twice = {n: c for n, c in ledger.seen[name].items() if c > 1}
        assert not twice, f"{name}: a call came more than once: {twice}"
        assert "taken" in ledger.sent[name].values(), (
            f"{name}: {collections.Counter(ledger.sent[name].values())}"
        )
    for name, told in ledger.sent.items():
        lost = [t for t in told.values() if t and t.startswith("not sent")]
        assert not lost, f"{name}: the broker did not take {lost[:3]}"
    for name, every in (("clock", 2), ("beat", 3)):
        gaps = tick_gaps(ledger.order[name], every)
        assert not gaps, f"{name}: ticks are missing: {gaps}"
    dead = [a for a in probes.answers if a[2] == "/livez" and a[3] != 200]
    assert not dead, f"/livez: {[(round(a[0] - world.began, 1), a[1], *a[3:]) for a in dead[:5]]}"
    not_ready = [
        a
        for a in probes.answers
        if a[2] == "/readyz" and a[3] != 200 and not any(began <= a[0] <= end for began, end in world.windows)
    ]
    assert not not_ready, (
        f"/readyz while the sources were there: {[(round(a[0] - world.began, 1), a[1], *a[3:]) for a in not_ready[:5]]}"
    )
    assert world.run.alive()
    quarter = len(samples) // 4
    early, late = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    assert late < early * 1.2 + 4096, (
        f"memory grows: {early:.0f} KiB in the second quarter, {late:.0f} in the last"
    )


def tick_gaps(ids, every):
    """Pairs of neighbours that are more than one interval apart. An id ends with the time that the tick was for."""
    import datetime

    def at(text):
        stamp = text.rsplit("/", 1)[-1]
        return (
            int(stamp) / 1000
            if stamp.isdigit()
            else datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
        )

    times = sorted({at(i) for i in ids})
    return [(a, b) for a, b in zip(times, times[1:]) if b - a > every + 0.5]


def test_nothing_is_lost_in_bad_weather(tmp_path):
    with Cluster(control_plane_only=True) as cluster:

        def live():
            with contextlib.ExitStack() as stack:
                world = World(stack, cluster, tmp_path)
                world.start()
                samples = []
                threading.Thread(target=watch_memory, args=(world, samples), daemon=True).start()
                try:
                    world.blow()
                    check(world, samples)
                except BaseException:
                    print("\n".join(world.notes))
                    raise
                finally:
                    world.ended.set()
                sent = {name: len(numbers) for name, numbers in world.ledger.sent.items()}
                came = {name: sum(c.values()) for name, c in world.ledger.seen.items()}
                print(
                    f"sent {sent}\nreceived {came}\nprobes {len(world.probes.answers)}, memory {min(samples)} to {max(samples)} KiB"
                )

        in_netns(cluster.netns, live)
