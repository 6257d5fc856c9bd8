"""Free TCP ports, kept free for who asked.

A port that was free a moment ago may be another's by the time a server binds it: the kernel hands it to the next connection that goes out, or
to the next server that asks for port 0. So each port is held by a socket that is bound and does not listen, until this process ends: Linux
gives a held port to no connection and no bind to port 0, but to a server that names it and sets SO_REUSEADDR, as all servers here do, again
and again if it restarts.
"""

import socket

_held = []


def free_ports(count, host="127.0.0.1"):
    """COUNT different ports of the calling thread's network namespace that nobody listens on, or can come to by chance."""
    sockets = []
    for _ in range(count):
        s = socket.socket()
        _held.append(s)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, 0))
        sockets.append(s)
    return [s.getsockname()[1] for s in sockets]


def free_port(host="127.0.0.1"):
    return free_ports(1, host)[0]
