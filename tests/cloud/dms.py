"""Queues of the Distributed Message Service: messages, consumer groups, acknowledgement windows, dead letters (API v1.0 and v2, which are the same)."""

import collections
import dataclasses
import json
import re
import uuid

from .service import CODES, Refused, operation

CODES["dms"].update(
    {
        10240002: (400, "The number of queried queues exceeds the upper limit."),
        10240004: (400, "The tag name is invalid."),
        10240005: (400, "The project ID format is invalid."),
        10240007: (400, "The name contains invalid characters."),
        10240009: (400, "The message body is not in JSON format or contains invalid characters."),
        10240010: (400, "The description contains invalid characters."),
        10240011: (400, "The name length must be 1 to 64 characters."),
        10240012: (400, "The name length must be 1 to 32 characters."),
        10240013: (400, "The description length must not exceed 160 characters."),
        10240014: (400, "The number of consumable messages exceeds the maximum limit."),
        10240015: (400, "The queue ID format is invalid."),
        10240016: (400, "The group ID format is invalid."),
        10240017: (400, "The queue already exists."),
        10240018: (400, "The consumer group already exists."),
        10240019: (400, "The number of consumer groups exceeds the upper limit."),
        10240020: (400, "The quota is insufficient."),
        10240021: (400, "The value of time_wait is not within the value range of 1-60."),
        10240022: (400, "The value of max Consume Count must be within the range of 1-100."),
        10240027: (400, "The value of retention_hours must be an integer in the range of 1-72."),
        10240028: (400, "Non-kafka queues do not support retention_hours."),
        10240032: (400, "The queue is being created."),
        10240035: (400, "The tag key is empty or too long."),
        10240036: (400, "The tag key contains invalid characters."),
        10240038: (400, "The tag value is too long."),
        10240039: (400, "The tag value contains invalid characters."),
        10240040: (400, "You can only create or delete tags."),
        10240041: (400, "You can only filter or count tags."),
        10240042: (400, "The number of records on each page for pagination query exceeds the upper limit."),
        10240043: (400, "The number of skipped records for pagination query exceeds the upper limit."),
        10240044: (400, "A maximum of 10 tags can be created."),
        10240045: (400, "The tag key has been used."),
        10240101: (401, "Invalid token."),
        10240102: (401, "Expired token."),
        10240103: (401, "Missing token."),
        10240104: (401, "The project ID and token do not match."),
        10240304: (
            403,
            "Change the quota of a queue or consumer group to a value smaller than the used quota.",
        ),
        10240306: (403, "The tenant has been frozen. You cannot perform operations on DMS."),
        10240308: (403, "The queue quota must be within the range of 1-20."),
        10240309: (403, "Access denied. You cannot perform operations on DMS."),
        10240310: (403, "A tenant has read-only permissions and cannot perform operations on DMS."),
        10240311: (403, "This role does not have the permissions to perform this operation."),
        10240312: (403, "The tenant is restricted and cannot perform operations on DMS."),
        10240401: (404, "The queue ID is incorrect or not found."),
        10240405: (404, "The consumer group ID is incorrect or not found."),
        10240406: (404, "The URL or endpoint does not exist."),
        10240407: (
            404,
            "The request is too frequent. Flow control is being performed. Please try again later.",
        ),
        10240426: (404, "No tag containing this key exists."),
        10250002: (500, "Internal service error."),
        10250003: (500, "Internal service error."),
        10250004: (500, "Internal service error."),
        10250005: (500, "Internal communication error."),
        10250006: (500, "Internal service error."),
        10540001: (400, "The message body contains invalid fields."),
        10540003: (
            400,
            "Message ack status must be either 'success' or 'fail'. It should not be '{status}'.",
        ),
        10540004: (400, "Request error: The queue or group name does not match the handler."),
        10540010: (400, "The request format is incorrect: {error description}."),
        10540011: (400, "The message size is larger than the size limit 524288."),
        10540012: (400, "The message body is not in JSON format or contains invalid characters."),
        10540014: (400, "The URL contains invalid parameters."),
        10540202: (400, "The request format is incorrect: {error description}."),
        10540401: (404, "The queue name does not exist."),
        10542204: (400, "Failed to consume messages due to {desc}."),
        10542205: (400, "Failed to obtain the consumption instance because the handler does not exist."),
        10542206: (400, "The value of ack_wait must be within the range of 15-300."),
        10542209: (
            400,
            "The handler does not exist because the handler fails to be parsed, the message consumption times out, "
            "or the message consumption is repeatedly acknowledged.",
        ),
        10542214: (400, "The request format is incorrect: {error description}."),
    }
)
BYTES_MOST, MESSAGES_MOST, HOUR = 512 * 1024, 10, 3600
QUEUES, GROUPS, TAGS = 30, 3, 10
MODES = ("NORMAL", "FIFO", "KAFKA_HA", "KAFKA_HT")
TAG = re.compile(r"[A-Za-z0-9_-]{1,64}$")


