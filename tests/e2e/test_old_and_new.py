"""A version that served before is replaced by this one, while both serve: its real code, out of the project's history.

What is not there in one version must not be missed in the other, so all of it happens in one deployment, from the
schema that the old version makes to the day on which the last of its processes ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate import Client
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1.key_pb2 import Key, Limit, Quota, RateLimit
from latchgate.v1.tenant_pb2 import Role
from latchgate_server.storage.migrate import migrations
from tests.conformance.house import ROOT_TENANT
from tests.conformance.test_usage import counted, eventually
from tests.e2e.fleet import ALLOW, REQUIRED, Load, Member, serving
from tests.support.old_version import NoHistoryError, OldVersion, unpack
from tests.support.ports import free_ports
from tests.support.postgres import Postgres
from tests.support.server import PATIENT, ServerProcess, environment, run_command
from tests.support.valkey import valkey_server
from tests.support.waiting import wait_until

LEASE = 2.0
QUOTA, RATE = 200, 12

Says = Callable[[str], str]


@pytest.fixture
def old_version(tmp_path: Path) -> OldVersion:
    try:
        found = unpack(tmp_path)
    except NoHistoryError as error:
        pytest.skip(str(error))
    assert all(file.is_relative_to(tmp_path) for file in found.loaded())
    return found


@dataclass
class Upgrade:
    """A database and a store of limits, servers of two versions for them, and what the first one makes there.

    counted: how often the key `counted` was verified.
    """

    old_version: OldVersion
    database_url: str
    root_key: str = field(repr=False)
    settings: dict[str, str]
    addresses: Sequence[str]
    keys: dict[str, pb.CreateKeyResponse] = field(default_factory=dict, repr=False)
    counted: int = 0

    def old(self) -> ServerProcess:
        own = self.settings | {"verify_listen": self.addresses[0]}
        return ServerProcess(self.database_url, own, variables=self.old_version.variables)

    def new(self) -> ServerProcess:
        return ServerProcess(self.database_url, self.settings | {"verify_listen": self.addresses[1]})

    def furnish(self, old: Member) -> None:
        """Make the keys. Nobody has verified `cold` ones before they are asked for."""
        house, tenant = old.house, old.house.tenant()
        role = house.role(tenant, permissions=["orders.*"])
        rate = Limit(name="calls", rate_limit=RateLimit(limit=RATE, period=Duration(seconds=86_400)))
        prepaid = Limit(name="prepaid", quota=Quota(limit=QUOTA, period=Quota.PERIOD_LIFETIME))
        limits = {"rate": [rate], "prepaid": [prepaid]}
        names = ["hot", "disabled", "counted", *limits, *(f"cold {number}" for number in range(12))]
        self.keys = {name: house.key(tenant, role_ids=[role], limits=limits.get(name, ())) for name in names}
        self.keys["without permission"] = house.key(tenant)
        self.keys["watcher"] = house.key(ROOT_TENANT, permissions=["latchgate.watch"])
        old.root.DisableKey(pb.DisableKeyRequest(key_id=self.keys["disabled"].key.key_id))

    def load(self) -> Load:
        expected = {
            self.key_string("hot"): ALLOW,
            self.key_string("disabled"): "API_KEY_DISABLED",
            self.key_string("without permission"): "INSUFFICIENT_PERMISSIONS",
            self.key_string("hot")[:-1] + "~": "INVALID_SECRET",
        }
        return Load(self.addresses, expected)

    def key_string(self, name: str) -> str:
        return self.keys[name].key_string

    def count(self, *members: Member) -> None:
        """Verify the key `counted` at each, and one that is cold."""
        for member in members:
            assert member.says(self.key_string("counted")) == ALLOW
            self.counted += 1
            cold = next(name for name in self.keys if name.startswith("cold"))
            assert member.says(self.keys.pop(cold).key_string) == ALLOW

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a command of this version's."""
        done = run_command(*command, env=environment(self.database_url, **self.settings))
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def upgrade(old_version: OldVersion, postgres: Postgres) -> Iterator[Upgrade]:
    """With the schema and the first administrator that the old version makes; today's does not start on that schema."""
    database_url = postgres.new_database(migrated=False)
    env = environment(database_url) | dict(old_version.variables)
    assert run_command("migrate", env=env).returncode == 0
    root_key = run_command("init", env=env).stdout.strip()
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with valkey_server() as valkey:
        settings = {"lease": f"{LEASE:g}s", "limit_store": valkey.connection_url, "limit_store_timeout": PATIENT}
        yield Upgrade(old_version, database_url, root_key, settings, addresses)


