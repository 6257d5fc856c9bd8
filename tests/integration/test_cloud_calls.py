"""How the program calls the cloud: as whom, with which clock, and what it does about refusals. SMN's subscriptions are what it calls for."""

import pathlib
import re

import pytest
from cloud import faults
from cloud.service import DOMAIN, PROJECT
from cloud.smn import CONFIRMED, UNCONFIRMED
from harness.cloud import PAIR, write_key
from harness.ports import free_port
from harness.process import wait_until
from harness.sluice import trigger

CONNECTED = r"source.*state=Connected"


class Worker:
    """`sluice run` with a managed subscription whose calls go to the emulator."""

    def __init__(self, runner, cloud, sink, tmp_path, credentials, env=None, **more):
        self.cloud, self.secrets, self.token = cloud, tmp_path / "secrets", tmp_path / "token"
        self.write(cloud.iam.key)
        self.token.write_text(cloud.iam.id_token())
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}/test/topic"
        source = {
            "topicURN": cloud.smn.urn,
            "subscription": {"manage": True, "endpoint": self.endpoint},
            "cloud": {"credentials": credentials, **more},
        }
        self.run = runner.start(
            trigger("topic", {"smn": source}, sink.uri),
            options=[
                f"--listen=127.0.0.1:{port}",
                f"--secrets={self.secrets}",
            ],
            env={"SLUICE_CLOUD": cloud.endpoint, **(env or {})},
        )

    def write(self, key):
        write_key(self.secrets, key)

    def used(self):
        """The keys that signed calls of the service, in order."""
        return [key for key, _ in self.cloud.signed if key]

    def keep_secrets(self):
        """No secret is in what the program says of itself."""
        told = self.run.output + pathlib.Path(f"/proc/{self.run.pid}/cmdline").read_text()
        told += self.run.ask("/status")[1] + self.run.ask("/metrics")[1]
        for key in self.cloud.iam.everything:
            assert key.access not in told and key.secret not in told
            assert not key.token or key.token not in told
        assert self.token.read_text() not in told


def kinds(cloud, tmp_path):
    """type → (credentials, environment)"""
    key = cloud.iam.key
    return {
        "Secret": (PAIR, {}),
        "Agency": ({**PAIR, "agency": {"name": "reader", "domain": "example"}}, {}),
        "Environment": (
            {"type": "Environment"},
            {"HUAWEICLOUD_SDK_AK": key.access, "HUAWEICLOUD_SDK_SK": key.secret},
        ),
        "Metadata": ({"type": "Metadata"}, {}),
        "ServiceAccount": (
            {
                "type": "ServiceAccount",
                "serviceAccount": {"providerURN": cloud.iam.provider_urn, "agencyURN": cloud.iam.agency_urn},
            },
            {"HUAWEICLOUD_OIDC_TOKEN_FILE": tmp_path / "token"},
        ),
        "PodIdentity": (
            {"type": "PodIdentity"},
            {
                "HC_CONTAINER_CREDENTIALS_FULL_URI": cloud.endpoint + "/v1/pod-identity",
                "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": tmp_path / "token",
            },
        ),
    }


def make_agency(cloud):
    cloud.iam.agencies["a"] = {"id": "a", "name": "reader", "domain_id": DOMAIN, "trust_domain_id": DOMAIN}


@pytest.mark.parametrize(
    "kind", ["Secret", "Agency", "Environment", "Metadata", "ServiceAccount", "PodIdentity"]
)
def test_keys_of_each_kind(runner, cloud, sink, tmp_path, kind):
    """They sign; where they can be rotated, a revoked key costs no more than a call, and nothing fails."""
    make_agency(cloud)
    cloud.smn.first_status = UNCONFIRMED  # so that it asks again after 5 and 10 seconds
    credentials, env = kinds(cloud, tmp_path)[kind]
    worker = Worker(runner, cloud, sink, tmp_path, credentials, env)
    for rotation in range(1 if kind == "Environment" else 3):
        wait_until("it subscribes", lambda n=rotation: len(cloud.made("smn.subscribe")) > n, 30)
        last = worker.used()[-1]
        if kind == "Secret":
            worker.write(cloud.iam.add_key())
        elif kind == "ServiceAccount":
            worker.token.write_text(cloud.iam.id_token(subject=f"rotated {rotation}"))
        if kind not in ("Environment",):
            cloud.iam.revoke(last)
        if kind == "Agency" and rotation == 0:
            worker.write(cloud.iam.add_key())
    for subscription in cloud.smn.subscriptions.values():
        subscription["status"] = CONFIRMED
    worker.run.wait_for_output(CONNECTED, 60)
    used = list(dict.fromkeys(worker.used()))
    assert len(used) == (1 if kind == "Environment" else 4), used
    assert "Disconnected" not in worker.run.output
    worker.keep_secrets()


