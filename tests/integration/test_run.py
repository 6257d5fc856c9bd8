"""`sluice run`: what it shows, and what one Trigger's trouble means to the others."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest
import yaml
from harness.ports import free_port
from harness.sink import Sink
from harness.sluice import SLUICE, Sluice, ask, trigger


def ticks(name, uri):
    return trigger(name, {"timer": {"schedule": "@every 200ms"}}, uri)


UNSTARTABLE = trigger(
    "hook",
    {"obs": {"bucket": "photos", "from": "Webhook", "tokenSecretRef": {"name": "missing", "key": "token"}}},
    "http://127.0.0.1:9/",
)


def test_a_trigger_that_cannot_start_does_not_end_the_others(function, runner):
    run = runner.start(UNSTARTABLE, ticks("clock", function.uri), options=["--listen=127.0.0.1:0"])
    function.wait_for(3)
    run.wait_until("it is said", lambda: re.search(r"test/hook .* Failed .*missing", run.output))
    assert run.stop() == 1, "and the exit status tells"


def test_the_exit_status_tells_nothing_of_a_failure_that_is_over(function, runner, tmp_path):
    run = runner.start(UNSTARTABLE, ticks("clock", function.uri), options=["--listen=127.0.0.1:0"])
    run.wait_until("it is said", lambda: re.search(r"test/hook .* Failed .*missing", run.output))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(ticks("clock", function.uri)))
    run.wait_for_output('"the files changed" applied=0 removed=1')
    assert run.stop() == 0


def test_a_trigger_alone_that_cannot_start_ends_it(runner):
    run = runner.start(UNSTARTABLE, options=["--listen=127.0.0.1:0"])
    assert run.wait(10) == 1
    assert "start test/hook: tokenSecretRef" in run.output


def test_one_that_cannot_start_is_shown_and_tried_again(function, tmp_path):
    """Probes, status and metrics say why; it starts once it can, or is tried at once at SIGHUP, without an edit."""

    def connected():
        return run.metric("sluice_source_connected", namespace="test", trigger="api", source="apig")

    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    files = tmp_path / "triggers.yaml"
    clock, api = ticks("clock", function.uri), trigger("api", {"apig": {"path": "/f"}}, function.uri)
    files.write_text(yaml.safe_dump_all([clock, api]))
    with Sluice("run", "-f", files, f"--state={tmp_path}/state", f"--listen=127.0.0.1:{port}") as run:
        why = f'listen on "127.0.0.1:{port}": Address already in use'
        run.wait_until("it is said", lambda: run.ask("/readyz") == (503, f"test/api: Failed: {why}\n"))
        shown = run.triggers()
        assert sorted(shown) == ["api", "clock"]
        assert (shown["api"]["sourceState"], shown["api"]["sourceReason"]) == ("Failed", why)
        assert shown["api"]["deliveryState"] == "Stopped"
        assert connected() == 0
        run.signal(signal.SIGHUP)
        run.wait_for_output('msg="the files changed" applied=1 removed=0')
        taken.close()
        run.wait_for_output(
            "a Trigger that could not be started runs now.*trigger=api|trigger=api state=Connected"
        )
        run.wait_until("it serves", lambda: run.ask("/readyz") == (200, "ok\n"))
        assert connected() == 1
        assert ask(port, "/f")[0] == 200


@pytest.mark.parametrize(
    "command", ["run", "worker", "validate", "display", "replay", "preview", "controller", "version", None]
)
def test_help_fits_80_columns(command):
    said = subprocess.run(
        [SLUICE, *([command] if command else []), "--help"],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout
    assert said and [line for line in said.splitlines() if len(line) > 80 or line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("after", "code", "said"),
    [
        ("1970-01-01T00:00:00Z", 0, "1970-01-02T00:00:00Z\n"),
        ("1969-12-31T23:59:59Z", 2, ""),
        ("1600-02-28T12:00:00Z", 2, ""),
    ],
)
def test_runs_are_shown_since_1970(tmp_path, after, code, said):
    file = tmp_path / "t.json"
    file.write_text(json.dumps(trigger("t", {"timer": {"cron": "0 0 * * *"}}, "http://f/")))
    command = [SLUICE, "preview", "-f", file, "--count=1", f"--after={after}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (code, said)
    assert code == 0 or "--after wants a time since 1970" in done.stderr


@pytest.mark.parametrize("columns", [80, 100, 132, 200])
def test_the_live_table_fits_its_terminal(function, tmp_path, columns):
    function.behave(status=418)  # a refusal, with words that fill a line
    files = tmp_path / "triggers.yaml"
    files.write_text(
        yaml.safe_dump_all(
            [
                ticks("a-timer-with-a-name-that-is-rather-long", function.uri),
                UNSTARTABLE,
                ticks("ueberlang", function.uri),
            ]
        )
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [SLUICE, "run", "-f", files, f"--state={tmp_path}/state", "--listen=127.0.0.1:0"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ) as run:
        os.close(theirs)
        seen, until = b"", time.monotonic() + 20
        while (seen.count(b"\0337") < 4 or b"418" not in seen) and time.monotonic() < until:
            seen += os.read(ours, 65536)
        run.terminate()
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:
            pass
        run.wait(20)
    os.close(ours)
    drawings = re.findall(r"\x1b7\x1b\[\?7l(.*?)\x1b\[\?7h\x1b8", seen.decode(), re.S)
    assert len(drawings) >= 3
    for drawing in drawings:
        assert "time=" not in drawing, "no line of the log within"
        rows = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", row) for row in re.split(r"\x1b\[\d+;1H", drawing)]
        assert len(rows) == 5 and all(len(row) < columns for row in rows), rows


def texts(function):
    return [json.loads(e["body"])["user_event"] for e in function.events()]


def test_changed_files_are_taken_without_a_restart(function, tmp_path):
    """What is new begins, what changed is replaced, what is gone ends, and the rest goes on undisturbed."""

    def tick(name, text, **spec):
        return trigger(name, {"timer": {"schedule": "@every 200ms", "userEvent": text}}, function.uri, **spec)

    def write(*triggers):
        files.write_text(yaml.safe_dump_all(triggers))

    def comes(*wanted):
        before = len(texts(function))
        run.wait_until(f"{wanted} come", lambda: set(wanted) <= set(texts(function)[before:]), 20)

    files = tmp_path / "triggers.yaml"
    write(tick("stays", "stays"), tick("changes", "old"), tick("goes", "goes"))
    with Sluice("run", "-f", files, f"--state={tmp_path}/state") as run:
        comes("stays", "old", "goes")
        write(tick("stays", "stays"), tick("changes", "new"), tick("comes", "comes"))
        comes("stays", "new", "comes")
        received = run.triggers()["stays"]["received"]
        files.write_text("kind: Trigger\nspec: [")
        run.wait_for_output("what ran before goes on")
        before = len(texts(function))
        comes("stays", "new", "comes")
        assert not {"old", "goes"} & set(texts(function)[before:])
        now = run.triggers()
        assert sorted(now) == ["changes", "comes", "stays"]
        assert now["stays"]["received"] > received > 0, "it was not begun anew"
        write(tick("stays", "stays", suspend=True))
        run.wait_until("all are gone", lambda: run.triggers() == {})
        write(tick("stays", "stays"))
        run.wait_until("it runs again", lambda: list(run.triggers()) == ["stays"])
        assert run.stop() == 0


def test_an_api_that_changes_is_replaced(function, runner, tmp_path):
    """Calls find the new one at the same port; the old path is nobody's any more."""

    def api(path):
        return trigger("api", {"apig": {"path": path}}, function.uri)

    files = tmp_path / "api.yaml"
    files.write_text(yaml.safe_dump(ticks("clock", function.uri)))
    with Sluice("run", "-f", files, f"--state={tmp_path}/state", "--listen=127.0.0.1:0") as run:
        run.wait_until("it runs", lambda: texts(function))
        files.write_text(yaml.safe_dump_all([ticks("clock", function.uri), api("/one")]))
        port = run.port
        run.wait_until("the API answers", lambda: ask(port, "/one")[0] == 200)
        files.write_text(yaml.safe_dump_all([ticks("clock", function.uri), api("/two")]))
        run.wait_until("the new one answers", lambda: ask(port, "/two")[0] == 200)
        assert ask(port, "/one")[0] == 404
        assert run.stop() == 0


