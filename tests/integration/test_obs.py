"""Object storage: a real MinIO that posts to the webhook, notifications of the test's own, and OBS's way by a topic of SMN."""

import collections
import http.client
import json
import os
import re
import threading
import urllib.parse
import urllib.request

import pytest
import yaml
from harness.minio import Minio
from harness.ports import free_ports
from harness.process import Later, wait_until
from harness.sluice import trigger
from harness.smn import Smn

TOKEN = "a-token"
OBJECTS = int(os.environ.get("SLUICE_OBJECTS", "1000"))  # 10000 for the long run


@pytest.fixture
def secrets(tmp_path):
    folder = tmp_path / "secrets" / "webhook"
    folder.mkdir(parents=True)
    (folder / "token").write_text(TOKEN + "\n")
    return tmp_path / "secrets"


class Worker:
    """`sluice run` with one Trigger, which can be killed and started again on the same port."""

    def __init__(self, runner, secrets, sink, port=None, event=None, **spec):
        self.port, self.admin = free_ports(2)
        source = {
            "bucket": "photos",
            "from": "Webhook",
            "tokenSecretRef": {"name": "webhook", "key": "token"},
            **spec,
        }
        more = {"event": event} if event else {}
        self.run = runner.start(
            trigger("photos", {"obs": source}, sink.uri, **more),
            options=[
                f"--listen=127.0.0.1:{self.port}",
                f"--admin=127.0.0.1:{self.admin}",
                f"--secrets={secrets}",
            ],
        )
        self.run.wait_for_output(r"listening on port \d+", 20)

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}/test/photos"

    def reason(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status", timeout=10) as answer:
            (one,) = json.load(answer)["triggers"]
        return one["sourceReason"]

    def kill_and_start(self):
        self.run.signal(9)
        self.run.wait()
        self.run.start()

    def post(self, body, token=TOKEN, timeout=20):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = {
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {token}"} if token else {}),
            }
            connection.request(
                "POST", "/test/photos", body if isinstance(body, (bytes, str)) else json.dumps(body), headers
            )
            r = connection.getresponse()
            r.read()
            return r.status
        finally:
            connection.close()


def record(key="a", name="ObjectCreated:Put", bucket="photos", sequencer="1", version=None):
    o = {
        "key": key,
        "size": 1,
        "eTag": "e",
        "sequencer": sequencer,
        **({"versionId": version} if version else {}),
    }
    return {
        "eventVersion": "2.0",
        "eventSource": "aws:s3",
        "awsRegion": "",
        "eventTime": "2026-11-24T10:00:00.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "u"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "1", "x-amz-id-2": "2"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "c",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"PrincipalId": "u"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": o,
        },
    }


def changes(sink):
    """What the function was told, in order: (name, key)."""
    return [
        (r["eventName"], urllib.parse.unquote_plus(r["s3"]["object"]["key"]))
        for request in sink.taken()
        for r in request.json["Records"]
    ]


# ---- the webhook ---------------------------------------------------------------------------------------------------------------------------


