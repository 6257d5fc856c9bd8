"""Streams of the Data Ingestion Service: partitions that come and go, cursors that expire, checkpoints of applications (API v2)."""

import base64
import dataclasses
import hashlib
import json
import re
import uuid

from .service import CODES, Refused, operation

CODES["dis"].update(
    {
        "DIS.4116": (403, "The account is in arrears, or has no right to do this."),
        "DIS.4117": (400, "Project id error."),
        "DIS.4200": (400, "Request error."),
        "DIS.4201": (400, "Partition_id error."),
        "DIS.4202": (400, "Request empty."),
        "DIS.4203": (400, "Start_time error."),
        "DIS.4204": (400, "Stop_time error."),
        "DIS.4205": (400, "Stream is not running."),
        "DIS.4215": (400, "Cursor_type error."),
        "DIS.4216": (400, "Sequence_number error."),
        "DIS.4217": (400, "Partition_cursor error."),
        "DIS.4224": (400, "Sequence_number out of range."),
        "DIS.4225": (400, "Expired cursor."),
        "DIS.4226": (400, "Expired sequence number."),
        "DIS.4300": (400, "Request error."),
        "DIS.4301": (400, "Stream not exist."),
        "DIS.4302": (400, "Partition not exist."),
        "DIS.4303": (400, "Exceed traffic control limit."),
        "DIS.4305": (400, "Too many requests within the unit time."),
        "DIS.4307": (400, "Stream already exists."),
        "DIS.4309": (400, "The address is in the blacklist."),
        "DIS.4319": (400, "Partition is expired."),
        "DIS.4329": (400, "Apps quota exceeded."),
        "DIS.4330": (400, "App already exists."),
        "DIS.4332": (400, "App not exist."),
        "DIS.4339": (400, "Consumers quota exceeded."),
        "DIS.4375": (400, "Checkpoint not exist."),
        "DIS.4601": (400, "Partition quota exceeded."),
        "DIS.4701": (400, "The consumer group is rebalancing."),
        "DIS.4702": (400, "The consumer is not in the group."),
        "DIS.4703": (400, "The generation is not the current one."),
        "DIS.5000": (500, "System error."),
    }
)
CURSOR_LIFE, HOUR, HASHES = 300, 3600, 2**127
QUOTA = {"COMMON": 50, "ADVANCED": 10}
APPS = 100
TYPES = ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}$")


@dataclasses.dataclass
class Record:
    number: int
    key: str
    data: bytes
    at: float


class Partition:
    def __init__(self, index, now):
        self.index, self.id = index, f"shardId-{index:010d}"
        self.status, self.ended, self.created = "ACTIVE", None, now
        self.records, self.oldest, self.next = [], 0, 0
        self.hashes = (0, 0)

    def put(self, key, data, now):
        self.records.append(Record(self.next, key, data, now))
        self.next += 1
        return self.next - 1

    def drop_before(self, at):
        kept = next((i for i, r in enumerate(self.records) if r.at > at), len(self.records))
        if kept:
            del self.records[:kept]
            self.oldest = self.records[0].number if self.records else self.next

    def from_number(self, number):
        return self.records[max(0, number - self.oldest) :]


