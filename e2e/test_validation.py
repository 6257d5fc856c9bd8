"""The API server refuses what the schema and the CEL rules can say, and accepts what they can't: the same cases that the command line judges."""

from harness import ROOT

FOLDER = ROOT / "tests" / "triggers"


def cases():
    for expected in sorted(FOLDER.glob("*.expected")):
        verdict = expected.read_text(errors="replace").splitlines()[0].removeprefix("# server:").strip()
        if verdict in ("refuses", "accepts"):
            yield expected.with_suffix(".yaml"), verdict


def test_the_api_server_agrees(cluster, release):
    checked = {"refuses": 0, "accepts": 0}
    wrong = []
    for path, verdict in cases():
        done = cluster.run(
            "kubectl",
            "-n",
            "default",
            "create",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            path,
            check=False,
        )
        if (done.returncode != 0) != (verdict == "refuses"):
            wrong.append(f"{path.name}: should be what the server {verdict}: {done.stdout}{done.stderr}")
        checked[verdict] += 1
    assert not wrong, "\n".join(wrong)
    assert checked["refuses"] >= 20 and checked["accepts"] >= 1
