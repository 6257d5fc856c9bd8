"""The cloud's services as their clients see them, at one address: queues (DMS), streams (DIS), identities (IAM and STS) and the metadata service.

with Cloud() as cloud:
    queue = cloud.dms.make_queue("orders", mode="FIFO")
    cloud.fault("dms.acknowledge", faults.reset(), when="after")

State is kept, acknowledgement windows and cursors expire, quotas hold, and the official client's signer verifies the signature of each
request. Trust only what the official clients have done with it, which is in tests/integration/test_cloud_emulator.py.
"""

from . import faults
from .service import Cloud, Refused

__all__ = ["Cloud", "Refused", "faults"]
