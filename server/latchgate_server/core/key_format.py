r"""The credential: `KeyId.Secret`, for example `lg_0a1B…Yz.V9c…`.

    key id = prefix "_" random(16) tag(6)       public
    secret = random(43) checksum(6)             told once

All but the prefix is base 62 over 0-9A-Za-z. The tag is a keyed filter: a key id that this deployment never issued is
refused by arithmetic. It protects against floods, not against forgery; the secret does that. The checksum is CRC-32
(ISO-HDLC, as in zlib) over everything that stands before it, so that a secret scanner can tell a genuine key from a
look-alike without asking anybody.

As a regular expression: `[a-z][a-z0-9_]{0,31}_[0-9A-Za-z]{22}\.[0-9A-Za-z]{49}`
"""

from __future__ import annotations

import hmac
import re
import zlib
from functools import lru_cache
from typing import Final

from latchgate_server.core import bounds
from latchgate_server.core.keyed_hash import KeyedHash

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Two digits in one step: each key id is looked at before anything else is.
_PAIR: Final = len(ALPHABET) ** 2
_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]

ID_RANDOM_LENGTH: Final = 16
SECRET_RANDOM_LENGTH: Final = 43
_CHECK_LENGTH: Final = 6
_ID_TAIL_LENGTH: Final = ID_RANDOM_LENGTH + _CHECK_LENGTH
SECRET_LENGTH: Final = SECRET_RANDOM_LENGTH + _CHECK_LENGTH

_PREFIX: Final = re.compile(rf"[a-z][a-z0-9_]{{0,{bounds.KEY_PREFIX_LENGTH - 1}}}")


def is_prefix(text: str) -> bool:
    """Whether `text` can lead a key id: a letter, then up to 31 of a-z, 0-9 and '_'."""
    return _PREFIX.fullmatch(text) is not None


class Presented:
    """A credential as somebody presented it, taken apart but not believed.

    key_id: what stands before the first dot. Of a credential in a form of its own it may be the secret.
    secret: what stands behind it, or None where nothing does.
    """

    __slots__ = ("key_id", "secret")

    def __init__(self, key_id: str, secret: str | None) -> None:
        self.key_id: Final = key_id
        self.secret: Final = secret

    def __repr__(self) -> str:
        return "Presented()"


def is_presentable(key_string: str) -> bool:
    """Whether this can be a credential of any form: not empty, not too long, all of it printable ASCII."""
    return 0 < len(key_string) <= bounds.KEY_STRING_LENGTH and key_string.isascii() and key_string.isprintable()


def parse(key_string: str) -> Presented | None:
    """Take a credential apart; None for what can be none, or has nothing before its first dot."""
    if not (0 < len(key_string) <= bounds.KEY_STRING_LENGTH and key_string.isascii() and key_string.isprintable()):
        return None  # as is_presentable says; each key string comes past here, and a call costs as much as all of this
    key_id, _, secret = key_string.partition(".")
    return Presented(key_id, secret or None) if key_id else None


def is_genuine_key_id(key_id: str, tag_key: bytes) -> bool:
    """Whether the key id has our form and the tag that `tag_key` gives it. Compares in constant time."""
    if not has_key_id_form(key_id):
        return False
    return hmac.compare_digest(key_id[-_CHECK_LENGTH:], _tag(key_id[:-_CHECK_LENGTH], tag_key))


def has_key_id_form(key_id: str) -> bool:
    """Whether the key id looks like one of ours, whatever its tag."""
    prefix, _, tail = key_id.rpartition("_")
    return len(tail) == _ID_TAIL_LENGTH and _is_base62(tail) and is_prefix(prefix)


def prefix_of(key_id: str) -> str | None:
    """The prefix of a key id of our form, or None."""
    return key_id.rpartition("_")[0] if has_key_id_form(key_id) else None


def is_whole_secret(key_id: str, secret: str) -> bool:
    """Whether the secret has the length, alphabet and checksum of one that was generated for this key id."""
    if len(secret) != SECRET_LENGTH or not _is_base62(secret) or not key_id.isascii():
        return False
    return secret[-_CHECK_LENGTH:] == _checksum(f"{key_id}.{secret[:-_CHECK_LENGTH]}")


def render_key_id(prefix: str, entropy: bytes, tag_key: bytes) -> str:
    """A new key id.

    entropy: 16 random bytes, of which 62^16 values remain (the bias is below 2^-32, and an id need not be secret).
    """
    stem = f"{prefix}_{_base62(int.from_bytes(entropy) % 62**ID_RANDOM_LENGTH, ID_RANDOM_LENGTH)}"
    return stem + _tag(stem, tag_key)


def render_secret(key_id: str, entropy: bytes) -> str:
    """A new secret for a key id.

    entropy: 32 random bytes. All 256 bits are kept: 62^43 is just above 2^256.
    """
    random = _base62(int.from_bytes(entropy), SECRET_RANDOM_LENGTH)
    return random + _checksum(f"{key_id}.{random}")


_keyed = lru_cache(maxsize=4)(KeyedHash)  # there is one tag key for the life of a deployment


def _tag(stem: str, tag_key: bytes) -> str:
    number = int.from_bytes(_keyed(tag_key).digest(stem.encode())[:8])
    return _base62(number % 62**_CHECK_LENGTH, _CHECK_LENGTH)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECK_LENGTH)


def _is_base62(text: str) -> bool:
    return text.isascii() and text.isalnum()


def _base62(number: int, length: int) -> str:
    """The number as exactly `length` base 62 digits, most significant first."""
    digits = ""
    while len(digits) < length:
        number, pair = divmod(number, _PAIR)
        digits = _PAIRS[pair] + digits
    return digits[-length:]
