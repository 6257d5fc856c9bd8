"""The emulator of the cloud's services, driven by the official clients: what they never did here proves nothing elsewhere."""

import base64
import contextlib
import json
import logging
import re
import subprocess
import sys
import threading
import time
from email.utils import parsedate_to_datetime

import pytest
import requests
from cloud import faults
from cloud.dms import CODES as _CODES
from cloud.service import DOMAIN, PROJECT, REGION
from harness import ROOT
from harness.process import wait_until
from huaweicloudsdkcore.auth import internal
from huaweicloudsdkcore.auth.credentials import BasicCredentials, GlobalCredentials
from huaweicloudsdkcore.auth.provider import (
    MetadataCredentialProvider,
    OidcStsCredentialProvider,
    PodIdentityCredentialProvider,
)
from huaweicloudsdkcore.exceptions.exceptions import (
    ClientRequestException,
    ConnectionException,
    ServerResponseException,
)
from huaweicloudsdkcore.http.http_client import HttpClient
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.signer.signer import Signer
from huaweicloudsdkdis import v2 as dis
from huaweicloudsdkdms import v2 as dms
from huaweicloudsdkiam import v3 as iam
from huaweicloudsdksmn import v2 as smn


def client(kind, cloud, key=None, credentials=None):
    key = key or cloud.iam.key
    if not credentials:
        credentials = BasicCredentials(key.access, key.secret, PROJECT)
        if key.token:
            credentials = credentials.with_security_token(key.token)
    return kind.new_builder().with_credentials(credentials).with_endpoint(cloud.endpoint).build()


@pytest.fixture
def queues(cloud):
    return client(dms.DmsClient, cloud)


@pytest.fixture
def streams(cloud):
    return client(dis.DisClient, cloud)


@pytest.fixture
def identities(cloud):
    credentials = GlobalCredentials(cloud.iam.key.access, cloud.iam.key.secret, DOMAIN)
    return client(iam.IamClient, cloud, credentials=credentials)


def code(what):
    """(HTTP status, the service's code) of the refusal that what() ends in."""
    with pytest.raises((ClientRequestException, ServerResponseException)) as e:
        what()
    # errorCode with message is a pair that the official client does not take apart
    found = re.search(r'"errorCode": "([^"]+)"', e.value.error_msg)
    return e.value.status_code, found.group(1) if found else str(e.value.error_code)


# ---- queues -------------------------------------------------------------------------------------------------------------------------------------


class Line:
    """A queue and one group of it, by the official client."""

    def __init__(self, client, name="orders", groups=("group",), **more):
        self.client = client
        self.id = client.create_queue(dms.CreateQueueRequest(body=dms.CreateQueueReq(name=name, **more))).id
        body = dms.CreateConsumerGroupReq(groups=[dms.GroupEntity(name=n) for n in groups])
        made = client.create_consumer_group(dms.CreateConsumerGroupRequest(queue_id=self.id, body=body))
        self.groups = [g.id for g in made.groups]
        self.group = self.groups[0]

    def send(self, *bodies, tags=None, **more):
        body = dms.SendMessagesReq(
            return_id=True,
            messages=[
                dms.SendMessageEntity(body=b, attributes={"n": str(i)}, tags=tags, **more)
                for i, b in enumerate(bodies)
            ],
        )
        return self.client.send_messages(dms.SendMessagesRequest(queue_id=self.id, body=body)).messages

    def consume(self, group=None, **more):
        asked = {"time_wait": 1, "max_msgs": 10, **more}
        request = dms.ConsumeMessagesRequest(queue_id=self.id, consumer_group_id=group or self.group, **asked)
        return self.client.consume_messages(request).body or []

    def bodies(self, **more):
        return [m.message.body for m in self.consume(**more)]

    def acknowledge(self, messages, status="success", group=None):
        items = [
            m
            if isinstance(m, dms.ConfirmMessageEntity)
            else dms.ConfirmMessageEntity(handler=m.handler, status=status)
            for m in messages
        ]
        told = self.client.confirm_consumption_messages(
            dms.ConfirmConsumptionMessagesRequest(
                queue_id=self.id,
                consumer_group_id=group or self.group,
                body=dms.ConfirmConsumptionMessagesReq(message=items),
            )
        )
        return told.success, told.fail

    def dead(self, **more):
        request = dms.ConsumeDeadlettersMessageRequest(
            queue_id=self.id, consumer_group_id=self.group, time_wait=1, **more
        )
        return self.client.consume_deadletters_message(request).body or []

    def state(self, **more):
        request = dms.ListConsumerGroupsRequest(queue_id=self.id, **more)
        return self.client.list_consumer_groups(request).groups[0]


