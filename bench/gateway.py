"""The API gateway beside nginx: the same calls (bench/load.c) to the same function (bench/sink.c), through `sluice run` with an apig Trigger, which makes events of them and responses
of the function's answers, and through nginx as a plain reverse proxy, which passes both on as they are. The server has a core of its own, caller and function the other."""

import contextlib
import json
import pathlib
import signal
import tempfile
import time

from rig import ROOT, SLUICE, Process, Sink, certificate, cpu_nanoseconds, free_port, memory, on
from table import Table

LOAD = ROOT / "build" / "bench-load"
SERVER_CORE, OTHERS_CORE = 0, 1
BODY = 1024
SECONDS = 5


class Api(Process):
    """`sluice run` with one API."""

    program = (SLUICE,)

    def __init__(self, sink, *, tls=None, in_flight=64):
        self._folder = tempfile.TemporaryDirectory(prefix="bench-api-")
        path = pathlib.Path(self._folder.name) / "trigger.json"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "sluice.dev/v1alpha1",
                    "kind": "Trigger",
                    "metadata": {"name": "bench", "namespace": "bench"},
                    "spec": {
                        "source": {"apig": {"path": "/call"}},
                        "sink": {"uri": sink.uri},
                        "delivery": {"maxInFlight": in_flight},
                    },
                }
            )
        )
        files = [f"--tls-cert={tls[0]}", f"--tls-key={tls[1]}"] if tls else []
        command = [
            *self.program,
            "run",
            "-f",
            path,
            f"--state={self._folder.name}/state",
            "--listen=127.0.0.1:0",
            "--log-level=warn",
            *files,
        ]
        super().__init__(on(SERVER_CORE, ["prlimit", "--nofile=1024:", *command]), name="sluice")

    def start(self):
        super().start()
        self.port = int(self.wait_for_output(r"listening on port (\d+)").group(1))
        return self


class Nginx(Process):
    """One worker process, no log, connections to the function kept. in_flight: requests it lets through at once, the others get 429; None: any number."""

    def __init__(self, sink, *, tls=None, in_flight=None):
        self._folder = tempfile.TemporaryDirectory(prefix="bench-nginx-")
        folder, self.port = self._folder.name, free_port()
        zone, limit = (
            (
                "limit_conn_zone $server_name zone=all:1m; limit_conn_status 429;",
                f"limit_conn all {in_flight};",
            )
            if in_flight
            else ("", "")
        )
        ssl, files = (" ssl", f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};") if tls else ("", "")
        temporary = " ".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = pathlib.Path(folder) / "nginx.conf"
        path.write_text(f"""
            daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000; pid {folder}/pid; error_log {folder}/error.log crit;
            events {{ worker_connections 20000; }}
            http {{
                access_log off; {temporary} {zone}
                upstream function {{ server 127.0.0.1:{sink.port}; keepalive 64; keepalive_requests 100000000; }}
                server {{
                    listen 127.0.0.1:{self.port}{ssl} backlog=4096; server_name bench; {files} keepalive_requests 100000000; keepalive_timeout 600s;
                    location / {{ {limit} proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection ""; }}
                }}
            }}""")
        super().__init__(
            on(SERVER_CORE, ["/usr/sbin/nginx", "-c", path, "-e", f"{folder}/error.log"]), name="nginx"
        )

    def start(self):
        super().start()
        self.wait_until(
            "listens",
            lambda: f":{self.port:04X} 00000000:0000 0A" in pathlib.Path("/proc/net/tcp").read_text(),
            10,
        )
        return self


class Load(Process):
    """bench/load.c"""

    def __init__(self, server, *options, tls=None):
        super().__init__(
            on(
                OTHERS_CORE,
                [
                    LOAD,
                    f"--port={server.port}",
                    "--path=/call",
                    f"--size={BODY}",
                    *(["--tls"] if tls else []),
                    *options,
                ],
            ),
            name="load",
        )

    def results(self, patience=120):
        code = self.wait(patience)
        assert code == 0, self.describe()
        return json.loads(self.out.splitlines()[-1])


