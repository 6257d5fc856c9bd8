"""Change streams of a real server: what arrives, in which form, over restarts and faults."""

import json
import re

import pytest
from harness.mongo import Mongo
from harness.process import wait_until
from harness.sluice import trigger


@pytest.fixture
def mongo(tmp_path):
    with Mongo(tmp_path) as m:
        yield m


class Stream:
    """A Trigger that watches shop.orders, and what arrived of it."""

    def __init__(self, mongo, runner, function):
        self.mongo, self.runner, self.function = mongo, runner, function

    def start(self, delivery=None, name="run", options=(), spec=None, ready=True, **more):
        source = {"hosts": [self.mongo.host], "database": "shop", "collection": "orders", **more}
        source = {k: v for k, v in source.items() if v is not None}
        run = self.runner.start(
            trigger("orders", {"dds": source}, self.function.uri, delivery, **(spec or {})),
            name=name,
            options=["--grace=2s", *options],
        )
        if ready:
            run.wait_until("the stream is open", lambda: run.status()["sourceState"] == "Connected", 20)
        return run

    @property
    def orders(self):
        return self.mongo.client.shop.orders

    def events(self):
        return [json.loads(e["body"])["records"] for e in self.function.events()]

    def records(self):
        return [r for records in self.events() for r in records]

    def numbers(self):
        """The n of each document that arrived, as often as it did."""
        return [
            int(r["dds"]["full_document"]["n"]["$numberInt"])
            for r in self.records()
            if "n" in r["dds"]["full_document"]
        ]

    def saved(self):
        """The positions that were stored so far, in the order in which they were."""
        journal = (self.runner.directory / "state" / "checkpoints.journal").read_bytes()
        return [p.decode() for p in re.findall(rb'"position":"([^"]*)"', journal)]

    def wait_saved(self):
        """That of the last change that arrived is stored."""
        token = self.records()[-1]["dds"]["token"]["_data"]
        wait_until("its token is stored", lambda: self.saved()[-1].endswith(token), 10)

    def wait_numbers(self, wanted, timeout=30):
        wait_until(
            "all that was written arrived",
            lambda: set(self.numbers()) >= set(wanted),
            timeout,
            explain=lambda: f"{len(set(self.numbers()))} of {len(set(wanted))}",
        )


@pytest.fixture
def stream(mongo, runner, function):
    return Stream(mongo, runner, function)


def test_inserts_arrive_in_the_classic_shape(stream):
    stream.start(spec={"event": {"region": "cn-north-4", "instanceID": "an-instance"}})
    stream.orders.insert_one({"_id": 1, "name": "dds", "age": 52.0, "n": 7})
    (event,) = stream.function.wait_for(1)
    (record,) = json.loads(event["body"])["records"]
    assert list(record) == [
        "event_source",
        "event_name",
        "region",
        "event_version",
        "dds",
        "event_source_id",
    ]
    assert record["event_source"] == "dds"
    assert record["event_name"] == "insert"
    assert record["region"] == "cn-north-4"
    assert record["event_version"] == "1.0"
    assert record["event_source_id"] == "an-instance"
    assert record["dds"]["full_document"] == {
        "_id": {"$numberInt": "1"},
        "name": "dds",
        "age": {"$numberDouble": "52.0"},
        "n": {"$numberInt": "7"},
    }
    assert record["dds"]["ns"] == {"db": "shop", "coll": "orders"}
    assert list(record["dds"]["token"]) == ["_data"]
    assert event["id"] == record["dds"]["token"]["_data"]


def test_after_a_restart_it_goes_on_where_it_was(stream):
    run = stream.start()
    stream.orders.insert_many([{"n": n} for n in range(100)])
    stream.wait_numbers(range(100))
    run.stop()
    stream.orders.insert_many([{"n": n} for n in range(100, 200)])
    stream.start()
    stream.wait_numbers(range(200))
    assert stream.numbers() == list(range(200))


def test_after_a_kill_nothing_is_lost(stream):
    run = stream.start()
    stream.orders.insert_many([{"n": n} for n in range(500)])
    stream.function.wait_for(100)
    run.kill()
    stream.start()
    stream.wait_numbers(range(500))


