"""What `sluice validate` says of files and folders."""

import subprocess

import pytest
import yaml
from harness.sluice import SLUICE, trigger

TIMER = """apiVersion: sluice.dev/v1alpha1
kind: Trigger
metadata: {name: %s}
spec: {source: {timer: {schedule: 1m}}, sink: {uri: "http://function/"}}
"""
OTHER = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n"


def validate(*paths, stdin=None):
    done = subprocess.run(
        [SLUICE, "validate", *map(str, paths)], input=stdin, capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "---\n---\n", "null\n", OTHER])
def test_where_no_trigger_is_nothing_is_valid(tmp_path, text):
    file = tmp_path / "empty.yaml"
    file.write_text(text)
    assert validate(file) == (1, f"sluice validate: no Trigger in {file}\n")
    assert validate(tmp_path) == (1, f"sluice validate: no Trigger in {tmp_path}\n")
    assert validate("-", stdin=text) == (1, "sluice validate: no Trigger in <stdin>\n")


def test_folders_are_walked(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / ".hidden").mkdir()
    (tmp_path / "a" / "b" / "one.yaml").write_text(TIMER % "one")
    (tmp_path / "a" / "two.json").write_text(
        '{"apiVersion":"sluice.dev/v1alpha1","kind":"Trigger","metadata":{"name":"two"},"spec":{"source":{"timer":{"schedule":"1m"}},"sink":{"uri":"http://f/"}}}'
    )
    (tmp_path / "a" / ".hidden" / "three.yaml").write_text("neither: read: nor\n")
    (tmp_path / "a" / "notes.txt").write_text("no: yaml: at all")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    assert validate(tmp_path) == (0, f"{tmp_path}: 2 triggers are valid\n")
    (tmp_path / "a" / "b" / "bad.yml").write_text(TIMER % "y")
    code, said = validate(tmp_path)
    assert (
        code == 1
        and said
        == f"{tmp_path}/a/b/bad.yml:3:18: metadata.name: expected a string, found the boolean y: put it in quotes\n"
    )


@pytest.mark.parametrize(
    "number",
    [
        "0." + "0" * 900_000 + "1",
        "9" * 900_000,
        "1e" + "9" * 900_000,
        "0x" + "f" * 900_000,
        "1_" * 400_000 + "1",
        "-" + "8" * 900_000,
    ],
)
@pytest.mark.parametrize(
    "member",
    [
        "delivery: {maxInFlight: %s}",
        "delivery: {timeout: %s}",
        "suspend: %s",
        "function: {version: %s}",
        '"delivery": {"maxInFlight": %s}',
    ],
)
def test_a_long_number_is_wrong_in_one_short_line(tmp_path, number, member):
    file = tmp_path / "long.yaml"
    head = 'apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: long}\nspec:\n  source: {timer: {schedule: 1m}}\n  sink: {uri: "http://f/"}\n  '
    file.write_text(head + member % number + "\n")
    code, said = validate(file)
    assert code == 1 and len(said) < 1000 and said.count("\n") == 1
    assert said.startswith(f"{file}:7:") and "expected" in said and "memory" not in said


def test_what_jq_says_is_told_where_the_program_stands(tmp_path):
    file = tmp_path / "jq.yaml"
    two = "  transform:\n    timeout: 2s\n    jq: |\n      .a\n      | [\n"
    file.write_text(
        OTHER
        + "---\n"
        + TIMER % "one"
        + "---\n"
        + (TIMER % "two")
        .replace("spec: {source", "spec:\n  source")
        .replace(", sink", "\n  sink")
        .replace('/"}}', '/"}')
        + two
        + "---\n"
        + (TIMER % "three").replace('/"}}', '/"}, transform: {jq: ".a | foo(1)"}}')
    )
    lines = file.read_text().split("\n")
    block = next(i for i, line in enumerate(lines, 1) if "jq: |" in line)
    flow = next(i for i, line in enumerate(lines, 1) if "foo(1)" in line)
    code, said = validate(file)
    assert code == 1
    assert f"{file}:{block}:{lines[block - 1].index('|') + 1}: spec.transform.jq: jq: " in said
    column = lines[flow - 1].index('".a') + 1
    assert f"{file}:{flow}:{column}: spec.transform.jq: jq: " in said


KAFKA = """apiVersion: sluice.dev/v1alpha1
kind: Trigger
metadata: {name: t}
spec:
  source: {kafka: {bootstrapServers: ["k:9092"], topics: ["%s"]}}
  sink: {uri: "http://function/"}
  delivery: {retry: {onExhausted: DeadLetter, maxAttempts: 3}, deadLetter: {kafka: {bootstrapServers: ["k:9092"], topic: "%s"}}}
"""


@pytest.mark.parametrize("name", [".", "..", "", "a b", "a/b", "\u00e4", "a:b", "x" * 250])
def test_what_kafka_takes_for_no_topic_is_refused(tmp_path, name):
    file = tmp_path / "t.yaml"
    for names, path in (((name, "ok"), "topics"), (("ok", name), "topic")):
        file.write_text(KAFKA % names)
        code, said = validate(file)
        assert code == 1 and f".{path}" in said


