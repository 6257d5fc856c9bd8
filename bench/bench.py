#!/usr/bin/env python3
"""Measures Sluice beside others on this machine: beside Benthos with the same messages from a real Kafka broker to the same sink, in turn; its API gateway beside nginx; and streams of DIS by themselves, from recorded responses.

Usage: "$(tools/venv)/bin/python" bench/bench.py [--case=NAME,...|all] [--messages=N] [--rounds=N] [--json]
Events a CPU-second are events by the worker's user and system time, its start included; memory is at its highest. On two cores the broker, the sink and the
worker share the machine: compare events a CPU-second and ratios of one run, not events a second. Targets are shown, never asserted.
"""

import argparse
import contextlib
import json
import re
import resource
import shlex
import signal
import statistics
import sys
import tempfile
import time

import gateway
import stream
from rig import (
    PARTITIONS,
    Benthos,
    Kafka,
    Priority,
    Sink,
    Skipped,
    Sluice,
    Topics,
    Work,
    cpu_nanoseconds,
    deliver,
    memory,
    message,
    run,
    wait_until,
)
from table import Table


ENVELOPE = 400  # bytes that an event's envelope and headers add, about


def median(runs, name):
    return statistics.median(name(r) for r in runs)


class Bench:
    def __init__(self, topics, options):
        self.topics, self.options = topics, options
        self.few = max(1, options.rounds // 2)

    def work(self, topic, sink, **how):
        return Work(self.topics, topic, sink, fetch_mib=how.pop("fetch_mib", self.options.fetch_mib), **how)

    def run(self, make, messages, sink=(), tls=False, patience=300.0, **how):
        """One worker, a sink and a group of its own, a topic of so many messages."""
        topic = self.topics.filled(messages, self.options.size)
        with Sink(*sink, tls=tls) as s:
            work = self.work(topic, s, **how)
            worker = make(work)
            result = deliver(worker, work, messages, patience)
            if result.messages < messages:
                result.sink["unfinished"] = messages - result.messages
            return result

    # ---- cases

    def throughput(
        self,
        title,
        target=None,
        times=None,
        peers=("Benthos", "Benthos, 64 kept"),
        peer_share=1,
        rounds=None,
        **how,
    ):
        messages, rounds = self.options.messages, rounds or self.options.rounds
        table = Table(title)
        kinds = {"Benthos": Benthos, "Benthos, 64 kept": lambda work: Benthos(work, idle=64)}
        mine = []
        theirs = {p: [] for p in peers}
        for _ in range(rounds):
            mine.append(self.run(Sluice, messages, **how))
            for p in peers:
                theirs[p].append(self.run(kinds[p], messages // peer_share, **how))
        first = theirs[peers[0]] if peers else None

        def both(what, name, **more):
            table.row(what, median(mine, name), median(first, name) if first else None, **more)

        both(
            "events per CPU-second",
            lambda r: r.per_cpu_second,
            target=" and ".join(
                filter(None, (f"{times} x" if times else "", f"{target:,}" if target else ""))
            ),
        )
        for p in peers[1:]:
            table.row(
                "events per CPU-second; Benthos patched to keep 64 connections",
                median(mine, lambda r: r.per_cpu_second),
                median(theirs[p], lambda r: r.per_cpu_second),
            )
        both("events per second", lambda r: r.per_second)
        for name, what in (("rss", "RSS"), ("pss", "PSS"), ("anonymous", "anonymous")):
            both(f"{what} at most", lambda r, n=name: r.peak[n], unit=" MiB", less=True)
        both("connections made", lambda r: r.sink["connections"], compare=False)
        both(
            "the sink's own CPU, µs per event",
            lambda r: r.sink["cpuSeconds"] * 1e6 / r.messages,
            compare=False,
        )
        share = f" (Benthos: {messages // peer_share:,})" if peers and peer_share > 1 else ""
        runs = mine + [r for p in peers for r in theirs[p]]
        table.note(
            f"{messages:,} messages of {self.options.size} bytes{share}; rounds: {rounds}, medians; events that came twice: {sum(r.sink['repeated'] for r in runs)}."
        )
        return table

    def post(self):
        return self.throughput("post: one event per POST, 64 in flight, unordered", target=88_000, times=8)

    def wrk(self, sink):
        """Requests per CPU-second of wrk: POSTs of one body over 64 kept connections."""
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(f'wrk.method = "POST"\nwrk.body = string.rep("x", {self.options.size + ENVELOPE})\n')
            script.flush()
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            text = run(
                [
                    "wrk",
                    "--threads=1",
                    "--connections=64",
                    "--duration=5s",
                    f"--script={script.name}",
                    sink.uri,
                ],
                timeout=60,
            ).stdout
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return int(re.search(r"(\d+) requests in", text).group(1)) / used

    def bare(self, sink):
        """The same of bench/load.c, which looks at no more of an answer than its status."""
        command = [
            gateway.LOAD,
            f"--port={sink.port}",
            "--connections=64",
            "--seconds=5",
            f"--size={self.options.size + ENVELOPE}",
        ]
        told = json.loads(run(command, timeout=60).stdout)
        return told["answered"] / told["cpuSeconds"]

    def by_hand(self, sink):
        """A consumer written by hand, with librdkafka: each record as it is in a request of its own."""
        messages = self.options.messages
        command = [
            gateway.LOAD,
            f"--port={sink.port}",
            "--connections=64",
            f"--size={self.options.size + ENVELOPE}",
            f"--topic={self.topics.filled(messages, self.options.size)}",
            f"--kafka={self.topics.bootstrap}",
            f"--records={messages}",
        ]
        told = json.loads(run(command, timeout=300).stdout)
        if sink.stats()["distinct"] != messages:
            raise SystemExit(f"the consumer sent {sink.stats()['distinct']} of {messages} messages")
        return told["answered"] / told["cpuSeconds"]

    def stick(self):
        """Sluice beside a consumer that does nothing but read and send, and beside clients that send from memory."""
        table = Table("stick: post, beside the least that could be done, by turns", peer="client")
        mine = []
        clients = {
            "a consumer written by hand": (self.by_hand, "0.8 x", []),
            "wrk, which reads no broker": (self.wrk, None, []),
            "a bare client, which reads none": (self.bare, None, []),
        }
        for _ in range(self.options.rounds):
            mine.append(self.run(Sluice, self.options.messages, fetch_mib=128))
            for measure, _, rates in clients.values():
                with Sink() as s:
                    rates.append(measure(s))
        for name, (_, target, rates) in clients.items():
            table.row(
                f"events per CPU-second, beside {name}",
                median(mine, lambda r: r.per_cpu_second),
                statistics.median(rates),
                target=target,
            )
        table.note(
            f"{self.options.messages:,} messages of {self.options.size} bytes, rounds: {self.options.rounds}, medians. The clients send {ENVELOPE} bytes more, about what the envelope adds; fetchBytes 128 MiB, with which both keep about 64 MiB of records ahead."
        )
        return table

    def ordered(self):
        return self.throughput(
            "ordered: in order on 4 partitions (Benthos: one request in flight)",
            peers=("Benthos",),
            peer_share=4,
            rounds=self.few,
            ordering="Partition",
        )

    def batch(self):
        return self.throughput(
            "batch: 100 records per POST", target=450_000, rounds=self.few, batch=100, peers=("Benthos",)
        )

    def tls(self):
        return self.throughput(
            "tls: one event per POST over TLS 1.3",
            target=50_000,
            peer_share=8,
            rounds=self.few,
            tls=True,
            http_version="HTTP/1.1",
        )

    def h2(self):
        return self.throughput(
            "h2: one event per POST over HTTP/2 without TLS",
            target=150_000,
            rounds=self.few,
            sink=("--h2",),
            http_version="HTTP/2",
            peers=(),
        )

    def fetch(self):
        table = Table("fetch: what fetchBytes costs in memory")
        for mib in (8, 32, 256):
            runs = [self.run(Sluice, self.options.messages, fetch_mib=mib) for _ in range(self.few)]
            table.row(
                f"fetchBytes {mib} MiB: anonymous at most",
                median(runs, lambda r: r.peak["anonymous"]),
                unit=" MiB",
            )
            table.row(
                f"fetchBytes {mib} MiB: RSS at most", median(runs, lambda r: r.peak["rss"]), unit=" MiB"
            )
            table.row(f"fetchBytes {mib} MiB: events per second", median(runs, lambda r: r.per_second))
            table.row(
                f"fetchBytes {mib} MiB: events per CPU-second", median(runs, lambda r: r.per_cpu_second)
            )
        return table

    def slow(self):
        table = Table("slow: a function that takes 5 ms")
        for what, messages, how, target in (
            ("64 in flight, unordered (12,800 possible)", 60_000, {}, "11,000"),
            ("ordered on 4 partitions (800 possible; Benthos: 200)", 4_800, {"ordering": "Partition"}, "760"),
        ):
            mine = self.run(Sluice, messages, sink=("--delay=5",), fetch_mib=32, **how)
            theirs = self.run(Benthos, messages // (4 if how else 1), sink=("--delay=5",), **how)
            table.row(f"{what}: events per second", mine.per_second, theirs.per_second, target=target)
            table.row(f"{what}: events per CPU-second", mine.per_cpu_second, theirs.per_cpu_second)
        return table

    def failing(self):
        table = Table("failing: a function that fails one request in a hundred")
        messages = min(self.options.messages, 100_000)
        for status in (503, 500):
            mine = self.run(Sluice, messages, sink=(f"--fail=1:{status}",), patience=120, fetch_mib=32)
            theirs = self.run(Benthos, messages, sink=(f"--fail=1:{status}",), patience=120)
            table.row(f"{status}: events per second", mine.per_second, theirs.per_second)
            table.row(f"{status}: events per CPU-second", mine.per_cpu_second, theirs.per_cpu_second)
            table.row(
                f"{status}: attempts per event",
                mine.sink["requests"] / mine.messages,
                theirs.sink["requests"] / theirs.messages,
                compare=False,
            )
            table.row(
                f"{status}: events that came twice",
                mine.sink["repeated"],
                theirs.sink["repeated"],
                target="0",
            )
            table.row(
                f"{status}: events not delivered in 120 s",
                mine.sink.get("unfinished", 0),
                theirs.sink.get("unfinished", 0),
            )
            limits = mine.limits[1:] or mine.limits
            table.row(
                f"{status}: requests allowed at once, median (lowest to highest)",
                f"{statistics.median(limits):.0f} ({min(limits)} to {max(limits)})",
            )
        return table

    def latency_of(self, make, seconds=20):
        rate, warm_up = 1000, 64
        topic = self.topics.empty()
        with Sink() as s:
            work = self.work(topic, s)
            with make(work) as worker:
                from confluent_kafka import Producer

                producer = Producer({"bootstrap.servers": self.topics.bootstrap, "linger.ms": 0, "acks": 1})
                for i in range(warm_up):
                    producer.produce(topic, message(i, self.options.size), partition=i % PARTITIONS)
                producer.flush(30)
                worker.wait_until("delivers", lambda: s.stats()["distinct"] == warm_up, 60)
                start = time.monotonic_ns()
                for i in range(rate * seconds):
                    due = start + i * 1_000_000_000 // rate
                    while (left := due - time.monotonic_ns()) > 0:
                        time.sleep(left / 1e9)
                    producer.produce(
                        topic,
                        message(warm_up + i, self.options.size, time.monotonic_ns()),
                        partition=i % PARTITIONS,
                    )
                    producer.poll(0)
                producer.flush(30)
                worker.wait_until(
                    "has delivered", lambda: s.stats()["distinct"] == warm_up + rate * seconds, 30
                )
                return s.stats()

    def latency(self):
        table = Table("latency: producer to function at 1,000 messages a second for 20 s")
        self.latency_of(Sluice, seconds=5)  # the broker has compiled its code
        mine, theirs = [], []
        for _ in range(self.options.rounds):
            mine.append(self.latency_of(Sluice))
            theirs.append(self.latency_of(Benthos))
        for name in ("p50", "p99", "max"):
            table.row(
                name,
                median(mine, lambda r, n=name: r[n] / 1000),
                median(theirs, lambda r, n=name: r[n] / 1000),
                unit=" ms",
                less=True,
            )
        table.note(
            f"Medians of {len(mine)} rounds; from produce() with linger 0, through the broker, to the whole request at the sink."
        )
        return table

    def backlog(self):
        table = Table("backlog: a million messages and a function that never answers")
        topic = self.topics.filled(1_000_000, self.options.size)
        with Sink("--stop") as a, Sink("--stop") as b:
            with (
                Sluice(self.work(topic, a, timeout="5m")) as mine,
                Benthos(self.work(topic, b, timeout="5m")) as theirs,
            ):
                started = time.monotonic()
                for after in (10, 60):
                    time.sleep(max(0, started + after - time.monotonic()))
                    m, t = memory(mine.pid), memory(theirs.pid)
                    for name in ("anonymous", "rss"):
                        table.row(
                            f"{name} after {after} s",
                            m[name],
                            t[name],
                            unit=" MiB",
                            less=True,
                            target="as after 10 s" if after == 60 else None,
                        )
        return table

    def idle(self):
        seconds = 60
        table = Table(f"idle: nothing to do for {seconds} s")
        topic = self.topics.empty()
        with Sink() as s, Sluice(self.work(topic, s)) as mine, Benthos(self.work(topic, s)) as theirs:
            mine.wait_until("is connected", lambda: mine.status()["sourceState"] in ("Connected", "Idle"), 30)
            time.sleep(5)
            before = [cpu_nanoseconds(p.pid) for p in (mine, theirs)]
            time.sleep(seconds)
            used = [(cpu_nanoseconds(p.pid) - b) / 1e9 for p, b in zip((mine, theirs), before)]
            table.row(
                "share of a core",
                *(u / seconds * 100 for u in used),
                unit=" %",
                less=True,
                target="under 0.2 %",
            )
            m, t = memory(mine.pid), memory(theirs.pid)
            table.row("anonymous", m["anonymous"], t["anonymous"], unit=" MiB", less=True, target="8 MiB")
            table.row("PSS", m["pss"], t["pss"], unit=" MiB", less=True)
            table.row("RSS", m["rss"], t["rss"], unit=" MiB", less=True)
        return table

    def start_of(self, make, group=None):
        """Milliseconds from the start of the process until (it answers, it has partitions, the sink has its first event of a topic with 1,000)."""
        topic = self.topics.filled(1000, self.options.size) if group is None else self.restarted
        with Sink() as s:
            work = self.work(topic, s, **({"group": group} if group else {}))
            worker = make(work)
            began = time.monotonic_ns()
            answers = connected = None
            with worker:
                if isinstance(worker, Sluice):
                    wait_until("the port", lambda: "admin port" in worker.out, 30, poll=0.001)
                    answers = time.monotonic_ns()
                    wait_until(
                        "partitions",
                        lambda: worker.status()["sourceState"] in ("Connected", "Idle"),
                        30,
                        poll=0.001,
                    )
                    connected = time.monotonic_ns()
                worker.wait_until("delivers", lambda: s.stats()["events"], 60)
                worker.stop()
            return [t and (t - began) / 1e6 for t in (answers, connected, s.stats()["first"])]

    def restart_of(self, make):
        """The same for a group that has positions: one run that reads all there is, then more messages, and the run that counts."""
        self.restarted, group = self.topics.empty(), f"restart-{time.monotonic_ns()}"
        self.topics.kafka.produce(
            self.restarted,
            [{"value": message(i, self.options.size), "partition": i % PARTITIONS} for i in range(100)],
        )
        with Sink() as s, make(self.work(self.restarted, s, group=group)) as worker:
            worker.wait_until("has delivered", lambda: s.stats()["distinct"] == 100, 60)
            worker.stop()
        self.topics.kafka.produce(
            self.restarted,
            [{"value": message(i, self.options.size), "partition": i % PARTITIONS} for i in range(100, 200)],
        )
        return self.start_of(make, group)

    def start(self):
        table = Table("start: from the start of the process to the first event at the function")
        self.start_of(Sluice)  # the broker has loaded its code
        mine, again = [self.start_of(Sluice) for _ in range(5)], [self.restart_of(Sluice) for _ in range(5)]
        theirs, theirs_again = (
            [self.start_of(Benthos) for _ in range(3)],
            [self.restart_of(Benthos) for _ in range(3)],
        )

        def of(runs, place):
            return statistics.median(r[place] for r in runs)

        table.row("the admin port answers", of(again, 0), unit=" ms")
        table.row("the group has given it partitions", of(again, 1), unit=" ms")
        table.row(
            "first event, a group that has positions",
            of(again, 2),
            of(theirs_again, 2),
            unit=" ms",
            less=True,
        )
        table.row(
            "first event, without joining the group",
            statistics.median(r[2] - (r[1] - r[0]) for r in again),
            unit=" ms",
            target="under 150 ms",
        )
        table.row("first event, a new group", of(mine, 2), of(theirs, 2), unit=" ms", less=True)
        table.note("In a new group librdkafka pauses for 100 ms before it asks where a partition begins.")
        return table

    def kill_of(self, make, messages, patience):
        """Killed at a third, started again at once: {again: seconds until the sink has the next event, lost, repeated}."""
        topic = self.topics.filled(messages, self.options.size)
        with Sink() as s:
            work = self.work(topic, s, instance="bench-0", fetch_mib=32)
            with make(work) as worker:
                worker.wait_until("delivers", lambda: s.stats()["distinct"] >= messages // 3, 120)
                worker.kill()
                before = -1
                while before != (before := s.stats()["requests"]):  # what is still in the sockets arrives
                    time.sleep(0.05)
            at = s.mark()
            began = time.monotonic_ns()
            with make(work) as worker:
                with contextlib.suppress(AssertionError):
                    worker.wait_until("delivers all", lambda: s.stats()["distinct"] == messages, patience)
                end = s.stats()
            again = (end["firstAfterMark"] - began) / 1e9 if end["firstAfterMark"] else None
            return {
                "again": again,
                "lost": messages - end["distinct"],
                "repeated": end["repeated"],
                "at": at["distinct"],
            }

    def kill(self):
        table = Table("kill: kill -9 at full speed, then started again")
        mine = [self.kill_of(Sluice, self.options.messages, 120) for _ in range(self.options.rounds)]
        theirs = [self.kill_of(Benthos, self.options.messages, 180)]
        for what, name, unit, target in (
            ("lost", "lost", "", "0"),
            ("repeated", "repeated", "", "under 2,000"),
            ("delivers again after", "again", " s", "1 s"),
        ):
            table.row(
                what,
                statistics.median(r[name] for r in mine),
                theirs[0][name],
                unit=unit,
                less=True,
                target=target,
            )
        table.note(
            f"Killed after {', '.join(str(r['at']) for r in mine)} events; repeated then: {', '.join(str(r['repeated']) for r in mine)}. Sluice with --instance (static membership), fetchBytes 32 MiB; Benthos 4.27 has no such option."
        )
        return table


KAFKA_CASES = (
    "post",
    "stick",
    "ordered",
    "batch",
    "tls",
    "h2",
    "slow",
    "failing",
    "latency",
    "backlog",
    "idle",
    "start",
    "kill",
    "fetch",
)
BROKERLESS = {**gateway.CASES, **stream.CASES}
CASES = (*KAFKA_CASES, *BROKERLESS)
DEFAULT = ("post", "ordered", "batch", "tls", "h2", "slow", "latency", "start", "kill")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--case",
        default=",".join(DEFAULT),
        help=f"any of {', '.join(CASES)}, separated by commas; or all. Default: %(default)s",
    )
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=1024, help="bytes of a message")
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="how often post, latency and kill are measured, the others half as often; figures are medians, of the gateway's cases ranges",
    )
    parser.add_argument("--fetch-mib", type=int, default=32, help="fetchBytes, where a case does not say it")
    parser.add_argument(
        "--sluice",
        metavar="COMMAND",
        help="another build of Sluice, such as the image's: LD.SO --library-path DIR sluice",
    )
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="the gateway's cases go before all else on the machine (chrt; needs root): other work blurs latencies",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = CASES if options.case == "all" else options.case.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.sluice:
        Sluice.program = gateway.Api.program = tuple(shlex.split(options.sluice))
    Priority.real_time = options.real_time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    results = {}
    with contextlib.ExitStack() as stack:
        bench = None
        for name in names:
            try:
                if name in BROKERLESS:
                    table = BROKERLESS[name](options)
                else:
                    bench = bench or Bench(Topics(stack.enter_context(Kafka())), options)
                    table = getattr(bench, name)()
                results[name] = {"title": table.title, "rows": table.rows, "notes": table.notes}
                if not options.json:
                    table.show()
                    sys.stdout.flush()
            except Skipped as e:
                results[name] = {"skipped": str(e)}
                print(f"\n{name}: skipped: {e}", file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