class Stream:
    def __init__(self, name, count, kind, hours, data_type, now):
        self.id, self.name, self.kind = uuid.uuid4().hex, name, kind
        self.retention, self.data_type = hours * HOUR, data_type
        self.created = self.modified = now
        self.status, self.partitions, self.tags, self.changes = "RUNNING", [], {}, []
        self.auto_scale = {}
        for index in range(count):
            self.partitions.append(Partition(index, now))
        self.spread()

    def active(self):
        return [p for p in self.partitions if p.status == "ACTIVE"]

    def spread(self):
        """Divides the range of hashes among the active partitions."""
        active = self.active()
        for i, partition in enumerate(active):
            partition.hashes = (HASHES * i // len(active), HASHES * (i + 1) // len(active) - 1)

    def rescale(self, count, now):
        before = len(self.active())
        revived = [p for s in ("DELETED", "EXPIRED") for p in self.partitions if p.status == s]
        while len(self.active()) > count:
            last = self.active()[-1]
            last.status, last.ended = "DELETED", now
        for partition in revived:
            if len(self.active()) < count:
                partition.status, partition.ended = "ACTIVE", None
        while len(self.active()) < count:
            self.partitions.append(Partition(len(self.partitions), now))
        self.spread()
        self.modified = now
        self.changes.append(
            {
                "create_timestamp": int(now * 1000),
                "src_partition_count": before,
                "target_partition_count": count,
                "result_code": 1,
                "auto_scale": False,
            }
        )

    def settle_time(self, now):
        for partition in self.partitions:
            partition.drop_before(now - self.retention)
            if partition.status == "DELETED" and partition.ended <= now - self.retention:
                partition.status = "EXPIRED"

    def partition(self, text):
        found = re.fullmatch(r"(?:shardId-)?(\d{1,10})", text or "")
        if not found:
            raise Refused("dis", "DIS.4201")
        index = int(found.group(1))
        if index >= len(self.partitions):
            raise Refused("dis", "DIS.4302")
        return self.partitions[index]

    def of_hash(self, number):
        return next(p for p in self.active() if p.hashes[0] <= number <= p.hashes[1])


def routed(name, method, path, version="v2"):
    return operation("dis." + name, method, f"/{version}/{{project_id}}/{path}")


class Dis:
    def __init__(self, cloud):
        self.cloud, self.streams, self.apps = cloud, {}, {}
        self.checkpoints = {}  # (app, stream, partition) → (number, metadata)
        self.no_checkpoint = "DIS.4375"  # or "-1", or "": how the service says that there is none
        self.short_ids = False  # partitions are called "0" instead of "shardId-0000000000"
        self.cursors_end = True  # a closed partition ends in a null cursor

    # ---- for tests ------------------------------------------------------------------------------------------------------------------------------

    def make_stream(self, name, partitions=1, kind="COMMON", hours=24, data_type="BLOB"):
        with self.cloud.changed:
            made = self.streams[name] = Stream(name, partitions, kind, hours, data_type, self.cloud.now())
        return made

    def put(self, stream, key, data):
        """Puts a record as a producer does: (partition, sequence number)"""
        with self.cloud.changed:
            partition = stream.of_hash(int.from_bytes(hashlib.md5(key.encode()).digest(), "big") % HASHES)
            number = partition.put(key, data, self.cloud.now())
            self.cloud.changed.notify_all()
        return partition, number

    # ---- streams --------------------------------------------------------------------------------------------------------------------------------

    def stream(self, name):
        if name not in self.streams:
            raise Refused("dis", "DIS.4301", message=f"Stream not exist. [{name}]")
        found = self.streams[name]
        found.settle_time(self.cloud.now())
        return found

    def called(self, partition):
        return str(partition.index) if self.short_ids else partition.id

    def check_quota(self, kind, more):
        used = sum(len(s.active()) for s in self.streams.values() if s.kind == kind)
        if used + more > QUOTA[kind]:
            raise Refused("dis", "DIS.4601")

    @routed("create_stream", "POST", "streams")
    def create_stream(self, call, project_id):
        wanted = call.json()
        name, count = wanted.get("stream_name"), wanted.get("partition_count", 1)
        kind, hours = wanted.get("stream_type") or "COMMON", wanted.get("data_duration") or 24
        if not isinstance(name, str) or not NAME.match(name) or kind not in QUOTA or not 24 <= hours <= 72:
            raise Refused("dis", "DIS.4200")
        if name in self.streams:
            raise Refused("dis", "DIS.4307")
        self.check_quota(kind, count)
        made = self.make_stream(name, count, kind, hours, wanted.get("data_type") or "BLOB")
        made.tags = {t["key"]: t.get("value", "") for t in wanted.get("tags") or []}
        return 201, None

    @routed("list_streams", "GET", "streams")
    def list_streams(self, call, project_id):
        most = call.number("limit", 10, 1, 100, "DIS.4200")
        names = sorted(n for n in self.streams if n > call.query.get("start_stream_name", ""))
        page = [self.stream(n) for n in names[:most]]
        return {
            "total_number": len(self.streams),
            "stream_names": [s.name for s in page],
            "has_more_streams": len(names) > most,
            "stream_info_list": [
                {
                    "stream_name": s.name,
                    "create_time": int(s.created * 1000),
                    "retention_period": int(s.retention / HOUR),
                    "status": s.status,
                    "stream_type": s.kind,
                    "data_type": s.data_type,
                    "partition_count": len(s.active()),
                }
                for s in page
            ],
        }

    @routed("show_stream", "GET", "streams/{name}")
    def show_stream(self, call, project_id, name):
        stream = self.stream(name)
        most = call.number("limit_partitions", 100, 1, 1000, "DIS.4200")
        start = call.query.get("start_partitionId")
        rest = [p for p in stream.partitions if not start or p.index > stream.partition(start).index]
        return {
            "stream_id": stream.id,
            "stream_name": stream.name,
            "create_time": int(stream.created * 1000),
            "last_modified_time": int(stream.modified * 1000),
            "retention_period": int(stream.retention / HOUR),
            "status": stream.status,
            "stream_type": stream.kind,
            "data_type": stream.data_type,
            "writable_partition_count": len(stream.active()),
            "readable_partition_count": sum(p.status != "EXPIRED" for p in stream.partitions),
            "partitions": [self.described(p) for p in rest[:most]],
            "has_more_partitions": len(rest) > most,
            "update_partition_counts": stream.changes[-10:],
            "tags": [{"key": k, "value": v} for k, v in stream.tags.items()],
            **stream.auto_scale,
        }

    def described(self, partition):
        told = {
            "status": partition.status,
            "partition_id": self.called(partition),
            "hash_range": f"[{partition.hashes[0]} : {partition.hashes[1]}]",
        }
        if partition.status != "EXPIRED":
            told["sequence_number_range"] = f"[{partition.oldest} : {partition.next}]"
        return told

    @routed("delete_stream", "DELETE", "streams/{name}")
    def delete_stream(self, call, project_id, name):
        del self.streams[self.stream(name).name]
        self.checkpoints = {k: v for k, v in self.checkpoints.items() if k[1] != name}
        return 204, None

    @routed("update_partition_count", "PUT", "streams/{name}")
    def update_partition_count(self, call, project_id, name):
        stream, count = self.stream(name), call.json().get("target_partition_count")
        now, before = self.cloud.now(), len(stream.active())
        if not isinstance(count, int) or count < 1 or count == before:
            raise Refused("dis", "DIS.4200")
        recent = [
            c["target_partition_count"] > c["src_partition_count"]
            for c in stream.changes
            if c["create_timestamp"] > (now - HOUR) * 1000
        ]
        if recent.count(count > before) >= (10 if count > before else 1):
            raise Refused("dis", "DIS.4305", message="Too many scaling operations within an hour.")
        if count > before:
            self.check_quota(stream.kind, count - before)
        stream.rescale(count, now)
        return {
            "stream_name": stream.name,
            "current_partition_count": before,
            "target_partition_count": count,
        }

    @routed("update_stream", "PUT", "streams/{name}", version="v3")
    def update_stream(self, call, project_id, name):
        stream, wanted = self.stream(name), call.json()
        if not 24 <= wanted.get("data_duration", 24) <= 72:
            raise Refused("dis", "DIS.4200")
        stream.retention = wanted.get("data_duration", stream.retention / HOUR) * HOUR
        stream.data_type = wanted.get("data_type", stream.data_type)
        stream.auto_scale |= {k: v for k, v in wanted.items() if k.startswith("auto_scale")}
        return {"stream_name": stream.name}

    # ---- records --------------------------------------------------------------------------------------------------------------------------------

    @routed("put_records", "POST", "records")
    def put_records(self, call, project_id):
        wanted = call.json()
        stream = self.stream(wanted.get("stream_name"))
        records = wanted.get("records")
        if not isinstance(records, list) or not records:
            raise Refused("dis", "DIS.4202")
        told, failed = [], 0
        for given in records:
            try:
                data = base64.b64decode(given.get("data", ""), validate=True)
            except ValueError:
                raise Refused("dis", "DIS.4200") from None
            if given.get("partition_id") is not None:
                partition, key = stream.partition(given["partition_id"]), None
            elif given.get("explicit_hash_key") is not None:
                partition, key = (
                    stream.of_hash(int(given["explicit_hash_key"]) % HASHES),
                    given.get("partition_key"),
                )
            else:
                key = given.get("partition_key") or uuid.uuid4().hex
                partition = stream.of_hash(int.from_bytes(hashlib.md5(key.encode()).digest(), "big") % HASHES)
            if partition.status != "ACTIVE":
                failed += 1
                told.append({"error_code": "DIS.4302", "error_message": CODES["dis"]["DIS.4302"][1]})
                continue
            number = partition.put(key, data, self.cloud.now())
            told.append({"partition_id": self.called(partition), "sequence_number": str(number)})
        return {"failed_record_count": failed, "records": told}

    def cursor(self, stream, partition, number):
        value = {"s": stream.name, "p": partition.index, "n": number, "t": self.cloud.now()}
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()

    @routed("get_cursor", "GET", "cursors")
    def get_cursor(self, call, project_id):
        stream = self.stream(call.query.get("stream-name"))
        partition = stream.partition(call.query.get("partition-id"))
        kind = call.query.get("cursor-type") or "AT_SEQUENCE_NUMBER"
        if kind not in TYPES:
            raise Refused("dis", "DIS.4215")
        if partition.status == "EXPIRED":
            raise Refused("dis", "DIS.4319")
        number = {"TRIM_HORIZON": partition.oldest, "LATEST": partition.next}.get(kind)
        if kind.endswith("SEQUENCE_NUMBER"):
            text = call.query.get("starting-sequence-number", "")
            if not text.isdigit():
                raise Refused("dis", "DIS.4216")
            number = self.in_range(partition, int(text)) + kind.startswith("AFTER")
        elif kind == "AT_TIMESTAMP":
            number = self.at_time(stream, partition, call.query.get("timestamp", ""))
        return {"partition_cursor": self.cursor(stream, partition, number)}

    def in_range(self, partition, number):
        if not partition.oldest <= number <= partition.next:
            raise Refused(
                "dis",
                "DIS.4224",
                message=f"Sequence_number out of range. [{number}][ should be within ][{partition.oldest}][ ][{partition.next}]",
            )
        return number

    def at_time(self, stream, partition, text):
        oldest = int((self.cloud.now() - stream.retention) * 1000)
        if not text.isdigit():
            raise Refused("dis", "DIS.4300")
        if int(text) <= oldest:
            raise Refused(
                "dis",
                "DIS.4300",
                message=f"Request error. [timestamp is expired, timestamp should be larger than {oldest}]",
            )
        return next((r.number for r in partition.records if r.at * 1000 >= int(text)), partition.next)

    @routed("get_records", "GET", "records")
    def get_records(self, call, project_id):
        try:
            value = json.loads(base64.urlsafe_b64decode(call.query.get("partition-cursor", "")))
            name, index, number, at = value["s"], value["p"], value["n"], value["t"]
        except (ValueError, KeyError, TypeError):
            raise Refused("dis", "DIS.4217") from None
        if at <= self.cloud.now() - CURSOR_LIFE:
            raise Refused("dis", "DIS.4225")
        stream = self.stream(name)
        partition = stream.partition(str(index))
        if partition.status == "EXPIRED":
            raise Refused("dis", "DIS.4319")
        if number < partition.oldest:
            raise Refused("dis", "DIS.4226")
        most = call.number("max_fetch_bytes", 1 << 20, 1024, 4 << 20, "DIS.4300")
        taken, size = [], 0
        for record in partition.from_number(number):
            size += len(record.data)
            if size > most:
                break
            taken.append(record)
        number += len(taken)
        ended = partition.status == "DELETED" and number == partition.next and self.cursors_end
        return {
            "next_partition_cursor": None if ended else self.cursor(stream, partition, number),
            "records": [
                {
                    **({"partition_key": r.key} if r.key is not None else {}),
                    "sequence_number": str(r.number),
                    "data": base64.b64encode(r.data).decode(),
                    "timestamp": int(r.at * 1000),
                    "timestamp_type": "CreateTime",
                }
                for r in taken
            ],
        }

    # ---- applications ---------------------------------------------------------------------------------------------------------------------------

    def app(self, name):
        if name not in self.apps:
            raise Refused("dis", "DIS.4332")
        return {
            **self.apps[name],
            "commit_checkpoint_stream_names": sorted({k[1] for k in self.checkpoints if k[0] == name}),
        }

    @routed("create_app", "POST", "apps")
    def create_app(self, call, project_id):
        name = call.json().get("app_name")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name):
            raise Refused("dis", "DIS.4200")
        if name in self.apps:
            raise Refused("dis", "DIS.4330")
        if len(self.apps) >= APPS:
            raise Refused("dis", "DIS.4329")
        self.apps[name] = {
            "app_name": name,
            "app_id": uuid.uuid4().hex,
            "create_time": int(self.cloud.now() * 1000),
        }
        return 201, None

    @routed("list_apps", "GET", "apps")
    def list_apps(self, call, project_id):
        most = call.number("limit", 10, 1, 100, "DIS.4200")
        stream = call.query.get("stream_name")
        names = sorted(
            n
            for n in self.apps
            if n > call.query.get("start_app_name", "")
            and (not stream or stream in self.app(n)["commit_checkpoint_stream_names"])
        )
        return {
            "has_more_app": len(names) > most,
            "apps": [self.app(n) for n in names[:most]],
            "total_number": len(names),
        }

    @routed("show_app", "GET", "apps/{name}")
    def show_app(self, call, project_id, name):
        return self.app(name)

    @routed("delete_app", "DELETE", "apps/{name}")
    def delete_app(self, call, project_id, name):
        del self.apps[self.app(name)["app_name"]]
        self.checkpoints = {k: v for k, v in self.checkpoints.items() if k[0] != name}
        return 204, None

    def key(self, values):
        stream = self.stream(values.get("stream_name"))
        self.app(values.get("app_name"))
        if values.get("checkpoint_type") != "LAST_READ":
            raise Refused("dis", "DIS.4200")
        partition = stream.partition(values.get("partition_id"))
        return (values["app_name"], stream.name, partition.id), partition

    @routed("commit_checkpoint", "POST", "checkpoints")
    def commit_checkpoint(self, call, project_id):
        wanted = call.json()
        key, partition = self.key(wanted)
        text = wanted.get("sequence_number")
        if not isinstance(text, str) or not text.isdigit() or len(wanted.get("metadata") or "") > 1000:
            raise Refused("dis", "DIS.4216")
        if partition.status == "EXPIRED":
            raise Refused("dis", "DIS.4319")
        self.checkpoints[key] = (self.in_range(partition, int(text)), wanted.get("metadata") or "")
        return 201, None

    @routed("show_checkpoint", "GET", "checkpoints")
    def show_checkpoint(self, call, project_id):
        key, _ = self.key(call.query)
        found = self.checkpoints.get(key)
        if not found and self.no_checkpoint.startswith("DIS."):
            raise Refused("dis", self.no_checkpoint)
        number, metadata = found or (self.no_checkpoint, "")
        return {"sequence_number": str(number), "metadata": metadata}

    @routed("delete_checkpoint", "DELETE", "checkpoints")
    def delete_checkpoint(self, call, project_id):
        stream, app = self.stream(call.query.get("stream_name")), self.app(call.query.get("app_name"))
        only = call.query.get("partition_id")
        only = only and stream.partition(only).id
        self.checkpoints = {
            k: v
            for k, v in self.checkpoints.items()
            if k[:2] != (app["app_name"], stream.name) or (only and k[2] != only)
        }
        return 204, None

    @routed("show_consumer_state", "GET", "apps/{name}/streams/{stream_name}")
    def show_consumer_state(self, call, project_id, name, stream_name):
        stream, app = self.stream(stream_name), self.app(name)
        if call.query.get("checkpoint_type") != "LAST_READ":
            raise Refused("dis", "DIS.4200")
        most = call.number("limit", 10, 1, 1000, "DIS.4200")
        start = call.query.get("start_partition_id")
        rest = [p for p in stream.partitions if not start or p.index > stream.partition(start).index]
        rows = []
        for partition in rest[:most]:
            number, _ = self.checkpoints.get((app["app_name"], stream.name, partition.id), (-1, ""))
            rows.append(
                {
                    "partition_id": self.called(partition),
                    "sequence_number": str(number),
                    "earliest_offset": partition.oldest,
                    "latest_offset": partition.next,
                    "checkpoint_type": "LAST_READ",
                    "status": partition.status,
                }
            )
        return {
            "has_more": len(rest) > most,
            "stream_name": stream.name,
            "app_name": name,
            "partition_consuming_states": rows,
        }

    # ---- tags -----------------------------------------------------------------------------------------------------------------------------------

    def by_id(self, stream_id):
        found = next((s for s in self.streams.values() if s.id == stream_id), None)
        if not found:
            raise Refused("dis", "DIS.4301")
        return found

    @routed("change_tags", "POST", "stream/{stream_id}/tags/action")
    def change_tags(self, call, project_id, stream_id):
        stream, wanted = self.by_id(stream_id), call.json()
        for tag in wanted.get("tags") or []:
            if wanted.get("action") == "create":
                stream.tags[tag["key"]] = tag.get("value", "")
            else:
                stream.tags.pop(tag["key"], None)
        return 204, None

    @routed("create_tag", "POST", "stream/{stream_id}/tags")
    def create_tag(self, call, project_id, stream_id):
        tag = call.json().get("tag") or {}
        self.by_id(stream_id).tags[tag.get("key")] = tag.get("value", "")
        return 204, None

    @routed("delete_tag", "DELETE", "stream/{stream_id}/tags/{key}")
    def delete_tag(self, call, project_id, stream_id, key):
        self.by_id(stream_id).tags.pop(key, None)
        return 204, None

    @routed("show_tags", "GET", "stream/{stream_id}/tags")
    def show_tags(self, call, project_id, stream_id):
        return {"tags": [{"key": k, "value": v} for k, v in self.by_id(stream_id).tags.items()]}

    @routed("list_tags", "GET", "stream/tags")
    def list_tags(self, call, project_id):
        found = {}
        for stream in self.streams.values():
            for key, value in stream.tags.items():
                found.setdefault(key, set()).add(value)
        return {"tags": [{"key": k, "values": sorted(v)} for k, v in found.items()]}
