"""A real server that speaks MongoDB's protocol, as a replica set of one: SecantusDB, run as a process of its own.

with Mongo(tmp_path) as mongo:
    mongo.client.shop.orders.insert_one({"n": 1})
    mongo.kill(); mongo.start()
"""

import pathlib
import subprocess

import pymongo

from . import TOOLS
from .ports import free_port
from .process import Process

ANSWERS = 30.0  # seconds


def program():
    return subprocess.run(
        [TOOLS / "secantus", "fetch"], check=True, capture_output=True, text=True
    ).stdout.strip()


class Mongo:
    def __init__(self, directory, *options, login=None, **connect):
        """login: (user, password) for its clients, connect: further options of theirs."""
        self.directory = pathlib.Path(directory) / "mongo"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.login, self.connect = login, connect
        self.options = list(options)
        self.process = None
        self.client = None

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def connected(self, **more):
        user = {"username": self.login[0], "password": self.login[1]} if self.login else {}
        return pymongo.MongoClient(
            "127.0.0.1",
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=2000,
            **{**user, **self.connect, **more},
        )

    def start(self):
        self.process = Process(
            [
                program(),
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
            env={"HOME": self.directory},
            stop_timeout=3.0,
        )
        self.process.start()
        self.client = self.connected()
        self.process.wait_until("answers", lambda: self.client.admin.command("ping"), timeout=ANSWERS)
        return self

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
