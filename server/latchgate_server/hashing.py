"""Secrets at rest: peppers, Argon2id in its bounded pool, and the digests that keep Argon2 off the steady path.

What is stored of a secret is Argon2id over HMAC-SHA256(pepper, secret). Two profiles of its parameters:

    generated   t=1, m=1 MiB, p=1    256 random bits cannot be guessed, stretched or not, and 10,000 keys in use must
                                     come back within seconds of a restart
    imported    t=2, m=19 MiB, p=1   OWASP's minimum for passwords: nobody knows how an imported secret was made

Two more come from other systems. A `foreign` Argon2 hash is kept as it came, until its first use lets it be made anew
under `imported`. Of a whole credential whose SHA-256 was imported a `digest` is kept, HMAC-SHA256 of that SHA-256 under
a key derived from the pepper: it is what the key is found by, so nothing slower can stand in its place.

Beside the hash of a generated secret stands a tag of 32 bits, keyed by the pepper: a wrong secret is refused before
Argon2 runs, so guessing costs us microseconds. An imported secret has none, as it would help whoever has stolen the
database and the pepper to guess a weak one. Every comparison takes the same time wherever the difference lies.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final

from argon2 import Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import hash_secret, verify_secret

from latchgate_server import observability
from latchgate_server.core import bounds, key_format
from latchgate_server.core.errors import CannotDecide, Overloaded, PepperMissing
from latchgate_server.core.imported import digest_form
from latchgate_server.core.keyed_hash import KeyedHash
from latchgate_server.core.model import HashProfile, SecretHash
from latchgate_server.core.ports import Entropy
from latchgate_server.hash_threads import HashThreads

PEPPER_BYTES: Final = 32
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_TAG_BYTES: Final = 4
_KEY_IDS_REMEMBERED: Final = 1_024
_DERIVE: Final = b"\0latchgate "  # no key string holds a NUL, so no secret is ever hashed to a derived key


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """time_cost: passes; memory_cost: KiB; parallelism: lanes (RFC 9106, section 3.1)."""

    time_cost: int
    memory_cost: int
    parallelism: int

    @property
    def phc_prefix(self) -> str:
        """How the PHC string of a hash under these parameters begins."""
        return f"$argon2id$v=19$m={self.memory_cost},t={self.time_cost},p={self.parallelism}$"


PROFILES: Final = {
    HashProfile.GENERATED: Argon2Parameters(time_cost=1, memory_cost=1_024, parallelism=1),
    HashProfile.IMPORTED: Argon2Parameters(time_cost=2, memory_cost=19 * 1_024, parallelism=1),
}


class Pepper:
    """One secret of the deployment's, which the database never sees, and what is derived from it."""

    __slots__ = ("_apply", "_import_key", "_secret", "_tag", "pepper_id")

    def __init__(self, secret: bytes) -> None:
        """secret: PEPPER_BYTES or more. Raises ValueError for less."""
        if len(secret) < PEPPER_BYTES:
            raise ValueError(f"a pepper needs {PEPPER_BYTES} bytes or more")
        self._secret = secret
        self._apply = KeyedHash(secret)
        self._tag = KeyedHash(self.derive("secret tag"))
        self._import_key = self.derive("imported credential")
        self.pepper_id = self.derive("pepper id")[:8].hex()

    def __repr__(self) -> str:
        return f"Pepper({self.pepper_id})"

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose, which tells nothing of the pepper or of other keys."""
        return hmac.digest(self._secret, _DERIVE + purpose.encode(), "sha256")

    def apply(self, secret: str) -> bytes:
        """What Argon2 is given in place of the secret."""
        return self._apply.digest(secret.encode())

    def tag(self, key_id: str, secret: str) -> bytes:
        """The 32 bits that refuse nearly every wrong secret."""
        return self._tag.digest(f"{key_id}.{secret}".encode())[:_TAG_BYTES]

    def form(self, sha256: bytes) -> str:
        """What a credential with this SHA-256 is found by."""
        return digest_form(hmac.digest(self._import_key, sha256, "sha256"))


class Peppers:
    """The peppers of a deployment: new hashes are made under the current one, old ones verify under theirs."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """secrets: newest first, at least one."""
        self._by_id = {pepper.pepper_id: pepper for pepper in map(Pepper, secrets)}
        self.current = Pepper(secrets[0])

    def __iter__(self) -> Iterator[Pepper]:
        return iter(self._by_id.values())

    def get(self, pepper_id: str) -> Pepper:
        """The pepper of that id. Raises PepperMissing."""
        try:
            return self._by_id[pepper_id]
        except KeyError:
            raise PepperMissing(f"pepper {pepper_id} is not configured, but keys still need it") from None


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A key id and its secret, just made. The only value in which a whole secret of ours ever stands."""

    key_id: str
    secret: str = field(repr=False)

    @property
    def key_string(self) -> str:
        """The whole credential, to be told once."""
        return f"{self.key_id}.{self.secret}"


