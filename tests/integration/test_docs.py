"""Every example of README.md and docs/ is what it says it is."""

import json
import re
import shlex
import subprocess

import pytest
import yaml
from harness import ROOT
from harness.sluice import SLUICE, trigger

PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\S*) ?(\S*)\n(.*?)^```$", re.M | re.S)
# What a piece of a Trigger is a piece of, by its first key.
PLACES = {
    "authentication": ("source", "apig"),
    "callerRateLimit": ("source", "apig"),
    "expose": ("source", "apig"),
    "cloud": ("source", "smn"),
    "retry": ("delivery",),
    "batch": ("delivery",),
    "deadLetter": ("delivery",),
    "tls": ("delivery",),
    "ordering": ("delivery",),
    "proxy": ("delivery",),
    "headers": ("delivery",),
    "rateLimit": ("delivery",),
}
SOURCES = {"apig": {"path": "/orders"}, "smn": {"topicURN": "urn:smn:eu-west-101:p:orders"}}


def fences(*kinds):
    """(page:line, the words behind the fence, text)"""
    found = []
    for page in PAGES:
        text = page.read_text()
        for m in FENCE.finditer(text):
            if m.group(1) in kinds:
                found.append(
                    pytest.param(
                        m.group(2), m.group(3), id=f"{page.name}:{text.count(chr(10), 0, m.start()) + 1}"
                    )
                )
    return found


def sluice(*arguments, **more):
    return subprocess.run([SLUICE, *map(str, arguments)], capture_output=True, text=True, timeout=60, **more)


def whole(piece):
    """A Trigger around a piece of one."""
    if "kind" in piece:
        return piece
    first = next(iter(piece))
    if first == "spec":
        spec = piece["spec"]
    elif first in ("source", "delivery", "sink", "filter", "transform", "event", "function"):
        spec = piece
    else:
        place = PLACES[first]
        spec = {place[0]: {place[1]: {**SOURCES[place[1]], **piece}} if len(place) > 1 else piece}
    spec = {"source": {"timer": {"schedule": "1h"}}, "sink": {"uri": "http://function.shop/"}, **spec}
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": "example", "namespace": "shop"},
        "spec": spec,
    }


@pytest.mark.parametrize("_, text", fences("yaml"))
def test_a_trigger_or_a_piece_of_one_is_valid(tmp_path, _, text):
    file = tmp_path / "t.yaml"
    documents = [d for d in yaml.safe_load_all(text) if d]
    assert documents
    if "keda.sh" in documents[0].get("apiVersion", ""):
        return  # another program's
    file.write_text(
        "---\n".join(
            yaml.safe_dump(whole(d) if d.get("kind", "Trigger") == "Trigger" else d) for d in documents
        )
    )
    done = sluice("validate", file)
    assert done.returncode == 0, f"{done.stderr}{done.stdout}\n{file.read_text()}"


def preview(tmp_path, spec, record, *options):
    file = tmp_path / "t.json"
    file.write_text(
        json.dumps(
            trigger(
                "t",
                {"kafka": {"bootstrapServers": ["k:1"], "topics": ["orders"]}},
                "http://f/",
                event={"format": "CloudEventsBinary"},
                **spec,
            )
        )
    )
    return sluice("preview", "-f", file, "--record=-", "--body", *options, input=record)


def pages_with(*kinds):
    return [
        p
        for p in PAGES
        if any(
            m.group(1) in kinds and (m.group(1) != "json" or m.group(2) == "pattern")
            for m in FENCE.finditer(p.read_text())
        )
    ]


def test_records_match_the_pattern_they_stand_under(tmp_path):
    judged = 0
    for page in pages_with("json"):
        pattern = None
        for m in FENCE.finditer(page.read_text()):
            kind, text = m.group(2), m.group(3)
            if m.group(1) != "json" or not kind:
                continue
            if kind == "pattern":
                pattern = json.loads(text)
                continue
            for line in text.splitlines():
                done = preview(tmp_path, {"filter": {"pattern": pattern}}, line)
                assert done.returncode == {"matches": 0, "differs": 3}[kind], (
                    f"{page.name}: {line} {kind} {pattern}: {done.returncode} {done.stderr}"
                )
                judged += 1
    assert judged > 60


def test_programs_make_of_events_what_stands_beside_them(tmp_path):
    judged = 0
    for page in pages_with("jq"):
        blocks = [(m.group(1), m.group(3)) for m in FENCE.finditer(page.read_text())]
        for i, (kind, program) in enumerate(blocks):
            if kind != "jq":
                continue
            assert [k for k, _ in blocks[i + 1 : i + 3]] == ["json", "json"]
            done = preview(
                tmp_path, {"transform": {"jq": program}}, json.dumps({"value": json.loads(blocks[i + 1][1])})
            )
            assert (done.returncode, done.stdout.strip()) == (0, blocks[i + 2][1].strip()), (
                f"{program}{done.stderr}"
            )
            judged += 1
    assert judged >= 6


def commands():
    """Each call of sluice in a shell block or between backticks."""
    found = set()
    for page in PAGES:
        text = page.read_text()
        for m in FENCE.finditer(text):
            if m.group(1) == "sh":
                found |= {
                    (page.name, line.split("#")[0].strip().rstrip("&").strip())
                    for line in m.group(3).splitlines()
                }
        found |= {
            (page.name, c) for c in re.findall(r"`((?:build/)?sluice [a-z][^`]*)`", FENCE.sub("", text))
        }
    return sorted((page, c) for page, c in found if re.match(r"(build/)?sluice ", c))


@pytest.mark.parametrize("page, command", commands())
def test_each_command_and_its_options_exist(page, command):
    words = shlex.split(command)
    offered = sluice(words[1], "--help")
    assert offered.returncode == 0, f"{page}: {command}"
    for option in [w.split("=")[0] for w in words[2:] if w.startswith("-")]:
        assert re.search(rf"(^|\s){re.escape(option)}\b", offered.stdout), (
            f"{page}: {command}: no option {option}"
        )


def test_each_option_of_the_text_exists():
    """Of this program, or of one that the pages name."""
    offered = "".join(
        sluice(c, "--help").stdout
        for c in ("run", "worker", "controller", "validate", "preview", "replay", "display")
    )
    elsewhere = {
        "--case",
        "--set",
        "--namespace",
        "--create-namespace",
        "--seed",
        "--verbose",
        "--first",
        "--seeds",
        "--scenario",
        "--reader",
        "--validate",
        "--real-time",
        "--version",
        "--help",
        "--type",
    }  # bench, helm, kubectl, sim
    for page in PAGES:
        if page.name == "performance.md":
            continue
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())) - elsewhere:
            assert option in offered, f"{page.name}: {option}"


def test_the_examples_are_valid():
    done = sluice("validate", ROOT / "examples")
    assert done.returncode == 0 and re.search(
        r"\b([2-9]|\d\d) triggers are valid", done.stdout + done.stderr, re.M
    ), done.stdout + done.stderr
    for page in PAGES:
        for path in set(
            re.findall(r"\b(?:examples|charts|docs|tests|tools|pkg|cmd|fuzz)/[\w./-]*[\w/]", page.read_text())
        ):
            if "NAME" not in path:
                assert (ROOT / path).exists() or list(ROOT.glob(path + ".*")), f"{page.name}: {path}"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("levels, valid", [(64, True), (65, False)])
def test_a_pattern_has_at_most_64_levels(tmp_path, levels, valid):
    pattern = ["x"]
    for _ in range(levels):
        pattern = {"a": pattern}
    (tmp_path / "t.json").write_text(
        json.dumps(trigger("t", {"timer": {"schedule": "1h"}}, "http://f/", filter={"pattern": pattern}))
    )
    done = sluice("validate", tmp_path / "t.json")
    assert (
        done.returncode == (0 if valid else 1)
        and ("more than 64 objects in one another" in done.stdout + done.stderr) != valid
    )