def drive_queues(cloud):
    c = client(dms.DmsClient, cloud)
    line = Line(c, redrive_policy="enable", max_consume_count=1)
    line.send("a", {"b": 1}, tags=["t1"])
    first = line.consume(ack_wait=15)
    assert [m.message.body for m in first] == ["a", {"b": 1}]
    assert (first[0].message.attributes, first[0].message.tags) == ({"n": "0"}, ["t1"])
    assert line.acknowledge(first[:1]) == (1, 0)
    cloud.advance(15)
    assert line.consume() == []
    letters = line.dead()
    assert [m.message.body for m in letters] == [{"b": 1}]
    state = line.state(include_deadletter=True, include_messages_num=True)
    assert (state.produced_messages, state.consumed_messages, state.available_messages) == (2, 1, 0)
    assert (state.produced_deadletters, state.available_deadletters) == (1, 1)
    assert line.state(include_messages_num=False).available_messages is None
    told = c.confirm_dead_letters_messages(
        dms.ConfirmDeadLettersMessagesRequest(
            queue_id=line.id,
            consumer_group_id=line.group,
            body=dms.ConfirmDeadLettersMessagesReq(
                message=[dms.ConfirmMessageEntity(handler=letters[0].handler, status="success")]
            ),
        )
    )
    assert (told.success, told.fail) == (1, 0) and line.dead() == []
    assert c.show_queue(dms.ShowQueueRequest(queue_id=line.id)).redrive_policy == "enable"
    assert [q.id for q in c.list_queues(dms.ListQueuesRequest()).queues] == [line.id]
    quotas = c.show_quotas(dms.ShowQuotasRequest()).quotas.resources
    assert [(q.type, q.used) for q in quotas] == [("queue", 1), ("consumer_group", 1)]
    tags = dms.BatchCreateOrDeleteTagReq(
        action="create", tags=[dms.BatchCreateOrDeleteTagReqTags(key="team", value="shop")]
    )
    c.batch_create_or_delete_queue_tag(dms.BatchCreateOrDeleteQueueTagRequest(queue_id=line.id, body=tags))
    assert c.show_queue_tags(dms.ShowQueueTagsRequest(queue_id=line.id)).tags[0].value == "shop"
    assert c.show_queue_project_tags(dms.ShowQueueProjectTagsRequest()).tags[0].values == ["shop"]
    c.delete_specified_consumer_group(
        dms.DeleteSpecifiedConsumerGroupRequest(queue_id=line.id, group_id=line.group)
    )
    c.delete_queue(dms.DeleteQueueRequest(queue_id=line.id))
    assert c.list_queues(dms.ListQueuesRequest()).total == 0


def test_a_message_is_invisible_for_its_window_and_comes_back_with_another_handler(cloud, queues):
    line = Line(queues)
    line.send("a")
    (first,) = line.consume(ack_wait=30)
    assert line.consume() == []
    cloud.advance(30)
    (again,) = line.consume(ack_wait=30)
    assert again.message.body == "a" and again.handler != first.handler
    assert code(lambda: line.acknowledge([first])) == (400, "10542209")
    assert line.acknowledge([again]) == (1, 0)
    assert code(lambda: line.acknowledge([again])) == (400, "10542209")


def test_what_a_group_has_in_flight_others_see(cloud, queues):
    line = Line(queues, groups=("a", "b"))
    line.send("x")
    assert line.bodies(group=line.groups[0]) == line.bodies(group=line.groups[1]) == ["x"]
    (foreign,) = Line(queues, name="other").groups
    assert foreign not in line.groups
    assert code(lambda: line.consume(group=foreign)) == (404, "10240405")


def test_acknowledging_is_strict_about_the_order_of_consumption(cloud, queues):
    line = Line(queues)
    line.send("a", "b", "c", "d")
    batch = line.consume()
    assert line.acknowledge(batch[1:2]) == (0, 1), "a was not acknowledged before it"
    entity = [
        dms.ConfirmMessageEntity(handler=m.handler, status=s)
        for m, s in zip(batch, ("success", "fail", "success", "success"), strict=True)
    ]
    assert line.acknowledge(entity) == (1, 3)
    assert line.bodies() == ["b"], "what failed is there again; what failed with it waits for its window"
    cloud.advance(30)
    assert sorted(line.bodies()) == ["b", "c", "d"]


def test_a_fifo_queue_gives_nothing_out_past_what_is_in_flight(cloud, queues):
    line = Line(queues, queue_mode="FIFO")
    line.send("a", "b", "c")
    (a,) = line.consume(max_msgs=1)
    assert line.consume() == []
    cloud.advance(30)
    batch = line.consume()
    assert [m.message.body for m in batch] == ["a", "b", "c"] and batch[0].handler != a.handler
    assert line.acknowledge(batch) == (3, 0)


def test_long_polling_ends_when_a_message_comes(cloud, queues):
    line = Line(queues)
    got = []
    waiting = threading.Thread(target=lambda: got.extend(line.bodies(time_wait=30)))
    waiting.start()
    wait_until("it waits", lambda: cloud.waiting)
    line.send("late")
    waiting.join(5)
    assert got == ["late"]


def test_tags_choose_and_a_group_has_one_rule(cloud, queues):
    line = Line(queues)
    line.send("red", tags=["red"])
    line.send("both", tags=["red", "big"])
    assert line.bodies(tag="red,big", tag_type="and") == ["both"]
    assert code(lambda: line.consume(tag="red")) == (400, "10542204")