def test_a_path_that_is_taken_is_told_and_had_once_it_is_free(tmp_path):
    """The one that has it goes on, whoever comes first in the file; two may swap theirs."""

    def api(name, path, **source):
        return trigger(name, {"apig": {"path": path, "stage": name, **source}}, sink.uri)

    def write(*triggers):
        files.write_text(yaml.safe_dump_all(triggers))

    def serve(x, y):
        return lambda: (ask(port, "/x")[1], ask(port, "/y")[1]) == (x, y) and run.ask("/readyz")[1] == "ok\n"

    def answer(request):
        stage = json.loads(request.body)["requestContext"]["stage"]
        body = json.dumps({"statusCode": 200, "headers": {}, "isBase64Encoded": False, "body": stage})
        return 200, {"Content-Type": "application/json"}, body.encode()

    files = tmp_path / "triggers.yaml"
    with Sink(answer) as sink:
        write(api("one", "/x"))
        with Sluice("run", "-f", files, f"--state={tmp_path}/state", "--listen=127.0.0.1:0") as run:
            port = run.port
            write(api("two", "/x/"), api("one", "/x"))
            why = (
                "test/two: Failed: spec.source.apig: test/two has any method of /x, as has test/one, which alone "
                "would be called: give one of them another path or method\n"
            )
            run.wait_until("it is told", lambda: run.ask("/readyz")[1] == why)
            assert ask(port, "/x")[1] == "one"
            write(api("two", "/x/"))
            run.wait_until("the other has it", lambda: ask(port, "/x")[1] == "two")
            assert run.ask("/readyz")[1] == "ok\n"
            write(api("two", "/x"), api("one", "/y"))
            run.wait_until("both serve", serve("two", "one"))
            write(api("two", "/y"), api("one", "/x"))
            run.wait_until("they have swapped", serve("one", "two"))
            assert run.stop() == 0


