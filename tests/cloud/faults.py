"""Faults. Each function makes the effect of a fault for Cloud.fault(), which happens before the call takes effect or after it.

An effect gets the call (a Call) and the answer that the service gave, None where it was not asked; it returns the answer to send, or None where
it has dealt with the connection itself. Before the call's own effect, PROCEED lets it take place after all. What changes an answer is for after.
"""

import json
import socket
import struct
import threading
import time

from .service import PROCEED, Answer, refusal


def of_answers(make):
    """The effect changes the service's own answer."""

    def made(*args, **kwargs):
        effect = make(*args, **kwargs)
        effect.of_answers = True
        return effect

    return made


def refuse(code, status=None, message=None, retry_after=None, service=None):
    """One of the service's own refusals, by its code; status and message are the documented ones unless they are given."""

    def effect(call, answer):
        refused = refusal(service or call.service, code, status, message)
        if retry_after is not None:
            refused.headers.append(("Retry-After", str(retry_after)))
        return refused

    return effect


def status(number, body=b"", kind="text/html", headers=()):
    """An answer of some gateway on the way, not in the service's format."""
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
    """The body comes in pieces over so many seconds; as a fault before the call, it delays the call instead."""

    def effect(call, answer):
        if answer is None:
            time.sleep(seconds)
            return PROCEED
        call.send_head(answer)
        size = max(1, -(-len(answer.body) // pieces))
        starts = range(0, max(1, len(answer.body)), size)
        for at in starts:
            time.sleep(seconds / len(starts))
            call.send_bytes(answer.body[at : at + size])

    return effect


def late(seconds):
    """The whole answer comes later; as a fault before the call, it delays the call instead."""

    def effect(call, answer):
        time.sleep(seconds)
        return PROCEED if answer is None else answer

    return effect


@of_answers
def truncate(keep=0.5):
    """A complete HTTP answer whose JSON is cut in the middle."""
    return lambda call, answer: Answer(
        answer.status, answer.body[: int(len(answer.body) * keep)], answer.headers
    )


@of_answers
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


@of_answers
def padded(size):
    """The same JSON, followed by so many bytes of white space."""
    return lambda call, answer: Answer(answer.status, answer.body + b" " * size, answer.headers)


@of_answers
def duplicate():
    """Repeats the previous answer to the same operation instead of this one's."""
    return lambda call, answer: call.cloud.last_answers.get(call.operation) or answer


class swap:
    of_answers = True

    """Swaps two answers: the first call waits (at most so many seconds) for the next one and gets its answer."""

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
