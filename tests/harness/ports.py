"""Free TCP ports."""
import contextlib
import socket


def free_ports(count, host="127.0.0.1"):
    """COUNT different ports that nobody listens on; held open together while they are picked, so that none comes twice."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((host, 0))
        return [s.getsockname()[1] for s in sockets]


def free_port(host="127.0.0.1"):
    return free_ports(1, host)[0]
