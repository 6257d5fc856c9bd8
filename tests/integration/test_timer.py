"""Timers, from the schedule to the function."""

import datetime
import json
import pathlib
import re
import time

from harness.sluice import trigger


def ticks(name, uri, schedule="@every 200ms", **timer):
    return trigger(name, {"timer": {"schedule": schedule, "userEvent": "hello", **timer}}, uri)


def due(event):
    """The scheduled time that its id names, in seconds since 1970."""
    text = re.fullmatch(r"test/[a-z]+/(.+)Z", event["id"]).group(1)
    return (
        datetime.datetime.fromisoformat(text + ("0" * (26 - len(text)) if "." in text else ""))
        .replace(tzinfo=datetime.timezone.utc)
        .timestamp()
    )


def test_ticks_arrive_in_functiongraphs_shape_and_on_time(function, runner):
    runner.start(ticks("clock", function.uri, timeZone="Asia/Kolkata"))
    events = function.wait_for(10)
    bodies = [json.loads(e["body"]) for e in events]
    assert all(set(b) == {"version", "time", "trigger_type", "trigger_name", "user_event"} for b in bodies)
    assert bodies[0] | {"time": ""} == {
        "version": "v1.0",
        "time": "",
        "trigger_type": "TIMER",
        "trigger_name": "clock",
        "user_event": "hello",
    }
    assert all(b["time"].endswith("+05:30") for b in bodies)
    ids = [e["id"] for e in events]
    assert len(set(ids)) == len(ids), "each tick has an id of its own"
    for e in events:
        late = e["timeMicros"] / 1e6 - due(e)
        assert 0 <= late < 2, f"{e['id']} arrived {late:.3f} s after its time"


def test_a_tick_that_was_claimed_is_sent_again_after_a_kill(function, runner):
    function.behave(delay="60s")
    claimed = ticks("fast", function.uri, misfirePolicy="CatchUp")
    claimed["spec"]["delivery"] = {"timeout": "3s"}
    second = runner.start(claimed, name="second")
    second.wait_until("the function was asked", lambda: function.events())
    first = function.events()[0]
    second.kill()
    function.behave(status=200)
    runner.start(
        ticks("fast", function.uri, misfirePolicy="CatchUp"), name="third"
    )  # whatever its own time-out is
    events = function.wait_for(6)[1:]
    assert events[0]["id"] == first["id"], "the claimed tick comes first, with the same id"
    assert events[0]["timeMicros"] - first["timeMicros"] > 3_000_000, (
        "and not while the first request may be under way"
    )
    times = [due(e) for e in events]
    assert times == sorted(times) and len(set(times)) == len(times)


def test_a_tick_that_was_given_back_is_sent_again_at_once(function, runner):
    function.behave(status=503)
    first = runner.start(ticks("fast", function.uri, misfirePolicy="CatchUp"), name="first")
    first.wait_until("the function was asked", lambda: function.events(accepted=False))
    refused = function.events(accepted=False)[0]["id"]
    assert first.stop() == 0
    function.behave(status=200)
    runner.start(ticks("fast", function.uri, misfirePolicy="CatchUp"), name="second")
    assert function.wait_for(1)[0]["id"] == refused


def test_settled_ticks_are_not_sent_again(function, runner):
    run = runner.start(ticks("clock", function.uri), options=["--events=5"])
    assert run.wait(20) == 0
    again = runner.start(ticks("clock", function.uri), name="again", options=["--events=5"])
    assert again.wait(20) == 0
    ids = [e["id"] for e in function.events()]
    assert len(set(ids)) == len(ids) == function.accepted()


def test_ticks_that_may_are_sent_while_another_is_delivered(function, runner):
    function.behave(delay="3s")
    runner.start(ticks("many", function.uri, concurrencyPolicy="Allow"))
    asked = function.wait_for(10)
    assert len({e["id"] for e in asked}) == len(asked)
    # One after the other none would come within 3 s of the one before.
    times = sorted(e["timeMicros"] for e in asked)
    assert min(after - before for before, after in zip(times, times[1:])) < 3_000_000


def test_the_last_and_the_next_run_are_shown(function, runner):
    run = runner.start(ticks("clock", function.uri))
    function.wait_for(2)
    shown = run.wait_until("a run has ended", lambda: (s := run.status()).get("lastRunTime") and s)
    assert shown["lastRunOutcome"] == "Accepted"
    last, following = (
        datetime.datetime.fromisoformat(shown[name]) for name in ("lastRunTime", "nextRunTime")
    )
    assert following > last


def test_bytes_are_sent_as_they_are(function, runner):
    tick = ticks("bytes", function.uri, userEventBase64="/wD+", contentType="application/x-thing")
    del tick["spec"]["source"]["timer"]["userEvent"]
    tick["spec"]["event"] = {"format": "CloudEventsStructured"}
    runner.start(tick)
    event = json.loads(function.wait_for(1)[0]["body"])
    assert event["datacontenttype"] == "application/x-thing"
    assert event["data_base64"] == "/wD+"


def test_a_worker_that_waits_for_a_tick_sleeps(function, runner):
    run = runner.start(ticks("clock", function.uri, schedule="0 0 0 1 1 ?"))
    run.wait_until("it is connected", lambda: run.status()["sourceState"] == "Connected")

    def switches():
        status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M).group(1))

    # Nothing is asked of it meanwhile, and nothing is due: only the passing time is waited for.
    before = switches()
    time.sleep(3)
    assert switches() - before <= 2


def test_ten_thousand_timers_take_little(runner):
    def anonymous(n):
        many = [
            ticks(f"t{n}-{i}", "http://127.0.0.1:9/", schedule="0 0 0 1 1 ?", timeZone="Europe/Berlin")
            for i in range(n)
        ]
        run = runner.start(*many, name=f"run{n}", state=f"state{n}", options=["--log-level=error"])
        run.wait_until(
            "all are connected",
            lambda: [t["sourceState"] for t in run.triggers().values()].count("Connected") == n,
        )
        rollup = pathlib.Path(f"/proc/{run.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.M).group(1))

    few = 200
    assert (anonymous(2000) - anonymous(few)) / (2000 - few) <= 6, "KiB for each"
