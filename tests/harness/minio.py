"""A real MinIO server that posts what happens in its buckets to a webhook.

with Minio(uri, token) as minio:
    minio.create_bucket("photos")
    minio.client.put_object(Bucket="photos", Key="a", Body=b"…")
"""

import pathlib
import subprocess
import tempfile

import boto3
import botocore.config

from . import TOOLS
from .ports import free_ports
from .process import Process

USER, PASSWORD = "minioadmin", "minioadmin"


class Minio:
    def __init__(self, webhook, token):
        self.temporary = tempfile.TemporaryDirectory(prefix="minio-")
        folder = pathlib.Path(self.temporary.name)
        program = subprocess.run(
            [TOOLS / "minio", "fetch"], check=True, capture_output=True, text=True
        ).stdout.strip()
        (self.port,) = free_ports(1)
        for name in ("data", "queue", "home"):
            (folder / name).mkdir()
        env = {
            "MINIO_ROOT_USER": USER,
            "MINIO_ROOT_PASSWORD": PASSWORD,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            # It calls itself ready while its webhooks and buckets are still being set up: calls wait for that.
            "MINIO_SYNC_BOOT": "on",
            "HOME": folder / "home",
            "MINIO_NOTIFY_WEBHOOK_ENABLE_sluice": "on",
            "MINIO_NOTIFY_WEBHOOK_ENDPOINT_sluice": webhook,
            "MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_sluice": token,
            "MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_sluice": folder / "queue",
            "MINIO_NOTIFY_WEBHOOK_QUEUE_LIMIT_sluice": "100000",
        }
        self.queue = folder / "queue"
        self.process = Process(
            [program, "server", "--quiet", f"--address=127.0.0.1:{self.port}", folder / "data"],
            name="minio",
            env=env,
            directory=folder / "output",
        )
        config = botocore.config.Config(
            retries={"max_attempts": 5, "mode": "standard"}, s3={"addressing_style": "path"}
        )
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=USER,
            aws_secret_access_key=PASSWORD,
            region_name="us-east-1",
            config=config,
        )

    def __enter__(self):
        self.process.start()
        self.process.wait_until("lists its buckets", self.client.list_buckets, timeout=60)
        return self

    def __exit__(self, kind, *_):
        if kind:
            print(self.process.describe())
        self.process.close()
        self.temporary.cleanup()

    def create_bucket(self, name, events=("s3:ObjectCreated:*", "s3:ObjectRemoved:*"), versions=False):
        self.client.create_bucket(Bucket=name)
        if versions:
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        configuration = {
            "QueueConfigurations": [{"QueueArn": "arn:minio:sqs::sluice:webhook", "Events": list(events)}]
        }
        self.client.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration=configuration
        )

    def waiting(self):
        """How many notifications are queued."""
        return sum(1 for p in self.queue.rglob("*") if p.is_file())