def test_who_may_post_and_what_is_refused(runner, secrets, sink):
    w = Worker(
        runner, secrets, sink, prefix="in/", suffix=".jpg", events=["ObjectCreated:*", "ObjectRemoved:Delete"]
    )
    good = record("in/a%26b+c.jpg")
    assert w.post({"Records": [good]}, token=None) == 401
    assert w.post({"Records": [good]}, token="another") == 401
    assert w.post({"Records": [good]}) == 200
    assert sink.taken()[0].json == {"Records": [good]}
    assert w.post({"Records": [good]}) == 200  # once more: not delivered again
    assert (
        w.post(
            {
                "Records": [
                    record("out/a.jpg"),
                    record("in/a.png"),
                    record("in/b.jpg", "ObjectRemoved:DeleteMarkerCreated"),
                ]
            }
        )
        == 200
    )
    assert w.post({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}) == 200
    assert w.post({"Records": []}) == 200
    assert len(sink.all()) == 1
    assert w.post({"Records": [record("in/a.jpg", bucket="other")]}) == 403
    assert [w.post(b) for b in (b"", b"[]", b"{", {"Records": 1}, {"a": 1}, {"Records": [{}]})] == [400] * 6
    assert (
        w.post(
            {
                "Records": [
                    record("in/1.jpg", bucket="other"),
                    record("in/2.jpg"),
                    record("in/3.jpg", "s3:ObjectRemoved:Delete"),
                ]
            }
        )
        == 200
    )
    assert (
        changes(sink)[1:] == [("ObjectCreated:Put", "in/2.jpg"), ("ObjectRemoved:Delete", "in/3.jpg")]
        and len(sink.all()) == 2
    )
    # The token changes.
    (secrets / "webhook" / "token").write_text("the next")
    wait_until("the new token", lambda: w.post({"Records": []}, token="the next") == 200, 20, poll=0.5)
    assert w.post({"Records": []}) == 401
    w.run.wait_for_output(r"1 message refused: of another bucket|messages? refused: malformed", 20)
    assert w.run.stop() == 0


def test_what_was_refused_is_over_once_one_is_accepted(runner, secrets, sink):
    w = Worker(runner, secrets, sink)
    refused = r"1 message refused: no or a wrong token, at 20\d\d-..-..T..:..:..Z"
    assert w.post({"Records": [record()]}, token="another") == 401
    wait_until("it is told", lambda: re.fullmatch(refused, w.reason()), explain=w.reason)
    assert w.post({"Records": [record()]}) == 200
    wait_until("it is over", lambda: w.reason() == "", explain=w.reason)
    assert w.run.stop() == 0


def test_the_newer_shape_passes_and_what_is_not_functiongraphs_goes(runner, secrets, sink):
    w = Worker(runner, secrets, sink)
    newer = {
        "eventVersion": "3.0",
        "eventSource": "OBS",
        "eventRegion": "cn-north-4",
        "eventTime": "2026-11-24T10:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"ID": "u"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-obs-request-id": "1", "x-obs-id-2": "2"},
        "obs": {
            "Version": "1.0",
            "configurationId": "c",
            "bucket": {"name": "photos", "ownerIdentity": {"ID": "u"}, "bucket": "arn:aws:s3:::photos"},
            "object": {"key": "a", "eTag": "e", "size": 9007199254740993, "versionId": "v", "sequencer": "1"},
        },
    }
    more = json.loads(json.dumps(newer))
    more["source"] = {"host": "h"}
    more["obs"]["object"]["userMetadata"] = {"content-type": "text/plain"}
    assert w.post({"Records": [more]}) == 200
    assert sink.taken()[0].json == {"Records": [newer]}


def test_a_key_has_its_order_and_others_do_not_wait(runner, secrets, sink):
    gate = sink.hold(b'"key":"slow"', 3)
    w = Worker(runner, secrets, sink)
    first = threading.Thread(target=w.post, args=({"Records": [record("slow", sequencer="1")]},))
    second = threading.Thread(
        target=w.post,
        args=({"Records": [record("slow", "ObjectRemoved:Delete", sequencer="2"), record("third")]},),
    )
    first.start()
    wait_until("the first call", gate.entered.is_set)
    assert w.post({"Records": [record("other")]}) == 200
    second.start()
    assert w.post({"Records": [record("another")]}) == 200
    assert changes(sink) == [("ObjectCreated:Put", "other"), ("ObjectCreated:Put", "another")]
    gate.opened.set()
    first.join()
    second.join()
    assert changes(sink)[2:] == [
        ("ObjectCreated:Put", "slow"),
        ("ObjectRemoved:Delete", "slow"),
        ("ObjectCreated:Put", "third"),
    ]