class SecretHasher:
    """Makes credentials, hashes secrets and proves them."""

    def __init__(self, peppers: Peppers, tag_key: bytes, entropy: Entropy, threads: int | None = None) -> None:
        """tag_key: keys the tag in key ids. threads: how many hashes are made at once; None: as HashThreads has it."""
        self._peppers = peppers
        self._tag_key = tag_key
        # A first call asks about its key id more than once.
        self._is_genuine = lru_cache(_KEY_IDS_REMEMBERED)(partial(key_format.is_genuine_key_id, tag_key=tag_key))
        self._entropy = entropy
        self._memory_digest = hashlib.blake2b(digest_size=16, key=entropy.bytes(32))
        self._threads = HashThreads(threads)
        self._imported = 0

    @property
    def waiting(self) -> int:
        """How many secrets Argon2 works on, or wait for it."""
        return self._threads.waiting

    def make_credential(self, prefix: str) -> NewCredential:
        """A new credential, with 16 random symbols in its id and 256 random bits in its secret."""
        key_id = key_format.render_key_id(prefix, self._entropy.bytes(16), self._tag_key)
        return NewCredential(key_id, key_format.render_secret(key_id, self._entropy.bytes(32)))

    def is_genuine_key_id(self, key_id: str) -> bool:
        """Whether this deployment issued the key id, as far as arithmetic can tell."""
        return self._is_genuine(key_id)

    async def seal(self, key_id: str, secret: str, profile: HashProfile) -> SecretHash:
        """What to store of a secret. Raises Overloaded."""
        pepper, parameters = self._peppers.current, PROFILES[profile]
        salt = self._entropy.bytes(_SALT_BYTES)
        phc = await self._threads.run(
            lambda: _argon2id(pepper.apply(secret), salt, parameters), is_short=profile is HashProfile.GENERATED
        )
        tag = pepper.tag(key_id, secret) if profile is HashProfile.GENERATED else None
        return SecretHash(profile=profile, pepper_id=pepper.pepper_id, phc=phc, tag=tag)

    def adopt_digest(self, sha256: bytes) -> SecretHash:
        """What to store of a credential of which another system has kept the SHA-256."""
        pepper = self._peppers.current
        return SecretHash(profile=HashProfile.DIGEST, pepper_id=pepper.pepper_id, phc=pepper.form(sha256), tag=None)

    def adopt_argon2(self, phc: str) -> SecretHash:
        """What to store of a secret of which another system has kept an Argon2 hash."""
        return SecretHash(profile=HashProfile.FOREIGN, pepper_id="", phc=phc, tag=None)

    def forms(self, sha256: bytes) -> list[str]:
        """Every form by which a credential with this SHA-256 may be stored: one for each pepper, the newest first."""
        return [pepper.form(sha256) for pepper in self._peppers]

    def refuses(self, key_id: str, secret: str, sealed: SecretHash) -> bool:
        """Whether the secret is certainly not the one that was sealed, told without Argon2. Raises PepperMissing."""
        if sealed.tag is None:
            return False
        return not hmac.compare_digest(self._peppers.get(sealed.pepper_id).tag(key_id, secret), sealed.tag)

    async def proves(self, key_id: str, secret: str, sealed: SecretHash) -> bool:
        """Whether the secret is the one that was sealed.

        Raises Overloaded where the pool's queue is full, PepperMissing, and CannotDecide where what is stored is no
        Argon2 hash.
        """
        if self.refuses(key_id, secret, sealed):
            return False
        if sealed.profile is HashProfile.GENERATED:
            pepper = self._peppers.get(sealed.pepper_id)
            return await self._threads.run(lambda: _argon2_verifies(sealed.phc, pepper.apply(secret)), is_short=True)
        return await self._proves_imported(secret, sealed)

    async def _proves_imported(self, secret: str, sealed: SecretHash) -> bool:
        """The same of an imported secret. Such hashes may be dear, so few of them wait at once."""
        if sealed.profile is HashProfile.DIGEST:
            form = self._peppers.get(sealed.pepper_id).form(hashlib.sha256(secret.encode()).digest())
            return hmac.compare_digest(form, sealed.phc)
        if sealed.profile is HashProfile.FOREIGN:
            given = secret.encode()
        else:
            given = self._peppers.get(sealed.pepper_id).apply(secret)
        if self._imported >= bounds.IMPORTED_PROOFS_AT_ONCE:
            observability.HASHES_REFUSED.inc()
            raise Overloaded("too many imported secrets are being verified at once", retry_after=1.0)
        self._imported += 1
        try:
            return await self._threads.run(lambda: _argon2_verifies(sealed.phc, given), is_short=False)
        finally:
            self._imported -= 1

    async def renewed(self, key_id: str, secret: str, sealed: SecretHash) -> SecretHash:
        """What to store in place of the hash of a secret that verified. Raises Overloaded."""
        if sealed.profile is HashProfile.DIGEST:
            return self.adopt_digest(hashlib.sha256(secret.encode()).digest())
        profile = HashProfile.IMPORTED if sealed.profile is HashProfile.FOREIGN else sealed.profile
        return await self.seal(key_id, secret, profile)

    def needs_renewal(self, sealed: SecretHash) -> bool:
        """Whether the hash was made under an older pepper, other parameters than those of its profile, or elsewhere."""
        if sealed.pepper_id != self._peppers.current.pepper_id:
            return True
        if sealed.profile is HashProfile.DIGEST:
            return False
        return not sealed.phc.startswith(PROFILES[sealed.profile].phc_prefix)

    def digest(self, secret: str) -> bytes:
        """What this process may remember of a secret that verified: BLAKE2b under a key that dies with the process."""
        digest = self._memory_digest.copy()  # which has taken in the key already
        digest.update(secret.encode())
        return digest.digest()

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()


def _argon2id(secret: bytes, salt: bytes, parameters: Argon2Parameters) -> str:
    return hash_secret(
        secret,
        salt,
        parameters.time_cost,
        parameters.memory_cost,
        parameters.parallelism,
        _HASH_BYTES,
        Type.ID,
    ).decode("ascii")


_TYPES: Final = {"$argon2id": Type.ID, "$argon2i": Type.I, "$argon2d": Type.D}


def _argon2_verifies(phc: str, secret: bytes) -> bool:
    type_ = _TYPES.get(phc[: phc.find("$", 1)], Type.ID)
    try:
        return verify_secret(phc.encode(), secret, type_)
    except VerifyMismatchError:
        return False
    except (InvalidHashError, VerificationError):
        raise CannotDecide("a stored hash is malformed") from None