def test_a_version_is_replaced_by_the_next_one_without_a_break(upgrade: Upgrade) -> None:
    with serving(upgrade.old(), upgrade.root_key) as old:
        upgrade.furnish(old)
        with upgrade.load() as load:
            assert old.allowed(upgrade.key_string("rate"), 4) == 4
            assert old.allowed(upgrade.key_string("prepaid"), 10) == 10
            upgrade.count(old)
            the_new_version_does_not_start_on_the_old_schema(upgrade)
            the_old_one_serves_while_the_schema_is_migrated(upgrade, old)
            with serving(upgrade.new(), upgrade.root_key) as new:
                load.must_reach(old, new)
                both_serve(upgrade, old, new)
                with load.paused():
                    a_change_waits_for_a_replica_of_the_other_version(upgrade, old, new)
                    a_change_waits_for_a_replica_of_the_other_version(upgrade, new, old)
                old.restart()
                load.must_reach(old, new)
                upgrade.count(old, new)
                changes_are_in_force(old, {"old": old.says, "new": new.says})
                old.stop()
                load.must_reach(new)
                the_new_version_finds_everything(upgrade, new)
                load.end()
    assert set(load.ends) == {"as expected"}, load.ends


def the_new_version_does_not_start_on_the_old_schema(upgrade: Upgrade) -> None:
    missing = migrations()[upgrade.old_version.newest_migration :]
    lines = "".join(f"missing {migration.version:04} {migration.name}\n" for migration in missing)
    assert upgrade.run("migrate", "--check")[:2] == (1, lines)
    code, _, told = upgrade.run("serve")
    assert code == 1
    assert told.splitlines()[-1] == "latchgate: the database's schema is not current; run: latchgate migrate"


def the_old_one_serves_while_the_schema_is_migrated(upgrade: Upgrade, old: Member) -> None:
    with ThreadPoolExecutor(1) as beside:
        migrating = beside.submit(upgrade.run, "migrate")
        while not migrating.done():
            changes_are_in_force(old, {"old": old.says})  # of keys that are made meanwhile, and so are cold
        assert migrating.result()[0] == 0
    changes_are_in_force(old, {"old": old.says})
    upgrade.count(old)


def both_serve(upgrade: Upgrade, old: Member, new: Member) -> None:
    with a_client_with_a_cache(upgrade, old) as of_old, a_client_with_a_cache(upgrade, new) as of_new:
        everywhere = {"old": old.says, "new": new.says, "client of old": of_old, "client of new": of_new}
        changes_are_in_force(old, everywhere)
        changes_are_in_force(new, everywhere)
    upgrade.count(old, new, old, new)

    # A rate limit is one for all, and what was taken before counts.
    rate = upgrade.keys["rate"]
    assert old.allowed(rate.key_string, 3) == 3
    assert new.allowed(rate.key_string, RATE) == RATE - 7
    assert (old.says(rate.key_string), new.says(rate.key_string)) == ("RATE_LIMITED", "RATE_LIMITED")
    for by in (old, new):
        by.root.ResetLimit(pb.ResetLimitRequest(key_id=rate.key.key_id, name="calls", remaining=2))
        assert (old.says(rate.key_string), new.says(rate.key_string)) == (ALLOW, ALLOW)
        assert (old.says(rate.key_string), new.says(rate.key_string)) == ("RATE_LIMITED", "RATE_LIMITED")

    for member in (old, new):
        assert member.allowed(upgrade.key_string("prepaid"), 20) == 20
    all_uses_are_shown_by(upgrade, old)
    all_uses_are_shown_by(upgrade, new)


