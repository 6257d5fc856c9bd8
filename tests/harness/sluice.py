"""The program under test: `sluice run` and the like, what its admin port shows, the example function, and Triggers to give it."""

import json
import pathlib
import re
import urllib.error
import urllib.request

import yaml

from . import ROOT
from .ports import free_port
from .process import Process, wait_until

SLUICE = ROOT / "build" / "sluice"


def trigger(name, source, uri, delivery=None, **spec):
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {
            "source": source,
            "sink": {"uri": uri},
            **({"delivery": delivery} if delivery else {}),
            **spec,
        },
    }


def ask(port, path, timeout=10):
    """(status, text) of a GET, whatever the status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


class Sluice(Process):
    """`sluice run` or `sluice worker`, with an admin port of its own.

    with Sluice("run", "-f", file, f"--state={folder}") as run:
        run.wait_until("it is ready", lambda: run.ask("/readyz") == (200, "ok\n"))
    """

    def __init__(self, command, *options, name=None, **how):
        self.admin = free_port()
        super().__init__(
            [SLUICE, command, f"--admin=127.0.0.1:{self.admin}", *options], name=name or command, **how
        )

    def start(self):
        self.printed = len(self.out)  # by those before it that had its name
        return super().start()

    @property
    def port(self):
        """Where it listens for requests, once it does."""

        def listens():
            return re.search(r"listening on port (\d+)", self.out[self.printed :])

        return int(self.wait_until("listens", listens, 20).group(1))

    def ask(self, path):
        """(status, text) of a page of the admin port."""
        return ask(self.admin, path)

    def triggers(self):
        """{name: what /status shows of the Trigger}"""
        return {t["name"]: t for t in json.loads(self.ask("/status")[1])["triggers"]}

    def status(self, name=None):
        """What /status shows of a Trigger; without a name there is one."""
        shown = self.triggers()
        if name is None:
            (name,) = shown
        return shown[name]

    def metrics(self):
        """[(name, {label: value}, number)], all of one moment."""
        found = re.findall(r"^(\w+)(?:{(.*)})? (\S+)$", self.ask("/metrics")[1], re.M)
        return [
            (name, dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)), float(number))
            for name, labels, number in found
        ]

    def metric(self, name, **labels):
        """The number of the only metric of that name that has these labels."""
        (number,) = (n for found, has, n in self.metrics() if found == name and labels.items() <= has.items())
        return number


class Runner:
    """`sluice run` over Triggers that are given as objects."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.processes = []

    def start(self, *triggers, name="run", state="state", options=(), env=None):
        path = self.directory / f"{name}.yaml"
        path.write_text("---\n".join(yaml.safe_dump(t) for t in triggers))
        run = Sluice(
            "run",
            "-f",
            path,
            f"--state={self.directory / state}",
            "--log-level=info",
            *options,
            name=name,
            directory=self.directory / f"{name}-output",
            env=env,
        )
        self.processes.append(run)
        return run.start()

    def close(self):
        for p in self.processes:
            p.close()


class FunctionClient:
    """What a running `sluice display` is asked, wherever it runs: ask(path, data) makes the request, a POST with data."""

    patience = 30.0  # seconds

    def behave(self, **how):
        self.ask("/-/behave?" + "&".join(f"{k.replace('_', '-')}={v}" for k, v in how.items()), data=b"")

    def events(self, accepted=True):
        """[{number, id, status, timeMicros, body}], in the order of arrival."""
        found = []
        while True:
            page = json.loads(self.ask(f"/-/events?after={found[-1]['number'] if found else 0}"))["events"]
            if not page:
                return [e for e in found if e["status"] == 200] if accepted else found
            found += page

    def accepted(self):
        return json.loads(self.ask("/-/events?after=1000000000"))["accepted"]

    def wait_for(self, count, timeout=None):
        wait_until(
            f"{count} accepted events",
            lambda: self.accepted() >= count,
            timeout or self.patience,
            explain=lambda: f"accepted: {self.accepted()}",
        )
        return self.events()


class Function(FunctionClient):
    """The example function, `sluice display`."""

    def __init__(self, *options):
        self.process = Process(
            [SLUICE, "display", "--listen=127.0.0.1:0", "--keep=200000", "--quiet", *options], name="function"
        )
        self.port = None

    def __enter__(self):
        self.process.start()
        self.port = int(self.process.wait_for_output(r"listening on port (\d+)").group(1))
        return self

    def __exit__(self, *_):
        self.process.close()

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path, data=None):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=20) as answer:
            return answer.read()
