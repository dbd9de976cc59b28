"""Credentials of other systems: what they may look like, and the *form* by which each of them is found.

Of a key that was imported by the SHA-256 of its credential the form is a keyed digest of that; the credential may look
like anything that one can be. Of a key that was imported by an Argon2 hash, whose credential is `KeyId.Secret`, it is
the key id. A form of the first kind has a dot and a key id has none, so that neither is ever taken for the other. The
digest comes first: who can present a credential of that digest has proven it whole, whatever somebody else calls their
key ids.
"""

from __future__ import annotations

import base64
import binascii
import re

from latchgate_server.core import bounds
from latchgate_server.core.key_format import has_key_id_form

SHA256_BYTES = 32

_DIGEST = "sha256."
_KEY_ID = re.compile(r"[!-\-/-~]+")  # printable ASCII without the space and the dot
_NUMBER = r"(0|[1-9][0-9]{0,9})"
_PHC = re.compile(
    rf"\$argon2(?:id|i|d)(?:\$v=(?:16|19))?\$m={_NUMBER},t={_NUMBER},p={_NUMBER}\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)


def digest_form(digest: bytes) -> str:
    """The form of a credential with this keyed digest."""
    return _DIGEST + digest.hex()


def key_id_problem(key_id: str) -> str:
    """What keeps this from being the key id of an imported key, for people; empty where nothing does."""
    if len(key_id) > bounds.KEY_ID_LENGTH or not _KEY_ID.fullmatch(key_id):
        return f"1 to {bounds.KEY_ID_LENGTH} printable ASCII characters without spaces and dots"
    if has_key_id_form(key_id):
        return "a key id of our own form cannot be imported; create the key instead"
    return ""


def argon2_problem(phc: str) -> str:
    """What keeps this from being an Argon2 hash that may be imported, for people; empty where nothing does.

    Its cost is bounded: verifying must not become a way to keep this service busy. RFC 9106 and the PHC string format
    say the rest, as the reference implementation reads it: numbers without leading zeros, base 64 without padding.
    """
    if len(phc) > bounds.IMPORT_PHC_LENGTH:
        return f"at most {bounds.IMPORT_PHC_LENGTH} characters"
    parts = _PHC.fullmatch(phc)
    if parts is None:
        return "a PHC string such as $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH"
    memory, passes, lanes = int(parts[1]), int(parts[2]), int(parts[3])
    if not 1 <= lanes <= bounds.IMPORT_ARGON2_LANES:
        return f"p from 1 to {bounds.IMPORT_ARGON2_LANES}"
    if not 8 * lanes <= memory <= bounds.IMPORT_ARGON2_KIB:
        return f"m from 8 for each lane to {bounds.IMPORT_ARGON2_KIB} KiB"
    if not 1 <= passes <= bounds.IMPORT_ARGON2_PASSES:
        return f"t from 1 to {bounds.IMPORT_ARGON2_PASSES}"
    if memory * passes > bounds.IMPORT_ARGON2_WORK:
        return f"m times t up to {bounds.IMPORT_ARGON2_WORK}"
    for name, text, least in (("salt", parts[4], 8), ("hash", parts[5], 16)):
        length = _decoded_length(text)
        if length is None or not least <= length <= bounds.IMPORT_ARGON2_BYTES:
            return f"a {name} of {least} to {bounds.IMPORT_ARGON2_BYTES} bytes, in base 64 without padding"
    return ""


def _decoded_length(text: str) -> int | None:
    """How many bytes the base 64 holds; None where it is no encoding of any, or not the only one."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
    return len(decoded) if base64.b64encode(decoded).decode().rstrip("=") == text else None