def test_limits_of_queues(cloud, queues):
    line = Line(queues, groups=("a", "b", "c"))
    body = dms.CreateConsumerGroupReq(groups=[dms.GroupEntity(name="d")])
    one_more = dms.CreateConsumerGroupRequest(queue_id=line.id, body=body)
    assert code(lambda: queues.create_consumer_group(one_more)) == (400, "10240019")
    body.groups = [dms.GroupEntity(name="x" * 33)]
    assert code(lambda: queues.create_consumer_group(one_more)) == (400, "10240012")
    for asked, wanted in (
        ({"max_msgs": 11}, 10240014),
        ({"time_wait": 61}, 10240021),
        ({"ack_wait": 14}, 10542206),
    ):
        assert code(lambda asked=asked: line.consume(**asked)) == (400, str(wanted))
    assert code(lambda: line.send(*"abcdefghijk")) == (400, "10540010")
    assert code(lambda: line.send("x" * (600 * 1024))) == (400, "10540011")
    line.send("x" * (300 * 1024))
    line.send("y" * (300 * 1024))
    assert [b[0] for b in line.bodies()] == ["x"], "a response holds at most 512 KB"
    for n in range(29):
        Line(queues, name=f"q{n}")
    assert code(lambda: Line(queues, name="one-too-many")) == (400, "10240020")


def test_delay_and_retention(cloud, queues):
    line = Line(queues)
    line.send("later", delay_time=60_000)
    assert line.consume() == []
    cloud.advance(60)
    assert line.bodies(ack_wait=15) == ["later"]
    kafka = Line(queues, name="kafka", queue_mode="KAFKA_HA", retention_hours=1)
    kafka.send("old")
    cloud.advance(3600)
    assert kafka.consume() == []


# ---- streams ------------------------------------------------------------------------------------------------------------------------------------


class Stream:
    """A stream, by the official client."""

    def __init__(self, client, name="orders", partitions=1, **more):
        self.client, self.name = client, name
        body = dis.CreateStreamReq(
            stream_name=name, partition_count=partitions, stream_type="COMMON", data_duration=24, **more
        )
        client.create_stream(dis.CreateStreamRequest(body=body))

    def put(self, *data, partition=None, key=None):
        entries = [
            dis.PutRecordsRequestEntry(
                data=base64.b64encode(d.encode()).decode(), partition_id=partition, partition_key=key
            )
            for d in data
        ]
        body = dis.PutRecordsRequest(stream_name=self.name, records=entries)
        return self.client.send_records(dis.SendRecordsRequest(body=body))

    def cursor(self, partition="shardId-0000000000", kind="TRIM_HORIZON", number=None, timestamp=None):
        request = dis.ShowCursorRequest(
            stream_name=self.name,
            partition_id=partition,
            cursor_type=kind,
            starting_sequence_number=number,
            timestamp=timestamp,
        )
        return self.client.show_cursor(request).partition_cursor

    def read(self, cursor, **more):
        return self.client.consume_records(dis.ConsumeRecordsRequest(partition_cursor=cursor, **more))

    def data(self, *args, **more):
        return [base64.b64decode(r.data).decode() for r in self.read(self.cursor(*args, **more)).records]

    def partitions(self, **more):
        return self.client.show_stream(dis.ShowStreamRequest(stream_name=self.name, **more))

    def statuses(self):
        return [p.status for p in self.partitions().partitions]

    def scale(self, count):
        body = dis.UpdatePartitionCountReq(stream_name=self.name, target_partition_count=count)
        self.client.update_partition_count(dis.UpdatePartitionCountRequest(stream_name=self.name, body=body))

    def app(self, name="app"):
        self.client.create_app(dis.CreateAppRequest(body=dis.CreateAppReq(app_name=name)))

    def commit(self, number, partition="shardId-0000000000"):
        body = dis.CommitCheckpointReq(
            app_name="app",
            checkpoint_type="LAST_READ",
            stream_name=self.name,
            partition_id=partition,
            sequence_number=number,
            metadata="m",
        )
        self.client.commit_checkpoint(dis.CommitCheckpointRequest(body=body))

    def checkpoint(self, partition="shardId-0000000000"):
        return self.client.show_checkpoint(
            dis.ShowCheckpointRequest(
                stream_name=self.name, partition_id=partition, app_name="app", checkpoint_type="LAST_READ"
            )
        )


