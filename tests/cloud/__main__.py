"""The services as a process of their own: python3 -m cloud [--port=N] (from tests/). Prints its address, and obeys one JSON object a line on standard input:

{"do": "advance", "seconds": 300}
{"do": "skew", "seconds": 1200}
{"do": "fault", "operation": "dis.get_records", "effect": "refuse", "arguments": {"code": "DIS.4303"}, "when": "before", "times": 3}
{"do": "queue", "name": "orders", "mode": "FIFO", "group": "g"}
{"do": "stream", "name": "orders", "partitions": 3}
"""

import argparse
import json
import sys

from . import Cloud, faults


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
        case "stream":
            return {"stream": cloud.dis.make_stream(**order).name}
        case other:
            return {"error": f"{other}: advance, skew, fault, queue or stream"}
    return {}


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=0)
with Cloud(port=parser.parse_args().port) as running:
    print(running.endpoint, flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(running, json.loads(line))), flush=True)
