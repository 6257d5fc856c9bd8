"""The cloud's services as their clients see them, at one address: queues (DMS), streams (DIS), identities (IAM and STS) and the metadata service.

with Cloud() as cloud:
    queue = cloud.dms.create_queue("orders", mode="FIFO")
    cloud.fault("dms.acknowledge", faults.reset(), when="after")

State is kept, windows and cursors run out, quotas hold, and each request's signature is judged by the official client's signer. What the
official clients do here is in tests/integration/test_cloud_emulator.py; what none of them ever did proves nothing.
"""

from . import faults
from .service import Cloud, Refused

__all__ = ["Cloud", "Refused", "faults"]