def drive_streams(cloud):
    c = client(dis.DisClient, cloud)
    s = Stream(c, partitions=2, tags=[dis.Tag(key="team", value="shop")])
    sent = s.put("a", "b", partition="shardId-0000000000")
    assert [(r.partition_id, r.sequence_number) for r in sent.records] == [
        ("shardId-0000000000", "0"),
        ("shardId-0000000000", "1"),
    ]
    page = s.read(s.cursor())
    assert [base64.b64decode(r.data) for r in page.records] == [b"a", b"b"]
    assert s.read(page.next_partition_cursor).records == []
    s.app()
    s.commit("2")
    assert (s.checkpoint().sequence_number, s.checkpoint().metadata) == ("2", "m")
    state = c.show_consumer_state(
        dis.ShowConsumerStateRequest(app_name="app", stream_name=s.name, checkpoint_type="LAST_READ", limit=1)
    )
    row = state.partition_consuming_states[0]
    assert state.has_more and (row.sequence_number, row.earliest_offset, row.latest_offset) == ("2", 0, 2)
    assert c.show_app(dis.ShowAppRequest(app_name="app")).commit_checkpoint_stream_names == [s.name]
    assert [a.app_name for a in c.list_app(dis.ListAppRequest(limit=1)).apps] == ["app"]
    c.delete_checkpoint(
        dis.DeleteCheckpointRequest(stream_name=s.name, app_name="app", checkpoint_type="LAST_READ")
    )
    assert code(s.checkpoint) == (400, "DIS.4375")
    listed = c.list_streams(dis.ListStreamsRequest(limit=1))
    assert (listed.stream_names, listed.has_more_streams) == ([s.name], False)
    described = s.partitions(limit_partitions=1)
    assert described.has_more_partitions and described.partitions[0].sequence_number_range == "[0 : 2]"
    rest = s.partitions(start_partition_id="shardId-0000000000")
    assert [p.partition_id for p in rest.partitions] == ["shardId-0000000001"]
    s.scale(3)
    c.update_stream(
        dis.UpdateStreamRequest(
            stream_name=s.name, body=dis.UpdateStreamReq(stream_name=s.name, data_duration=48)
        )
    )
    assert s.partitions().retention_period == 48 and s.statuses() == ["ACTIVE"] * 3
    stream_id = described.stream_id
    c.create_tag(
        dis.CreateTagRequest(stream_id=stream_id, body=dis.CreateTagReq(tag=dis.Tag(key="k", value="v")))
    )
    c.batch_create_tags(
        dis.BatchCreateTagsRequest(
            stream_id=stream_id,
            body=dis.BatchCreateTagsReq(action="create", tags=[dis.Tag(key="l", value="w")]),
        )
    )
    c.delete_tag(dis.DeleteTagRequest(stream_id=stream_id, key="k"))
    tags = c.show_stream_tags(dis.ShowStreamTagsRequest(stream_id=stream_id)).tags
    assert {t.key: t.value for t in tags} == {"team": "shop", "l": "w"}
    assert len(c.list_tags(dis.ListTagsRequest()).tags) == 2
    c.delete_app(dis.DeleteAppRequest(app_name="app"))
    c.delete_stream(dis.DeleteStreamRequest(stream_name=s.name))
    assert code(s.partitions) == (400, "DIS.4301")


def test_cursors_of_each_kind(cloud, streams):
    s = Stream(streams)
    s.put("a", "b", "c", partition="0")
    assert s.data() == ["a", "b", "c"]
    assert s.data(kind="AT_SEQUENCE_NUMBER", number="1") == ["b", "c"]
    assert s.data(kind="AFTER_SEQUENCE_NUMBER", number="1") == ["c"]
    assert s.data(kind="LATEST") == s.data(kind="AT_SEQUENCE_NUMBER", number="3") == []
    now = int(cloud.now() * 1000)
    assert s.data(kind="AT_TIMESTAMP", timestamp=now - 60_000) == ["a", "b", "c"]
    assert code(lambda: s.cursor(kind="AT_TIMESTAMP", timestamp=now - 25 * 3600_000)) == (400, "DIS.4300")
    assert code(lambda: s.cursor(kind="AT_SEQUENCE_NUMBER", number="4")) == (400, "DIS.4224")
    assert code(lambda: s.cursor(kind="SOMEWHERE")) == (400, "DIS.4215")
    assert code(lambda: s.cursor(partition="7")) == (400, "DIS.4302")
    assert code(lambda: s.read("garbage")) == (400, "DIS.4217")


def test_a_cursor_is_valid_for_five_minutes(cloud, streams):
    s = Stream(streams)
    s.put("a", partition="0")
    cursor = s.cursor()
    assert len(cursor) <= 512
    cloud.advance(299)
    assert len(s.read(cursor).records) == 1
    cloud.advance(1)
    assert code(lambda: s.read(cursor)) == (400, "DIS.4225")


def test_retention_moves_the_oldest(cloud, streams):
    s = Stream(streams)
    s.put("old", partition="0")
    cloud.advance(24 * 3600)
    s.put("new", partition="0")
    assert s.partitions().partitions[0].sequence_number_range == "[1 : 2]"
    assert code(lambda: s.cursor(kind="AT_SEQUENCE_NUMBER", number="0")) == (400, "DIS.4224")
    assert s.data() == ["new"]


def test_a_rescale_revives_partitions(cloud, streams):
    s = Stream(streams, partitions=3)
    s.put("a", partition="2")
    s.scale(2)
    assert s.statuses() == ["ACTIVE", "ACTIVE", "DELETED"]
    page = s.read(s.cursor(partition="2"))
    assert len(page.records) == 1 and page.next_partition_cursor is None, "it is at its end"
    assert s.put("b", partition="2").failed_record_count == 1
    s.scale(4)
    assert s.statuses() == ["ACTIVE"] * 4
    assert s.put("b", partition="2").records[0].sequence_number == "1"
    cloud.advance(3601)
    s.scale(1)
    cloud.advance(24 * 3600)
    assert s.statuses() == ["ACTIVE", "EXPIRED", "EXPIRED", "EXPIRED"]
    assert s.partitions().partitions[1].sequence_number_range is None
    assert code(lambda: s.cursor(partition="2")) == (400, "DIS.4319")
    s.scale(2)
    assert s.statuses() == ["ACTIVE", "ACTIVE", "EXPIRED", "EXPIRED"]


