"""Who calls: the key in a call's metadata, and the address that it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote

_AUTHORIZATION = "authorization"
_BEARER = "bearer "

Metadata = Iterable[tuple[str, str | bytes]]


def values_of(metadata: Metadata | None, name: str) -> list[str]:
    """Every value of that name, in lower case, in its order."""
    return [str(value) for key, value in metadata or () if key == name]


def caller_key(metadata: Metadata | None) -> str | None:
    """The key string in `authorization: Bearer KEY`; empty where there is none, None where there is anything else."""
    keys = values_of(metadata, _AUTHORIZATION)
    if not keys:
        return ""
    if len(keys) > 1 or not keys[0].lower().startswith(_BEARER):
        return None
    return keys[0][len(_BEARER) :]


@lru_cache(maxsize=4_096)
def peer_address(peer: str) -> str:
    """The address in gRPC's name for a peer, such as `ipv4:203.0.113.9:4711`; empty for a Unix socket."""
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    return rest.rpartition(":")[0].strip("[]")