def test_what_is_written_before_the_first_record_is_not_lost(stream):
    """The start is kept, although nothing came yet: after a kill it is still there that reading begins."""
    stream.start().kill()
    stream.orders.insert_one({"n": 1})
    stream.start()
    stream.wait_numbers([1])


def test_what_was_there_before_the_first_start_does_not_arrive(stream):
    stream.orders.insert_one({"n": 1})
    stream.start()
    stream.orders.insert_one({"n": 2})
    stream.wait_numbers([2])
    assert stream.numbers() == [2]


# ---- operations and scopes


def test_each_operation_is_told_as_the_table_says(stream):
    stream.start(
        operations=["insert", "update", "replace", "delete", "rename", "drop", "dropDatabase", "invalidate"],
        collection=None,
    )
    orders = stream.orders
    orders.insert_one({"_id": 1, "n": 1})
    orders.update_one({"_id": 1}, {"$set": {"n": 2}})
    orders.replace_one({"_id": 1}, {"n": 3})
    orders.delete_one({"_id": 1})
    orders.insert_one({"_id": 2})
    orders.rename("archive")
    stream.mongo.client.shop.archive.drop()
    stream.mongo.client.drop_database("shop")
    names = [
        "insert",
        "update",
        "replace",
        "delete",
        "insert",
        "rename",
        "drop",
        "dropDatabase",
        "invalidate",
    ]
    wait_until("all are told", lambda: [r["event_name"] for r in stream.records()] == names, 20)
    told = [r["dds"] for r in stream.records()]
    key = {"_id": {"$numberInt": "1"}}
    assert told[0]["full_document"] == {**key, "n": {"$numberInt": "1"}}
    assert told[2]["full_document"] == {**key, "n": {"$numberInt": "3"}}
    assert told[3]["full_document"] == key
    assert [t["full_document"] for t in told[5:]] == [{}] * 4
    assert [(t["ns"]["db"], t["ns"]["coll"]) for t in told] == [
        *[("shop", "orders")] * 6,
        ("shop", "archive"),
        ("shop", ""),
        ("shop", ""),
    ]


def test_an_update_of_a_document_that_is_gone_has_its_key(stream, function):
    run = stream.start()
    run.stop()
    stream.orders.insert_one({"_id": 1, "n": 1})
    stream.orders.update_one({"_id": 1}, {"$set": {"n": 2}})
    stream.orders.delete_one({"_id": 1})
    stream.start()
    function.wait_for(3)
    told = stream.records()
    assert [r["event_name"] for r in told] == ["insert", "update", "delete"]
    assert told[1]["dds"]["full_document"] == {"_id": {"$numberInt": "1"}}
    # length, type, "_id" with its end, the number, the document's end
    assert told[1]["dds"]["size_bytes"] == str(4 + 1 + 4 + 4 + 1)


@pytest.mark.parametrize("scope", [{"collection": None}, {"collection": None, "database": None}])
def test_a_database_and_all_of_them_can_be_watched(stream, function, scope):
    stream.start(**scope)
    stream.orders.insert_one({"n": 1})
    stream.mongo.client.shop.customers.insert_one({"n": 2})
    stream.mongo.client.other.things.insert_one({"n": 3})
    stream.mongo.client.shop.orders.insert_one({"n": 4})
    wanted = [1, 2, 4] if "database" not in scope else [1, 2, 3, 4]
    stream.wait_numbers(wanted)
    assert stream.numbers() == wanted


def test_the_server_applies_the_pipeline(stream):
    stream.start(pipeline=[{"$match": {"fullDocument.n": {"$gte": 10}}}])
    stream.orders.insert_many([{"n": n} for n in range(20)])
    stream.wait_numbers(range(10, 20))
    assert stream.numbers() == list(range(10, 20))


def test_a_pipeline_that_makes_no_sense_is_named(stream):
    run = stream.start(ready=False, pipeline=[{"$nonsense": {}}])
    run.wait_until("it is told", lambda: run.status()["sourceState"] == "Failed", 20)
    assert "$nonsense" in run.status()["sourceReason"]


