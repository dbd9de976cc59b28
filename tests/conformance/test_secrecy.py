"""No secret is anywhere but with its holder: what a server logs, answers, counts and stores is searched for them.

The secrets are those of keys, the first administrator's among them, the pepper, and the database's password.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import asyncpg
import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, tenant_pb2
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from latchgate_server.config import SettingsProblem, load_settings
from latchgate_server.core.key_format import parse
from latchgate_server.core.model import HashProfile, Key, Tenant
from latchgate_server.core.record import build_record
from latchgate_server.hashing import Peppers, SecretHasher
from latchgate_server.system import SystemEntropy
from latchgate_server.verify.cache import Entry
from tests.conformance.house import House
from tests.conformance.wire import refusal_of
from tests.support.postgres import Postgres
from tests.support.server import PEPPER, Admin, ServerProcess, Verify, environment, make_root_key, run_command

PASSWORD = "the-password-of-the-database"


@dataclass
class Told:
    """All that a server said to anybody, and the secrets that must not be in it."""

    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    log: str = ""
    metrics: str = ""
    postgres_log: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)

    def keep(self, name: str, key_string: str) -> str:
        """Note a key's secret, and return the key string."""
        self.secrets[name] = key_string.partition(".")[2]
        return key_string

    def ask(self, call: Callable[..., object], *arguments: object, **named: object) -> None:
        """Note what a call with these arguments answers, its error's message and metadata included."""
        try:
            self.answers.append(str(call(*arguments, **named)))
        except grpc.RpcError as error:
            refused = refusal_of(error)
            self.answers.append(f"{refused} {refused.raw}")


