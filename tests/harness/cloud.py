"""The emulator of the cloud's services: keys for it, and as a process of its own, where its clients are in another network namespace.

with CloudProcess(cluster) as cloud:
    queue = cloud.do("queue", name="orders")["queue"]
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from . import ROOT

# The credentials of a Trigger: the key that write_key() writes.
PAIR = {
    "accessKeySecretRef": {"name": "cloud", "key": "ak"},
    "secretKeySecretRef": {"name": "cloud", "key": "sk"},
}


def write_key(secrets, key):
    """Secret "cloud" in a folder of Secrets, as the kubelet writes it: all new values are there at once."""
    folder = secrets / "cloud"
    folder.mkdir(parents=True, exist_ok=True)
    data = pathlib.Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for name, value in (("ak", key.access), ("sk", key.secret)):
        (data / name).write_text(value + "\n")
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..fresh").symlink_to(data.name)
    (folder / "..fresh").rename(folder / "..data")


class CloudProcess:
    """On the node's address of a cluster; what can be ordered stands in tests/cloud/__main__.py."""

    def __init__(self, cluster):
        self.process = cluster.start(
            sys.executable,
            "-m",
            "cloud",
            f"--host={cluster.node_address}",
            name="cloud",
            cwd=ROOT / "tests",
            stdin=subprocess.PIPE,
        )
        self.answers = 0

    def __enter__(self):
        self.process.__enter__()
        self.endpoint = self.line()
        return self

    def __exit__(self, *how):
        self.process.__exit__(*how)

    def line(self):
        """The next line that it prints."""

        def printed():
            lines = self.process.out.split("\n")
            return len(lines) > self.answers + 1 and lines[self.answers]

        found = self.process.wait_until("answers", printed, 20)
        self.answers += 1
        return found

    def do(self, what, **how):
        self.process.popen.stdin.write(json.dumps({"do": what, **how}).encode() + b"\n")
        self.process.popen.stdin.flush()
        answer = json.loads(self.line())
        assert "error" not in answer, answer["error"]
        return answer