def all_uses_are_shown_by(upgrade: Upgrade, member: Member) -> None:
    eventually(lambda: counted(member.root, key_id=upgrade.keys["counted"].key.key_id), (upgrade.counted, {}))


@contextmanager
def a_client_with_a_cache(upgrade: Upgrade, member: Member) -> Iterator[Says]:
    """What a client says that repeats what it was told."""
    hot = upgrade.key_string("hot")
    with Client(member.process.verify_address, key=upgrade.key_string("watcher"), cache=True) as client:

        def says(key: str) -> str:
            told = client.verify(key, requires=REQUIRED)
            return ALLOW if told.allowed else told.reason

        wait_until(lambda: says(hot) == ALLOW and client.cache_info().hits > 0)
        yield says


def changes_are_in_force(by: Member, everywhere: Mapping[str, Says]) -> None:
    """What one server has acknowledged is decided upon by all, at once, and shown."""
    tenant_id = by.house.tenant()
    role_id = by.house.role(tenant_id, permissions=[REQUIRED])
    made = by.house.key(tenant_id, role_ids=[role_id])
    key_id = made.key.key_id

    def must_be(expected: str, key_string: str = made.key_string) -> None:
        assert {name: says(key_string) for name, says in everywhere.items()} == dict.fromkeys(everywhere, expected)

    must_be(ALLOW)
    by.root.DisableKey(pb.DisableKeyRequest(key_id=key_id))
    must_be("API_KEY_DISABLED")
    by.root.EnableKey(pb.EnableKeyRequest(key_id=key_id))
    must_be(ALLOW)
    for permission, decision in (("orders.write", "INSUFFICIENT_PERMISSIONS"), ("orders.*", ALLOW)):
        role = Role(tenant_id=tenant_id, role_id=role_id, permissions=[permission])
        by.root.UpdateRole(pb.UpdateRoleRequest(role=role))
        must_be(decision)
    successor = by.root.RotateKey(pb.RotateKeyRequest(key_id=key_id))
    must_be("API_KEY_REVOKED")
    must_be(ALLOW, successor.key_string)
    by.root.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant_id))
    must_be("TENANT_DISABLED", successor.key_string)
    by.root.EnableTenant(pb.EnableTenantRequest(tenant_id=tenant_id))
    must_be(ALLOW, successor.key_string)
    revoked = by.root.RevokeKey(pb.RevokeKeyRequest(key_id=successor.key.key_id, reason="test"))
    must_be("API_KEY_REVOKED", successor.key_string)
    listed = by.root.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=tenant_id))).keys
    assert {key.key_id: key.state for key in listed} == {
        key_id: Key.STATE_REVOKED,
        successor.key.key_id: Key.STATE_REVOKED,
    }
    assert revoked.propagation.leases_expired == 0
    assert revoked.propagation.replicas_confirmed == len(everywhere.keys() & {"old", "new"})


def a_change_waits_for_a_replica_of_the_other_version(upgrade: Upgrade, by: Member, other: Member) -> None:
    """One that says nothing may decide on what it has until its lease is over, and not any more when it awakes."""
    made = by.house.key(permissions=[REQUIRED])
    assert other.says(made.key_string) == ALLOW
    with other.standing_still(upgrade.key_string("hot")):
        began = time.monotonic()
        revoked = by.root.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id, reason="test"))
        assert revoked.propagation.leases_expired == 1
        assert time.monotonic() - began >= LEASE
    assert other.says(made.key_string) == "API_KEY_REVOKED"


def the_new_version_finds_everything(upgrade: Upgrade, new: Member) -> None:
    upgrade.count(new)
    changes_are_in_force(new, {"new": new.says})
    all_uses_are_shown_by(upgrade, new)

    # No portion of the quota was lost with a process that ended in good order, and none lent twice.
    assert new.allowed(upgrade.key_string("prepaid"), QUOTA) == QUOTA - 50
    assert new.says(upgrade.key_string("prepaid")) == "QUOTA_EXCEEDED"

    code, shown, told = upgrade.run("audit", "verify")
    assert code == 0, shown + told
