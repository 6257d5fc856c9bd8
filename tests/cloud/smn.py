"""Subscriptions of the Simple Message Notification service (API v2). Messages are not sent: tests/harness/smn.py does that."""

import re
import uuid

from .service import CODES, PROJECT, REGION, Refused, operation

UNCONFIRMED, CONFIRMED = 0, 1
CODES["smn"] = {
    "SMN.00010002": (403, "The account is frozen."),
    "SMN.00010021": (404, "The topic does not exist."),
    "SMN.00010022": (404, "The subscription does not exist."),
    "SMN.00011106": (400, "The endpoint does not match the protocol."),
    "SMN.0429": (429, "Too many requests."),
    "SMN.0500": (500, "Internal error."),
}


def routed(name, method, path):
    return operation("smn." + name, method, "/v2/{project_id}/notifications/" + path)


class Smn:
    def __init__(self, cloud):
        self.cloud = cloud
        self.urn = f"urn:smn:{REGION}:{PROJECT}:orders"
        self.topics, self.subscriptions = {self.urn}, {}
        self.first_status = CONFIRMED  # of a subscription that is made; SMN's own is UNCONFIRMED

    def topic(self, urn):
        if urn not in self.topics:
            raise Refused("smn", "SMN.00010021")
        return urn

    @routed("subscribe", "POST", "topics/{urn}/subscriptions")
    def subscribe(self, call, project_id, urn):
        topic, wanted = self.topic(urn), call.json()
        if not re.match(wanted.get("protocol", "") + "://", wanted.get("endpoint", "")):
            raise Refused("smn", "SMN.00011106")
        there = [
            s
            for s in self.subscriptions.values()
            if (s["topic_urn"], s["endpoint"]) == (topic, wanted["endpoint"])
        ]
        made = {
            "topic_urn": topic,
            "protocol": wanted["protocol"],
            "subscription_urn": f"{topic}:{uuid.uuid4().hex}",
            "owner": project_id,
            "endpoint": wanted["endpoint"],
            "remark": wanted.get("remark", ""),
            "status": self.first_status,
        }
        found = there[0] if there else made
        self.subscriptions[found["subscription_urn"]] = found
        return (200 if there else 201), {
            "request_id": uuid.uuid4().hex,
            "subscription_urn": found["subscription_urn"],
        }

    @routed("list_subscriptions", "GET", "topics/{urn}/subscriptions")
    def list_subscriptions(self, call, project_id, urn):
        found = [s for s in self.subscriptions.values() if s["topic_urn"] == self.topic(urn)]
        offset, limit = int(call.query.get("offset", 0)), int(call.query.get("limit", 100))
        return {
            "request_id": uuid.uuid4().hex,
            "subscription_count": len(found),
            "subscriptions": found[offset : offset + min(limit, 100)],
        }

    @routed("cancel_subscription", "DELETE", "subscriptions/{urn}")
    def cancel_subscription(self, call, project_id, urn):
        if not self.subscriptions.pop(urn, None):
            raise Refused("smn", "SMN.00010022")
        return {"request_id": uuid.uuid4().hex}