def test_limits_of_scaling(cloud, streams):
    s = Stream(streams, partitions=4)
    s.scale(3)
    assert code(lambda: s.scale(2)) == (400, "DIS.4305")
    cloud.advance(3600)
    s.scale(2)
    assert code(lambda: s.scale(51)) == (400, "DIS.4601")


def test_keys_stay_in_their_partition_and_in_order(cloud, streams):
    s = Stream(streams, partitions=5)
    for n in range(20):
        s.put(f"{n}", key=f"k{n % 4}")
    found = [s.data(partition=str(p)) for p in range(5)]
    assert sum(len(f) for f in found) == 20
    for n in range(4):
        (of_key,) = [[d for d in f if int(d) % 4 == n] for f in found if any(int(d) % 4 == n for d in f)]
        assert of_key == [str(i) for i in range(n, 20, 4)]


def test_max_fetch_bytes_and_huge_records(cloud, streams):
    s = Stream(streams)
    s.put(*["x" * 1000] * 5, partition="0")
    page = s.read(s.cursor(), max_fetch_bytes=2048)
    assert len(page.records) == 2 and len(s.read(page.next_partition_cursor).records) == 3
    s.put("y" * 5000, partition="0")
    assert s.read(s.cursor(kind="AT_SEQUENCE_NUMBER", number="5"), max_fetch_bytes=1024).records == []


def test_checkpoints_lie_in_the_range(cloud, streams):
    s = Stream(streams)
    s.put("a", partition="0")
    assert code(lambda: s.commit("1")) == (400, "DIS.4332")
    s.app()
    assert code(s.app) == (400, "DIS.4330")
    assert code(s.checkpoint) == (400, "DIS.4375")
    for said in ("-1", ""):
        cloud.dis.no_checkpoint = said
        assert s.checkpoint().sequence_number == said
    s.commit("1")
    assert s.checkpoint().sequence_number == "1"
    assert code(lambda: s.commit("2")) == (400, "DIS.4224")


# ---- identities ---------------------------------------------------------------------------------------------------------------------------------


def password():
    domain = iam.PwdPasswordUserDomain(name="example")
    user = iam.PwdPasswordUser(domain=domain, name="worker", password="a-password")
    return iam.PwdIdentity(methods=["password"], password=iam.PwdPassword(user=user))


def drive_identities(cloud):
    credentials = GlobalCredentials(cloud.iam.key.access, cloud.iam.key.secret, DOMAIN)
    c = client(iam.IamClient, cloud, credentials=credentials)
    projects = c.keystone_list_projects(iam.KeystoneListProjectsRequest(name=REGION)).projects
    assert [p.id for p in projects] == [PROJECT]
    scope = iam.AuthScope(project=iam.AuthScopeProject(name=REGION))
    token = c.keystone_create_user_token_by_password(
        iam.KeystoneCreateUserTokenByPasswordRequest(
            body=iam.KeystoneCreateUserTokenByPasswordRequestBody(
                auth=iam.PwdAuth(identity=password(), scope=scope)
            )
        )
    )
    assert token.token.project.id == PROJECT
    valid = c.keystone_validate_token(iam.KeystoneValidateTokenRequest(x_subject_token=token.x_subject_token))
    assert valid.token.expires_at == token.token.expires_at
    agency = c.create_agency(
        iam.CreateAgencyRequest(
            body=iam.CreateAgencyRequestBody(
                agency=iam.CreateAgencyOption(name="reader", domain_id=DOMAIN, trust_domain_id=DOMAIN)
            )
        )
    ).agency
    assert c.show_agency(iam.ShowAgencyRequest(agency_id=agency.id)).agency.name == "reader"
    assert len(c.list_agencies(iam.ListAgenciesRequest(domain_id=DOMAIN)).agencies) == 1
    role = iam.IdentityAssumerole(agency_name="reader", domain_id=DOMAIN, duration_seconds=900)
    by_agency = iam.CreateTemporaryAccessKeyByAgencyRequestBody(
        auth=iam.AgencyAuth(identity=iam.AgencyAuthIdentity(methods=["assume_role"], assume_role=role))
    )
    key = c.create_temporary_access_key_by_agency(
        iam.CreateTemporaryAccessKeyByAgencyRequest(body=by_agency)
    ).credential
    use(cloud, key)
    by_token = iam.CreateTemporaryAccessKeyByTokenRequestBody(
        auth=iam.TokenAuth(
            identity=iam.TokenAuthIdentity(
                methods=["token"], token=iam.IdentityToken(id=token.x_subject_token, duration_seconds=900)
            )
        )
    )
    use(
        cloud,
        c.create_temporary_access_key_by_token(
            iam.CreateTemporaryAccessKeyByTokenRequest(body=by_token)
        ).credential,
    )
    option = iam.CreateCredentialOption(user_id="u1")
    made = c.create_permanent_access_key(
        iam.CreatePermanentAccessKeyRequest(body=iam.CreatePermanentAccessKeyRequestBody(credential=option))
    ).credential
    use(cloud, made)
    assert (
        len(c.list_permanent_access_keys(iam.ListPermanentAccessKeysRequest(user_id="u1")).credentials) == 2
    )
    off = iam.UpdatePermanentAccessKeyRequestBody(credential=iam.UpdateCredentialOption(status="inactive"))
    c.update_permanent_access_key(iam.UpdatePermanentAccessKeyRequest(access_key=made.access, body=off))
    shown = c.show_permanent_access_key(iam.ShowPermanentAccessKeyRequest(access_key=made.access)).credential
    assert shown.status == "inactive" and code(lambda: use(cloud, made)) == (401, "APIGW.0301")
    c.delete_permanent_access_key(iam.DeletePermanentAccessKeyRequest(access_key=made.access))
    federated = c.create_token_with_id_token(
        iam.CreateTokenWithIdTokenRequest(
            x_idp_id="pods",
            body=iam.GetIdTokenRequestBody(
                auth=iam.GetIdTokenAuthParams(id_token=iam.GetIdTokenIdTokenBody(id=cloud.iam.id_token()))
            ),
        )
    )
    assert federated.x_subject_token in cloud.iam.tokens
    c.delete_agency(iam.DeleteAgencyRequest(agency_id=agency.id))


