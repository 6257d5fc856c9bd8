"""Identities: keys, tokens, projects, agencies (IAM API v3) and the tokens of pods (STS v5). The official signer verifies requests here."""

import base64
import dataclasses
import datetime
import fnmatch
import hmac
import json
import time
import urllib.parse
import uuid

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from .service import CODES, DOMAIN, PROJECT, REGION, Answer, Refused, operation

INCORRECT = "Incorrect IAM authentication information: "
DATE_MOST = 15 * 60  # seconds by which X-Sdk-Date may be off
LOCKED_AFTER, LOCKED_FOR = 5, 300
CODES["gateway"].update({"APIGW.0301": (401, INCORRECT + "verify aksk signature fail")})
CODES["iam"].update(
    {
        "Bad Request": (400, "Request body is invalid."),
        "Unauthorized": (401, "The request you have made requires authentication."),
        "Forbidden": (403, "You are not authorized to perform the requested action."),
        "Not Found": (404, "Could not find the requested resource."),
        "Conflict": (409, "A conflict occurred."),
        "Internal Server Error": (
            500,
            "An unexpected error prevented the server from fulfilling your request.",
        ),
        "Service Unavailable": (503, "The service is currently unavailable."),
        "Too Many Requests": (429, "The throttling threshold has been reached."),
    }
)
CODES["sts"].update(
    {
        "STS5.1001": (400, "The request is invalid."),
        "STS5.1003": (403, "The identity may not assume the agency."),
        "STS5.1007": (400, "The ID token has expired."),
        "STS5.1100": (429, "Too many requests."),
    }
)


@dataclasses.dataclass
class Key:
    access: str
    secret: str
    project: str = PROJECT
    token: str = ""  # of temporary keys
    expires: float = 0  # wall clock; 0: never
    active: bool = True
    user: str = "u1"
    description: str = ""
    denied: list = dataclasses.field(default_factory=list)  # operations that it is not allowed
    failures: int = 0
    locked_until: float = 0
    created: float = dataclasses.field(default_factory=time.time)


def stamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Iam:
    def __init__(self, cloud):
        self.cloud = cloud
        self.user = {"id": "u1", "name": "worker", "password": "a-password", "domain": "example"}
        self.projects = {REGION: PROJECT, "cn-north-1": "c3" * 16}
        self.keys = {}
        self.everything = []  # every key that was ever issued
        self.tokens = {}  # token → {"project", "expires", "user"}
        self.agencies = {}  # id → agency
        self.idps = {"pods": "provider"}
        self.provider_urn = f"iam::{DOMAIN}:oidcProvider:pods"
        self.agency_urn = f"iam::{DOMAIN}:agency:reader"
        self.lifetime = 24 * 3600.0  # of keys and tokens, unless the request says
        self.key = self.add_key("AKEXAMPLE", "SKexample0123456789")

    # ---- for tests ------------------------------------------------------------------------------------------------------------------------------

    def add_key(self, access=None, secret=None, lifetime=0, token="", **more):
        access = access or "AK" + uuid.uuid4().hex[:18].upper()
        key = self.keys[access] = Key(
            access,
            secret or uuid.uuid4().hex,
            token=token,
            expires=lifetime and self.cloud.wall() + lifetime,
            **more,
        )
        self.everything.append(key)
        return key

    def temporary(self, lifetime, **more):
        return self.add_key(lifetime=lifetime, token=uuid.uuid4().hex * 4, **more)

    def revoke(self, access):
        with self.cloud.changed:
            del self.keys[access]

    def expire(self, access):
        with self.cloud.changed:
            self.keys[access].expires = self.cloud.wall() - 1

    def id_token(self, lifetime=3600, subject="system:serviceaccount:shop:orders"):
        """A ServiceAccount's token as a cluster mounts it; its signature is not verified."""

        def part(value):
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        return ".".join(
            (part({"alg": "RS256"}), part({"sub": subject, "exp": int(self.cloud.wall() + lifetime)}), "c2ln")
        )

    # ---- signatures -----------------------------------------------------------------------------------------------------------------------------

    def authorize(self, call):
        token = call.headers.get("X-Auth-Token")
        if token:
            project = self.of_token(token)["project"]
            denied = []
        else:
            key = self.signer(call)
            project, denied = key.project, key.denied
            call.principal = key
        asked = call.arguments.get("project_id")
        if any(fnmatch.fnmatch(call.operation, d) for d in denied) or (asked and asked != project):
            raise forbidden(call.service)
        arrears = {"dms": 10240306, "dis": "DIS.4116", "smn": "SMN.00010002"}
        if self.cloud.arrears and call.service in arrears:
            raise Refused(call.service, arrears[call.service])

    def of_token(self, token):
        found = self.tokens.get(token)
        if not found or found["expires"] <= self.cloud.wall():
            raise Refused("gateway", "APIGW.0301", message=INCORRECT + "decrypt token fail")
        return found

    def signer(self, call):
        """The key that signed the request: the official signer, given that key, makes the same signature."""
        given = dict(
            part.strip().split("=", 1)
            for part in call.headers.get("Authorization", "").removeprefix("SDK-HMAC-SHA256 ").split(",")
            if "=" in part
        )
        with self.cloud.changed:
            key, names = self.keys.get(given.get("Access")), given.get("SignedHeaders", "").split(";")
        if not key:
            raise Refused(
                "gateway",
                "APIGW.0301",
                message=f"{INCORRECT}Get secretKey failed,ak:{given.get('Access')},err:ak not exist",
            )
        if not {"host", "x-sdk-date"} <= set(names) or any(call.headers.get(n) is None for n in names):
            raise Refused("gateway", "APIGW.0301")
        if key.locked_until > self.cloud.now():
            raise Refused(
                "gateway", "APIGW.0301", message=INCORRECT + "AK access failed to reach the limit,forbidden."
            )
        if not key.active:
            raise Refused("gateway", "APIGW.0301", message=INCORRECT + "the ak is inactive")
        headers = {n: call.headers[n].encode("latin-1").decode("utf-8") for n in names}
        request = SdkRequest(
            method=call.method,
            schema="http",
            host=call.headers["Host"],
            resource_path=call.raw_path,
            query_params=call.pairs,
            header_params=headers,
            body=call.body,
        )
        signed = Signer(BasicCredentials(key.access, key.secret)).sign(request).header_params["Authorization"]
        if not hmac.compare_digest(signed, call.headers["Authorization"]):
            key.failures += 1
            if key.failures >= LOCKED_AFTER:
                key.failures, key.locked_until = 0, self.cloud.now() + LOCKED_FOR
            raise Refused("gateway", "APIGW.0301")
        key.failures = 0
        self.judge_age(call, key)
        if (key.token or "x-security-token" in names) and (
            "x-security-token" not in names or call.headers["X-Security-Token"] != key.token
        ):
            raise Refused("gateway", "APIGW.0301", message=INCORRECT + "decrypt token fail")
        if key.expires and key.expires <= self.cloud.wall():
            raise Refused("gateway", "APIGW.0301", message=INCORRECT + "the security token has expired")
        return key

    def judge_age(self, call, key):
        date = datetime.datetime.strptime(
            call.headers["X-Sdk-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z"
        ).timestamp()
        if abs(date - self.cloud.wall()) > DATE_MOST:
            raise Refused(
                "gateway",
                "APIGW.0301",
                message=INCORRECT + "calc ak sk signature fail:signature expired",
            )

    # ---- tokens ---------------------------------------------------------------------------------------------------------------------------------

    def issue(self, status, methods, project=None):
        token, expires = uuid.uuid4().hex * 8, self.cloud.wall() + self.lifetime
        self.tokens[token] = {"project": project or PROJECT, "expires": expires, "user": self.user["id"]}
        scope = {"id": DOMAIN, "name": self.user["domain"]}
        value = {
            "token": {
                "methods": methods,
                "issued_at": stamp(self.cloud.wall()),
                "expires_at": stamp(expires),
                "user": {"id": self.user["id"], "name": self.user["name"], "domain": scope},
                "project": {"id": project or PROJECT, "name": REGION, "domain": scope},
                "roles": [{"id": "0", "name": "te_admin"}],
                "catalog": [],
            }
        }
        return Answer(
            status,
            json.dumps(value).encode(),
            [("Content-Type", "application/json"), ("X-Subject-Token", token)],
        )

    @operation("iam.create_token", "POST", "/v3/auth/tokens", signed=False)
    def create_token(self, call):
        auth = call.json().get("auth") or {}
        identity = auth.get("identity") or {}
        project = (auth.get("scope") or {}).get("project") or {}
        project = project.get("id") or self.projects.get(project.get("name"))
        if identity.get("methods") == ["password"]:
            user = (identity.get("password") or {}).get("user") or {}
            if (user.get("name"), user.get("password")) != (self.user["name"], self.user["password"]):
                raise Refused("iam", "Unauthorized", message="The username or password is wrong.")
            return self.issue(201, ["password"], project)
        if identity.get("methods") == ["assume_role"]:
            self.authorize(call)
            self.agency(identity.get("assume_role") or {})
            return self.issue(201, ["assume_role"], project)
        raise Refused("iam", "Bad Request")

    @operation("iam.validate_token", "GET", "/v3/auth/tokens")
    def validate_token(self, call):
        subject = call.headers.get("X-Subject-Token")
        found = self.tokens.get(subject)
        if not found or found["expires"] <= self.cloud.wall():
            raise Refused("iam", "Not Found", message="Failed to validate token")
        value = {"token": {"expires_at": stamp(found["expires"]), "project": {"id": found["project"]}}}
        return Answer(
            200,
            json.dumps(value).encode(),
            [("Content-Type", "application/json"), ("X-Subject-Token", subject)],
        )

    @operation("iam.create_token_of_idp", "POST", "/v3.0/OS-AUTH/id-token/tokens", signed=False)
    def create_token_of_idp(self, call):
        if call.headers.get("X-Idp-Id") not in self.idps:
            raise Refused("iam", "Not Found", message="The identity provider does not exist.")
        auth = call.json().get("auth") or {}
        self.judge_id_token(
            (auth.get("id_token") or {}).get("id"), lambda text: Refused("iam", "Unauthorized", message=text)
        )
        return self.issue(201, ["mapped"])

    def judge_id_token(self, token, refused):
        try:
            claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        except (ValueError, IndexError, AttributeError):
            raise refused("The ID token is invalid.") from None
        if claims.get("exp", 0) <= self.cloud.wall():
            raise refused("The ID token has expired.")

    # ---- projects -------------------------------------------------------------------------------------------------------------------------------

    @operation("iam.list_projects", "GET", "/v3/projects")
    def list_projects(self, call):
        found = [
            {
                "id": i,
                "name": n,
                "domain_id": DOMAIN,
                "enabled": True,
                "is_domain": False,
                "parent_id": DOMAIN,
            }
            for n, i in self.projects.items()
            if call.query.get("name") in (None, n)
        ]
        size = call.number("per_page", 5000, 1, 5000, "Bad Request")
        page = call.number("page", 1, 1, 10**6, "Bad Request")
        return {"projects": found[(page - 1) * size : page * size], "links": {"self": call.target}}

    @operation("iam.list_auth_domains", "GET", "/v3/auth/domains")
    def list_auth_domains(self, call):
        return {"domains": [{"id": DOMAIN, "name": self.user["domain"], "enabled": True}], "links": {}}

    # ---- keys -----------------------------------------------------------------------------------------------------------------------------------

    def temporary_answer(self, name, seconds, **more):
        key = self.temporary(seconds, **more)
        return {
            name: {
                "expires_at": stamp(key.expires),
                "access": key.access,
                "secret": key.secret,
                "securitytoken": key.token,
            }
        }

    @operation("iam.create_temporary_key", "POST", "/v3.0/OS-CREDENTIAL/securitytokens", signed=False)
    def create_temporary_key(self, call):
        identity = (call.json().get("auth") or {}).get("identity") or {}
        if identity.get("methods") == ["assume_role"]:
            self.authorize(call)
            role = identity.get("assume_role") or {}
            self.agency(role)
            seconds = role.get("duration_seconds", 900)
        elif identity.get("methods") == ["token"]:
            given = identity.get("token") or {}
            self.of_token(given.get("id") or call.headers.get("X-Auth-Token"))
            seconds = given.get("duration_seconds", 900)
        else:
            raise Refused("iam", "Bad Request")
        if not 900 <= seconds <= 86400:
            raise Refused("iam", "Bad Request", message="duration_seconds must be from 900 to 86400.")
        return 201, self.temporary_answer("credential", seconds)

    def described(self, key):
        return {
            "access": key.access,
            "status": "active" if key.active else "inactive",
            "user_id": key.user,
            "description": key.description,
            "create_time": stamp(key.created),
        }

    def permanent(self, access):
        key = self.keys.get(access)
        if not key or key.expires:
            raise Refused("iam", "Not Found")
        return key

    @operation("iam.create_key", "POST", "/v3.0/OS-CREDENTIAL/credentials")
    def create_key(self, call):
        wanted = call.json().get("credential") or {}
        if sum(k.user == wanted.get("user_id") and not k.expires for k in self.keys.values()) >= 2:
            raise Refused("iam", "Bad Request", message="A user has two access keys at most.")
        key = self.add_key(user=wanted.get("user_id"), description=wanted.get("description", ""))
        return 201, {"credential": {**self.described(key), "secret": key.secret}}

    @operation("iam.list_keys", "GET", "/v3.0/OS-CREDENTIAL/credentials")
    def list_keys(self, call):
        user = call.query.get("user_id", self.user["id"])
        return {
            "credentials": [self.described(k) for k in self.keys.values() if k.user == user and not k.expires]
        }

    @operation("iam.show_key", "GET", "/v3.0/OS-CREDENTIAL/credentials/{access}")
    def show_key(self, call, access):
        return {"credential": self.described(self.permanent(access))}

    @operation("iam.update_key", "PUT", "/v3.0/OS-CREDENTIAL/credentials/{access}")
    def update_key(self, call, access):
        key, wanted = self.permanent(access), call.json().get("credential") or {}
        key.active = wanted.get("status", "active" if key.active else "inactive") == "active"
        key.description = wanted.get("description", key.description)
        return {"credential": self.described(key)}

    @operation("iam.delete_key", "DELETE", "/v3.0/OS-CREDENTIAL/credentials/{access}")
    def delete_key(self, call, access):
        del self.keys[self.permanent(access).access]
        return 204, None

    # ---- agencies -------------------------------------------------------------------------------------------------------------------------------

    def agency(self, role):
        for found in self.agencies.values():
            if found["name"] == role.get("agency_name") and (
                role.get("domain_id") == DOMAIN or role.get("domain_name") == self.user["domain"]
            ):
                return found
        raise Refused("iam", "Not Found", message=f"Could not find agency: {role.get('agency_name')}.")

    @operation("iam.create_agency", "POST", "/v3.0/OS-AGENCY/agencies")
    def create_agency(self, call):
        wanted = call.json().get("agency") or {}
        if any(a["name"] == wanted.get("name") for a in self.agencies.values()):
            raise Refused("iam", "Conflict")
        made = {
            "id": uuid.uuid4().hex,
            "name": wanted.get("name"),
            "domain_id": wanted.get("domain_id"),
            "trust_domain_id": wanted.get("trust_domain_id") or DOMAIN,
            "trust_domain_name": wanted.get("trust_domain_name") or self.user["domain"],
            "description": wanted.get("description", ""),
            "duration": str(wanted.get("duration") or "FOREVER"),
            "create_time": stamp(self.cloud.wall()),
        }
        self.agencies[made["id"]] = made
        return 201, {"agency": made}

    @operation("iam.list_agencies", "GET", "/v3.0/OS-AGENCY/agencies")
    def list_agencies(self, call):
        return {
            "agencies": [
                a
                for a in self.agencies.values()
                if a["domain_id"] == call.query.get("domain_id")
                and call.query.get("name") in (None, a["name"])
            ]
        }

    @operation("iam.show_agency", "GET", "/v3.0/OS-AGENCY/agencies/{agency_id}")
    def show_agency(self, call, agency_id):
        if agency_id not in self.agencies:
            raise Refused("iam", "Not Found")
        return {"agency": self.agencies[agency_id]}

    @operation("iam.delete_agency", "DELETE", "/v3.0/OS-AGENCY/agencies/{agency_id}")
    def delete_agency(self, call, agency_id):
        if not self.agencies.pop(agency_id, None):
            raise Refused("iam", "Not Found")
        return 204, None

    # ---- STS ------------------------------------------------------------------------------------------------------------------------------------

    @operation("sts.assume_with_oidc", "POST", "/v5/agencies/assume-with-oidc", signed=False)
    def assume_with_oidc(self, call):
        body = call.json()
        if body.get("provider_urn") != self.provider_urn or body.get("agency_urn") != self.agency_urn:
            raise Refused("sts", "STS5.1003")
        if not body.get("agency_session_name") or not 900 <= body.get("duration_seconds", 3600) <= 43200:
            raise Refused("sts", "STS5.1001")
        self.judge_id_token(body.get("id_token"), lambda text: Refused("sts", "STS5.1007", message=text))
        key = self.temporary(body.get("duration_seconds", 3600))
        return {
            "credentials": {
                "access_key_id": key.access,
                "secret_access_key": key.secret,
                "security_token": key.token,
                "expiration": stamp(key.expires),
            },
            "assumed_agency": {"urn": body["agency_urn"], "id": "a1:" + body["agency_session_name"]},
        }

    @operation("sts.caller_identity", "GET", "/v5/caller-identity")
    def caller_identity(self, call):
        key = call.principal
        return {
            "account_id": DOMAIN,
            "principal_urn": f"iam::{DOMAIN}:user:{urllib.parse.quote(self.user['name'])}",
            "principal_id": key.user if key else "u1",
        }


def forbidden(service):
    return {
        "dms": lambda: Refused("dms", 10240311),
        "dis": lambda: Refused("dis", "DIS.4116"),
        "smn": lambda: Refused("gateway", "APIGW.0302", 403, "The key has no right to do this."),
        "sts": lambda: Refused("sts", "STS5.1003"),
    }.get(service, lambda: Refused("iam", "Forbidden"))()
