"""Ten thousand timers in one process: what each takes, whether any wakes it without a due tick, and how late ticks
are. Usage: "$(tools/venv)/bin/python" bench/timers.py [TIMERS] [--real-time]

Memory is the anonymous memory of a process with that many timers less that of one with a tenth, by timer. Lateness is
from the scheduled time, with the Trigger's jitter, to when the function has the request, over all that lies between:
the claim in the checkpoint, which is kept in memory (/dev/shm) so that no disk is measured, and HTTP. With --real-time what else the machine does waits for the two processes."""

import datetime
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

from rig import cpu_seconds, memory

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from harness.process import wait_until  # noqa: E402
from harness.sluice import Function, Sluice, trigger  # noqa: E402

QUIET = 20  # seconds without a tick
JITTER = 60 * 1000000  # usec


def jitter(uid):
    """As pkg/source/timer/spec.c has it."""
    mask = (1 << 64) - 1
    h = 0xCBF29CE484222325
    for byte in uid.encode():
        h = (h ^ byte) * 0x100000001B3 & mask
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & mask
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & mask
    return (h ^ h >> 33) % (JITTER + 1)


def many(n, uri, **timer):
    return [trigger(f"timer-{i}", {"timer": dict(timer)}, uri) for i in range(n)]


class Run:
    def __init__(self, folder, triggers):
        (folder / "triggers").mkdir(parents=True)
        for i in range(0, len(triggers), 1000):  # a file has a MiB at most
            text = "\n---\n".join(json.dumps(t) for t in triggers[i : i + 1000])
            (folder / "triggers" / f"{i}.json").write_text(text)
        self.n = len(triggers)
        self.sluice = Sluice(
            "run", "-f", folder / "triggers", f"--state={folder / 'state'}", "--log-level=error"
        )

    def __enter__(self):
        self.sluice.start()
        wait_until("all timers run", self.connected, 120)
        return self.sluice

    def connected(self):
        states = [t["sourceState"] for t in self.sluice.triggers().values()]
        return len(states) == self.n and all(s == "Connected" for s in states)

    def __exit__(self, *_):
        self.sluice.close()


def switches(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M).group(1))


def sizes(folder, n):
    """KiB by timer, and wake-ups and CPU seconds while no tick is due."""
    found = {}
    for count in (n // 10, n):
        with Run(
            folder / f"size-{count}", many(count, "http://127.0.0.1:9/", schedule="0 0 0 1 1 ?")
        ) as sluice:
            time.sleep(2)
            found[count] = memory(sluice.pid)["anonymous"]
            before, cpu = switches(sluice.pid), cpu_seconds(sluice.pid)
            time.sleep(QUIET)
            woken, cpu = switches(sluice.pid) - before, cpu_seconds(sluice.pid) - cpu
    print(
        f"{n} timers: {found[n]:.1f} MiB anonymous; {(found[n] - found[n // 10]) * 1024 / (n - n // 10):.2f} KiB each"
    )
    print(f"no tick due for {QUIET} s: {woken} wake-ups, {cpu:.2f} s of a core")


def lateness(folder, n, real_time=False):
    with (
        Function() as function,
        Run(folder / "late", many(n, function.uri, schedule="1m", jitter=f"{JITTER // 1000000}s")) as sluice,
    ):
        for pid in (sluice.pid, function.process.pid) if real_time else ():
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setscheduler(int(task), os.SCHED_FIFO, os.sched_param(1))
        begun = function.accepted()
        time.sleep(90)
        print(f"{memory(sluice.pid)['anonymous']:.1f} MiB anonymous with a tick a minute each")
        events = function.events()[begun:]
    late = []
    for e in events:
        uid, text = e["id"].rsplit("/", 1)
        due = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e6 + jitter(uid)
        late.append((e["timeMicros"] - due) / 1000)
    late.sort()
    told = ", ".join(f"p{p} {late[min(int(len(late) * p / 100), len(late) - 1)]:.2f}" for p in (50, 99, 99.9))
    print(f"{len(late)} ticks, late by ms: {told}, at most {late[-1]:.2f}")


def main():
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    n = numbers[0] if numbers else 10000
    folder = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        sizes(folder, n)
        lateness(folder, n, "--real-time" in sys.argv)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
