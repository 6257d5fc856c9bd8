"""The ports that tests pick are theirs."""

import pathlib
import socket

from harness.ports import free_port, free_ports


def test_ports_differ():
    assert len(set(free_ports(50))) == 50


def test_a_port_is_kept_for_who_asked():
    """From connections that go out and servers that take any port: each of them would come to it within one turn over all ports."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        (low, high), port = (
            map(int, pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()),
            free_port(),
        )
        for _ in range(high - low + 1):
            with (
                socket.create_connection(server.getsockname()) as c,
                socket.create_server(("127.0.0.1", 0)) as s,
            ):
                assert port not in (c.getsockname()[1], s.getsockname()[1])
                server.accept()[0].close()
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)):
                pass