def test_what_is_shown_of_one_without_a_pipeline(tmp_path):
    """Status, metrics, readiness and the lines agree on each, and say nothing that is not so."""

    def states():
        return {
            name: (t["sourceState"], t["deliveryState"], t["sourceReason"])
            for name, t in run.triggers().items()
        }

    def answer(request):
        if b'"user_event":"slow"' in request.body:
            entered.set()
            gate.wait(20)
        return 200

    gate, entered = threading.Event(), threading.Event()
    files = tmp_path / "triggers.yaml"
    with Sink(answer) as sink:
        api = trigger("api", {"apig": {"path": "/f"}}, sink.uri)
        blocked = trigger("blocked", {"apig": {"path": "/f"}}, sink.uri)
        refused = trigger("refused", {"timer": {"schedule": "1h"}}, sink.uri)
        refused["spec"]["sink"] = {"ref": {"apiVersion": "v1", "kind": "Service", "name": "f"}}
        slow = trigger("slow", {"timer": {"schedule": "@every 200ms", "userEvent": "slow"}}, sink.uri)
        asleep = trigger("asleep", {"timer": {"schedule": "1h"}}, sink.uri, suspend=True)
        files.write_text(yaml.safe_dump_all([api, blocked, refused, slow, asleep]))
        with Sluice("run", "-f", files, f"--state={tmp_path}/state", "--listen=127.0.0.1:0") as run:
            run.wait_until("the tick is under way", entered.is_set)
            slow["spec"]["source"]["timer"] = {"schedule": "1h"}
            files.write_text(yaml.safe_dump_all([api, blocked, refused, slow, asleep]))
            run.wait_for_output('msg="the files changed" applied=3')  # those that failed are tried
            taken = (
                "spec.source.apig: test/blocked has any method of /f, as has test/api, which alone would be called: "
                "give one of them another path or method"
            )
            ref = "test/refused: spec.sink.ref names a Service of a cluster; without one write spec.sink.uri"
            expected = {
                "api": ("Connected", "Delivering", ""),
                "blocked": ("Failed", "Stopped", taken),
                "refused": ("Failed", "Stopped", ref),
                "slow": ("Connected", "Delivering", ""),  # its predecessor finishes what it has
            }
            assert states() == expected
            assert sorted(run.ask("/readyz")[1].splitlines()) == [
                f"test/blocked: Failed: {taken}",
                f"test/refused: Failed: {ref}",
            ]
            for name, (source, _, _) in expected.items():
                shown = run.metric("sluice_source_connected", trigger=name)
                assert shown == (source == "Connected"), name
            assert "asleep" not in run.ask("/metrics")[1] + run.output
            for name, source in [("blocked", "apig any /f"), ("refused", "timer 1h")]:
                assert re.search(rf"^test/{name}  .*  Failed  events 0  ", run.output, re.M), source
            gate.set()
            run.wait_until("the successor is there", lambda: "timer 1h" in run.output.split("test/slow")[-1])
            assert states() == expected
            assert run.stop() == 1