def use(cloud, key):
    """Does a key that was issued sign?"""
    credentials = BasicCredentials(key.access, key.secret, PROJECT)
    if getattr(key, "securitytoken", None):
        credentials = credentials.with_security_token(key.securitytoken)
    client(dms.DmsClient, cloud, credentials=credentials).list_queues(dms.ListQueuesRequest())


def drive_providers(cloud, monkeypatch, tmp_path):
    """The official client's own ways to credentials, and the calls it makes for itself."""
    http = HttpClient(HttpConfig.get_default_config(), None, None, logging.getLogger("sdk"))
    monkeypatch.setattr(internal.MetadataAccessor, "_METADATA_ENDPOINT", cloud.endpoint)
    found = internal.MetadataAccessor().get_credential()
    use(cloud, as_key(found))
    token = tmp_path / "token"
    token.write_text(cloud.iam.id_token())
    monkeypatch.setenv("HUAWEICLOUD_OIDC_PROVIDER_URN", cloud.iam.provider_urn)
    monkeypatch.setenv("HUAWEICLOUD_OIDC_AGENCY_URN", cloud.iam.agency_urn)
    monkeypatch.setenv("HUAWEICLOUD_OIDC_TOKEN_FILE", str(token))
    monkeypatch.setenv("HUAWEICLOUD_SDK_STS_ENDPOINT", cloud.endpoint)
    monkeypatch.setenv("HUAWEICLOUD_SDK_PROJECT_ID", PROJECT)
    given = OidcStsCredentialProvider.get_basic_credential_oidc_provider().get_credentials()
    use(cloud, as_key(given.sts_accessor.get_credential(http_client=http, sts_endpoint=cloud.endpoint)))
    monkeypatch.setenv("HC_CONTAINER_CREDENTIALS_FULL_URI", cloud.endpoint + "/v1/pod-identity")
    monkeypatch.setenv("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    use(
        cloud,
        as_key(PodIdentityCredentialProvider.get_basic().get_credentials().sts_accessor.get_credential()),
    )
    config, key = HttpConfig.get_default_config(), cloud.iam.key
    for request in (
        internal.IamHelper.get_keystone_list_auth_domains_request(config, cloud.endpoint),
        internal.StsHelper.get_caller_identity_request(config, cloud.endpoint),
    ):
        signed = Signer(BasicCredentials(key.access, key.secret)).sign(request)
        assert DOMAIN in http.do_request_sync(signed).text


def drive_notifications(cloud):
    c, topic = client(smn.SmnClient, cloud), cloud.smn.urn
    body = smn.AddSubscriptionRequestBody(protocol="http", endpoint="http://127.0.0.1/", remark="by hand")
    urn = c.add_subscription(smn.AddSubscriptionRequest(topic_urn=topic, body=body)).subscription_urn
    assert c.add_subscription(smn.AddSubscriptionRequest(topic_urn=topic, body=body)).subscription_urn == urn
    listed = c.list_subscriptions_by_topic(smn.ListSubscriptionsByTopicRequest(topic_urn=topic))
    assert [s.remark for s in listed.subscriptions] == ["by hand"]
    c.cancel_subscription(smn.CancelSubscriptionRequest(subscription_urn=urn))
    assert not cloud.smn.subscriptions


def as_key(found):
    class Key:
        access, secret, securitytoken = found.access, found.secret, found.security_token

    return Key


def test_the_official_clients_drive_every_operation(cloud, monkeypatch, tmp_path):
    drive_queues(cloud)
    drive_streams(cloud)
    drive_identities(cloud)
    drive_notifications(cloud)
    drive_providers(cloud, monkeypatch, tmp_path)
    driven = {name for name, status, _ in cloud.calls if status < 300}
    assert driven == {route[0] for route in cloud.routes}


def test_a_signature_that_is_wrong_is_refused(cloud, queues):
    wrong = BasicCredentials(cloud.iam.key.access, "wrong", PROJECT)
    refused = client(dms.DmsClient, cloud, credentials=wrong)
    for _ in range(5):
        assert code(lambda: refused.list_queues(dms.ListQueuesRequest())) == (401, "APIGW.0301")
    assert code(lambda: queues.list_queues(dms.ListQueuesRequest())) == (401, "APIGW.0301"), "locked"
    cloud.advance(300)
    queues.list_queues(dms.ListQueuesRequest())