def test_an_edit_refuses_nobody_and_delivers_nothing_twice(runner, secrets, sink):
    """What the one before the edit still delivers is known to the one after it: its ids, and the order of its keys."""
    gate = sink.hold(b'"key":"slow"', 20)
    w = Worker(runner, secrets, sink)
    posts = []

    def post(*records):
        posts.append(Later(lambda: w.post({"Records": list(records)})))

    post(record("slow", sequencer="1"))
    wait_until("the first call", gate.entered.is_set)
    files = runner.directory / "run.yaml"
    spec = yaml.safe_load(files.read_text())
    for edits in (0, 1):
        spec["spec"]["delivery"] = {"maxInFlight": 50 + edits}
        files.write_text(yaml.safe_dump(spec))
        while len(re.findall('msg="the files changed" applied=1', w.run.output)) == edits:
            assert w.post({"Records": [record("other")]}) == 200, "whoever has its path answers"
    post(record("slow", sequencer="1"))
    post(record("slow", "ObjectRemoved:Delete", sequencer="2"))
    assert w.post({"Records": [record("another")]}) == 200
    assert "slow" not in [key for _, key in changes(sink)]
    gate.opened.set()
    assert [p.get() for p in posts] == [200, 200, 200]
    told = [c for c in changes(sink) if c[1] == "slow"]
    assert told == [("ObjectCreated:Put", "slow"), ("ObjectRemoved:Delete", "slow")]
    assert [key for _, key in changes(sink)].count("other") == 1, "it was delivered before the edits"
    assert w.run.stop() == 0


def test_a_failure_is_the_senders_to_try_again(runner, secrets, sink):
    sink.answer = lambda request: 502
    w = Worker(runner, secrets, sink)
    assert w.post({"Records": [record("a")]}) == 500
    sink.answer = lambda request: 200
    assert w.post({"Records": [record("a"), record("b")]}) == 200
    assert changes(sink) == [("ObjectCreated:Put", "a"), ("ObjectCreated:Put", "b")]


def test_several_records_are_one_cloudevent(runner, secrets, sink):
    w = Worker(runner, secrets, sink, event={"format": "CloudEventsBinary"})
    assert w.post({"Records": [record("a"), record("b")]}) == 200
    (request,) = sink.taken()
    assert request.header("ce-type") == "dev.sluice.obs.change" and [
        r["s3"]["object"]["key"] for r in request.json["Records"]
    ] == ["a", "b"]


