"""The metadata service of a machine (169.254.169.254), and the agent that gives a pod its identity."""

import uuid

from .iam import stamp
from .service import CODES, Answer, Refused, operation

CODES["metadata"].update(
    {"agency": (401, "Please configure Cloud Service Agency first"), "stale": (401, "Unauthorized")}
)


class Metadata:
    def __init__(self, cloud):
        self.cloud = cloud
        self.with_tokens = True  # older machines have no tokens and answer 404
        self.agency = True  # the machine has an agency
        self.lifetime = 24 * 3600.0
        self.tokens = {}  # token → when it expires
        self.authorizations = set()  # authorization tokens of pods that are accepted; empty: any

    @operation("metadata.create_token", "PUT", "/meta-data/latest/api/token", signed=False)
    def create_token(self, call):
        if not self.with_tokens:
            return Answer(404, b"404 Not Found")
        seconds = int(call.headers.get("X-Metadata-Token-Ttl-Seconds") or 0)
        if not 1 <= seconds <= 21600:
            return Answer(400, b"400 Bad Request")
        token = uuid.uuid4().hex
        self.tokens[token] = self.cloud.now() + seconds
        return Answer(200, token.encode(), [("Content-Type", "text/plain")])

    @operation("metadata.security_key", "GET", "/openstack/latest/securitykey", signed=False)
    def security_key(self, call):
        if self.with_tokens and self.tokens.get(call.headers.get("X-Metadata-Token"), 0) <= self.cloud.now():
            raise Refused("metadata", "stale")
        if not self.agency:
            raise Refused("metadata", "agency")
        return self.cloud.iam.temporary_answer("credential", self.lifetime)

    @operation("pod.identity", "POST", "/v1/pod-identity", signed=False)
    def pod_identity(self, call):
        shown = call.headers.get("Authorization")
        if not shown or (self.authorizations and shown not in self.authorizations):
            return Answer(401, b"unauthorized")
        call.json()
        key = self.cloud.iam.temporary(self.lifetime)
        return {
            "accessKeyId": key.access,
            "secretAccessKey": key.secret,
            "securityToken": key.token,
            "expiration": stamp(key.expires),
        }