@pytest.mark.parametrize("why", ["cannot be run here", "cannot be started"])
def test_an_api_goes_on_when_its_edit_cannot_start(tmp_path, why):
    """What ran serves until the edit does, and the edit's failure is told; another edit is tried at once."""

    def api(stage, **source):
        return trigger("api", {"apig": {"path": "/f", "stage": stage, **source}}, sink.uri)

    def called():
        return ask(port, "/f")[1]

    def answer(request):
        stage = json.loads(request.body)["requestContext"]["stage"]
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps({"statusCode": 200, "body": stage}).encode(),
        )

    broken, text = {
        "cannot be run here": (
            {"listener": {"tls": {"secretName": "cert"}}},
            "test/api: spec.source.apig.listener.tls names a Secret of a cluster; without one say "
            "--tls-cert=FILE and --tls-key=FILE",
        ),
        "cannot be started": (
            {
                "authentication": {
                    "type": "Custom",
                    "authorizer": {"uri": "https://a.example/", "caSecretRef": {"name": "ca", "key": "pem"}},
                }
            },
            "start test/api: authentication: Secret ca can't be read from nowhere: say --secrets=DIR",
        ),
    }[why]
    files = tmp_path / "api.yaml"
    with Sink(answer) as sink:
        files.write_text(yaml.safe_dump(api("one")))
        with Sluice("run", "-f", files, f"--state={tmp_path}/state", "--listen=127.0.0.1:0") as run:
            port = run.port
            assert called() == "one" and run.ask("/readyz")[1] == "ok\n"
            files.write_text(yaml.safe_dump(api("two", **broken)))
            told = f"its change can't be started, and it goes on as it was: {text}"
            run.wait_until("it is told", lambda: run.ask("/readyz")[1] == f"test/api: Failed: {told}\n")
            run.wait_for_output("can't be started.*" + re.escape(text))
            shown = run.status("api")
            assert (shown["sourceState"], shown["sourceReason"]) == ("Failed", told)
            assert (shown["deliveryState"], shown["delivered"]) == ("Delivering", 1)
            assert run.metric("sluice_source_connected", namespace="test", trigger="api", source="apig") == 0
            assert called() == "one"
            files.write_text(yaml.safe_dump(api("three")))
            run.wait_until("it serves", lambda: called() == "three")
            run.wait_until("that is told", lambda: run.ask("/readyz")[1] == "ok\n")
            assert run.stop() == 0


