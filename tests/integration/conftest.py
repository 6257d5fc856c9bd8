"""The program against real servers. Usage: "$(tools/venv)/bin/pytest" tests/integration"""

import pytest
from cloud import Cloud
from harness.kafka import Kafka
from harness.sink import Sink
from harness.sluice import Function, Runner
from harness.smn import Smn


@pytest.fixture(scope="session")
def kafka():
    with Kafka() as k:
        yield k


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


@pytest.fixture
def cloud():
    with Cloud() as c:
        yield c


@pytest.fixture
def smn(tmp_path):
    folder = tmp_path / "smn"
    folder.mkdir()
    with Smn(folder) as s:
        yield s


@pytest.fixture
def function():
    with Function() as f:
        yield f


@pytest.fixture
def runner(tmp_path):
    r = Runner(tmp_path)
    yield r
    for p in r.processes:
        print(p.describe())
    r.close()