def calls(server, *options, seconds=SECONDS, tls=None):
    """What the caller saw, and cpu: the server's own time."""
    before = cpu_nanoseconds(server.pid)
    with Load(server, f"--seconds={seconds}", *options, tls=tls) as load:
        found = load.results()
    found["cpu"] = (cpu_nanoseconds(server.pid) - before) / 1e9
    found["perSecond"], found["goodPerSecond"] = (
        n / found["seconds"] for n in (found["answered"], found["good"]["n"])
    )
    return found


@contextlib.contextmanager
def servers(*sink, in_flight=None, tls=None):
    """The function and both in front of it; only one is called at a time."""
    with (
        Sink(f"--answer={BODY}", *sink, core=OTHERS_CORE) as s,
        Api(s, tls=tls, in_flight=in_flight or 64) as api,
        Nginx(s, tls=tls, in_flight=in_flight) as nginx,
    ):
        for server in (api, nginx):
            calls(server, seconds=0.5, tls=tls)
        yield api, nginx


def spread(values, unit=""):
    """The lowest and the highest, as text."""
    low, high = min(values), max(values)
    figures = [f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in (low, high)]
    return figures[0] + unit if figures[0] == figures[1] else f"{figures[0]} to {figures[1]}{unit}"


def rows(table, what, mine, theirs, *, unit="", less=False, target=None, compare=True):
    """A row of both ranges and the range of the rounds' ratios."""
    ratios = [t / m if less else m / t for m, t in zip(mine, theirs) if m and t and compare]
    table.row(
        what,
        spread(mine, unit),
        spread(theirs, unit),
        target=target,
        ratio=spread(ratios, " x") if ratios else None,
    )


def gateway(options):
    table = Table(f"gateway: 64 connections, bodies of {BODY} bytes both ways", peer="nginx")
    rounds = options.rounds
    with servers() as both:
        full = [[calls(s) for s in both] for _ in range(rounds)]
        rate = int(min(r["perSecond"] for pair in full for r in pair) / 2 / 1000) * 1000
        half = [[calls(s, f"--rate={rate}") for s in both] for _ in range(rounds)]
        used = [memory(s.pid) for s in both]
    bad = [
        {k: v for k, v in r["statuses"].items() if k != "200"}
        for pair in full + half
        for r in pair
        if set(r["statuses"]) != {"200"}
    ]
    assert not bad, bad

    def compare(what, runs, value, **more):
        rows(table, what, *([value(pair[i]) for pair in runs] for i in (0, 1)), **more)

    compare(
        "as fast as it goes: requests per CPU-second",
        full,
        lambda r: r["answered"] / r["cpu"],
        target="0.8 x",
    )
    compare("as fast as it goes: requests per second", full, lambda r: r["perSecond"])
    compare("as fast as it goes: p50", full, lambda r: r["good"]["p50"], unit=" µs", less=True)
    compare(
        "as fast as it goes: p99", full, lambda r: r["good"]["p99"], unit=" µs", less=True, target="0.5 x"
    )
    compare(f"{rate:,} a second: requests per CPU-second", half, lambda r: r["answered"] / r["cpu"])
    compare(f"{rate:,} a second: p50", half, lambda r: r["good"]["p50"], unit=" µs", less=True)
    compare(
        f"{rate:,} a second: p99", half, lambda r: r["good"]["p99"], unit=" µs", less=True, target="0.5 x"
    )
    for name in ("rss", "anonymous"):
        table.row(f"{name} afterwards", *(m[name] for m in used), unit=" MiB", less=True)
    table.note(
        f"{rounds} rounds of {SECONDS} s, by turns: the lowest and the highest, and those of the ratios. The latency at a fixed rate counts from when a request was due."
    )
    return table