@pytest.mark.parametrize("change", ["body", "query", "path", "header", "method"])
def test_each_part_of_a_request_is_signed(cloud, change):
    """What is altered on the way is refused, whichever part it is."""
    line = Line(client(dms.DmsClient, cloud))
    key = cloud.iam.key
    path = f"/v1.0/{PROJECT}/queues/{line.id}/messages"
    signed = Signer(BasicCredentials(key.access, key.secret)).sign(
        internal.SdkRequest(
            method="POST",
            schema="http",
            host=f"{cloud.host}:{cloud.port}",
            resource_path=path,
            query_params=[("a", "1")],
            header_params={"Content-Type": "application/json", "X-Project-Id": PROJECT},
            body='{"messages": [{"body": "x"}]}',
        )
    )
    parts = {
        "method": "POST",
        "url": f"{cloud.endpoint}{path}?a=1",
        "data": signed.body,
        "headers": dict(signed.header_params),
    }
    assert requests.request(**parts).status_code == 201
    match change:
        case "body":
            parts["data"] = signed.body.replace(b"x", b"y")
        case "query":
            parts["url"] += "&b=2"
        case "path":
            parts["url"] = parts["url"].replace("/v1.0/", "/v2/")
        case "header":
            parts["headers"]["X-Project-Id"] = PROJECT[::-1]
        case "method":
            parts["method"], parts["url"] = "GET", parts["url"].replace("/messages", "/groups")
    assert requests.request(**parts).status_code == 401


def test_temporary_keys_expire_and_need_their_token(cloud):
    key = cloud.iam.temporary(3600)
    asked = lambda c: c.list_queues(dms.ListQueuesRequest())  # noqa: E731
    asked(client(dms.DmsClient, cloud, key))
    bare = BasicCredentials(key.access, key.secret, PROJECT)
    assert code(lambda: asked(client(dms.DmsClient, cloud, credentials=bare))) == (401, "APIGW.0301")
    cloud.iam.expire(key.access)
    assert code(lambda: asked(client(dms.DmsClient, cloud, key))) == (401, "APIGW.0301")
    cloud.iam.revoke(key.access)
    assert code(lambda: asked(client(dms.DmsClient, cloud, key))) == (401, "APIGW.0301")


@pytest.mark.parametrize("skew", [-1200, 1200])
def test_a_clock_that_is_off_is_refused_with_the_service_s_date(cloud, queues, skew):
    cloud.skew = skew
    assert code(lambda: queues.list_queues(dms.ListQueuesRequest())) == (401, "APIGW.0301")
    date = requests.get(cloud.endpoint + "/").headers["Date"]
    assert abs(parsedate_to_datetime(date).timestamp() - time.time() - skew) < 2


def test_rights_and_arrears(cloud, queues, streams):
    cloud.iam.key.denied = ["dms.list_queues"]
    assert code(lambda: queues.list_queues(dms.ListQueuesRequest())) == (403, "10240311")
    cloud.iam.key.denied = ["dis.*"]
    assert code(lambda: streams.list_streams(dis.ListStreamsRequest())) == (403, "DIS.4116")
    cloud.iam.key.denied, cloud.arrears = [], True
    assert code(lambda: queues.list_queues(dms.ListQueuesRequest())) == (403, "10240306")


# ---- faults -------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["dms", "dis"])
def test_each_documented_refusal(cloud, queues, streams, service):
    for told, (status, _) in _CODES[service].items():
        fault = cloud.fault(f"{service}.list_*", faults.refuse(told))
        got = code(
            (lambda: queues.list_queues(dms.ListQueuesRequest()))
            if service == "dms"
            else (lambda: streams.list_streams(dis.ListStreamsRequest()))
        )
        assert got == (status, str(told)) and fault.hits == 1


def test_faults_before_and_after_the_effect(cloud, queues):
    line = Line(queues)
    line.send("a", "b")
    for effect in (faults.reset(), faults.hang_up()):
        for when in ("before", "after"):
            cloud.fault("dms.consume", effect, when=when)
            with pytest.raises(ConnectionException):
                line.consume(max_msgs=1, ack_wait=15)
            # what it gave out in an answer that nobody saw is in flight
            assert len(line.consume(ack_wait=15)) == (2 if when == "before" else 1)
            cloud.advance(15)
    batch = line.consume()
    cloud.fault("dms.acknowledge", faults.refuse(10250002), when="after")
    assert code(lambda: line.acknowledge(batch)) == (500, "10250002")
    assert code(lambda: line.acknowledge(batch)) == (400, "10542209"), "it was done, all the same"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [faults.slow, faults.late])
@pytest.mark.parametrize("operation", ["dms.consume", "dms.acknowledge", "dms.list_queues", "dis.*"])
def test_a_slow_call_has_its_effect_and_its_answer(cloud, queues, streams, operation, kind, when):
    line = Line(queues)
    line.send("a")
    batch = line.consume() if operation == "dms.acknowledge" else None
    fault = cloud.fault(operation, kind(0.2), when=when)
    before = time.monotonic()
    if operation == "dms.consume":
        assert len(line.consume()) == 1
    elif operation == "dms.acknowledge":
        assert line.acknowledge(batch) == (1, 0)
    elif operation == "dms.list_queues":
        assert queues.list_queues(dms.ListQueuesRequest()).total == 1
    else:
        assert streams.list_streams(dis.ListStreamsRequest()).total_number == 0
    assert fault.hits == 1 and time.monotonic() - before >= 0.2


