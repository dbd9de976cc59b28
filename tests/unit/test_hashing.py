"""Secrets at rest: how they are hashed and proven, under which pepper, and how much of that can be asked at once."""

from __future__ import annotations

import asyncio
import hmac
import re
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from argon2 import Type
from argon2.low_level import hash_secret, verify_secret
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server import hash_threads, hashing
from latchgate_server.core.errors import CannotDecide, Overloaded, PepperMissing
from latchgate_server.core.key_format import render_key_id, render_secret
from latchgate_server.core.model import HashProfile, SecretHash
from latchgate_server.hashing import Pepper, Peppers, SecretHasher

PAGE = Path(__file__).parents[2] / "docs/reference/credential.md"
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
TAG_KEY = b"the tag key of this deployment"
KEY_ID = "lg_7RiJxkEgOGusQGwpIaEXAMPL"
SECRET = render_secret(KEY_ID, bytes(range(32)))
ANOTHER = render_secret(KEY_ID, bytes(32))


class Counting:
    """Entropy that never repeats and is the same in every run."""

    def __init__(self) -> None:
        self._next = 0

    def bytes(self, count: int) -> bytes:
        self._next += 1
        return self._next.to_bytes(count)


def hasher_with(*peppers: bytes, threads: int = 1) -> SecretHasher:
    return SecretHasher(Peppers(peppers), TAG_KEY, Counting(), threads)