def test_a_filter_and_cloudevents_have_what_the_event_has_not(stream, function):
    stream.mongo.client.shop.create_collection("orders", changeStreamPreAndPostImages={"enabled": True})
    stream.start(
        fullDocumentBeforeChange="WhenAvailable",
        spec={
            "event": {"format": "CloudEventsStructured"},
            "filter": {"pattern": {"updateDescription": {"removedFields": ["nick"]}}},
        },
    )
    stream.orders.insert_one({"_id": 1, "n": 1, "nick": "x"})
    stream.orders.update_one({"_id": 1}, {"$set": {"n": 2}})
    stream.orders.update_one({"_id": 1}, {"$unset": {"nick": ""}})
    (event,) = function.wait_for(1)
    event = json.loads(event["body"])
    assert event["type"] == "dev.sluice.dds.change"
    assert event["subject"] == "shop.orders"
    assert event["source"].endswith("/triggers/orders#shop.orders")
    assert event["partitionkey"] == '{"_id":{"$numberInt":"1"}}'
    data = event["data"]
    assert data["operationType"] == "update"
    assert data["updateDescription"]["removedFields"] == ["nick"]
    assert data["fullDocumentBeforeChange"]["nick"] == "x"
    assert data["documentKey"] == {"_id": {"$numberInt": "1"}}


def test_documents_keep_their_order_while_others_go_on(stream, function):
    """With ordering Key a document that hangs holds up only itself."""
    stream.start({"ordering": "Key", "maxInFlight": 8})
    for n in range(20):
        stream.orders.update_one({"_id": n % 4}, {"$set": {"n": n}}, upsert=True)
    function.wait_for(20)
    by_key = {}
    for r in stream.records():
        by_key.setdefault(r["dds"]["full_document"]["_id"]["$numberInt"], []).append(
            r["dds"]["token"]["_data"]
        )
    assert all(tokens == sorted(tokens) for tokens in by_key.values())


# ---- large ones


def test_a_large_change_is_one_event_of_its_parts(stream, sink):
    stream.mongo.client.shop.create_collection("orders", changeStreamPreAndPostImages={"enabled": True})
    stream.start(
        {"timeout": "60s"},
        fullDocumentBeforeChange="Required",
        maxEventBytes=64 << 20,
        operations=["replace"],
        spec={"event": {"format": "CloudEventsStructured"}, "sink": {"uri": sink.uri}},
    )
    stream.orders.insert_one({"_id": 1, "text": "a" * 10_000_000})
    stream.orders.replace_one({"_id": 1}, {"text": "b" * 10_000_000})
    sink.wait_for(1)
    data = sink.requests[0].json["data"]
    assert data["fullDocument"]["text"] == "b" * 10_000_000
    assert data["fullDocumentBeforeChange"]["text"] == "a" * 10_000_000
    assert "splitEvent" not in data


def test_a_change_that_is_too_large_is_a_dead_letter(stream, function, sink):
    stream.start(
        {
            "retry": {"maxAttempts": 1, "onExhausted": "DeadLetter"},
            "deadLetter": {"uri": sink.uri},
            "timeout": "60s",
        }
    )
    stream.orders.insert_one({"n": 1, "text": "a" * 7_000_000})
    stream.orders.insert_one({"n": 2})
    stream.wait_numbers([2])
    assert stream.numbers() == [2]
    (letter,) = sink.requests
    assert letter.json["request_context"]["condition"] == "UnhandledInvocationError"
    assert "maxEventBytes" in letter.json["response_context"]["function_error"]


def test_a_change_that_is_too_large_blocks(stream):
    run = stream.start()
    stream.orders.insert_one({"n": 1, "text": "a" * 7_000_000})
    stream.orders.insert_one({"n": 2})
    run.wait_until("it is blocked", lambda: run.status()["deliveryState"] == "Blocked", 20)
    assert "maxEventBytes" in run.status()["deliveryReason"]
    assert stream.numbers() == []