@pytest.mark.parametrize(
    "effect", [faults.truncate(), faults.cut_off(), faults.padded(1), faults.duplicate(), faults.swap()]
)
def test_what_changes_an_answer_needs_one(cloud, effect):
    with pytest.raises(ValueError, match="after for what changes an answer"):
        cloud.fault("dms.*", effect, when="before")
    cloud.fault("dms.*", effect, when="after")


def test_faults_of_bodies(cloud, queues):
    line = Line(queues)
    line.send("a")
    url, key = f"{cloud.endpoint}/v2/{PROJECT}/queues", cloud.iam.key

    def ask(timeout=10):
        request = internal.SdkRequest(
            method="GET",
            schema="http",
            host=f"{cloud.host}:{cloud.port}",
            resource_path=f"/v2/{PROJECT}/queues",
            header_params={"Content-Type": "application/json"},
            query_params=[],
            body="",
        )
        signed = Signer(BasicCredentials(key.access, key.secret)).sign(request)
        return requests.get(url, headers=signed.header_params, timeout=timeout)

    whole = ask()
    cloud.fault("dms.list_queues", faults.truncate(), when="after")
    with pytest.raises(ValueError):
        ask().json()
    cloud.fault("dms.list_queues", faults.cut_off(), when="after")
    with pytest.raises(requests.exceptions.RequestException):
        ask()
    cloud.fault("dms.list_queues", faults.slow(0.3), when="after")
    before = time.monotonic()
    assert ask().json() == whole.json() and time.monotonic() - before >= 0.3
    cloud.fault("dms.list_queues", faults.late(0.3), when="after")
    with pytest.raises(requests.exceptions.Timeout):
        ask(timeout=0.1)
    cloud.fault("dms.list_queues", faults.padded(1 << 20), when="after")
    assert len(ask().content) > 1 << 20
    cloud.fault("dms.list_queues", faults.status(502, b"<html>bad gateway"))
    assert ask().status_code == 502
    cloud.fault("dms.list_queues", faults.replace([]), when="after")
    assert ask().json() == []
    throttled = cloud.fault("dms.list_queues", faults.refuse(10240407, retry_after=7), times=2)
    assert (ask().headers["Retry-After"], ask().status_code, throttled.hits) == ("7", 404, 2)
    assert ask().status_code == 200


def test_duplicated_and_reordered_answers(cloud, streams):
    s = Stream(streams)
    s.put("a", partition="0")
    first = s.cursor()
    page = s.read(first)
    s.put("b", partition="0")
    cloud.fault("dis.get_records", faults.duplicate(), when="after")
    assert [r.sequence_number for r in s.read(page.next_partition_cursor).records] == ["0"]
    cloud.fault("dis.get_records", faults.swap(), when="after", times=2)
    got = {}
    threads = [
        threading.Thread(target=lambda n=n, c=c: got.update({n: len(s.read(c).records)}))
        for n, c in (("all", first), ("one", page.next_partition_cursor))
    ]
    with contextlib.ExitStack() as ends:
        for t in threads:
            t.start()
            ends.callback(t.join)
    assert got == {"all": 1, "one": 2}


def test_the_metadata_service_wants_its_token(cloud, monkeypatch):
    monkeypatch.setattr(internal.MetadataAccessor, "_METADATA_ENDPOINT", cloud.endpoint)
    accessor = internal.MetadataAccessor()
    accessor.get_credential()
    cloud.advance(21600)
    accessor.get_credential()  # the stale token is replaced
    assert len(cloud.made("metadata.create_token")) == 2
    cloud.metadata.agency = False
    assert "Please configure Cloud Service Agency first" in str(
        pytest.raises(ClientRequestException, accessor.get_credential).value
    )
    cloud.metadata.agency, cloud.metadata.with_tokens = True, False
    assert internal.MetadataAccessor().get_credential().access in cloud.iam.keys
    assert MetadataCredentialProvider.get_basic().get_credentials() is not None


def test_it_runs_as_a_process_of_its_own():
    with subprocess.Popen(
        [sys.executable, "-m", "cloud"],
        cwd=ROOT / "tests",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        endpoint = process.stdout.readline().strip()

        def obey(**order):
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        made = obey(do="queue", name="orders", mode="FIFO")
        obey(do="fault", operation="dms.list_queues", effect="refuse", arguments={"code": 10240407}, times=1)
        credentials = BasicCredentials("AKEXAMPLE", "SKexample0123456789", PROJECT)
        c = dms.DmsClient.new_builder().with_credentials(credentials).with_endpoint(endpoint).build()
        assert code(lambda: c.list_queues(dms.ListQueuesRequest())) == (404, "10240407")
        assert [q.id for q in c.list_queues(dms.ListQueuesRequest()).queues] == [made["queue"]]
        process.stdin.close()
        assert process.wait(10) == 0
