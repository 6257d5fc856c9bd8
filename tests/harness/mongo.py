"""A real server that speaks MongoDB's protocol, as a replica set of one: SecantusDB, run as a process of its own.

with Mongo(tmp_path) as mongo:
    mongo.client.shop.orders.insert_one({"n": 1})
    mongo.kill(); mongo.start()
"""

import pathlib
import subprocess

import pymongo

from . import TOOLS, process
from .ports import free_ports
from .process import Process

ANSWERS = 30.0  # seconds


def program():
    return subprocess.run(
        [TOOLS / "secantus", "fetch"], check=True, capture_output=True, text=True
    ).stdout.strip()


def ping(client):
    return bool(client.admin.command("ping"))


class Mongo:
    def __init__(self, directory, *options, login=None, address="127.0.0.1", netns=None, **connect):
        """login: (user, password) for its clients, connect: further options of theirs;
        address: where it listens; netns: the network namespace it runs in, in which client is of no use: call ask()."""
        self.directory = pathlib.Path(directory) / "mongo"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.address, self.netns = address, netns
        (self.port,) = process.in_netns(netns, lambda: free_ports(1, address))
        self.login, self.connect = login, connect
        self.options = list(options)
        self.process = None
        self.client = None

    @property
    def host(self):
        return f"{self.address}:{self.port}"

    def connected(self, **more):
        user = {"username": self.login[0], "password": self.login[1]} if self.login else {}
        return pymongo.MongoClient(
            self.address,
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=2000,
            **{**user, **self.connect, **more},
        )

    def start(self):
        self.process = Process(
            [
                program(),
                "--host",
                self.address,
                "--port",
                str(self.port),
                "--storage-path",
                self.directory / "data",
                "--enable-test-commands",
                "--sync-on-commit",
                "--log-level",
                "ERROR",
                *self.options,
            ],
            name="secantus",
            directory=self.directory,
            cwd=self.directory,
            netns=self.netns,
            env={"HOME": self.directory},
            stop_timeout=3.0,
        )
        self.process.start()
        self.client = self.connected()
        self.process.wait_until("answers", lambda: self.ask(ping), timeout=ANSWERS)
        return self

    def ask(self, function, *arguments):
        """What function(client, *arguments) returns, where the server can be reached."""

        def asked():
            with self.connected() as client:
                return function(client, *arguments)

        return process.in_netns(self.netns, asked)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if kind:
            print(self.process.describe())
        self.stop()

    def stop(self):
        self.client.close()
        self.process.close()

    def kill(self):
        self.client.close()
        self.process.kill()

    def fail(self, commands, times="alwaysOn", **how):
        """The named commands fail from now on: errorCode, errorLabels, closeConnection, blockConnection, …"""
        mode = times if isinstance(times, str) else {"times": times}
        self.client.admin.command(
            "configureFailPoint", "failCommand", mode=mode, data={"failCommands": list(commands), **how}
        )

    def heal(self):
        self.client.admin.command("configureFailPoint", "failCommand", mode="off")