@pytest.mark.parametrize("kind", ["Secret", "ServiceAccount"])
@pytest.mark.parametrize("skew", [-1200, 1200])
def test_a_clock_that_is_off_costs_one_call(runner, cloud, sink, tmp_path, kind, skew):
    """None where the keys are asked for: when they expire is told by the same clock."""
    cloud.skew = skew
    credentials, env = kinds(cloud, tmp_path)[kind]
    worker = Worker(runner, cloud, sink, tmp_path, credentials, env)
    worker.run.wait_for_output(CONNECTED, 30)
    statuses = [status for _, status, _ in cloud.made("smn.*")]
    assert statuses.count(401) == (kind == "Secret") and sorted(statuses)[-1] <= 401
    by = re.search(r"the local clock differs from the cloud's.* by=(-?)(\d+)m(\d+)s", worker.run.output)
    assert (by.group(1) == "-") == (skew < 0)
    assert abs(int(by.group(2)) * 60 + int(by.group(3)) - 1200) <= 2
    told = worker.run.status()["clock"]
    assert re.fullmatch(r"the local clock is (20m\ds|19m5\ds) (behind|ahead of) the cloud's", told)
    assert ("behind" in told) == (skew > 0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("revoked", r"401 APIGW.0301: .*\(the access key is unknown, revoked, expired"),
        ("arrears", r"403 SMN.00010002: The account is frozen. \(the account is frozen or in arrears"),
        ("right", r"403 APIGW.0302: .*\(the key has no right to do this"),
    ],
)
def test_what_only_the_account_s_owner_can_help_is_named(runner, cloud, sink, tmp_path, wrong, told):
    if wrong == "revoked":
        cloud.iam.revoke(cloud.iam.key.access)
    elif wrong == "arrears":
        cloud.arrears = True
    else:
        cloud.iam.key.denied = ["smn.*"]
    worker = Worker(runner, cloud, sink, tmp_path, PAIR)
    worker.run.wait_for_output(
        rf'state=Disconnected reason="list subscriptions of {cloud.smn.urn}: {told}', 20
    )
    if wrong == "revoked":
        cloud.iam.keys[cloud.iam.key.access] = cloud.iam.key
    cloud.arrears, cloud.iam.key.denied = False, []
    worker.run.wait_for_output(CONNECTED, 30)
    worker.keep_secrets()


def test_what_is_missing_in_the_environment_is_named(runner, cloud, sink, tmp_path):
    for kind, told in (
        ("ServiceAccount", "HUAWEICLOUD_OIDC_PROVIDER_URN"),
        ("PodIdentity", "HC_CONTAINER_CREDENTIALS_FULL_URI is not set"),
        ("Environment", "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK must be set"),
    ):
        worker = Worker(runner, cloud, sink, tmp_path, {"type": kind})
        worker.run.wait_for_output(rf"state=Disconnected reason=.*{told}", 20)
        worker.run.stop()


@pytest.mark.parametrize(
    "effect",
    [
        faults.reset(),
        faults.hang_up(),
        faults.truncate(),
        faults.cut_off(),
        faults.slow(1),
        faults.refuse("SMN.0500"),
        faults.refuse("SMN.0429", retry_after=1),
        faults.status(502),
        faults.replace([]),
    ],
    ids=["reset", "hang-up", "truncated", "cut-off", "slow", "500", "throttled", "502", "other"],
)
def test_it_gets_over_faults(runner, cloud, sink, tmp_path, effect):
    cloud.fault("smn.*", effect, when="after", times=4)
    worker = Worker(runner, cloud, sink, tmp_path, PAIR)
    worker.run.wait_for_output(CONNECTED, 60)
    assert [s["endpoint"] for s in cloud.smn.subscriptions.values()] == [worker.endpoint]


def test_an_answer_that_is_too_large_is_named(runner, cloud, sink, tmp_path):
    cloud.fault("smn.list_subscriptions", faults.padded(17 << 20), when="after")
    worker = Worker(runner, cloud, sink, tmp_path, PAIR)
    worker.run.wait_for_output(r"list subscriptions of .*: 200, and an answer of more than 16 MiB", 20)
    worker.run.wait_for_output(CONNECTED, 30)


def test_many_triggers_of_a_process_share_the_service_s_connections_and_limit(runner, cloud, sink, tmp_path):
    """Two hundred at once: none is refused, and no more than the burst comes within the first second."""
    (tmp_path / "secrets" / "cloud").mkdir(parents=True)
    for name, value in (("ak", cloud.iam.key.access), ("sk", cloud.iam.key.secret)):
        (tmp_path / "secrets" / "cloud" / name).write_text(value)
    port = free_port()
    triggers = [
        trigger(
            f"t{n}",
            {
                "smn": {
                    "topicURN": cloud.smn.urn,
                    "subscription": {"manage": True, "endpoint": f"http://127.0.0.1:{port}/test/t{n}"},
                    "cloud": {"credentials": PAIR},
                }
            },
            sink.uri,
        )
        for n in range(200)
    ]
    runner.start(
        *triggers,
        options=[f"--listen=127.0.0.1:{port}", f"--secrets={tmp_path / 'secrets'}"],
        env={"SLUICE_CLOUD": cloud.endpoint},
    )
    wait_until("all subscribed", lambda: len(cloud.smn.subscriptions) == 200, 60)
    calls = cloud.made("smn.*")
    assert all(status < 300 for _, status, _ in calls)
    first = calls[0][2]
    assert sum(at < first + 1 for _, _, at in calls) <= 50 + 50 + 10
    assert calls[-1][2] - first >= (len(calls) - 50) / 50 - 1


def test_a_region_that_is_not_known_is_guessed_aloud(runner, cloud, sink, tmp_path):
    worker = Worker(runner, cloud, sink, tmp_path, PAIR, env={"SLUICE_CLOUD": ""}, region="xx-nowhere-1")
    worker.run.wait_for_output(
        r"region xx-nowhere-1 is not among those known of smn: its endpoint is taken to be "
        r"https://smn.xx-nowhere-1.myhuaweicloud.com",
        20,
    )
    worker.run.wait_for_output(r"state=Disconnected reason=.*resolve smn.xx-nowhere-1.myhuaweicloud.com", 30)


def test_the_trigger_s_own_endpoint_is_called(runner, cloud, sink, tmp_path):
    worker = Worker(
        runner,
        cloud,
        sink,
        tmp_path,
        PAIR,
        env={"SLUICE_CLOUD": "http://127.0.0.1:1"},
        endpoint=cloud.endpoint,
        projectID=PROJECT,
    )
    worker.run.wait_for_output(CONNECTED, 30)
    assert cloud.made("smn.subscribe")
