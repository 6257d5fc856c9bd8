"""The services as a process of their own: python3 -m cloud [--host=ADDRESS] [--port=N] (from tests/). Prints its address; each line of standard input is a JSON object, a command:

{"do": "advance", "seconds": 300}
{"do": "skew", "seconds": 1200}
{"do": "fault", "operation": "dis.get_records", "effect": "refuse", "arguments": {"code": "DIS.4303"}, "when": "before", "times": 3}
{"do": "queue", "name": "orders", "mode": "FIFO", "group": "g"}
{"do": "send", "queue": ID, "bodies": ["a", {"n": 1}]}
{"do": "waiting", "queue": ID}                 how many messages each group has not acknowledged
{"do": "stream", "name": "orders", "partitions": 3}
{"do": "put", "stream": "orders", "records": [["key", "data"]]}
{"do": "checkpoints", "app": "a"}              {"STREAM/PARTITION": the number}
{"do": "key"}                                  a key that is valid
{"do": "revoke", "access": AK}
"""

import argparse
import json
import sys
import uuid

from . import Cloud, faults

ORDERS = (
    "advance",
    "skew",
    "fault",
    "queue",
    "send",
    "waiting",
    "stream",
    "put",
    "checkpoints",
    "key",
    "revoke",
)


def obey(cloud, order):
    match order.pop("do"):
        case "advance":
            cloud.advance(order["seconds"])
        case "skew":
            cloud.skew = order["seconds"]
        case "fault":
            effect = getattr(faults, order.pop("effect"))(**order.pop("arguments", {}))
            cloud.fault(effect=effect, **order)
        case "queue":
            group = order.pop("group", "group")
            queue = cloud.dms.make_queue(**order)
            return {"queue": queue.id, "group": cloud.dms.make_group(queue, group).id}
        case "send":
            cloud.dms.send(cloud.dms.queue(order["queue"]), order["bodies"])
        case "waiting":
            groups = cloud.dms.queue(order["queue"]).groups
            return {g.name: len(g.line.waiting) for g in groups.values()}
        case "stream":
            return {"stream": cloud.dis.make_stream(**order).name}
        case "put":
            stream = cloud.dis.stream(order["stream"])
            for key, data in order["records"]:
                cloud.dis.put(stream, key, data.encode())
        case "checkpoints":
            kept = cloud.dis.checkpoints.items()
            return {f"{k[1]}/{k[2]}": n for k, (n, _) in kept if k[0] == order["app"]}
        case "key":
            key = cloud.iam.add_key(f"AK{uuid.uuid4().hex[:18]}", uuid.uuid4().hex)
            return {"access": key.access, "secret": key.secret}
        case "revoke":
            cloud.iam.revoke(order["access"])
        case other:
            return {"error": f"{other} is none of: {', '.join(ORDERS)}"}
    return {}


parser = argparse.ArgumentParser()
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=0)
options = parser.parse_args()
with Cloud(port=options.port, host=options.host) as running:
    print(running.endpoint, flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(running, json.loads(line))), flush=True)
