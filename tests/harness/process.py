"""A program under test: its output captured, its readiness asked for, its end certain."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

POLL = 0.02  # seconds between two questions


class TimedOut(AssertionError):
    pass


def wait_until(what, ask, timeout=10.0, poll=POLL, explain=None):
    """Calls ask() until it returns something true, which it returns. An exception of ask() counts as not yet, and is told at the end."""
    end = time.monotonic() + timeout
    while True:
        last = None
        try:
            answer = ask()
            if answer:
                return answer
            last = answer
        except Exception as e:  # the server is not there yet
            if isinstance(e, Dead):
                raise
            last = e
        if time.monotonic() >= end:
            raise TimedOut(
                f"{what}: not within {timeout:g} s (last: {last!r})" + (f"\n{explain()}" if explain else "")
            )
        time.sleep(poll)


class Dead(AssertionError):
    """The program ended while something was still expected of it."""


class Process:
    """A running program. Standard output and error go to files of their own (both to one with merge=True).

    with Process(["build/sluice", "run", "-f", "t.yaml"]) as p:
        p.wait_for_output(r"ready")
    """

    def __init__(
        self,
        command,
        *,
        name=None,
        env=None,
        cwd=None,
        netns=None,
        merge=False,
        directory=None,
        stop_timeout=10.0,
        stdin=None,
    ):
        self.command = [str(c) for c in command]
        self.name = name or os.path.basename(self.command[0])
        if netns:
            self.command = ["nsenter", f"--net=/var/run/netns/{netns}", *self.command]
        self.env = None if env is None else {**os.environ, **{k: str(v) for k, v in env.items()}}
        self.cwd, self.merge, self.stop_timeout, self.stdin = cwd, merge, stop_timeout, stdin
        self._own = None
        if directory is None:
            self._own = tempfile.TemporaryDirectory(prefix=f"{self.name}-")
            directory = self._own.name
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.out_path = self.directory / f"{self.name}.out"
        self.err_path = self.out_path if merge else self.directory / f"{self.name}.err"
        self.popen = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind, *_):
        if kind:
            print(self.describe())
        self.close()

    def start(self):
        """Starts it (again); output is appended."""
        with contextlib.ExitStack() as files:
            out = files.enter_context(open(self.out_path, "ab"))
            err = subprocess.STDOUT if self.merge else files.enter_context(open(self.err_path, "ab"))
            self.popen = subprocess.Popen(
                self.command,
                stdin=self.stdin or subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )
        return self

    @property
    def pid(self):
        return self.popen.pid

    @property
    def out(self):
        return self.out_path.read_text(errors="replace") if self.out_path.exists() else ""

    @property
    def err(self):
        return self.err_path.read_text(errors="replace") if self.err_path.exists() else ""

    @property
    def output(self):
        return self.out if self.merge else self.out + self.err

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def tail(self, lines=40):
        return "\n".join(self.output.splitlines()[-lines:])

    def describe(self):
        state = (
            "never started"
            if self.popen is None
            else "running"
            if self.alive()
            else f"ended with {self.popen.returncode}"
        )
        return f"--- {self.name} ({state}): {' '.join(self.command)}\n{self.tail()}\n---"

    def wait_until(self, what, ask, timeout=10.0):
        """wait_until(), given up at once when the program ends."""

        def guarded():
            if not self.alive():
                raise Dead(f"{what}: the program ended\n{self.describe()}")
            return ask()

        return wait_until(f"{self.name}: {what}", guarded, timeout, explain=self.describe)

    def wait_for_output(self, pattern, timeout=10.0):
        """The match of a regular expression in its output."""
        return self.wait_until(f"output {pattern!r}", lambda: re.search(pattern, self.output, re.M), timeout)

    def wait_for_http(self, url, status=200, timeout=10.0):
        def ask():
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return answer.status == status
            except urllib.error.HTTPError as e:
                return e.code == status

        return self.wait_until(f"{url} answers {status}", ask, timeout)

    def wait(self, timeout=10.0):
        """Its exit code, once it ends by itself."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimedOut(f"{self.name}: still running after {timeout:g} s\n{self.describe()}") from None

    def signal(self, number):
        self.popen.send_signal(number)

    def stop(self):
        """SIGTERM, then SIGKILL; returns the exit code. What it started and left behind in its session is killed too."""
        if self.popen is None:
            return None
        if self.alive():
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(self.stop_timeout)
            except subprocess.TimeoutExpired:
                pass
        return self.kill()

    def kill(self):
        if self.popen is None:
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()

    def close(self):
        self.stop()
        if self._own:
            self._own.cleanup()


def run(command, *, check=True, timeout=120.0, netns=None, input=None, env=None, cwd=None):
    """Runs a command to its end; its standard output and error are in the result, and in the exception when it fails."""
    command = [str(c) for c in command]
    if netns:
        command = ["nsenter", f"--net=/var/run/netns/{netns}", *command]
    full = None if env is None else {**os.environ, **{k: str(v) for k, v in env.items()}}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, input=input, env=full, cwd=cwd
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Later(threading.Thread):
    """A call in a thread of its own; get() waits for what it returns."""

    def __init__(self, call, *arguments, **options):
        super().__init__(target=lambda: setattr(self, "result", call(*arguments, **options)), daemon=True)
        self.start()

    def get(self):
        self.join(30)
        return self.result


def in_netns(netns, call):
    """What call() returns (or raises) in a network namespace, by a thread of its own that entered it, as do threads that it starts."""
    if not netns:
        return call()
    result = []

    def enter():
        try:
            with open(f"/var/run/netns/{netns}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {netns}")
            result.extend((call(), None))
        except BaseException as e:
            result.extend((None, e))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if result[1]:
        raise result[1]
    return result[0]