# ---- MinIO ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_minio_tells_what_happens_in_a_bucket(runner, secrets, sink):
    w = Worker(runner, secrets, sink)
    with Minio(w.uri, TOKEN) as minio:
        minio.create_bucket("photos", versions=True)
        s3 = minio.client
        s3.put_object(Bucket="photos", Key="a b/ü+&.txt", Body=b"1")
        s3.put_object(Bucket="photos", Key="a b/ü+&.txt", Body=b"2")
        upload = s3.create_multipart_upload(Bucket="photos", Key="large")["UploadId"]
        parts = [
            {
                "PartNumber": n,
                "ETag": s3.upload_part(
                    Bucket="photos", Key="large", UploadId=upload, PartNumber=n, Body=b"x" * (5 << 20)
                )["ETag"],
            }
            for n in (1, 2)
        ]
        s3.complete_multipart_upload(
            Bucket="photos", Key="large", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        s3.copy_object(Bucket="photos", Key="copy", CopySource={"Bucket": "photos", "Key": "large"})
        s3.delete_object(Bucket="photos", Key="copy")
        version = s3.put_object(Bucket="photos", Key="gone", Body=b"")["VersionId"]
        s3.delete_object(Bucket="photos", Key="gone", VersionId=version)
        wait_until("seven changes", lambda: len(changes(sink)) >= 7, 60, explain=lambda: changes(sink))
    by_key = collections.defaultdict(list)
    for name, key in changes(sink):
        by_key[key].append(name)
    assert by_key == {
        "a b/ü+&.txt": ["ObjectCreated:Put", "ObjectCreated:Put"],
        "large": ["ObjectCreated:CompleteMultipartUpload"],
        "copy": ["ObjectCreated:Copy", "ObjectRemoved:DeleteMarkerCreated"],
        "gone": ["ObjectCreated:Put", "ObjectRemoved:Delete"],
    }
    r = next(
        r for request in sink.taken() for r in request.json["Records"] if r["s3"]["object"]["key"] == "large"
    )
    assert r["s3"]["object"]["size"] == 10 << 20 and r["s3"]["object"]["versionId"]
    assert set(r) == {
        "eventVersion",
        "eventSource",
        "awsRegion",
        "eventTime",
        "eventName",
        "userIdentity",
        "requestParameters",
        "responseElements",
        "s3",
    }
    assert set(r["requestParameters"]) == {"sourceIPAddress"} and set(r["responseElements"]) == {
        "x-amz-id-2",
        "x-amz-request-id",
    }
    assert set(r["s3"]) == {"s3SchemaVersion", "configurationId", "bucket", "object"} and set(
        r["s3"]["bucket"]["ownerIdentity"]
    ) == {"PrincipalId"}
    assert set(r["s3"]["object"]) == {"key", "eTag", "size", "versionId", "sequencer"}


@pytest.mark.timeout(900)
def test_nothing_is_lost_when_the_worker_is_killed(runner, secrets, sink):
    held, go_on, entered = threading.Event(), threading.Event(), threading.Event()

    def answer(request):
        if held.is_set():
            entered.set()
            go_on.wait(10)
        return 200

    sink.answer = answer
    w = Worker(runner, secrets, sink)
    kills = {OBJECTS * n // 8 for n in (1, 3, 5)}
    with Minio(w.uri, TOKEN) as minio:
        minio.create_bucket("photos")
        for i in range(OBJECTS):
            if i in kills:  # while the function is at work on one
                go_on.clear()
                held.set()
            minio.client.put_object(Bucket="photos", Key=f"{i:06d}", Body=b"x")
            if i in kills:
                wait_until("the function is called", entered.is_set, 30)
                w.kill_and_start()
                held.clear()
                entered.clear()
                go_on.set()
        seen = lambda: {key for _, key in changes(sink)}  # noqa: E731
        wait_until(
            "all objects",
            lambda: len(seen()) >= OBJECTS,
            600,
            poll=0.5,
            explain=lambda: f"{len(seen())} of {OBJECTS}; {minio.waiting()} wait",
        )
        assert seen() == {f"{i:06d}" for i in range(OBJECTS)}
        assert len(changes(sink)) >= OBJECTS + len(kills)  # each kill made one come twice
        print(f"{len(changes(sink))} deliveries of {OBJECTS} objects")


# ---- by SMN --------------------------------------------------------------------------------------------------------------------------------


def test_obs_publishes_to_a_topic(runner, sink, tmp_path):
    folder = tmp_path / "smn"
    folder.mkdir()
    with Smn(folder, "changes") as smn:
        run = runner.start(
            trigger("photos", {"obs": {"bucket": "photos", "prefix": "in/", **smn.source}}, sink.uri),
            options=["--listen=127.0.0.1:0", *smn.options],
        )
        port = int(run.wait_for_output(r"listening on port (\d+)", 20).group(1))

        def send(message):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", "/test/photos", *message)
            status = connection.getresponse().status
            connection.close()
            return status

        assert send(smn.confirmation()) == 200
        assert send(smn.notification(json.dumps({"Records": [record("in/a"), record("out/b")]}))) == 200
        assert changes(sink) == [("ObjectCreated:Put", "in/a")]
        assert send(smn.notification(json.dumps({"Records": [record("in/a"), record("in/b")]}))) == 200
        assert changes(sink)[1:] == [
            ("ObjectCreated:Put", "in/b")
        ]  # in another notification, but delivered before
        assert send(smn.notification("no records")) == 400
        assert send(smn.notification(json.dumps({"Records": [record("a", bucket="other")]}))) == 403
