"""What the bench's cases are made of: a broker with topics full of numbered messages, the sink, Sluice and its peer, and what is read from /proc."""

import dataclasses
import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from harness.kafka import Kafka  # noqa: E402
from harness.ports import free_port  # noqa: E402
from harness.process import Process, run, wait_until  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
SLUICE, SINK = ROOT / "build" / "sluice", ROOT / "build" / "bench-sink"
PARTITIONS = 4
NOTHING_COMES = 20.0
SAMPLING = 0.02  # seconds between two looks at a worker's memory


class Skipped(Exception):
    """A case that can't be run now, and why."""


# ---- what a process costs


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_nanoseconds(pid):
    """Finer, of the threads that are alive: for a process that does next to nothing."""
    return sum(
        int((task / "schedstat").read_text().split()[0])
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
    )


def memory(pid):
    """{rss, pss, anonymous} in MiB"""
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss", "Anonymous"):
            found[name.lower()] = int(rest.split()[0]) / 1024
    return found


class Priority:
    real_time = False  # for all that has a core: what else the machine does stands still meanwhile


def on(core, command):
    """The command on one core; None: on any."""
    if core is None or os.cpu_count() == 1:
        return command
    return [*(["chrt", "-r", "1"] if Priority.real_time else []), "taskset", "-c", core, *command]


def certificate(folder):
    """(certificate, key): the names of files in PEM, for localhost"""
    cert, key = f"{folder}/cert.pem", f"{folder}/key.pem"
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
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-keyout",
            key,
            "-out",
            cert,
        ]
    )
    return cert, key


# ---- the sink


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


class Sink(Process):
    """bench/sink.c; its options as they stand there."""

    def __init__(self, *options, tls=False, core=None):
        self.scheme, self.ca = ("https", None) if tls else ("http", None)
        if tls:
            self._certificate = tempfile.TemporaryDirectory(prefix="sink-tls-")
            self.ca, key = certificate(self._certificate.name)
            options = (*options, f"--tls={self.ca},{key}")
        super().__init__(on(core, [SINK, *options]), name="sink")

    def start(self):
        super().start()
        self.port = int(self.wait_for_output(r"^port (\d+)").group(1))
        self.control = int(self.wait_for_output(r"^control (\d+)").group(1))
        return self

    @property
    def uri(self):
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    def stats(self):
        return json.loads(get(self.control, "/-/stats"))

    def mark(self):
        return json.loads(get(self.control, "/-/mark"))


# ---- topics


def message(number, size, produced=0):
    """What the sink knows an event by, filled up to the size."""
    head = f"#{number:010}@{produced:019}"
    return (head + "x" * (size - len(head))).encode()


class Topics:
    """The broker, and topics of numbered messages that several runs read, each in a group of its own."""

    def __init__(self, kafka):
        self.kafka, self.made = kafka, {}

    @property
    def bootstrap(self):
        return self.kafka.bootstrap

    def filled(self, messages, size):
        if (messages, size) not in self.made:
            name = self.empty()
            body = b"x" * (size - 31)
            from confluent_kafka import Producer

            failed = []
            producer = Producer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "acks": "all",
                    "linger.ms": 20,
                    "queue.buffering.max.messages": 200_000,
                }
            )
            for i in range(messages):
                while True:
                    try:
                        producer.produce(
                            name, value=b"#%010d@%019d" % (i, 0) + body, partition=i % PARTITIONS
                        )
                        break
                    except BufferError:
                        producer.poll(0.1)
            left = producer.flush(120)
            ends = sum(self.kafka.end_offsets(name, PARTITIONS).values())
            if failed or left or ends != messages:
                raise SystemExit(f"the broker took {ends} of {messages} messages")
            self.made[messages, size] = name
        return self.made[messages, size]

    def empty(self):
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self.kafka.create_topic(name, PARTITIONS)
        return name


# ---- what is measured


@dataclasses.dataclass
class Work:
    """What a worker is to do."""

    topics: Topics
    topic: str
    sink: Sink
    in_flight: int = 64
    ordering: str = "None"
    batch: int = 1
    fetch_mib: int = 32
    http_version: str = ""
    timeout: str = ""
    instance: str = ""
    group: str = dataclasses.field(default_factory=lambda: f"bench-{uuid.uuid4().hex[:8]}")


