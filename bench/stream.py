"""A stream of DIS as recorded responses, which nginx serves as files: 4 partitions, 1,000 records of 1 KiB a response. What is measured is the worker alone: TLS and the service are left out, signatures are not."""

import base64
import json
import os
import pathlib
import statistics
import tempfile
import time

from rig import (
    PARTITIONS,
    Process,
    Sink,
    Sluice,
    Work,
    cpu_nanoseconds,
    deliver,
    free_port,
    memory,
    message,
)
from cloud import Cloud
from cloud.service import PROJECT as PROJECT_ID
from cloud.service import REGION
from table import Table

RECORDS = 1000  # of a response
PROJECT = "b2b3853af40448fcb9e40d0000000001"


def record(number, sequence, size):
    """The sink knows it by its key."""
    head = '{"state":"open","number":%d,"text":"' % number
    data = head + "x" * (size - len(head) - 2) + '"}'
    return {
        "partition_key": message(number, 31).decode(),
        "sequence_number": str(sequence),
        "data": base64.b64encode(data.encode()).decode(),
        "timestamp": 1700000000000 + sequence,
        "timestamp_type": "CreateTime",
    }


class Stream(Process):
    """nginx with the answers of a stream of so many records."""

    def __init__(self, records, size):
        self._folder = tempfile.TemporaryDirectory(prefix="bench-stream-")
        self.folder, self.port = pathlib.Path(self._folder.name), free_port()
        self.records = max(1, records // (PARTITIONS * RECORDS)) * PARTITIONS * RECORDS
        (self.folder / "records").mkdir()
        (self.folder / "cursors").mkdir()
        for partition in range(PARTITIONS):
            self.write_partition(partition, self.records // PARTITIONS, size)
        described = {
            "stream_name": "bench",
            "status": "RUNNING",
            "has_more_partitions": False,
            "partitions": [
                {
                    "status": "ACTIVE",
                    "partition_id": f"shardId-{p:010}",
                    "sequence_number_range": f"[0 : {self.records // PARTITIONS}]",
                }
                for p in range(PARTITIONS)
            ],
        }
        (self.folder / "stream.json").write_text(json.dumps(described))
        self.configure()
        super().__init__(
            ["/usr/sbin/nginx", "-c", self.folder / "nginx.conf", "-e", self.folder / "error.log"],
            name="nginx",
        )

    def write_partition(self, partition, records, size):
        def cursor(page):
            return f"{partition}-{page}"

        pages = records // RECORDS
        (self.folder / "cursors" / f"shardId-{partition:010}").write_text(
            json.dumps({"partition_cursor": cursor(0)})
        )
        for page in range(pages + 1):  # the last one is empty, and says itself again
            first = page * RECORDS
            answer = {
                "records": [
                    record(partition * records + s, s, size)
                    for s in range(first, min(first + RECORDS, records))
                ],
                "next_partition_cursor": cursor(min(page + 1, pages)),
            }
            (self.folder / "records" / cursor(page)).write_text(json.dumps(answer))

    def configure(self):
        temporary = " ".join(
            f"{kind}_temp_path {self.folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(f"""
            daemon off; master_process off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log crit;
            user root;
            events {{ worker_connections 256; }}
            http {{
                access_log off; {temporary} default_type application/json; sendfile on; keepalive_requests 100000000;
                map $args $cursor {{ "~(?:^|&)partition-cursor=(?<c>[0-9-]+)" $c; }}
                map $args $partition {{ "~(?:^|&)partition-id=(?<p>[A-Za-z0-9-]+)" $p; }}
                server {{
                    listen 127.0.0.1:{self.port}; server_name bench; root {self.folder};
                    location = /v2/{PROJECT}/streams/bench {{ try_files /stream.json =404; }}
                    location = /v2/{PROJECT}/cursors {{ try_files /cursors/$partition =404; }}
                    location = /v2/{PROJECT}/records {{ try_files /records/$cursor =404; }}
                    location = /v2/{PROJECT}/checkpoints {{
                        if ($request_method = POST) {{ return 201; }}
                        return 200 '{{"sequence_number":"-1","metadata":""}}';
                    }}
                }}
            }}""")

    def start(self):
        super().start()
        self.wait_until(
            "listens",
            lambda: f":{self.port:04X} 00000000:0000 0A" in pathlib.Path("/proc/net/tcp").read_text(),
            10,
        )
        return self


class Reader(Sluice):
    """A worker of a stream."""

    def __init__(self, work, stream, spec):
        super().__init__(work)
        path = pathlib.Path(self._folder.name) / "trigger.json"
        trigger = json.loads(path.read_text())
        trigger["spec"]["source"] = {
            "dis": {
                "streamName": "bench",
                "startPosition": "TrimHorizon",
                "cloud": {
                    "region": "cn-north-4",
                    "projectID": PROJECT,
                    "credentials": {"type": "Environment"},
                },
            }
        }
        trigger["spec"].update(spec)
        path.write_text(json.dumps(trigger))
        self.env = {
            **os.environ,
            "SLUICE_CLOUD": f"http://127.0.0.1:{stream.port}",
            "HUAWEICLOUD_SDK_AK": "AKBENCH",
            "HUAWEICLOUD_SDK_SK": "SKBENCH",
        }


def dis(options):
    table = Table("dis: 4 partitions of recorded responses, 1,000 records each, 100 records a POST", peer="")
    cases = (
        ("passing through", {}, 50_000),
        ("with a filter on data", {"filter": {"pattern": {"data": {"state": ["open"]}}}}, 20_000),
    )
    with Stream(min(options.messages, 200_000), options.size) as stream:
        for what, spec, target in cases:
            runs = []
            for _ in range(options.rounds):
                with Sink() as s:
                    work = Work(NoTopics, "none", s, ordering="Partition", batch=100)
                    runs.append(deliver(Reader(work, stream, spec), work, stream.records))
            table.row(
                f"{what}: records per CPU-second",
                statistics.median(r.per_cpu_second for r in runs),
                target=f"{target:,}",
            )
            table.row(f"{what}: records per second", statistics.median(r.per_second for r in runs))
            for name in ("rss", "anonymous"):
                table.row(
                    f"{what}: {name} at most", statistics.median(r.peak[name] for r in runs), unit=" MiB"
                )
            assert all(r.messages == stream.records for r in runs), [r.sink for r in runs]
    table.note(
        f"{stream.records:,} records of {options.size} bytes; rounds: {options.rounds}, medians. CPU is the worker's user and system time, its start included."
    )
    return table


class NoTopics:
    bootstrap = "127.0.0.1:9"


IDLE = 1000  # Triggers
IDLE_SECONDS = 30


def idle_trigger(cloud, kind, n, sink):
    key = {
        "accessKeySecretRef": {"name": "cloud", "key": "ak"},
        "secretKeySecretRef": {"name": "cloud", "key": "sk"},
    }
    how = {"region": REGION, "projectID": PROJECT_ID, "credentials": key}
    if kind == "dms":
        queue = cloud.dms.make_queue(f"queue-{n}")
        group = cloud.dms.make_group(queue, "bench")
        source = {"dms": {"queueID": queue.id, "consumerGroupID": group.id, "cloud": how}}
    else:
        cloud.dis.make_stream(f"stream-{n}")
        source = {"dis": {"streamName": f"stream-{n}", "appName": "bench", "cloud": how}}
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": f"idle-{n}", "namespace": "bench"},
        "spec": {"source": source, "sink": {"uri": sink.uri}},
    }


def idle_triggers(options):
    table = Table(
        f"idle-triggers: {IDLE:,} Triggers in one process, with nothing to read for {IDLE_SECONDS} s", peer=""
    )
    for kind in ("dms", "dis"):
        with tempfile.TemporaryDirectory(prefix="bench-idle-") as name, Cloud() as cloud, Sink() as sink:
            folder = pathlib.Path(name)
            (folder / "secrets" / "cloud").mkdir(parents=True)
            for key, value in (("ak", cloud.iam.key.access), ("sk", cloud.iam.key.secret)):
                (folder / "secrets" / "cloud" / key).write_text(value)
            triggers = [idle_trigger(cloud, kind, n, sink) for n in range(IDLE)]
            (folder / "triggers.yaml").write_text("\n---\n".join(json.dumps(t) for t in triggers))
            command = [
                *Sluice.program,
                "run",
                f"--file={folder}/triggers.yaml",
                f"--state={folder}/state",
                f"--secrets={folder}/secrets",
                "--admin=127.0.0.1:0",
                "--log-level=info",
            ]
            env = {**os.environ, "SLUICE_CLOUD": cloud.endpoint}
            with Process(command, name="sluice", env=env, directory=folder / "output") as run:
                run.wait_until("all are connected", lambda: run.output.count("state=Connected") == IDLE, 120)
                time.sleep(10)  # what the start cost is not counted
                before = cpu_nanoseconds(run.pid)
                time.sleep(IDLE_SECONDS)
                used = (cpu_nanoseconds(run.pid) - before) / 1e9 / IDLE_SECONDS
                held = memory(run.pid)
        table.row(f"{kind}: share of a core", used * 100, unit=" %", less=True, target="5 %")
        for what in ("anonymous", "pss", "rss"):
            table.row(
                f"{kind}: {what}",
                held[what],
                unit=" MiB",
                less=True,
                target="64 MiB" if what == "pss" else None,
            )
    table.note(
        "The service is the emulator of tests/cloud; sources as they are by default: dms waits up to 30 s for a message, dis asks every 3 s while nothing comes."
    )
    return table


CASES = {"dis": dis, "idle-triggers": idle_triggers}