def forms(secret: str) -> Iterator[str]:
    """The secret, its halves, and how bytes are often written."""
    yield secret
    yield secret[: len(secret) // 2]
    yield secret[len(secret) // 2 :]
    yield secret.encode().hex()
    yield base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]


def assert_holds_none(text: str, secrets: Mapping[str, str], where: str) -> None:
    for name, secret in secrets.items():
        for form in forms(secret):
            assert form not in text, f"the secret {name} is in {where}"


@pytest.fixture(scope="module", params=["native", "grpcio"])
def told(postgres: Postgres, request: pytest.FixtureRequest) -> Told:
    """What a server at log level debug said of keys that were used rightly, wrongly, and while it was broken."""
    plain_url = postgres.new_database()
    url = plain_url.replace("postgres:@", f"postgres:{PASSWORD}@")
    assert PASSWORD in url
    told = Told({"pepper": PEPPER, "password": PASSWORD})
    root_key = told.keep("root", make_root_key(url, log_level="debug"))
    settings = {"log_level": "debug", "transport": request.param, "verify_auth": "key"}
    with ServerProcess(url, settings) as server:
        root = Admin(server.admin_address, root_key)
        house = House(root)
        caller = told.keep("caller", house.key("latchgate", permissions=["latchgate.verify"]).key_string)
        verify = Verify(server.verify_address, caller)
        call_wrongly(told, verify, caller)
        use_keys(told, house, verify, root_key)
        speak_garbage(server.verify_address, "/latchgate.v1.VerifyService/Verify", root_key)
        speak_garbage(server.admin_address, "/latchgate.v1.AdminService/CreateKey", root_key)
        for address in (server.verify_address, server.admin_address, server.metrics_address):
            speak_http(address, root_key)
        break_and_use(told, house, verify, root_key, plain_url)
        told.metrics = urlopen(f"http://{server.metrics_address}/metrics", timeout=20).read().decode()
        verify.close()
        root.close()
    told.log = "".join(server.log)
    told.tables = asyncio.run(dump(plain_url))
    folder = parse_qs(urlsplit(plain_url).query)["host"][0]
    told.postgres_log = (Path(folder) / "log").read_text(encoding="utf-8", errors="replace")
    return told


def call_wrongly(told: Told, verify: Verify, caller: str) -> None:
    """Say who calls in ways that are no good, the caller's key in each."""
    request = VerifyRequest(key=caller)
    for value in (f"Bearer {caller}x", f"Basic {caller}", caller, f"Bearer  {caller}", f"Bearer {caller[:-1]}"):
        told.ask(verify.stub.Verify, request, metadata=(("authorization", value),), timeout=20)
        told.ask(verify.stub.BatchVerify, BatchVerifyRequest(), metadata=(("authorization", value),), timeout=20)
    told.ask(verify.stub.Verify, request, metadata=verify.metadata * 2, timeout=20)


def use_keys(told: Told, house: House, verify: Verify, root_key: str) -> None:
    """Use keys in every way that comes to mind; most are wrong."""
    tenant_id = house.tenant()
    owner = {"owner": "ada", "tags": {"team": "data"}}
    key = told.keep("key", house.key(tenant_id, permissions=["orders.*"], **owner).key_string)
    admin_key = told.keep("admin", house.key(tenant_id, permissions=["latchgate.keys.own"], **owner).key_string)
    gone = told.keep("gone", house.key(tenant_id).key_string)
    house.root.DeleteKey(pb.DeleteKeyRequest(key_id=gone.partition(".")[0]))

    assert verify(key).decision == decision_pb2.DECISION_ALLOW
    secret = key.partition(".")[2]
    for text in (key, gone, root_key, f"{key}x", key[:-1], f" {key}", f"{key}\0", f"{key}é", secret, key.upper()):
        told.ask(verify, text)
    for fields in (
        {"client_ip": key},
        {"tenant_id": key},
        {"required_capability": key},
        {"resource": key},
        {"act_as": key},
        {"cost": -1},
        {"at_least_revision": 1_000_000},
        {"required_permissions": "orders.read AND"},
        {"request": {"path": f"/?api_key={key}", "user_agent": key}},
    ):
        told.ask(verify, key, **fields)
    batch = BatchVerifyRequest(requests=[VerifyRequest(key=key, cost=cost) for cost in (1, -1)])
    told.ask(verify.stub.BatchVerify, batch, metadata=verify.metadata, timeout=20)

    rotated = house.root.RotateKey(pb.RotateKeyRequest(key_id=house.key(tenant_id).key.key_id))
    told.keep("rotated", rotated.key_string)
    leaked = told.keep("leaked", house.key(tenant_id).key_string)
    found = pb.ReportLeakedKeysRequest(key_strings=[leaked, f"{key}x", gone, leaked[:-1]], source="a public repository")
    told.ask(house.root.ReportLeakedKeys, found)
    told.ask(house.root.ReportLeakedKeys, pb.ReportLeakedKeysRequest(key_strings=[leaked] * 1_000))
    asked = VerifyRequest(key=key, required_permissions="orders.read", client_ip="nonsense")
    told.ask(house.root.ExplainKey, pb.ExplainKeyRequest(key_id=key.partition(".")[0], request=asked))
    told.ask(house.root.ListKeys, pb.ListKeysRequest())
    told.ask(house.root.ListAuditEvents, pb.ListAuditEventsRequest())

    for credential in (admin_key, f"{admin_key}x", f"Bearer {admin_key}", gone, key):
        admin = house.caller(credential)
        told.ask(admin.ListKeys, pb.ListKeysRequest())
        told.ask(admin.CreateTenant, pb.CreateTenantRequest())
        told.ask(admin.RotateKey, pb.RotateKeyRequest(key_id=key))
    for request_id in (key, secret, f"id-{key}", f"{secret}/1"):
        told.ask(house.caller(root_key, ("x-request-id", request_id)).ListKeys, pb.ListKeysRequest())
        metadata = [("x-request-id", request_id)]
        told.ask(verify.stub.Verify, VerifyRequest(key=key, cost=-1), metadata=metadata, timeout=20)
    for action in ("Get", "Enable", "Disable", "Expire", "Revoke", "Delete"):
        request = getattr(pb, f"{action}KeyRequest")(key_id=key)
        told.ask(getattr(house.root, f"{action}Key"), request)
    told.ask(house.root.UpdateKey, pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key, display_name="x")))
    told.ask(house.root.ListKeys, pb.ListKeysRequest(filter=pb.KeyFilter(search=key)))
    told.ask(house.root.ListKeys, pb.ListKeysRequest(page_token=key))
    told.ask(house.root.CreateKey, pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=key)))
    told.ask(house.root.CreateKey, pb.CreateKeyRequest(prefix=key, request_id=key))
    told.ask(house.root.GetRole, pb.GetRoleRequest(role_id=key))
    told.ask(house.root.CreateRole, pb.CreateRoleRequest(role=tenant_pb2.Role(role_id=key)))


