"""Switching keys off and on: one by one, in bulk, and where a secret was found in public."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Unpack

from latchgate.admin.calls import Call, changes, reads
from latchgate.admin.key import KeyChanged, key_changed_from
from latchgate.admin.keys import KeyFilter, filter_to
from latchgate.admin.values import Propagation, propagation_from
from latchgate.v1 import admin_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRevoked:
    """revoked: how many keys were, or would be; those that were before do not count. propagation: None on a dry run."""

    revoked: int
    propagation: Propagation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """disabled_key_ids: in the order of the key strings, empty for one that was no genuine key."""

    disabled_key_ids: tuple[str, ...]
    propagation: Propagation


def enable_key(key_id: str, *, reason: str = "") -> Call[KeyChanged]:
    """Switch a disabled key on again. reason: for the audit log. Raises PreconditionFailed for a revoked key."""
    request = pb.EnableKeyRequest(key_id=key_id, reason=reason)
    return changes("EnableKey", request, key_changed_from, repeatable=True)


def disable_key(key_id: str, *, reason: str = "") -> Call[KeyChanged]:
    """Switch a key off until `enable_key`. reason: for the audit log. Raises PreconditionFailed for a revoked key."""
    request = pb.DisableKeyRequest(key_id=key_id, reason=reason)
    return changes("DisableKey", request, key_changed_from, repeatable=True)


def expire_key(key_id: str, *, reason: str = "") -> Call[KeyChanged]:
    """Let a key expire now. `update_key` undoes it with a later expire_time, or None. reason: for the audit log."""
    request = pb.ExpireKeyRequest(key_id=key_id, reason=reason)
    return changes("ExpireKey", request, key_changed_from, repeatable=True)


def revoke_key(key_id: str, *, reason: str = "") -> Call[KeyChanged]:
    """Switch a key off for good. reason: for the audit log and the key's revocation_reason."""
    request = pb.RevokeKeyRequest(key_id=key_id, reason=reason)
    return changes("RevokeKey", request, key_changed_from, repeatable=True)


def batch_revoke_keys(*, reason: str = "", dry_run: bool = False, **matching: Unpack[KeyFilter]) -> Call[KeysRevoked]:
    """Revoke every key that matches. dry_run: only count them. matching: see KeyFilter; at least one of its fields.

    A change that fails on its way has revoked some of them; calling again goes on. Raises ValueError for an empty
    field: it would match any key.
    """
    for name, value in matching.items():
        if not value:
            raise ValueError(f"{name}: empty would match any key; leave it out if that is meant")
    request = pb.BatchRevokeKeysRequest(filter=filter_to(matching), reason=reason, dry_run=dry_run)
    if dry_run:
        return reads("BatchRevokeKeys", request, _keys_revoked_from)
    # A second try would not count what the first one revoked.
    return changes("BatchRevokeKeys", request, _keys_revoked_from, repeatable=False)


def report_leaked_keys(key_strings: Iterable[str], *, source: str = "") -> Call[LeakReport]:
    """Disable the keys whose whole credentials were found in public. source: where, for the audit log."""
    if isinstance(key_strings, str):
        raise TypeError("several key strings are expected")
    request = pb.ReportLeakedKeysRequest(key_strings=key_strings, source=source)
    return changes("ReportLeakedKeys", request, _leak_report_from, repeatable=True)


def _keys_revoked_from(response: pb.BatchRevokeKeysResponse) -> KeysRevoked:
    propagation = propagation_from(response) if response.HasField("propagation") else None
    return KeysRevoked(revoked=response.revoked, propagation=propagation)


def _leak_report_from(response: pb.ReportLeakedKeysResponse) -> LeakReport:
    return LeakReport(disabled_key_ids=tuple(response.disabled_key_ids), propagation=propagation_from(response))