@pytest.fixture
async def hasher() -> AsyncIterator[SecretHasher]:
    made = hasher_with(NEW)
    yield made
    made.close()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with every run of Argon2."""
    runs: list[str] = []
    verifies: Callable[[str, bytes], bool] = hashing._argon2_verifies

    def count(phc: str, secret: bytes) -> bool:
        runs.append(phc)
        return verifies(phc, secret)

    monkeypatch.setattr(hashing, "_argon2_verifies", count)
    return runs


# What is stored.


@pytest.mark.parametrize(
    ("profile", "parameters"),
    [(HashProfile.GENERATED, "m=1024,t=1,p=1"), (HashProfile.IMPORTED, "m=19456,t=2,p=1")],
)
async def test_a_hash_is_argon2id_over_the_peppered_secret_under_its_profiles_parameters(
    hasher: SecretHasher, profile: HashProfile, parameters: str
) -> None:
    sealed = await hasher.seal(KEY_ID, SECRET, profile)
    assert sealed.profile is profile
    assert re.fullmatch(rf"\$argon2id\$v=19\${parameters}\$[A-Za-z0-9+/]{{22}}\$[A-Za-z0-9+/]{{43}}", sealed.phc)
    assert verify_secret(sealed.phc.encode(), hmac.digest(NEW, SECRET.encode(), "sha256"), Type.ID)


async def test_only_a_generated_secret_has_a_tag_and_it_has_32_bits(hasher: SecretHasher) -> None:
    generated = await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    assert generated.tag is not None
    assert len(generated.tag) == 4
    assert (await hasher.seal(KEY_ID, SECRET, HashProfile.IMPORTED)).tag is None


async def test_equal_secrets_have_different_hashes(hasher: SecretHasher) -> None:
    first, second = [await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED) for _ in range(2)]
    assert first.phc != second.phc
    assert first.tag == second.tag


async def test_nothing_that_is_stored_holds_the_secret_or_the_pepper(hasher: SecretHasher) -> None:
    sealed = await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    stored = f"{sealed.pepper_id} {sealed.phc} {(sealed.tag or b'').hex()}"
    assert SECRET not in stored
    assert NEW.hex() not in stored
    assert sealed.pepper_id not in NEW.hex()


# Proving a secret.


@pytest.mark.parametrize("profile", list(hashing.PROFILES))
async def test_the_secret_that_was_sealed_is_proven_and_no_other(hasher: SecretHasher, profile: HashProfile) -> None:
    sealed = await hasher.seal(KEY_ID, SECRET, profile)
    assert await hasher.proves(KEY_ID, SECRET, sealed)
    for wrong in (ANOTHER, "", SECRET[:-1], SECRET + "x", SECRET.swapcase()):
        assert not await hasher.proves(KEY_ID, wrong, sealed)


async def test_a_wrong_secret_is_refused_before_argon2_runs(
    hasher: SecretHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    runs = counted(monkeypatch)
    assert hasher.refuses(KEY_ID, ANOTHER, sealed)
    assert not await hasher.proves(KEY_ID, ANOTHER, sealed)
    assert runs == []
    assert not hasher.refuses(KEY_ID, SECRET, sealed)
    assert await hasher.proves(KEY_ID, SECRET, sealed)
    assert len(runs) == 1


async def test_the_right_tag_alone_proves_nothing(hasher: SecretHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    other = await hasher.seal(KEY_ID, ANOTHER, HashProfile.GENERATED)
    runs = counted(monkeypatch)
    assert not await hasher.proves(KEY_ID, ANOTHER, replace(sealed, tag=other.tag))
    assert len(runs) == 1


async def test_an_imported_secret_is_left_to_argon2(hasher: SecretHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = await hasher.seal(KEY_ID, SECRET, HashProfile.IMPORTED)
    runs = counted(monkeypatch)
    assert not hasher.refuses(KEY_ID, ANOTHER, sealed)
    assert not await hasher.proves(KEY_ID, ANOTHER, sealed)
    assert len(runs) == 1


async def test_a_tag_belongs_to_its_key(hasher: SecretHasher) -> None:
    sealed = await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    assert hasher.refuses("lg_another", SECRET, sealed)


@pytest.mark.parametrize("phc", ["", "nonsense", "$argon2id$v=19$m=1024,t=1,p=1$x$y", "$2b$12$abc", "$argon2i$v=19$"])
async def test_a_stored_hash_that_makes_no_sense_is_no_denial(hasher: SecretHasher, phc: str) -> None:
    sealed = SecretHash(profile=HashProfile.IMPORTED, pepper_id=Pepper(NEW).pepper_id, phc=phc, tag=None)
    with pytest.raises(CannotDecide, match="malformed"):
        await hasher.proves(KEY_ID, SECRET, sealed)


# Peppers.


async def test_new_hashes_are_made_under_the_first_pepper_and_old_ones_verify_under_theirs() -> None:
    before, after = hasher_with(OLD), hasher_with(NEW, OLD)
    old = await before.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    new = await after.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    assert (old.pepper_id, new.pepper_id) == (Pepper(OLD).pepper_id, Pepper(NEW).pepper_id)
    for sealed in (old, new):
        assert await after.proves(KEY_ID, SECRET, sealed)
        assert not await after.proves(KEY_ID, ANOTHER, sealed)
    before.close()
    after.close()


async def test_a_hash_under_an_older_pepper_or_other_parameters_needs_renewal() -> None:
    before, after = hasher_with(OLD), hasher_with(NEW, OLD)
    old = await before.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    new = await after.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    stronger = hash_secret(b"x" * 32, b"y" * 16, 2, 1_024, 1, 32, Type.ID).decode()
    assert not before.needs_renewal(old)
    assert after.needs_renewal(old)
    assert not after.needs_renewal(new)
    assert after.needs_renewal(replace(new, phc=stronger))
    assert after.needs_renewal(replace(new, profile=HashProfile.IMPORTED))
    before.close()
    after.close()


async def test_a_hash_under_a_pepper_that_is_gone_cannot_be_decided_and_is_told_by_the_peppers_id() -> None:
    before, after = hasher_with(OLD), hasher_with(NEW)
    for profile in hashing.PROFILES:
        sealed = await before.seal(KEY_ID, SECRET, profile)
        with pytest.raises(PepperMissing, match=sealed.pepper_id):
            await after.proves(KEY_ID, SECRET, sealed)
    before.close()
    after.close()


def test_a_pepper_has_an_id_that_tells_nothing_of_it_and_needs_its_length() -> None:
    assert Pepper(OLD).pepper_id != Pepper(NEW).pepper_id
    assert Pepper(OLD).pepper_id == Pepper(bytes(OLD)).pepper_id
    assert re.fullmatch(r"[0-9a-f]{16}", Pepper(OLD).pepper_id)
    assert OLD[:8].hex() != Pepper(OLD).pepper_id
    with pytest.raises(ValueError, match="32 bytes"):
        Pepper(bytes(31))


@given(st.binary(min_size=32, max_size=48), st.text(max_size=8), st.text(max_size=8))
def test_keys_for_different_purposes_have_nothing_to_do_with_each_other(secret: bytes, one: str, two: str) -> None:
    pepper = Pepper(secret)
    assert (pepper.derive(one) == pepper.derive(two)) == (one == two)
    assert pepper.derive(one) != pepper.apply(one)


def test_keys_derived_in_the_field_stay_the_same() -> None:
    """Computed apart from the code: what was stored or chained under a derived key must stay readable for ever."""
    assert Pepper(OLD).derive("audit chain") == hmac.digest(OLD, b"\0latchgate audit chain", "sha256")
    assert Pepper(OLD).pepper_id == hmac.digest(OLD, b"\0latchgate pepper id", "sha256")[:8].hex()
    tag_key = hmac.digest(OLD, b"\0latchgate secret tag", "sha256")
    assert Pepper(OLD).tag("id", "secret") == hmac.digest(tag_key, b"id.secret", "sha256")[:4]


# The bounded pool.


async def test_beyond_the_queues_bound_the_answer_is_overloaded_and_nothing_is_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasher = hasher_with(NEW, threads=1)
    release = threading.Event()
    ran: list[str] = []

    def slow(secret: bytes, salt: bytes, parameters: hashing.Argon2Parameters) -> str:
        release.wait()
        ran.append("once")
        return "hash"

    monkeypatch.setattr(hashing, "_argon2id", slow)
    monkeypatch.setattr(hash_threads, "QUEUE_LENGTH", 3)
    waiting = [asyncio.ensure_future(hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)
    assert caught.value.retry_after > 0
    release.set()
    assert [sealed.phc for sealed in await asyncio.gather(*waiting)] == ["hash"] * 3
    assert (await hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)).phc == "hash"
    assert len(ran) == 4
    hasher.close()


async def test_who_gives_up_waiting_leaves_its_place_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = hasher_with(NEW, threads=1)
    release = threading.Event()
    monkeypatch.setattr(hashing, "_argon2id", lambda *_: "hash" if release.wait() else "")
    monkeypatch.setattr(hash_threads, "QUEUE_LENGTH", 2)
    waiting = [asyncio.ensure_future(hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    waiting[1] = asyncio.ensure_future(hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED))
    await asyncio.sleep(0)
    release.set()
    assert [sealed.phc for sealed in await asyncio.gather(*waiting)] == ["hash", "hash"]
    hasher.close()


async def test_hashing_does_not_stop_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = hasher_with(NEW, threads=1)
    release = threading.Event()
    monkeypatch.setattr(hashing, "_argon2id", lambda *_: "hash" if release.wait() else "")
    waiting = asyncio.ensure_future(hasher.seal(KEY_ID, SECRET, HashProfile.GENERATED))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    release.set()
    assert (await waiting).phc == "hash"
    hasher.close()


# Credentials and digests.


def test_a_new_credential_is_made_of_fresh_randomness_and_is_genuine_here_alone(hasher: SecretHasher) -> None:
    first, second = hasher.make_credential("lg"), hasher.make_credential("lg")
    assert first.key_id != second.key_id
    assert first.secret != second.secret
    assert hasher.is_genuine_key_id(first.key_id)
    elsewhere = SecretHasher(Peppers([NEW]), b"another tag key", Counting(), 1)
    assert not elsewhere.is_genuine_key_id(first.key_id)
    elsewhere.close()


def test_what_is_remembered_of_a_secret_is_worthless_in_any_other_process() -> None:
    here, there = hasher_with(NEW), SecretHasher(Peppers([NEW]), TAG_KEY, _Other(), 1)
    assert here.digest(SECRET) == here.digest(SECRET)
    assert here.digest(SECRET) != here.digest(ANOTHER)
    assert here.digest(SECRET) != there.digest(SECRET)
    assert len(here.digest(SECRET)) == 16
    here.close()
    there.close()


class _Other:
    def bytes(self, count: int) -> bytes:
        return b"\xff" * count


# docs/reference/credential.md, which secret scanners are written from.


def _documented(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


@given(st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True), st.binary(min_size=48, max_size=48), st.data())
def test_the_documented_check_finds_what_was_issued_and_nothing_else(
    prefix: str, entropy: bytes, data: st.DataObject
) -> None:
    scope: dict[str, Callable[[str], bool]] = {}
    exec(_documented("python"), scope)
    is_credential = scope["is_credential"]
    key_id = render_key_id(prefix, entropy[:16], TAG_KEY)
    text = f"{key_id}.{render_secret(key_id, entropy[16:])}"
    assert is_credential(text)
    assert re.fullmatch(_documented("regex").strip(), text)
    place = data.draw(st.integers(0, len(text) - 1))
    symbol = data.draw(st.characters(exclude_characters=text[place]))
    assert not is_credential(text[:place] + symbol + text[place + 1 :])
    assert not is_credential(text[:-1])
    assert not is_credential(text + "0")


def test_the_documented_example_is_a_credential() -> None:
    scope: dict[str, Callable[[str], bool]] = {}
    exec(_documented("python"), scope)
    example = re.search(r"^ {4}(\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert example
    assert scope["is_credential"](example[1])


def test_the_documented_profiles_are_the_profiles() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) MiB \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {
        HashProfile(name): hashing.Argon2Parameters(int(passes), int(memory) * 1_024, int(lanes))
        for name, passes, memory, lanes in rows
    } == hashing.PROFILES
