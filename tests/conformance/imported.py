"""Importing keys of other systems."""

from __future__ import annotations

import hashlib
from typing import Any

from argon2 import PasswordHasher

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2
from tests.support.server import Admin, ServerProcess

QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
OWN_FORM = "lg_7RiJxkEgOGusQGwpIaSBpz"

ALLOW = decision_pb2.DENIAL_REASON_UNSPECIFIED
INVALID_KEY = decision_pb2.DENIAL_REASON_INVALID_API_KEY
INVALID_SECRET = decision_pb2.DENIAL_REASON_INVALID_SECRET
DISABLED = decision_pb2.DENIAL_REASON_API_KEY_DISABLED
REVOKED = decision_pb2.DENIAL_REASON_API_KEY_REVOKED


def by_sha256(credential: str, tenant_id: str = "", **fields: Any) -> pb.ImportedKey:
    digest = hashlib.sha256(credential.encode()).digest()
    return pb.ImportedKey(key=key_pb2.Key(tenant_id=tenant_id, **fields), sha256=digest)


def by_argon2(
    key_id: str, secret: str, tenant_id: str = "", hasher: PasswordHasher = QUICK, **f: Any
) -> pb.ImportedKey:
    return pb.ImportedKey(key=key_pb2.Key(key_id=key_id, tenant_id=tenant_id, **f), argon2=hasher.hash(secret))


def import_keys(admin: Admin, *keys: pb.ImportedKey, dry_run: bool = False) -> pb.ImportKeysResponse:
    response: pb.ImportKeysResponse = admin.ImportKeys(pb.ImportKeysRequest(keys=keys, dry_run=dry_run))
    return response


def reads(server: ServerProcess) -> int:
    """How often verifications have read from the database."""
    return int(server.metrics()["latchgate_record_reads_total"])
