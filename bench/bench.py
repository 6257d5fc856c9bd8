#!/usr/bin/env python3
"""Measures the way of an event from a real Kafka broker through `sluice worker` to a small epoll sink.

Usage: "$(tools/venv)/bin/python" bench/bench.py [--messages 200000] [--size 1024] [--in-flight 64] [--ordering None]
Prints events a second, events a CPU-second (user and system time of the worker, its start included) and memory at its highest: resident (RSS), proportional (PSS) and
anonymous. On two cores the broker and the sink share the machine: quote events a CPU-second.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from harness.kafka import Kafka  # noqa: E402
from harness.process import Process, wait_until  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid):
    """{Rss, Pss, Anonymous} in MiB"""
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss", "Anonymous"):
            found[name] = int(rest.split()[0]) / 1024
    return found


def trigger(bootstrap, topic, port, options):
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": "bench", "namespace": "bench"},
        "spec": {
            "source": {"kafka": {"bootstrapServers": [bootstrap], "topics": [topic], "startPosition": "Earliest", "fetchBytes": options.fetch_mib << 20}},
            "sink": {"uri": f"http://127.0.0.1:{port}/"},
            "delivery": {"ordering": options.ordering, "maxInFlight": options.in_flight},
        },
    }


def measure(options):
    with Kafka() as kafka, tempfile.TemporaryDirectory() as folder, Process([ROOT / "build" / "bench-sink"], name="sink") as sink:
        port = int(sink.wait_for_output(r"port (\d+)").group(1))
        kafka.create_topic("bench", 4)
        payload = ("x" * (options.size - 8)).encode()
        kafka.produce("bench", ({"value": payload + b"%08d" % i, "partition": i % 4} for i in range(options.messages)))
        path = pathlib.Path(folder) / "trigger.json"
        path.write_text(json.dumps(trigger(kafka.bootstrap, "bench", port, options)))
        command = [ROOT / "build" / "sluice", "worker", f"--trigger={path}", f"--checkpoint={folder}/state", "--admin=127.0.0.1:0", "--log-level=warn"]
        started = time.monotonic()
        with Process(command, name="worker") as worker:
            admin = int(worker.wait_for_output(r"admin port (\d+)").group(1))
            peak, status, first = {}, {}, None
            while status.get("delivered", 0) < options.messages:
                status = json.loads(get(f"http://127.0.0.1:{admin}/status"))["triggers"][0]
                if first is None and status["delivered"]:
                    first = time.monotonic()
                for name, value in memory(worker.pid).items():
                    peak[name] = max(peak.get(name, 0), value)
                if time.monotonic() - started > 600 or not worker.alive():
                    raise SystemExit(f"gave up: {status}\n{worker.describe()}")
                time.sleep(0.02)  # the interval of sampling
            end = time.monotonic()
            cpu = cpu_seconds(worker.pid)
    rate = options.messages / (end - (first or started))
    return {"messages": options.messages, "eventsPerSecond": round(rate), "eventsPerCpuSecond": round(options.messages / cpu), "cpuSeconds": round(cpu, 2),
            "failures": status["failures"], **{f"{k.lower()}MiB": round(v, 1) for k, v in peak.items()}}  # fmt: skip


def get(url):
    import urllib.request

    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--ordering", default="None", choices=["None", "Key", "Partition"])
    parser.add_argument("--fetch-mib", type=int, default=4, help="what librdkafka fetches ahead")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{options.messages} messages of {options.size} bytes, one a POST, {options.in_flight} in flight, ordering {options.ordering}")
        for name, value in result.items():
            print(f"  {name:20} {value:>12,}")


if __name__ == "__main__":
    main()