def test_what_reads_goes_on_when_its_edit_cannot_start(function, tmp_path):
    def ticks(schedule, delivery=None):
        return yaml.safe_dump(trigger("clock", {"timer": {"schedule": schedule}}, function.uri, delivery))

    files = tmp_path / "clock.yaml"
    files.write_text(ticks("1s"))
    with Sluice("run", "-f", files, f"--state={tmp_path}/state") as run:
        run.wait_until("it ticks", lambda: function.accepted() > 0)
        files.write_text(ticks("1h", {"tls": {"caSecretRef": {"name": "ca", "key": "pem"}}}))
        told = r"its change can't be started, and it goes on as it was: start test/clock: spec.delivery.tls "
        run.wait_until("it is told", lambda: re.match(told, run.status()["sourceReason"]))
        before = function.accepted()
        run.wait_until("it ticks still", lambda: function.accepted() > before + 1)
        files.write_text(ticks("1h"))
        run.wait_until("it is well", lambda: run.ask("/readyz")[1] == "ok\n")
        assert run.stop() == 0


@pytest.mark.parametrize("told", ["watched", "signalled"])
def test_a_folder_is_read_again(function, tmp_path, told):
    """Files that come and go in a folder, and in one that comes later; at SIGHUP too, when nobody tells of changes."""
    folder = tmp_path / "triggers"
    folder.mkdir()

    def write(path, name):
        fresh = tmp_path / "fresh"
        fresh.write_text(
            yaml.safe_dump(
                trigger(name, {"timer": {"schedule": "@every 200ms", "userEvent": name}}, function.uri)
            )
        )
        path.parent.mkdir(exist_ok=True)
        fresh.rename(path)
        if told == "signalled":
            run.signal(signal.SIGHUP)

    (folder / "a.yaml").write_text(
        yaml.safe_dump(trigger("a", {"timer": {"schedule": "@every 200ms", "userEvent": "a"}}, function.uri))
    )
    with Sluice("run", "-f", folder, f"--state={tmp_path}/state") as run:
        run.wait_until("a comes", lambda: "a" in texts(function))
        write(folder / "b.yaml", "b")
        run.wait_until("b comes", lambda: "b" in texts(function), 20)
        write(folder / "inner" / "c.yaml", "c")
        run.wait_until("c comes", lambda: "c" in texts(function), 20)
        (folder / "a.yaml").unlink()
        if told == "signalled":
            run.signal(signal.SIGHUP)
        run.wait_for_output("removed=1")
        assert run.stop() == 0


def test_the_last_file_of_a_folder_ends_its_trigger(function, tmp_path):
    """No file is what is wanted, too; a folder that vanished, or is made again and empty, is not."""

    def write(name):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(ticks(name, function.uri)))

    folder = tmp_path / "triggers"
    write("a")
    with Sluice("run", "-f", folder, f"--state={tmp_path}/state") as run:
        run.wait_until("a runs", lambda: list(run.triggers()) == ["a"])
        (folder / "a.yaml").unlink()
        run.wait_for_output("applied=0 removed=1")
        run.wait_until("none runs", lambda: run.triggers() == {})
        assert run.ask("/readyz") == (200, "ok\n")
        write("b")
        run.wait_until("b runs", lambda: list(run.triggers()) == ["b"], 20)
        folder.rename(tmp_path / "elsewhere")
        run.wait_for_output(f"open {folder}: No such file or directory(.|\n)*what ran before goes on")
        folder.mkdir()
        run.wait_for_output('no Trigger was found in the files given"\n.*what ran before goes on')
        assert list(run.triggers()) == ["b"]
        write("c")
        run.wait_until("c runs instead", lambda: list(run.triggers()) == ["c"], 20)
        assert run.stop() == 0


