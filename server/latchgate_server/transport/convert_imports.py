"""Keys of other systems: ImportKeys' message and the core's values."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from latchgate.v1 import admin_service_pb2, key_pb2
from latchgate_server.admin.imports import ImportDraft
from latchgate_server.core import bounds
from latchgate_server.core.imported import SHA256_BYTES, argon2_problem, key_id_problem
from latchgate_server.core.model import Key
from latchgate_server.transport.convert_keys import key_fields_from, key_to
from latchgate_server.transport.fields import Fields

_STRETCH = 32  # keys, a few milliseconds' worth


async def imports_from(request: admin_service_pb2.ImportKeysRequest) -> Sequence[ImportDraft]:
    """The keys to take over. Raises InvalidRequest, of which no description quotes a hash."""
    fields = Fields()
    if not 0 < len(request.keys) <= bounds.IMPORTED_KEYS:
        fields.wrong("keys", f"1 to {bounds.IMPORTED_KEYS} entries, not {len(request.keys)}")
        fields.check()
    seen: dict[str | bytes, int] = {}
    drafts = []
    for place, message in enumerate(request.keys):
        if place % _STRETCH == 0:
            await asyncio.sleep(0)  # verifications want their turn
        path = f"keys[{place}]"
        draft = _draft_from(fields, message, path)
        drafts.append(draft)
        # An Argon2 hash may come twice: its salt makes that unlikely, but what counts is the key id.
        unique: dict[str, str | bytes] = {f"{path}.key.key_id": draft.key.key_id, f"{path}.sha256": message.sha256}
        for field, value in unique.items():
            if value and seen.setdefault(value, place) != place:
                fields.wrong(field, f"stands in keys[{seen[value]}] already")
    fields.check()
    return drafts


async def imported_to(keys: Sequence[Key], now: float) -> Sequence[key_pb2.Key]:
    """The messages for keys that were taken over. now: Unix seconds, which `expired` is told by."""
    messages = []
    for place, key in enumerate(keys):
        if place % _STRETCH == 0:
            await asyncio.sleep(0)
        messages.append(key_to(key, now))
    return messages


def _draft_from(fields: Fields, message: admin_service_pb2.ImportedKey, path: str) -> ImportDraft:
    key = replace(key_fields_from(fields, message.key, f"{path}.key"), key_id=message.key.key_id)
    if message.key.tenant_id:
        fields.tenant_id(f"{path}.key.tenant_id", message.key.tenant_id)
    kind = message.WhichOneof("hash")
    if key.key_id and (problem := key_id_problem(key.key_id)):
        fields.wrong(f"{path}.key.key_id", problem)
    if kind == "argon2":
        if not key.key_id:
            fields.wrong(f"{path}.key.key_id", "needed with an Argon2 hash: the credential is KeyId.Secret")
        if problem := argon2_problem(message.argon2):
            fields.wrong(f"{path}.argon2", problem)
        return ImportDraft(key, message.argon2)
    if kind is None:
        fields.wrong(path, "sha256 or argon2 is needed")
    elif len(message.sha256) != SHA256_BYTES:
        fields.wrong(f"{path}.sha256", f"{SHA256_BYTES} bytes, not {len(message.sha256)}")
    return ImportDraft(key, message.sha256)
