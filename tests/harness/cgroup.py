"""A control group with a memory limit, as a container has.

with MemoryLimit(128 << 20) as limit:
    process.command = [*limit.enter, *process.command]
    ...
    assert limit.kills() == 0
"""

import itertools
import os
import pathlib
import re

ROOT = pathlib.Path("/sys/fs/cgroup")
numbers = itertools.count()


class MemoryLimit:
    def __init__(self, size):
        self.size = size
        self.version_2 = (ROOT / "cgroup.controllers").exists()
        parent = ROOT if self.version_2 else ROOT / "memory"
        self.group = parent / f"sluice-test-{os.getpid()}-{next(numbers)}"

    def __enter__(self):
        self.group.mkdir()
        limit = "memory.max" if self.version_2 else "memory.limit_in_bytes"
        (self.group / limit).write_text(str(self.size))
        return self

    def __exit__(self, *_):
        self.group.rmdir()

    @property
    def enter(self):
        """The beginning of a command that runs within the group."""
        return ["/bin/sh", "-c", f'echo $$ >{self.group}/cgroup.procs && exec "$@"', "sh"]

    def kills(self):
        """How many processes were killed since memory ran out."""
        told = self.group / ("memory.events" if self.version_2 else "memory.oom_control")
        return int(re.search(r"^oom_kill (\d+)", told.read_text(), re.M).group(1))

    def peak(self):
        file = "memory.peak" if self.version_2 else "memory.max_usage_in_bytes"
        return int((self.group / file).read_text())
