"""The program against real servers. Usage: "$(tools/venv)/bin/pytest" tests/integration"""

import json
import pathlib
import threading
import urllib.request

import pytest
import yaml
from harness import ROOT
from harness.kafka import Kafka
from harness.process import Process, wait_until
from harness.sink import Sink
from harness.smn import Smn

SLUICE = ROOT / "build" / "sluice"


@pytest.fixture(scope="session")
def kafka():
    with Kafka() as k:
        yield k


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


@pytest.fixture
def smn(tmp_path):
    folder = tmp_path / "smn"
    folder.mkdir()
    with Smn(folder) as s:
        yield s


class Function:
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

    def wait_for(self, count, timeout=30.0):
        wait_until(
            f"{count} accepted events",
            lambda: self.accepted() >= count,
            timeout,
            explain=lambda: f"accepted: {self.accepted()}",
        )
        return self.events()


@pytest.fixture
def function():
    with Function() as f:
        yield f


class Runner:
    """`sluice run` over Triggers that are given as objects."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.processes = []

    def start(self, *triggers, name="run", state="state", options=(), env=None):
        path = self.directory / f"{name}.yaml"
        path.write_text("---\n".join(yaml.safe_dump(t) for t in triggers))
        command = [
            SLUICE,
            "run",
            "-f",
            path,
            f"--state={self.directory / state}",
            "--admin=127.0.0.1:0",
            "--log-level=info",
            *options,
        ]
        p = Process(command, name=name, directory=self.directory / f"{name}-output", env=env)
        self.processes.append(p)
        return p.start()

    def close(self):
        for p in self.processes:
            p.close()


@pytest.fixture
def runner(tmp_path):
    r = Runner(tmp_path)
    yield r
    for p in r.processes:
        print(p.describe())
    r.close()


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


def later(call):
    """Calls in a thread; join() gives the result."""

    class Result(threading.Thread):
        def run(self):
            self.result = call()

        def get(self):
            self.join(30)
            return self.result

    r = Result(daemon=True)
    r.start()
    return r