def speak_garbage(address: str, method: str, key_string: str) -> None:
    """Send a message that is none, the key in it."""
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError):
            call(b"\x0a\xff" + key_string.encode(), metadata=[("authorization", f"Bearer {key_string}")], timeout=20)


def speak_http(address: str, key_string: str) -> None:
    """Say something to a port that is not gRPC, the key in it."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"GET /?key={key_string} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key_string}\r\n\r\n".encode())
        connection.settimeout(2)
        try:
            while connection.recv(65_536):
                pass
        except OSError:
            pass


def break_and_use(told: Told, house: House, verify: Verify, root_key: str, database_url: str) -> None:
    """Use keys while the server cannot work, so that it fails on its own account and logs tracebacks."""
    broken = {
        "ALTER TABLE key_secrets RENAME COLUMN phc TO hash": "ALTER TABLE key_secrets RENAME COLUMN hash TO phc",
        "ALTER TABLE audit_events RENAME TO events": "ALTER TABLE events RENAME TO audit_events",
    }
    for number, (breaking, mending) in enumerate(broken.items()):
        key = house.key()
        told.keep(f"broken-{number}", key.key_string)
        asyncio.run(execute(database_url, breaking))
        told.ask(verify, key.key_string)
        told.ask(house.root.CreateKey, pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="latchgate")))
        told.ask(house.root.ListKeys, pb.ListKeysRequest())
        asyncio.run(execute(database_url, mending))


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def dump(database_url: str) -> Mapping[str, str]:
    """Every row of every table as text, by table."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        return {
            table["name"]: "\n".join(
                row["row"] for row in await connection.fetch(f"SELECT t::text AS row FROM {table['name']} AS t")
            )
            for table in tables
        }
    finally:
        await connection.close()


# What is searched holds what it should, so that the search means something.


def test_the_search_covers_what_it_should(told: Told) -> None:
    keys = {"root", "caller", "key", "admin", "gone", "rotated", "leaked", "broken-0", "broken-1"}
    assert told.secrets.keys() == keys | {"pepper", "password"}
    assert all(len(secret) > 20 for secret in told.secrets.values())
    answers = " ".join(told.answers)
    for expected in (
        "INVALID_SECRET",
        "INVALID_API_KEY",
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "INTERNAL",
        "CALLER_KEY_REJECTED",
    ):
        assert expected in answers
    assert told.log.count("Traceback") >= 2
    assert "internal_error" in told.log
    assert 'denial_reason="INVALID_SECRET"' in told.metrics
    assert "DeleteKey" in told.tables["audit_events"]
    assert "$argon2id$" in told.tables["key_secrets"]
    assert "column" in told.postgres_log


# The search.


def test_no_answer_and_no_error_holds_a_secret(told: Told) -> None:
    for answer in told.answers:
        assert_holds_none(answer, told.secrets, f"the answer {answer}")


def test_the_log_holds_no_secret_at_any_level(told: Told) -> None:
    assert_holds_none(told.log, told.secrets, "the log")


