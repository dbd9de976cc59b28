"""Keys of another system, taken over by their hashes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from latchgate.admin.calls import Call, changes, reads
from latchgate.admin.key import Key, key_from
from latchgate.admin.keys import KeyFields, fill_key
from latchgate.admin.values import Propagation, propagation_from
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedKey:
    """A key to take over, by one of two hashes; neither is in a `repr`.

    sha256: of the whole credential, 32 bytes. argon2: of its secret, in PHC form; key_id then names the key. chosen:
    the rest of the key, see KeyFields.
    """

    tenant: str = ""
    key_id: str = ""
    sha256: bytes = field(default=b"", repr=False)
    argon2: str = field(default="", repr=False)
    chosen: KeyFields = field(default_factory=KeyFields)

    def to_message(self) -> pb.ImportedKey:
        """The message. Raises ValueError unless there is one hash."""
        if bool(self.sha256) == bool(self.argon2):
            raise ValueError("either sha256 or argon2 is expected")
        key = key_pb2.Key(tenant_id=self.tenant, key_id=self.key_id)
        fill_key(key, self.chosen)
        if self.sha256:
            return pb.ImportedKey(key=key, sha256=self.sha256)
        return pb.ImportedKey(key=key, argon2=self.argon2)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysImported:
    """The keys as they were stored, in their order. propagation: None on a dry run."""

    keys: tuple[Key, ...]
    propagation: Propagation | None


def import_keys(keys: Iterable[ImportedKey], *, dry_run: bool = False) -> Call[KeysImported]:
    """Take over up to 1,000 keys, all or none. dry_run: only check them.

    Raises InvalidRequest, AlreadyExists and others whose `violations` name the keys that were refused, such as
    `keys[3]`, up to ten of them.
    """
    request = pb.ImportKeysRequest(keys=[key.to_message() for key in keys], dry_run=dry_run)
    if dry_run:
        return reads("ImportKeys", request, _keys_imported_from)
    # Had a first try succeeded, a second one would find every credential taken.
    return changes("ImportKeys", request, _keys_imported_from, repeatable=False)


def _keys_imported_from(response: pb.ImportKeysResponse) -> KeysImported:
    propagation = propagation_from(response) if response.HasField("propagation") else None
    return KeysImported(keys=tuple(map(key_from, response.keys)), propagation=propagation)