class Sluice(Process):
    title = "Sluice"
    program = (SLUICE,)  # another build may be measured: the words of its command

    def __init__(self, work):
        self._folder = tempfile.TemporaryDirectory(prefix="bench-sluice-")
        path = pathlib.Path(self._folder.name) / "trigger.json"
        delivery = {"ordering": work.ordering, "maxInFlight": work.in_flight}
        if work.batch > 1:
            delivery["batch"] = {"maxMessages": work.batch}
        if work.http_version:
            delivery["httpVersion"] = work.http_version
        if work.timeout:
            delivery["timeout"] = work.timeout
        sink = {"uri": work.sink.uri}
        if work.sink.ca:
            sink["CACerts"] = pathlib.Path(work.sink.ca).read_text()
        kafka = {
            "bootstrapServers": [work.topics.bootstrap],
            "topics": [work.topic],
            "startPosition": "Earliest",
            "fetchBytes": work.fetch_mib << 20,
            "consumerGroup": work.group,
        }
        trigger = {
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "Trigger",
            "metadata": {"name": "bench", "namespace": "bench"},
            "spec": {"source": {"kafka": kafka}, "sink": sink, "delivery": delivery},
        }
        path.write_text(json.dumps(trigger))
        refused = subprocess.run([SLUICE, "validate", path], capture_output=True, text=True)
        if refused.returncode:
            raise Skipped(
                f"this build refuses the Trigger: {(refused.stderr or refused.stdout).strip().splitlines()[0]}"
            )
        instance = [f"--instance={work.instance}"] if work.instance else []
        command = [
            *self.program,
            "worker",
            f"--trigger={path}",
            f"--checkpoint={self._folder.name}/state",
            "--admin=127.0.0.1:0",
            "--log-level=warn",
            *instance,
        ]
        super().__init__(command, name="sluice")

    def admin(self):
        return int(self.wait_for_output(r"admin port (\d+)").group(1))

    def status(self):
        return json.loads(get(self.admin(), "/status"))["triggers"][0]

    def reason(self):
        status = self.status()
        return status["deliveryReason"] or status["sourceReason"] or status["deliveryState"]

    def metric(self, name):
        for line in get(self.admin(), "/metrics").decode().splitlines():
            if line.startswith(name + "{"):
                return int(line.split()[-1])


class Benthos(Process):
    title = "Benthos"

    def __init__(self, work, idle=None):
        """idle: how many connections its client keeps, instead of the two that a user gets."""
        self._folder = tempfile.TemporaryDirectory(prefix="bench-benthos-")
        path = pathlib.Path(self._folder.name) / "benthos.yaml"
        client = {
            "url": work.sink.uri,
            "verb": "POST",
            "headers": {"Content-Type": "application/json"},
            "max_in_flight": 1 if work.ordering == "Partition" else work.in_flight,
        }
        if work.sink.ca:
            client["tls"] = {"enabled": True, "root_cas_file": work.sink.ca}
        if work.timeout:
            client["timeout"] = work.timeout
        if work.batch > 1:
            client["batching"] = {
                "count": work.batch,
                "period": "500ms",
                "processors": [{"archive": {"format": "lines"}}],
            }
        config = {
            "http": {"enabled": False},
            "logger": {"level": "WARN"},
            "input": {
                "kafka_franz": {
                    "seed_brokers": [work.topics.bootstrap],
                    "topics": [work.topic],
                    "consumer_group": work.group,
                    "start_from_oldest": True,
                }
            },
            "output": {"http_client": client},
        }
        path.write_text(json.dumps(config))  # JSON is YAML
        super().__init__(
            [run([ROOT / "tools" / "benthos", "fetch"], timeout=1800).stdout.strip(), "-c", path],
            name="benthos",
            env={"BENCH_IDLE": idle or ""},
        )

    def reason(self):
        return self.tail(3)


@dataclasses.dataclass
class Run:
    """What one worker did with a topic, as the sink and /proc saw it."""

    messages: int
    cpu: float
    seconds: float  # first to last event
    peak: dict
    sink: dict
    attempts: int = 0
    limits: list = dataclasses.field(default_factory=list)

    @property
    def per_cpu_second(self):
        return self.messages / self.cpu

    @property
    def per_second(self):
        return self.messages / self.seconds


def deliver(worker, work, messages, patience=300.0):
    """Runs a worker until the sink has each message once, or for so long; the worker is given not yet started."""
    peak, limits = {}, []
    with worker:
        give_up = time.monotonic() + patience
        stats = {"distinct": 0}
        looked = 0.0
        while stats["distinct"] < messages and time.monotonic() < give_up:
            if not worker.alive():
                raise SystemExit(f"it ended:\n{worker.describe()}")
            for name, value in memory(worker.pid).items():
                peak[name] = max(peak.get(name, 0), value)
            if isinstance(worker, Sluice) and time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                limits.append(worker.metric("sluice_requests_limit"))
            time.sleep(SAMPLING)
            stats = work.sink.stats()
            if not stats["requests"] and time.monotonic() > give_up - patience + NOTHING_COMES:
                raise Skipped(f"{worker.title} delivers nothing: {worker.reason()}")
        cpu = cpu_seconds(worker.pid)
    stats = work.sink.stats()
    return Run(
        stats["distinct"], cpu, max(1e-9, (stats["last"] - stats["first"]) / 1e9), peak, stats, limits=limits
    )