@dataclasses.dataclass
class Message:
    id: str
    body: object
    attributes: dict
    tags: list
    at: float  # when it was sent
    due: float  # when it may be consumed
    size: int


@dataclasses.dataclass(eq=False)
class Given:
    """A message as one group sees it."""

    message: Message
    since: float  # when it was queued
    handler: str = ""
    until: float = 0  # in flight until then; 0: it is not
    deliveries: int = 0
    batch: list = dataclasses.field(default_factory=list)  # what was given out with it, in order


class Line:
    """A group's queue: messages that are not acknowledged, in order; or its dead letters."""

    def __init__(self, retention):
        self.waiting = collections.OrderedDict()  # Given → None
        self.handlers, self.retention = {}, retention  # handlers: those in flight

    def add(self, message, now):
        self.waiting[Given(message, now)] = None

    def settle_time(self, now, lost):
        """Returns messages whose window has expired to the queue and drops those that are too old. lost(given): was it moved elsewhere?"""
        for given in [g for g in self.handlers.values() if g.until <= now]:
            self.give_back(given, lost)
        old = []
        for given in self.waiting:
            if given.since > now - self.retention:
                break
            if not given.until:
                old.append(given)
        for given in old:
            del self.waiting[given]

    def give_back(self, given, lost):
        self.handlers.pop(given.handler, None)
        given.until = 0
        if lost(given):
            del self.waiting[given]

    def take(self, now, most, window, ordered, wanted):
        if ordered and self.handlers:
            return []
        batch, size = [], 0
        for given in self.waiting:
            if given.until or given.message.due > now or not wanted(given.message):
                if ordered and not given.until and given.message.due > now:
                    break
                continue
            if len(batch) == most or (batch and size + given.message.size > BYTES_MOST):
                break
            size += given.message.size
            batch.append(given)
        for given in batch:
            given.until, given.handler, given.batch = now + window, uuid.uuid4().hex, batch
            given.deliveries += 1
            self.handlers[given.handler] = given
        return list(batch)

    def acknowledge(self, items, lost):
        """(success, fail): messages must be acknowledged in the order in which they were consumed; after the first that is not, the rest fails."""
        done, broken = 0, False
        for handler, status in items:
            given = self.handlers[handler]
            before = given.batch[: given.batch.index(given)]
            if broken or status != "success" or any(g in self.waiting for g in before):
                broken = True
                if status != "success":
                    self.give_back(given, lost)
                continue
            del self.handlers[handler]
            del self.waiting[given]
            done += 1
        return done, len(items) - done


class Group:
    def __init__(self, name, queue):
        self.id, self.name = f"g-{uuid.uuid4()}", name
        self.line, self.dead = Line(queue.retention), Line(72 * HOUR)
        self.rule = None  # (tags, and/or), once it has consumed
        self.consumed = self.dead_produced = 0


class Queue:
    def __init__(self, name, mode, description, redrive, max_consume_count, retention_hours, now):
        self.id, self.name, self.mode, self.description = str(uuid.uuid4()), name, mode, description
        self.redrive, self.max_consume_count = redrive, max_consume_count
        self.retention, self.created = retention_hours * HOUR, now
        self.messages, self.produced, self.groups, self.tags = [], 0, {}, {}

    def describe(self):
        told = {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "queue_mode": self.mode,
            "reservation": int(self.retention / 60),
            "max_msg_size_byte": BYTES_MOST,
            "produced_messages": self.produced,
            "redrive_policy": "enable" if self.redrive else "disable",
            "group_count": len(self.groups),
            "created": int(self.created * 1000),
            "eff_date": int(self.created * 1000),
        }
        return {**told, **({"max_consume_count": self.max_consume_count} if self.redrive else {})}


def routed(name, method, path, **more):
    return operation("dms." + name, method, "/v(?:1.0|2)/{project_id}/" + path, **more)


