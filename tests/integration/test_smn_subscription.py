"""Subscriptions that a worker makes by SMN's API. The service is an emulator, which the official client drives first, and which checks signatures with its code."""
import json

import pytest
from conftest import trigger
from harness.process import wait_until
from harness.sink import Sink
from harness.smn import CONFIRMED, UNCONFIRMED, Refused, Smn
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdksmn.v2 import (
    AddSubscriptionRequest, AddSubscriptionRequestBody, CancelSubscriptionRequest, ListSubscriptionsByTopicRequest, SmnClient,
)  # fmt: skip


@pytest.fixture
def smn(tmp_path):
    folder = tmp_path / "smn"
    folder.mkdir()
    with Smn(folder) as s:
        yield s


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


def client(smn, secret=None):
    access, right = next(iter(smn.keys.items()))
    project = smn.urn.split(":")[3]
    return SmnClient.new_builder().with_credentials(BasicCredentials(access, secret or right, project)).with_endpoint(smn.endpoint).build()


def test_the_emulator_as_the_official_client_drives_it(smn):
    c, messages = client(smn), []
    with Sink() as endpoint:
        body = AddSubscriptionRequestBody(protocol="http", endpoint=endpoint.uri, remark="by hand")
        urn = c.add_subscription(AddSubscriptionRequest(topic_urn=smn.urn, body=body)).subscription_urn
        (request,) = wait_until("the confirmation", lambda: endpoint.taken() or None, 10)
        messages.append(request)
        (listed,) = c.list_subscriptions_by_topic(ListSubscriptionsByTopicRequest(topic_urn=smn.urn, offset=0, limit=10)).subscriptions
        assert (listed.subscription_urn, listed.endpoint, listed.protocol, listed.remark, listed.status) == (urn, endpoint.uri, "http", "by hand", UNCONFIRMED)
        assert c.add_subscription(AddSubscriptionRequest(topic_urn=smn.urn, body=body)).subscription_urn == urn
        smn.confirm(json.loads(request.body)["subscribe_url"].partition(smn.host)[2])
        assert c.list_subscriptions_by_topic(ListSubscriptionsByTopicRequest(topic_urn=smn.urn)).subscriptions[0].status == CONFIRMED
        c.cancel_subscription(CancelSubscriptionRequest(subscription_urn=urn))
        found = c.list_subscriptions_by_topic(ListSubscriptionsByTopicRequest(topic_urn=smn.urn))
        assert (found.subscription_count, found.subscriptions) == (0, [])
        with pytest.raises(ClientRequestException) as no_topic:
            c.add_subscription(AddSubscriptionRequest(topic_urn=smn.urn + "x", body=body))
        assert (no_topic.value.status_code, no_topic.value.error_code) == (404, "SMN.00010021")
        with pytest.raises(ClientRequestException) as wrong_key:
            client(smn, "wrong").list_subscriptions_by_topic(ListSubscriptionsByTopicRequest(topic_urn=smn.urn))
        assert (wrong_key.value.status_code, wrong_key.value.error_code) == (401, "APIGW.0301")
