"""What is measured: a deployment with its keys, and servers on it, started as a user starts them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from benchmarks.load import framed
from benchmarks.measure import BATCH_PATH, WrongAnswers
from benchmarks.seed import copy_key, copy_key_without_secret
from latchgate.v1 import admin_service_pb2, decision_pb2, key_pb2, tenant_pb2, verify_service_pb2
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, BatchVerifyResponse, VerifyRequest, VerifyResponse
from latchgate_server.embedded import running_postgres
from latchgate_server.hashing import NewCredential
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key

TENANT = "bench"
PERMISSIONS = "orders.read AND (orders.export OR admin.all) AND NOT orders.frozen"
ADDRESS = "203.0.113.7"
_RANGES = ("192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32")
_ROLES: Mapping[str, Sequence[str]] = {
    "reader": ["orders.read", "stock.read", "customers.read"],
    "exporter": ["orders.export", "reports.*"],
}
RATE = key_pb2.Limit(
    name="requests", rate_limit=key_pb2.RateLimit(limit=1_000_000_000, period=Duration(seconds=1), burst=1_000_000_000)
)
_TORN = 3
_BATCH = 500
_BATCH_SECONDS = 120
_HANDING_ON_SECONDS = 1.5


@dataclass(frozen=True)
class Options:
    """What the caller of `make bench` can choose.

    seconds: of each slice of load. rounds: slices of each subject. keys: hot keys. more_keys: in the database, and
    cached: of them in memory, where a row wants many. overload_seconds: how long twice what a server can do is offered.
    """

    seconds: float = 2.0
    rounds: int = 5
    keys: int = 10_000
    more_keys: int = 1_000_000
    cached: int = 100_000
    overload_seconds: float = 30.0


@dataclass
class Bench:
    """What rows are given: options, a database on a PostgreSQL of its own, progress. Use `opened`.

    points: what rows leave for plots, by the row's name.
    """

    options: Options
    progress: Callable[[str], None]
    folder: Path
    postgres: Postgres
    database_url: str
    root_key: str
    points: dict[str, Any] = field(default_factory=dict)

    def ask(self, key_string: str, **fields: Any) -> VerifyRequest:
        """What the rows ask of a hot key."""
        return VerifyRequest(key=key_string, **{"client_ip": ADDRESS, "required_permissions": PERMISSIONS, **fields})

    @cached_property
    def hot(self) -> Sequence[NewCredential]:
        """Keys with two roles, an IP allowlist and a rate limit, whose secrets verify."""
        return self.keys_like(limits=[RATE])

    def keys_like(self, **fields: Any) -> Sequence[NewCredential]:
        """As many keys as there are hot ones, like these but for some fields."""
        self.progress(f"making {self.options.keys:,} keys")
        role_ids = self._role_ids
        with self.administrator() as admin:
            template = self.create_key(admin, role_ids=role_ids, **fields).key_id
        return asyncio.run(copy_key(self.database_url, template, self.options.keys))

    def further_keys(self, count: int) -> Sequence[str]:
        """Make so many keys like the hot ones, but without secrets that verify; their key ids."""
        template = self.hot[0].key_id
        return asyncio.run(copy_key_without_secret(self.database_url, template, count, self.progress))

    def apart(self, keys: int) -> Bench:
        """The same on a database of its own, with so many hot keys."""
        url = self.postgres.new_database()
        return replace(self, options=replace(self.options, keys=keys), database_url=url, root_key=make_root_key(url))

    @cached_property
    def hot_bodies(self) -> Sequence[bytes]:
        """Verify of each of them, framed."""
        return [framed(self.ask(credential.key_string)) for credential in self.hot]

    @contextmanager
    def administrator(self) -> Iterator[Admin]:
        """AdminService of a server that lasts as long as the context."""
        with self.server("auto") as server:
            admin = Admin(server.admin_address, self.root_key)
            yield admin
            admin.close()

    @cached_property
    def _role_ids(self) -> Sequence[str]:
        """The roles of hot keys, made together with their tenant."""
        with self.administrator() as admin:
            admin.CreateTenant(admin_service_pb2.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=TENANT)))
            for role_id, permissions in _ROLES.items():
                role = tenant_pb2.Role(role_id=role_id, tenant_id=TENANT, permissions=permissions)
                admin.CreateRole(admin_service_pb2.CreateRoleRequest(role=role))
        return list(_ROLES)

    def create_key(self, admin: Admin, **fields: Any) -> NewCredential:
        """A key of the tenant with an IP allowlist and a rate limit, made by AdminService."""
        given = {
            "tenant_id": TENANT,
            "display_name": "Nightly export",
            "owner": "ada",
            "ip_allowlist": key_pb2.IpAllowlist(enabled=True, ranges=_RANGES),
            "limits": [RATE],
            **fields,
        }
        made = admin.CreateKey(admin_service_pb2.CreateKeyRequest(key=key_pb2.Key(**given)))
        key_id, _, secret = made.key_string.partition(".")
        return NewCredential(key_id, secret)

    @contextmanager
    def server(
        self, transport: str, database_url: str = "", module: str = "latchgate_server", **settings: str
    ) -> Iterator[ServerProcess]:
        """`latchgate serve`, while the context lasts. module: what is started as such."""
        url = database_url or self.database_url
        with ServerProcess(url, {"transport": transport, **settings}, module=module) as server:
            yield server

    @contextmanager
    def warm_server(self, transport: str, **settings: str) -> Iterator[ServerProcess]:
        """The same, with every hot key in memory and its secret proven."""
        keys = self.hot  # making keys would end what a server that runs already has in memory
        with self.server(transport, **settings) as server:
            self.warm(server, keys)
            yield server

    def warm(self, server: ServerProcess, keys: Sequence[NewCredential]) -> None:
        """Have keys in memory, and their secrets proven."""
        self.progress(f"warming {len(keys):,} keys up on {server.settings['transport']}")
        warm(server, [self.ask(credential.key_string) for credential in keys])


def warm(server: ServerProcess, requests: Sequence[VerifyRequest]) -> None:
    """Ask for all of them, and require that each is allowed."""
    with grpc.insecure_channel(server.verify_address) as channel:
        batch: Any = channel.unary_unary(
            BATCH_PATH,
            request_serializer=BatchVerifyRequest.SerializeToString,
            response_deserializer=BatchVerifyResponse.FromString,
        )
        for start in range(0, len(requests), _BATCH):
            some = requests[start : start + _BATCH]
            answers = batch(BatchVerifyRequest(requests=some), timeout=_BATCH_SECONDS)
            for request, answer in zip(some, answers.responses, strict=True):
                require_allowed(request, answer)


def require_allowed(request: VerifyRequest, answer: VerifyResponse) -> None:
    """Raise WrongAnswers where the answer is not the one that a hot key gets."""
    is_right = (
        answer.decision == decision_pb2.DECISION_ALLOW
        and answer.identity.key_id == request.key.partition(".")[0]
        and answer.identity.tenant_id == TENANT
    )
    if not is_right:
        raise WrongAnswers(f"a hot key was not allowed: {answer}")


def sample(server: ServerProcess, request: VerifyRequest) -> VerifyResponse:
    """One answer, decoded."""
    with grpc.insecure_channel(server.verify_address) as channel:
        verify: Any = channel.unary_unary(
            f"/{verify_service_pb2.DESCRIPTOR.services_by_name['VerifyService'].full_name}/Verify",
            request_serializer=VerifyRequest.SerializeToString,
            response_deserializer=VerifyResponse.FromString,
        )
        answer: VerifyResponse = verify(request, timeout=20)
        return answer


def decisions_are(server: ServerProcess, wanted: str, for_each_call: int = 1) -> Callable[[int], None]:
    """Begin to count: the server's own count of its decisions must be what the load asked for.

    wanted: `ALLOW`, or the name of a denial reason. for_each_call: decisions. What is returned is told how many calls
    were answered, and raises WrongAnswers.
    """
    before = _decisions(server)

    def check(calls: int) -> None:
        made = {name: value - before.get(name, 0.0) for name, value in _decisions(server).items()}
        right = sum(value for name, value in made.items() if f'"{wanted}"' in name)
        # A message that is written while h2load reads it can reach the server torn: very rarely, and then it is denied.
        torn = max(_TORN, calls * for_each_call / 1_000)
        if right < calls * for_each_call - torn or sum(made.values()) - right > torn:
            raise WrongAnswers(f"{calls} calls, but these decisions: { {k: v for k, v in made.items() if v} }")

    return check


def allowed_so_far(server: ServerProcess) -> float:
    """How many keys the server has allowed since it started."""
    return sum(value for name, value in _decisions(server).items() if '"ALLOW"' in name)


def _decisions(server: ServerProcess) -> Mapping[str, float]:
    if "workers" in server.settings:
        time.sleep(_HANDING_ON_SECONDS)  # workers hand on what they counted once a second
    return {name: value for name, value in server.metrics().items() if name.startswith("latchgate_decisions_total")}


def request_of(body: bytes, kind: type[Message]) -> Message:
    """The message in a framed body."""
    message = kind()
    message.ParseFromString(body[5:])
    return message


@contextmanager
def opened(options: Options, progress: Callable[[str], None]) -> Iterator[Bench]:
    """A deployment of the benchmark's own, while the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        progress("starting PostgreSQL")
        postgres = Postgres(stack.enter_context(running_postgres(folder / "postgres")))
        postgres.make_template()
        database_url = postgres.new_database()
        yield Bench(options, progress, folder, postgres, database_url, make_root_key(database_url))
