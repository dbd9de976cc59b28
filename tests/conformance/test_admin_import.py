"""Keys of other systems: taken over by their hashes, verified like any others, and bounded in what they can cost."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from argon2 import PasswordHasher, Type
from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, verify_service_pb2
from latchgate_server.core import bounds
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.imported import (
    ALLOW,
    DISABLED,
    INVALID_KEY,
    INVALID_SECRET,
    QUICK,
    REVOKED,
    by_argon2,
    by_sha256,
    import_keys,
    reads,
)
from tests.conformance.sample_keys import OUTPUT_ONLY, chosen, everything, read
from tests.conformance.wire import refusal
from tests.support.postgres import Postgres
from tests.support.server import PEPPER, Admin, ServerProcess, Verify, make_root_key


@pytest.fixture
def tenant_id(house: House) -> str:
    return house.tenant()


@pytest.mark.parametrize(
    "credential",
    [
        "0123456789abcdef",
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "acme.partner-7.c2VjcmV0",
        ".begins-with-a-dot",
        "ends-with-a-dot.",
        "has spaces, \"quotes\" and 'more'",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig",
        "lg_AAAAAAAAAAAAAAAAAAAAAA.of-our-form-but-not-our-tag",
        "x" * bounds.KEY_STRING_LENGTH,
        "~",
    ],
)
def test_a_credential_of_any_form_works_by_its_sha256(
    root: Admin, verify: Verify, tenant_id: str, credential: str
) -> None:
    assert verify(credential).denial_reason == INVALID_KEY
    imported = import_keys(root, by_sha256(credential, tenant_id, owner="ada", permissions=["orders.read"])).keys[0]
    for _ in range(2):
        answer = verify(credential, required_permissions="orders.read")
        assert answer.denial_reason == ALLOW
        assert (answer.identity.key_id, answer.identity.owner) == (imported.key_id, "ada")
    assert verify(credential[:-1] + "!").denial_reason == INVALID_KEY
    assert verify(f"{imported.key_id}.{credential}"[: bounds.KEY_STRING_LENGTH]).denial_reason == INVALID_SECRET
    assert verify(imported.key_id).denial_reason == decision_pb2.DENIAL_REASON_SECRET_REQUIRED


@pytest.mark.parametrize("type_", list(Type))
def test_an_argon2_hash_works_with_its_key_id_and_secret(
    root: Admin, verify: Verify, house: House, tenant_id: str, type_: Type
) -> None:
    key_id, secret = house.fresh_id("partner"), "correct horse.battery staple"
    hasher = PasswordHasher(time_cost=2, memory_cost=128, parallelism=2, type=type_)
    imported = import_keys(root, by_argon2(key_id, secret, tenant_id, hasher)).keys[0]
    assert imported.key_id == key_id
    assert verify(f"{key_id}.{secret}").denial_reason == ALLOW
    assert verify(f"{key_id}.wrong").denial_reason == INVALID_SECRET
    assert verify(f"{key_id}x.{secret}").denial_reason == INVALID_KEY
    assert verify(key_id).denial_reason == INVALID_KEY, "whether such a key exists is not told without its secret"


def test_all_that_an_administrator_chooses_of_a_key_is_kept(root: Admin, house: House, tenant_id: str) -> None:
    role_id, key_id = house.role(tenant_id), house.fresh_id("whole")
    wanted = everything(tenant_id, role_id)
    imported = import_keys(
        root,
        pb.ImportedKey(key=key_pb2.Key(key_id=key_id, **_fields(wanted)), argon2=QUICK.hash("x")),
        pb.ImportedKey(key=wanted, sha256=hashlib.sha256(key_id.encode()).digest()),
    ).keys
    assert [chosen(key) for key in imported] == [wanted, wanted]
    assert imported[0].key_id == key_id
    assert re.fullmatch(r"lg_[0-9A-Za-z]{22}", imported[1].key_id), "one was made"
    assert [read(root, key.key_id) for key in imported] == list(imported)


def _fields(key: key_pb2.Key) -> dict[str, Any]:
    return {field.name: value for field, value in key.ListFields() if field.name not in OUTPUT_ONLY}


def test_a_key_id_is_kept_with_a_sha256_as_well(root: Admin, verify: Verify, house: House, tenant_id: str) -> None:
    key_id = house.fresh_id("kept")
    imported = import_keys(root, by_sha256(f"{key_id}.secret", tenant_id, key_id=key_id)).keys[0]
    assert imported.key_id == key_id
    assert verify(f"{key_id}.secret").identity.key_id == key_id
    assert verify(f"{key_id}.other").denial_reason == INVALID_KEY


def test_a_batch_is_verified_as_each_would_be(root: Admin, verify: Verify, house: House, tenant_id: str) -> None:
    names = [house.fresh_id("batch") for _ in range(3)]
    own = house.key(tenant_id).key_string
    import_keys(root, by_sha256(names[0], tenant_id), by_argon2(names[1], "secret", tenant_id))
    asked = [names[0], own, f"{names[1]}.secret", names[2], f"{names[1]}.wrong", f"{names[2]}.wrong"]
    request = verify_service_pb2.BatchVerifyRequest(
        requests=[verify_service_pb2.VerifyRequest(key=key_string) for key_string in asked]
    )
    expected = [ALLOW, ALLOW, ALLOW, INVALID_KEY, INVALID_SECRET, INVALID_KEY]
    for _ in range(2):
        assert [one.denial_reason for one in verify.stub.BatchVerify(request, timeout=20).responses] == expected


def test_what_holds_for_other_keys_holds_for_imported_ones(
    root: Admin, verify: Verify, house: House, tenant_id: str
) -> None:
    credential, key_id = house.fresh_id("life"), house.fresh_id("life")
    made = import_keys(root, by_sha256(credential, tenant_id), by_argon2(key_id, "s", tenant_id)).keys
    for key, key_string in zip(made, (credential, f"{key_id}.s"), strict=True):
        assert verify(key_string).denial_reason == ALLOW
        root.DisableKey(pb.DisableKeyRequest(key_id=key.key_id))
        assert verify(key_string).denial_reason == DISABLED
        root.EnableKey(pb.EnableKeyRequest(key_id=key.key_id))
        assert verify(key_string).denial_reason == ALLOW
        root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key_id))
        assert verify(key_string).denial_reason == REVOKED
        root.DeleteKey(pb.DeleteKeyRequest(key_id=key.key_id))
        assert verify(key_string).denial_reason == INVALID_KEY
    # What is gone can come back.
    import_keys(root, by_sha256(credential, tenant_id), by_argon2(key_id, "s", tenant_id))
    assert verify(credential).denial_reason == ALLOW
    assert verify(f"{key_id}.s").denial_reason == ALLOW


def test_a_whole_credential_comes_before_somebody_elses_key_id(
    root: Admin, verify: Verify, house: House, tenant_id: str
) -> None:
    squatter = house.fresh_id("sk_live")
    import_keys(root, by_argon2(squatter, "mine", house.tenant()), by_sha256(f"{squatter}.theirs", tenant_id))
    assert verify(f"{squatter}.theirs").identity.tenant_id == tenant_id
    assert verify(f"{squatter}.mine").denial_reason == ALLOW


@pytest.mark.parametrize("kind", ["sha256", "argon2"])
def test_rotating_an_imported_key_gives_one_of_our_own_form(
    root: Admin, verify: Verify, house: House, tenant_id: str, kind: str
) -> None:
    key_id = house.fresh_id("old")
    old = f"{key_id}.secret"
    entry = by_sha256(old, tenant_id) if kind == "sha256" else by_argon2(key_id, "secret", tenant_id)
    made = import_keys(root, entry).keys[0]
    rotated = root.RotateKey(pb.RotateKeyRequest(key_id=made.key_id, grace_period=Duration(seconds=60)))
    assert re.fullmatch(r"lg_[0-9A-Za-z]{22}\.[0-9A-Za-z]{49}", rotated.key_string)
    assert verify(rotated.key_string).denial_reason == ALLOW
    assert verify(old).denial_reason == ALLOW, "within its grace period"
    again = root.RotateKey(pb.RotateKeyRequest(key_id=rotated.key.key_id))
    assert verify(again.key_string).denial_reason == ALLOW


def test_an_imported_key_can_be_explained_and_reported_as_leaked(
    root: Admin, verify: Verify, house: House, tenant_id: str
) -> None:
    credential, key_id = house.fresh_id("leaked"), house.fresh_id("leaked")
    made = import_keys(root, by_sha256(credential, tenant_id), by_argon2(key_id, "secret", tenant_id)).keys
    for key in made:
        explained = root.ExplainKey(pb.ExplainKeyRequest(key_id=key.key_id))
        assert explained.decision == decision_pb2.DECISION_ALLOW
    found = [credential, f"{key_id}.secret", f"{key_id}.wrong", key_id, "unheard-of", made[0].key_id]
    elsewhere = house.admin(house.tenant(), "latchgate.keys.report_leaked")
    report = pb.ReportLeakedKeysRequest(key_strings=found)
    assert elsewhere.ReportLeakedKeys(report).disabled_key_ids == [""] * len(found)
    assert verify(credential).denial_reason == ALLOW
    disabled = root.ReportLeakedKeys(report).disabled_key_ids
    assert disabled == [made[0].key_id, key_id, "", "", "", ""]
    assert verify(credential).denial_reason == DISABLED
    assert verify(f"{key_id}.secret").denial_reason == DISABLED


def test_each_key_has_its_audit_event_and_no_hash_is_in_any(root: Admin, house: House, tenant_id: str) -> None:
    credential, key_id = house.fresh_id("audited"), house.fresh_id("audited")
    entries = [by_sha256(credential, tenant_id, owner="ada"), by_argon2(key_id, "secret", tenant_id)]
    made = import_keys(root, *entries).keys
    for key, by in zip(made, ("SHA-256", "Argon2 hash"), strict=True):
        (event,) = root.ListAuditEvents(pb.ListAuditEventsRequest(target_id=key.key_id)).events
        assert (event.method, event.reason, event.tenant_id) == ("ImportKeys", f"imported by its {by}", tenant_id)
        assert event.after["key_id"] == key.key_id
        told = repr(event)
        assert entries[0].sha256.hex() not in told
        assert entries[1].argon2 not in told
        assert "argon2id" not in told


def test_a_foreign_hash_is_renewed_at_its_first_use(root: Admin, verify: Verify, house: House, tenant_id: str) -> None:
    key_id = house.fresh_id("renewed")
    import_keys(root, by_argon2(key_id, "secret", tenant_id))
    assert verify(f"{key_id}.secret").denial_reason == ALLOW
    wait_for_renewal(root, key_id)
    assert verify(f"{key_id}.secret").denial_reason == ALLOW
    assert verify(f"{key_id}.wrong").denial_reason == INVALID_SECRET


# Several replicas, several peppers.


def test_an_import_works_at_once_on_every_replica_that_has_just_denied_it(
    root: Admin, house: House, verify: Verify, module_database: str, tenant_id: str
) -> None:
    with ServerProcess(module_database) as second:
        others = [Verify(second.verify_address), verify]
        for _ in range(10):
            credential, key_id = house.fresh_id("everywhere"), house.fresh_id("everywhere")
            for other in others:
                assert other(credential).denial_reason == INVALID_KEY
                assert other(f"{key_id}.x").denial_reason == INVALID_KEY
            made = import_keys(root, by_sha256(credential, tenant_id), by_argon2(key_id, "x", tenant_id))
            assert made.propagation.replicas_confirmed >= 2
            for other in others:
                assert other(credential).denial_reason == ALLOW
                assert other(f"{key_id}.x").denial_reason == ALLOW
            root.DeleteKey(pb.DeleteKeyRequest(key_id=key_id))
            for other in others:
                assert other(f"{key_id}.x").denial_reason == INVALID_KEY
        others[0].close()


def test_a_digest_is_found_under_an_older_pepper_and_renewed_under_a_newer_one(postgres: Postgres) -> None:
    database_url = postgres.new_database()
    root_key, entry = make_root_key(database_url), by_sha256("peppered", ROOT_TENANT)
    newer = base64.b64encode(bytes(32)).decode()
    log: list[str] = []
    with ServerProcess(database_url, log=log) as server:
        key_id = import_keys(Admin(server.admin_address, root_key), entry).keys[0].key_id
    with ServerProcess(database_url, {"pepper": f"{newer},{PEPPER}"}, log=log) as server:
        root, asked = Admin(server.admin_address, root_key), Verify(server.verify_address)
        assert asked("peppered").identity.key_id == key_id
        wait_for_renewal(root, key_id)
        assert asked("peppered").identity.key_id == key_id
        assert refusal(lambda: import_keys(root, entry)).reason == "RESOURCE_EXISTS"
    with ServerProcess(database_url, {"pepper": newer}, log=log) as server:
        asked = Verify(server.verify_address)
        assert asked("peppered").identity.key_id == key_id
        assert asked("salted").denial_reason == INVALID_KEY
    told = "".join(log)
    for secret in ("peppered", entry.sha256.hex(), "sha256.", "argon2id"):
        assert secret not in told


def wait_for_renewal(root: Admin, key_id: str) -> None:
    end = time.monotonic() + 20
    request = pb.ListAuditEventsRequest(target_id=key_id)
    while not any(event.method == "RenewHash" for event in root.ListAuditEvents(request).events):
        assert time.monotonic() < end
        time.sleep(0.1)


# What it can cost.


def test_a_flood_of_unknown_forms_reads_nothing_from_the_database(
    root: Admin, house: House, verify: Verify, server: ServerProcess, tenant_id: str
) -> None:
    import_keys(root, by_sha256(house.fresh_id("one"), tenant_id), by_argon2(house.fresh_id("two"), "x", tenant_id))
    verify("the filter is read now")
    before = reads(server)
    flood = [f"unknown-{n}" for n in range(1_000)] + [f"unknown-{n}.secret" for n in range(1_000)]
    for start in range(0, len(flood), bounds.BATCH_SIZE):
        request = verify_service_pb2.BatchVerifyRequest(
            requests=[verify_service_pb2.VerifyRequest(key=key) for key in flood[start : start + bounds.BATCH_SIZE]]
        )
        answer = verify.stub.BatchVerify(request, timeout=20)
        assert {one.denial_reason for one in answer.responses} == {INVALID_KEY}
    # The filter takes one in some thousands for a form that may exist.
    assert reads(server) - before <= 3


def test_a_flood_of_wrong_secrets_reads_nothing_and_soon_costs_no_argon2_either(
    root: Admin, house: House, verify: Verify, server: ServerProcess, tenant_id: str
) -> None:
    key_id = house.fresh_id("guessed")
    import_keys(root, by_argon2(key_id, "right", tenant_id))
    assert verify(f"{key_id}.wrong", client_ip="192.0.2.1").denial_reason == INVALID_SECRET
    before = reads(server)

    def guess(number: int) -> str:
        try:
            answer = verify(f"{key_id}.guess-{number}", client_ip="192.0.2.1")
        except grpc.RpcError as error:
            return error.code().name
        return decision_pb2.DenialReason.Name(answer.denial_reason)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(guess, range(200)))
    assert reads(server) == before
    assert set(outcomes) == {"DENIAL_REASON_INVALID_SECRET", "RESOURCE_EXHAUSTED"}
    assert outcomes.count("DENIAL_REASON_INVALID_SECRET") <= bounds.WRONG_TRIES_AT_ONCE + 2
    refused = refusal(lambda: verify(f"{key_id}.right", client_ip="192.0.2.1"))
    assert refused.retry_after, "there even the right one has to wait"
    # The holder is somewhere else, and so not locked out; once proven it is good at that address as well.
    assert verify(f"{key_id}.right", client_ip="192.0.2.2").denial_reason == ALLOW
    assert refused.reason == "OVERLOADED"


def test_right_secrets_are_no_wrong_tries(root: Admin, house: House, verify: Verify, tenant_id: str) -> None:
    key_id = house.fresh_id("often")
    import_keys(root, by_argon2(key_id, "right", tenant_id))
    for _ in range(3 * bounds.WRONG_TRIES_AT_ONCE):
        root.UpdateKey(pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, display_name=house.fresh_id("n"))))
        assert verify(f"{key_id}.right", client_ip="192.0.2.7").denial_reason == ALLOW


def test_a_thousand_keys_are_one_call(root: Admin, house: House, verify: Verify, tenant_id: str) -> None:
    role_id = house.role(tenant_id, permissions=["orders.read"])
    names = [house.fresh_id("many") for _ in range(bounds.IMPORTED_KEYS)]
    began = time.monotonic()
    made = import_keys(root, *[by_sha256(name, tenant_id, display_name=name, role_ids=[role_id]) for name in names])
    took = time.monotonic() - began
    assert [key.display_name for key in made.keys] == names
    request = verify_service_pb2.BatchVerifyRequest(
        requests=[verify_service_pb2.VerifyRequest(key=name, required_permissions="orders.read") for name in names]
    )
    answer = verify.stub.BatchVerify(request, timeout=20)
    assert {one.denial_reason for one in answer.responses} == {ALLOW}
    assert took < 15
