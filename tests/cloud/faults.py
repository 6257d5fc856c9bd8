"""What can happen to a call. Each of these makes an effect for Cloud.fault(): before the call had its own effect, or after it.

An effect gets the call (a Call) and the answer that the service gave, None where it was not asked; it returns the answer to send, or None where
it has dealt with the connection itself.
"""

import json
import socket
import struct
import threading
import time

from .service import Answer, refusal


def refuse(code, status=None, message=None, retry_after=None, service=None):
    """One of the service's own refusals, by its code; status and message are the documented ones unless they are given."""

    def effect(call, answer):
        refused = refusal(service or call.service, code, status, message)
        if retry_after is not None:
            refused.headers.append(("Retry-After", str(retry_after)))
        return refused

    return effect


def status(number, body=b"", kind="text/html", headers=()):
    """An answer of some gateway on the way, in no shape of the service's."""
    return lambda call, answer: Answer(number, body, [("Content-Type", kind), *headers])


def reset():
    """The connection is reset (RST)."""

    def effect(call, answer):
        call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        call.hang_up()

    return effect


def hang_up():
    """The connection ends without an answer (FIN)."""
    return lambda call, answer: call.hang_up()


def slow(seconds, pieces=10):
    """The body comes in pieces over so many seconds."""

    def effect(call, answer):
        call.send_head(answer)
        size = max(1, -(-len(answer.body) // pieces))
        for at in range(0, len(answer.body), size):
            time.sleep(seconds / pieces)
            call.send_bytes(answer.body[at : at + size])

    return effect


def late(seconds):
    """The whole answer comes later."""

    def effect(call, answer):
        time.sleep(seconds)
        return answer

    return effect


def truncate(keep=0.5):
    """A well-framed answer whose JSON ends in the middle."""
    return lambda call, answer: Answer(
        answer.status, answer.body[: int(len(answer.body) * keep)], answer.headers
    )


def cut_off(keep=0.5):
    """The connection ends in the middle of the body."""

    def effect(call, answer):
        call.send_head(answer)
        call.send_bytes(answer.body[: int(len(answer.body) * keep)])
        call.hang_up()

    return effect


def replace(body, status=200):
    """Another body."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda call, answer: Answer(status, body, [("Content-Type", "application/json")])


def padded(size):
    """The same JSON with so much white space behind it."""
    return lambda call, answer: Answer(answer.status, answer.body + b" " * size, answer.headers)


def duplicate():
    """The answer before this one to the same operation, again; this one's own is lost."""
    return lambda call, answer: call.cloud.last_answers.get(call.operation) or answer


class swap:
    """Two answers change places: the first call waits (so many seconds at most) for the next one and gets its answer."""

    def __init__(self, seconds=2):
        self.seconds, self.lock, self.waiting = seconds, threading.Lock(), None

    def __call__(self, call, answer):
        with self.lock:
            other = self.waiting
            if other:
                other[1], self.waiting = answer, None
                other[0].set()
                return other[2]
            mine = self.waiting = [threading.Event(), None, answer]
        mine[0].wait(self.seconds)
        with self.lock:
            if self.waiting is mine:
                self.waiting = None
        return mine[1] or answer