def test_a_folder_of_positions_that_is_deleted_is_made_again(function, tmp_path):
    """While nothing is saved, too: the tick is due only in an hour."""
    file, state = tmp_path / "t.yaml", tmp_path / "state"
    file.write_text(yaml.safe_dump(trigger("clock", {"timer": {"schedule": "@every 200ms"}}, function.uri)))
    with Sluice("run", "-f", file, f"--state={state}") as run:
        function.wait_for(1)
        shutil.rmtree(state)
        run.wait_for_output("the folder of positions was deleted or replaced: it was made again")
        before = len(function.events())
        function.wait_for(before + 3)
        assert (state / "checkpoints.journal").stat().st_size > 0
        assert run.stop() == 0


def test_nobody_needs_to_read_what_it_prints(function, tmp_path):
    """A log collector that stalls stalls its pipe, not the events, the probes or the end; afterwards the log says what is missing."""
    files, admin = tmp_path / "triggers.yaml", free_port()
    files.write_text(yaml.safe_dump(ticks("clock", function.uri)))
    command = [SLUICE, "run", "-f", files, f"--state={tmp_path}", f"--admin=127.0.0.1:{admin}"]
    command.append("--log-level=info")
    pipes = [os.pipe(), os.pipe()]
    for _, end in pipes:
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 65536)
        os.set_blocking(end, False)
        while True:  # until it is full
            try:
                os.write(end, b"x" * 64)
            except BlockingIOError:
                break
        os.set_blocking(end, True)
    run = subprocess.Popen(
        [str(c) for c in command], stdout=pipes[0][1], stderr=pipes[1][1], stdin=subprocess.DEVNULL
    )
    try:
        function.wait_for(5, 30)
        assert ask(admin, "/livez")[0] == 200
        for end, _ in pipes:
            assert os.read(end, 65536) == b"x" * 65536
        run.terminate()
        assert run.wait(10) == 0
        log = os.read(pipes[1][0], 65536).decode()
        missing, last = log.splitlines()
        assert re.search(r"level=warn .*lines of the log were dropped.* lines=[1-9]", missing)
        assert "stopping" in last
    finally:
        run.kill()
        run.wait()
        for pair in pipes:
            for end in pair:
                os.close(end)


def test_only_what_keeps_positions_needs_a_state_of_its_own(function, runner):
    """What runs beside it with the same --state holds up no restart of it either."""
    clock = ticks("clock", function.uri)
    first = runner.start(clock, name="first")
    function.wait_for(1)
    api = trigger("api", {"apig": {"path": "/here"}}, function.uri)
    kafka = trigger(
        "orders", {"kafka": {"bootstrapServers": ["127.0.0.1:9"], "topics": ["orders"]}}, function.uri
    )
    second = runner.start(api, kafka, name="second", options=["--listen=127.0.0.1:0"])
    second.wait_until("it answers", lambda: ask(second.port, "/here")[0] == 200)
    first.kill()
    third = runner.start(clock, name="third")
    third.wait_for_output("trigger=clock state=Connected")
    assert second.status("orders")["sourceState"] != "Failed"
    assert ask(second.port, "/here")[0] == 200


def test_what_is_wrong_in_changed_files_is_logged(function, runner, tmp_path):
    """As a message like any other, and that it is mended, too."""
    run = runner.start(ticks("clock", function.uri), options=["--log-format=json"])
    function.wait_for(1)
    good = (tmp_path / "run.yaml").read_text()
    (tmp_path / "run.yaml").write_text(good.replace("@every 200ms", "@every never"))
    run.wait_for_output("what ran before goes on")
    (tmp_path / "run.yaml").write_text(good)
    run.wait_for_output("the files can be used again")
    assert run.stop() == 0
    lines = [json.loads(line) for line in run.err.splitlines()]
    (told,) = (line["problem"] for line in lines if "problem" in line)
    assert re.search(r"run\.yaml:\d+:\d+: spec\.source\.timer\.schedule: ", told)
