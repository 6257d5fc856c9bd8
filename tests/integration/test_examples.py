"""What a function gets of the examples of examples/cloud: their previews, as files of tests/previews (UPDATE_GOLDEN=1 writes them), and what
they deliver of the emulator's queue and stream."""

import json
import os
import re
import subprocess

import pytest
import yaml
from cloud.service import PROJECT
from harness import ROOT
from harness.process import wait_until
from harness.sluice import SLUICE
from test_dis import Stream
from test_dms import Queue

# What differs from one preview to the next.
CHANGES = [
    (re.compile(r"(X-CFF-Request-Id: )[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), r"\1ID"),
    (re.compile(r"(traceparent: 00-)[0-9a-f]{32}-[0-9a-f]{16}-01"), r"\1TRACE"),
    (re.compile(r'("requestId":")[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"'), r'\1ID"'),
    (
        re.compile(r'("timestamp":")\w{3} \w{3} \d\d \d{4} \d\d:\d\d:\d\d GMT\+0800 \(CST\)"'),
        r'\1TIME"',
    ),
]


def preview(example, record):
    return subprocess.run(
        [SLUICE, "preview", "-f", ROOT / "examples" / "cloud" / example, "--record=-"],
        input=record,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("golden", "example", "record"),
    [
        ("queue", "queue.yaml", '{"body": "a message", "attributes": {"from": "shop"}, "tags": ["new"]}'),
        ("queue-json", "queue.yaml", '{"body": {"amount": 150, "n": 1.10}}'),
        (
            "stream",
            "stream.yaml",
            '{"partitionKey": "customer 7", "sequenceNumber": 7, "data": {"amount": 150}}',
        ),
        (
            "documents",
            "documents.yaml",
            '{"fullDocument": {"_id": 7, "shop": "north", "amount": 1.5, "of": 9007199254740993}}',
        ),
        (
            "documents-delete",
            "documents.yaml",
            '{"operationType": "delete", "documentKey": {"_id": {"$oid": "5d8c2f8e5beccb6cf5370d6a"}}}',
        ),
    ],
)
def test_the_request_is_the_golden_one(golden, example, record):
    done = preview(example, record)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    text = done.stdout
    for pattern, instead in CHANGES:
        text = pattern.sub(instead, text)
    file = ROOT / "tests" / "previews" / f"{golden}.expected"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()
    # The length that is told is that of the body, before anything was put in place of it.
    head, body = done.stdout.split("\n\n", 1)
    assert int(re.search(r"^Content-Length: (\d+)$", head, re.M).group(1)) == len(body.rstrip("\n").encode())


def test_what_the_example_s_filter_leaves_out_is_told():
    done = preview("stream.yaml", '{"data": {"amount": 100}}')
    assert done.returncode == 3 and done.stdout == ""
    assert 'filtered: data.amount: no value matches [{"numeric":[">",100]}]' in done.stderr


def example(name, function):
    """As it is, but for names that only the user's own account has."""
    t = yaml.safe_load((ROOT / "examples" / "cloud" / name).read_text())
    t["spec"]["sink"] = {"uri": function.uri}
    (source,) = t["spec"]["source"].values()
    source["cloud"]["projectID"] = PROJECT
    return t, source


def test_the_queue_of_the_example_is_delivered(runner, cloud, function, tmp_path):
    queue = Queue(cloud, runner, function, tmp_path)
    t, source = example("queue.yaml", function)
    source |= {"queueID": queue.queue.id, "consumerGroupID": queue.group.id}
    t["spec"]["delivery"]["deadLetter"] = {"uri": function.uri}
    runner.start(t, options=[f"--secrets={queue.secrets}"], env={"SLUICE_CLOUD": cloud.endpoint})
    queue.send(["one", "two", "three"])
    events = function.wait_for(3)
    assert [json.loads(e["body"])["Messages"][0]["Body"] for e in events] == ["one", "two", "three"]
    queue.wait_empty()


def test_the_stream_of_the_example_is_delivered(runner, cloud, function, tmp_path):
    stream = Stream(cloud, runner, function, tmp_path)
    t, source = example("stream.yaml", function)
    account = source["cloud"]["credentials"]["serviceAccount"]
    account |= {"providerURN": cloud.iam.provider_urn, "agencyURN": cloud.iam.agency_urn}
    token = tmp_path / "token"
    token.write_text(cloud.iam.id_token())
    for amount in (50, 150, 100, 200):
        cloud.dis.put(stream.stream, "customer 7", json.dumps({"amount": amount}).encode())
    runner.start(t, env={"SLUICE_CLOUD": cloud.endpoint, "HUAWEICLOUD_OIDC_TOKEN_FILE": token})
    wait_until("those that are wanted", lambda: len(stream.arrived()) == 2, 30)
    stream.wait_saved()
    assert len(stream.arrived()) == 2