def test_the_metrics_hold_no_secret(told: Told) -> None:
    assert_holds_none(told.metrics, told.secrets, "/metrics")


def test_the_database_holds_hashes_of_secrets_alone(told: Told) -> None:
    for table, rows in told.tables.items():
        assert_holds_none(rows, told.secrets, f"the table {table}")
        assert ("$argon2" in rows) == (table == "key_secrets"), f"hashes in {table}"


def test_the_databases_own_log_holds_no_secret(told: Told) -> None:
    assert_holds_none(told.postgres_log, {k: v for k, v in told.secrets.items() if k != "password"}, "its log")


# Objects. Whatever a traceback, a debugger or a forgotten print shows of one, it is no secret.


async def test_nothing_that_holds_a_secret_shows_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(pepper=PEPPER, database_url=f"postgresql://u:{PASSWORD}@localhost/x")
    peppers = settings.require_peppers()
    hasher = SecretHasher(peppers, bytes(32), SystemEntropy())
    credential = hasher.make_credential("lg")
    sealed = await hasher.seal(credential.key_id, credential.secret, HashProfile.GENERATED)
    record = build_record(
        key=Key(key_id=credential.key_id, tenant_id="acme"),
        secret=sealed,
        tenant=Tenant(tenant_id="acme"),
        plan=None,
        roles=[],
        revision=1,
    )
    entry = Entry(record, hasher.digest(credential.secret))
    holders: list[Any] = [
        settings,
        peppers,
        peppers.current,
        list(peppers),
        hasher,
        credential,
        parse(credential.key_string),
        parse(credential.secret),
        sealed,
        record,
        entry,
    ]
    hasher.close()
    raw = base64.b64decode(PEPPER)
    secrets = {"secret": credential.secret, "pepper": PEPPER, "password": PASSWORD, "hash": sealed.phc}
    assert sealed.tag is not None
    bare = {"pepper": raw, "tag": sealed.tag, "digest": entry.proven or b""}
    for holder in holders:
        for shown in (repr(holder), str(holder), f"{holder}", repr([holder]), str({"it": holder})):
            assert_holds_none(shown, secrets, f"a {type(holder).__name__}")
            for name, data in bare.items():
                assert repr(data)[2:-1] not in shown, f"the {name} is in a {type(holder).__name__}"
                assert data.hex() not in shown


# Starts that fail.


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("migrate", {"database_url": f"postgresql://u:{PASSWORD}@127.0.0.1:nonsense/x"}),
        ("init", {"database_url": f"u:{PASSWORD}@nonsense"}),
        ("serve", {"pepper": f"{PEPPER[:-2]}!"}),
    ],
    ids=["malformed port", "malformed url", "malformed pepper"],
)
def test_a_command_that_fails_to_start_tells_no_secret(command: str, settings: dict[str, str]) -> None:
    env = environment(f"postgresql://u:{PASSWORD}@127.0.0.1:1/x", log_level="debug")
    done = run_command(command, env=env | {f"LATCHGATE_{name.upper()}": value for name, value in settings.items()})
    assert done.returncode == 1
    assert done.stderr
    secrets = {"password": PASSWORD, "pepper": PEPPER[:-2]}
    assert_holds_none(done.stdout + done.stderr, secrets, f"what `{command}` says")


def test_settings_that_do_not_parse_are_told_without_their_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ({"pepper": [PEPPER]}, {"database_url": {"x": PASSWORD}}, {"key_prefix": PASSWORD}):
        with pytest.raises(SettingsProblem) as caught:
            load_settings(**given)
        assert_holds_none(str(caught.value), {"password": PASSWORD, "pepper": PEPPER}, "a SettingsProblem")


def test_peppers_that_are_missing_are_told_by_their_ids() -> None:
    with pytest.raises(Exception, match="is not configured") as caught:
        Peppers([bytes(32)]).get("0123456789abcdef")
    assert_holds_none(str(caught.value), {"pepper": PEPPER}, "an error")