def held(make, sink, count, tls=None):
    """{idle, after: memory with so many connections that have been accepted, after a request of each; good: how many were answered}"""
    with make(sink, tls=tls) as server:
        calls(server, seconds=0.2, tls=tls)
        descriptors = pathlib.Path(f"/proc/{server.pid}/fd")
        with Load(server, f"--connections={count}", "--hold", tls=tls) as load:
            load.wait_for_output(rf"^open {count}", 120)
            server.wait_until("has accepted them", lambda: sum(1 for _ in descriptors.iterdir()) > count, 30)
            used = -1
            while used != (used := cpu_nanoseconds(server.pid)):  # the last handshakes
                time.sleep(0.05)
            idle = memory(server.pid)
            load.signal(signal.SIGUSR1)
            found = load.results()
            return {"idle": idle, "after": memory(server.pid), **found}


def connections(options):
    table = Table("connections: open ones that do nothing, then one request of each", peer="nginx")
    with (
        tempfile.TemporaryDirectory(prefix="bench-tls-") as folder,
        Sink(f"--answer={BODY}", core=OTHERS_CORE) as sink,
    ):
        for tls, count in (
            (None, 1000),
            (certificate(folder), 1000),
            (None, 10_000),
            (certificate(folder), 10_000),
        ):
            mine, theirs = held(Api, sink, count, tls), held(Nginx, sink, count, tls)
            what = f"{count:,}{' with TLS' if tls else ''}"
            for name in ("rss", "anonymous"):
                table.row(
                    f"{what}: {name}",
                    mine["idle"][name],
                    theirs["idle"][name],
                    unit=" MiB",
                    less=True,
                    target="20 MiB" if count == 1000 and name == "rss" else None,
                )
            table.row(
                f"{what}: RSS after a request of each",
                mine["after"]["rss"],
                theirs["after"]["rss"],
                unit=" MiB",
                less=True,
            )
            table.row(
                f"{what}: answered with 200",
                mine["statuses"].get("200", 0),
                theirs["statuses"].get("200", 0),
                compare=False,
                target=f"{count:,}",
            )
    table.note(
        "At most 64 of the requests at once. Sluice was started with a soft limit of 1,024 descriptors (a hard one of 20,000), which it raises itself."
    )
    return table


def overload(options):
    table = Table("overload: three times what there is, 64 requests at once let through", peer="nginx")
    for delay, what in ((10, "a function that takes 10 ms"), (0, "a function that answers at once")):
        with servers(*([f"--delay={delay}"] if delay else []), in_flight=64) as both:
            best = [
                max((calls(s) for _ in range(options.rounds)), key=lambda r: r["goodPerSecond"])[
                    "goodPerSecond"
                ]
                for s in both
            ]
            found = [
                [calls(s, "--connections=1024", f"--rate={int(b * 3)}") for s, b in zip(both, best)]
                for _ in range(options.rounds)
            ]

        def compare(text, value, **more):
            rows(
                table,
                f"{what}: {text}",
                *([value(pair[i], best[i]) for pair in found] for i in (0, 1)),
                **more,
            )

        table.row(f"{what}: best goodput, a second", *best)
        compare("offered, a second", lambda r, b: r["sent"] / r["seconds"], compare=False)
        compare(
            "goodput, of the best",
            lambda r, b: 100 * r["goodPerSecond"] / b,
            unit=" %",
            target="90 %" if delay else None,
        )
        compare("refused (429, 503), a second", lambda r, b: r["refused"]["n"] / r["seconds"], compare=False)
        compare(
            "other answers, or none",
            lambda r, b: r["sent"] - r["good"]["n"] - r["refused"]["n"],
            compare=False,
            target="0",
        )
        if delay:
            for part in ("p50", "p99"):
                compare(
                    f"{part} of the refusals",
                    lambda r, b: r["refused"].get(part, 0) / 1000,
                    unit=" ms",
                    less=True,
                    target="10 ms" if part == "p99" else None,
                )
            compare("p99 of the good", lambda r, b: r["good"].get("p99", 0) / 1000, unit=" ms", less=True)
    table.note(
        "1,024 connections at a constant rate; a latency counts from when a request was due. A function that answers at once is no limit: the server's own core is, and who reads fewer requests is offered fewer."
    )
    return table


CASES = {"gateway": gateway, "connections": connections, "overload": overload}