class Dms:
    def __init__(self, cloud):
        self.cloud, self.queues = cloud, {}

    # ---- queues ---------------------------------------------------------------------------------------------------------------------------------

    def make_queue(
        self, name, mode="NORMAL", redrive=False, max_consume_count=3, retention_hours=72, description=""
    ):
        """For tests: makes a queue as the API does."""
        with self.cloud.changed:
            made = Queue(
                name, mode, description, redrive, max_consume_count, retention_hours, self.cloud.now()
            )
            self.queues[made.id] = made
        return made

    def make_group(self, queue, name):
        with self.cloud.changed:
            group = Group(name, queue)
            for message in queue.messages:
                group.line.add(message, message.at)
            queue.groups[group.id] = group
        return group

    def send(self, queue, bodies, tags=(), attributes=None, delay=0):
        """For tests: sends messages; returns them as they are stored."""
        with self.cloud.changed:
            now = self.cloud.now()
            sent = [
                Message(
                    uuid.uuid4().hex,
                    body,
                    attributes or {},
                    list(tags),
                    now,
                    now + delay / 1000,
                    len(body.encode() if isinstance(body, str) else json.dumps(body).encode()),
                )
                for body in bodies
            ]
            queue.messages += sent
            queue.produced += len(sent)
            for group in queue.groups.values():
                for message in sent:
                    group.line.add(message, message.at)
            self.cloud.changed.notify_all()
        return sent

    def queue(self, queue_id):
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", queue_id):
            raise Refused("dms", 10240015)
        if queue_id not in self.queues:
            raise Refused("dms", 10240401)
        return self.queues[queue_id]

    def group(self, queue_id, group_id):
        queue = self.queue(queue_id)
        if group_id not in queue.groups:
            raise Refused("dms", 10240405)
        return queue, queue.groups[group_id]

    def bury(self, queue, group):
        """Makes dead letters of messages that were consumed too often without success."""

        def lost(given):
            if not queue.redrive or given.deliveries < queue.max_consume_count:
                return False
            group.dead.add(given.message, self.cloud.now())
            group.dead_produced += 1
            return True

        return lost

    @routed("create_queue", "POST", "queues")
    def create_queue(self, call, project_id):
        wanted = call.json()
        name, mode = wanted.get("name"), wanted.get("queue_mode", "NORMAL")
        if not isinstance(name, str) or not 1 <= len(name) <= 64:
            raise Refused("dms", 10240011)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise Refused("dms", 10240007)
        if any(q.name == name for q in self.queues.values()):
            raise Refused("dms", 10240017)
        if len(self.queues) >= QUEUES:
            raise Refused("dms", 10240020)
        if mode not in MODES:
            raise Refused("dms", 10540001)
        if "retention_hours" in wanted and not mode.startswith("KAFKA"):
            raise Refused("dms", 10240028)
        if not 1 <= wanted.get("retention_hours", 72) <= 72:
            raise Refused("dms", 10240027)
        if not 1 <= wanted.get("max_consume_count", 3) <= 100:
            raise Refused("dms", 10240022)
        made = self.make_queue(
            name,
            mode,
            wanted.get("redrive_policy") == "enable" and not mode.startswith("KAFKA"),
            wanted.get("max_consume_count", 3),
            wanted.get("retention_hours", 72),
            wanted.get("description", ""),
        )
        return 201, {"id": made.id, "name": made.name}

    @routed("list_queues", "GET", "queues")
    def list_queues(self, call, project_id):
        return {"total": len(self.queues), "queues": [q.describe() for q in self.queues.values()]}

    @routed("show_queue", "GET", "queues/{queue_id}")
    def show_queue(self, call, project_id, queue_id):
        return self.queue(queue_id).describe()

    @routed("delete_queue", "DELETE", "queues/{queue_id}")
    def delete_queue(self, call, project_id, queue_id):
        del self.queues[self.queue(queue_id).id]
        return 204, None

    @routed("show_quotas", "GET", "quotas")
    def show_quotas(self, call, project_id):
        used = len(self.queues)
        groups = sum(len(q.groups) for q in self.queues.values())
        rows = [
            {"type": "queue", "quota": QUEUES, "used": used, "min": 1, "max": 20},
            {"type": "consumer_group", "quota": GROUPS, "used": groups, "min": 1, "max": 10},
        ]
        return {"quotas": {"resources": rows}}

    # ---- tags of queues -------------------------------------------------------------------------------------------------------------------------

    @routed("change_tags", "POST", "queue/{queue_id}/tags/action")
    def change_tags(self, call, project_id, queue_id):
        queue, wanted = self.queue(queue_id), call.json()
        tags = {t.get("key"): t.get("value", "") for t in wanted.get("tags") or []}
        if wanted.get("action") not in ("create", "delete"):
            raise Refused("dms", 10240040)
        if any(not k or len(k) > 36 for k in tags):
            raise Refused("dms", 10240035)
        if wanted["action"] == "delete":
            if set(tags) - set(queue.tags):
                raise Refused("dms", 10240426)
            for key in tags:
                del queue.tags[key]
        else:
            if len(set(queue.tags) | set(tags)) > TAGS:
                raise Refused("dms", 10240044)
            queue.tags.update(tags)
        return 204, None

    @routed("show_tags", "GET", "queue/{queue_id}/tags")
    def show_tags(self, call, project_id, queue_id):
        return {"tags": [{"key": k, "value": v} for k, v in self.queue(queue_id).tags.items()]}

    @routed("show_project_tags", "GET", "queue/tags")
    def show_project_tags(self, call, project_id):
        found = {}
        for queue in self.queues.values():
            for key, value in queue.tags.items():
                found.setdefault(key, set()).add(value)
        return {"tags": [{"key": k, "values": sorted(v)} for k, v in found.items()]}

    # ---- groups ---------------------------------------------------------------------------------------------------------------------------------

    @routed("create_groups", "POST", "queues/{queue_id}/groups")
    def create_groups(self, call, project_id, queue_id):
        queue, names = self.queue(queue_id), [g.get("name") for g in call.json().get("groups") or []]
        if not names or any(not isinstance(n, str) or not 1 <= len(n) <= 32 for n in names):
            raise Refused("dms", 10240012)
        if any(not re.fullmatch(r"[A-Za-z0-9_-]+", n) for n in names):
            raise Refused("dms", 10240007)
        if {g.name for g in queue.groups.values()} & set(names) or len(set(names)) < len(names):
            raise Refused("dms", 10240018)
        if len(queue.groups) + len(names) > GROUPS:
            raise Refused("dms", 10240019)
        made = [self.make_group(queue, n) for n in names]
        return 201, {"groups": [{"id": g.id, "name": g.name} for g in made]}

    @routed("list_groups", "GET", "queues/{queue_id}/groups")
    def list_groups(self, call, project_id, queue_id):
        queue = self.queue(queue_id)
        size = call.number("page_size", 100, 1, 100, 10240042)
        page = call.number("current_page", 1, 1, 10**6, 10240043)
        rows = []
        for group in list(queue.groups.values())[(page - 1) * size : page * size]:
            group.line.settle_time(self.cloud.now(), self.bury(queue, group))
            group.dead.settle_time(self.cloud.now(), lambda given: False)
            row = {"id": group.id, "name": group.name}
            if call.query.get("include_messages_num", "true").lower() != "false":
                row |= {
                    "produced_messages": queue.produced,
                    "consumed_messages": group.consumed,
                    "available_messages": len(group.line.waiting),
                }
            if call.query.get("include_deadletter", "false").lower() == "true":
                row |= {
                    "produced_deadletters": group.dead_produced,
                    "available_deadletters": len(group.dead.waiting),
                }
            rows.append(row)
        return {
            "queue_id": queue.id,
            "queue_name": queue.name,
            "redrive_policy": "enable" if queue.redrive else "disable",
            "groups": rows,
        }

    @routed("delete_group", "DELETE", "queues/{queue_id}/groups/{group_id}")
    def delete_group(self, call, project_id, queue_id, group_id):
        queue, group = self.group(queue_id, group_id)
        del queue.groups[group.id]
        return 204, None

    # ---- messages -------------------------------------------------------------------------------------------------------------------------------

    @routed("send", "POST", "queues/{queue_id}/messages")
    def send_messages(self, call, project_id, queue_id):
        queue, wanted = self.queue(queue_id), call.json()
        messages = wanted.get("messages")
        if not isinstance(messages, list) or not 1 <= len(messages) <= MESSAGES_MOST:
            raise Refused("dms", 10540010, message="The request format is incorrect: 1 to 10 messages.")
        if len(call.body) > BYTES_MOST + 4096:
            raise Refused("dms", 10540011)
        told = []
        for given in messages:
            tags = given.get("tags") or []
            if len(tags) > 3 or not all(isinstance(t, str) and TAG.match(t) for t in tags):
                raise Refused("dms", 10240004)
            if "body" not in given or not 0 <= int(given.get("delay_time") or 0) <= 604_800_000:
                raise Refused("dms", 10540001)
        for given in messages:
            (kept,) = self.send(
                queue,
                [given["body"]],
                given.get("tags") or [],
                given.get("attributes"),
                int(given.get("delay_time") or 0) if not queue.mode.startswith("KAFKA") else 0,
            )
            told.append({"state": 0, **({"id": kept.id} if wanted.get("return_id") else {})})
        return 201, {"messages": told}

    def consume_from(self, call, queue, group, line, lost, wanted):
        most = call.number("max_msgs", 10, 1, MESSAGES_MOST, 10240014)
        patience = call.number("time_wait", 3, 1, 60, 10240021)
        window = call.number("ack_wait", 30, 15, 300, 10542206)

        def ready():
            if group.id not in queue.groups:
                raise Refused("dms", 10240405)
            line.settle_time(self.cloud.now(), lost)
            return line.take(self.cloud.now(), most, window, queue.mode == "FIFO", wanted)

        return [
            {
                "message": {
                    "body": g.message.body,
                    "attributes": g.message.attributes,
                    **({"tags": g.message.tags} if g.message.tags else {}),
                },
                "handler": g.handler,
            }
            for g in self.cloud.wait_for(ready, patience)
        ]

    @routed("consume", "GET", "queues/{queue_id}/groups/{group_id}/messages")
    def consume(self, call, project_id, queue_id, group_id):
        queue, group = self.group(queue_id, group_id)
        tags = [t for name, value in call.pairs if name == "tag" for t in value.split(",")]
        kind = call.query.get("tag_type", "or")
        if len(tags) > 3 or not all(TAG.match(t) for t in tags) or kind not in ("and", "or"):
            raise Refused("dms", 10240004)
        rule = (sorted(tags), kind if len(tags) > 1 else "or")
        if group.rule not in (None, rule):
            raise Refused(
                "dms", 10542204, message="Failed to consume messages due to another tag rule of the group."
            )
        group.rule = rule
        judge = all if kind == "and" else any
        return self.consume_from(
            call,
            queue,
            group,
            group.line,
            self.bury(queue, group),
            lambda m: not tags or judge(t in m.tags for t in tags),
        )

    def acknowledge_in(self, call, queue, group, line, lost, other):
        items = [(m.get("handler"), m.get("status")) for m in call.json().get("message") or []]
        if not items:
            raise Refused("dms", 10540202)
        for _, status in items:
            if status not in ("success", "fail"):
                raise Refused("dms", 10540003)
        line.settle_time(self.cloud.now(), lost)
        for handler, _ in items:
            if handler in other.handlers:
                raise Refused("dms", 10542205)
            if any(
                handler in g.line.handlers or handler in g.dead.handlers
                for q in self.queues.values()
                for g in q.groups.values()
                if g is not group
            ):
                raise Refused("dms", 10540004)
            if handler not in line.handlers:
                raise Refused("dms", 10542209)
        if len({h for h, _ in items}) < len(items):
            raise Refused("dms", 10542209)
        done, failed = line.acknowledge(items, lost)
        return {"success": done, "fail": failed}

    @routed("acknowledge", "POST", "queues/{queue_id}/groups/{group_id}/ack")
    def acknowledge(self, call, project_id, queue_id, group_id):
        queue, group = self.group(queue_id, group_id)
        told = self.acknowledge_in(call, queue, group, group.line, self.bury(queue, group), group.dead)
        group.consumed += told["success"]
        return told

    def with_dead_letters(self, queue_id, group_id):
        queue, group = self.group(queue_id, group_id)
        if not queue.redrive:
            raise Refused(
                "dms", 10540010, message="The request format is incorrect: the queue has no dead letters."
            )
        group.line.settle_time(self.cloud.now(), self.bury(queue, group))
        return queue, group

    @routed("consume_dead_letters", "GET", "queues/{queue_id}/groups/{group_id}/deadletters")
    def consume_dead_letters(self, call, project_id, queue_id, group_id):
        queue, group = self.with_dead_letters(queue_id, group_id)
        return self.consume_from(call, queue, group, group.dead, lambda given: False, lambda m: True)

    @routed("acknowledge_dead_letters", "POST", "queues/{queue_id}/groups/{group_id}/deadletters/ack")
    def acknowledge_dead_letters(self, call, project_id, queue_id, group_id):
        queue, group = self.with_dead_letters(queue_id, group_id)
        return self.acknowledge_in(call, queue, group, group.dead, lambda given: False, group.line)