@pytest.mark.parametrize(
    "name", ["a", "_", "-", "a.", ".a", "-.", "...", "a..b", "..a", "x" * 249, "." * 249]
)
def test_what_kafka_takes_for_a_topic_is_valid(tmp_path, name):
    file = tmp_path / "t.yaml"
    for names in ((name, "letters"), ("orders", name)):
        file.write_text(KAFKA % names)
        assert validate(file) == (0, f"{file}: 1 trigger is valid\n")


API = """apiVersion: sluice.dev/v1alpha1
kind: Trigger
metadata: {name: %s, namespace: shop}
spec: {source: {apig: {%s}}, sink: {uri: http://f/}%s}
"""


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ('path: "/x"', 'path: "/x/"', "any method of /x"),
        ('path: "/x/{a}", methods: [GET, PUT]', 'path: "/x/{b}", methods: [POST, PUT]', "PUT /x/{}"),
        ('path: "/a/../x", match: Prefix', 'path: "/x", match: Prefix', "any method of /x/*"),
        ('path: "/{all+}"', 'path: "/{all+}", match: Prefix', "any method of /{+}"),
        ('path: "/"', 'path: "/."', "any method of /"),
    ],
)
def test_of_two_that_the_same_requests_would_call_both_are_named(tmp_path, one, other, common):
    for name, source in (("first", one), ("second", other)):
        (tmp_path / f"{name}.yaml").write_text(API % (name, source, ""))
    assert validate(tmp_path) == (
        1,
        f"{tmp_path}/second.yaml:1:1: spec.source.apig: shop/second has {common}, as has shop/first, which alone "
        "would be called: give one of them another path or method\n",
    )
    (tmp_path / "second.yaml").write_text(API % ("second", other, ", suspend: true"))
    assert validate(tmp_path)[0] == 0, "one that is suspended is in nobody's way"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('path: "/x"', 'path: "/x", match: Prefix'),
        ('path: "/x"', 'path: "/x", methods: [GET]'),
        ('path: "/x", methods: [GET]', 'path: "/x", methods: [PUT]'),
        ('path: "/x/{a}"', 'path: "/x/{a+}"'),
        ('path: "/x/{a}"', 'path: "/x/a"'),
    ],
)
def test_of_two_apis_one_may_be_more_exact(tmp_path, one, other):
    (tmp_path / "both.yaml").write_text(API % ("first", one, "") + "---\n" + API % ("second", other, ""))
    assert validate(tmp_path)[0] == 0


CLOUD = {"region": "cn-north-4", "projectID": "0" * 32, "credentials": {"type": "Environment"}}
RECORDS = {  # a source, and what a record of it may have
    "kafka": (
        {"bootstrapServers": ["127.0.0.1:9"], "topics": ["a"], "consumerGroup": "g"},
        "topic, partition, offset",
    ),
    "timer": ({"schedule": "1h"}, "time, userEvent"),
    "apig": ({"path": "/f"}, "method, path, query, headers, body"),
    "dms": ({"cloud": CLOUD, "queueID": "q", "consumerGroupID": "g"}, "body, attributes, tags"),
    "dis": ({"cloud": CLOUD, "streamName": "s", "appName": "a"}, "partitionKey, sequenceNumber, data"),
    "smn": ({"topicURN": f"urn:smn:cn-north-4:{'0' * 32}:t"}, "message_attributes, subject, message_id"),
    "cloudEye": ({"topicURN": f"urn:smn:cn-north-4:{'0' * 32}:t"}, "message_attributes, subject, message_id"),
    "obs": (
        {"bucket": "photos", "from": "Webhook", "tokenSecretRef": {"name": "s", "key": "k"}},
        "Records, eventName",
    ),
}


@pytest.mark.parametrize("source", RECORDS)
def test_a_record_for_a_preview_has_no_other_members(tmp_path, source):
    """What a filter sees can be previewed; a member that no record has is named, with those that there are."""

    def preview(record, **spec):
        file = tmp_path / "t.yaml"
        file.write_text(yaml.safe_dump(trigger("t", {source: of}, "http://127.0.0.1:9/", **spec)))
        command = [SLUICE, "preview", "-f", file, "--record=-", "--body"]
        return subprocess.run(command, input=record, capture_output=True, text=True, timeout=60)

    of, known = RECORDS[source]
    filtered = preview("{}", filter={"pattern": {"nothing": ["has this"]}})
    assert filtered.returncode == 3, filtered.stderr
    seen = filtered.stderr.partition("the filter sees: ")[2]
    again = preview(seen)
    assert (again.returncode, again.stderr) == (0, "")
    wrong = preview('\n  {"vlaue": 1}')
    assert wrong.returncode == 1
    assert f'sluice preview: -: 2:4: unknown member "vlaue" of the record; known are {known}' in wrong.stderr
