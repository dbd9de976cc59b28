"""Secrets, tags, digests and hashes are compared in constant time, everywhere; and mutants of the code show it.

Each place that calls `hmac.compare_digest` is played twice with a value that refuses to be compared by `==`: as it is,
and with `==` in place of the call, where the value must notice. A place that is added without a scenario here fails a
test, and so does a secret that is compared by `==`.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import inspect
import textwrap
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from latchgate_server import hashing
from latchgate_server.admin import audit_log, paging
from latchgate_server.core import key_format
from latchgate_server.core.model import HashProfile, SecretHash
from latchgate_server.core.record import Record
from latchgate_server.hashing import Pepper, Peppers, SecretHasher
from latchgate_server.system import SystemEntropy
from latchgate_server.verify import cache
from latchgate_server.verify.cache import Entry
from latchgate_server.verify.proofs import Proofs
from latchgate_server.verify.verifier import Verifier

SERVER = Path(hashing.__file__).parent
KEY_ID, TAG_KEY = "lg_7RiJxkEgOGusQGwpIaEXAMPL", b"the tag key"
SECRET_WORDS = {"digest", "hash", "mac", "phc", "proven", "secret", "sha256", "tag", "form", "key_string"}


class ComparedByEquality(AssertionError):
    """The time that a comparison took told where the difference lies."""


class Bytes(bytes):
    """Bytes that may only be compared in constant time."""

    def __eq__(self, other: object) -> bool:
        raise ComparedByEquality

    def __ne__(self, other: object) -> bool:
        raise ComparedByEquality

    __hash__ = bytes.__hash__


class Text(str):
    """Text that may only be compared in constant time."""

    def __eq__(self, other: object) -> bool:
        raise ComparedByEquality

    def __ne__(self, other: object) -> bool:
        raise ComparedByEquality

    __hash__ = str.__hash__


@dataclass(frozen=True)
class Place:
    """A function that compares.

    owner: its class or module. scenario: plays it, and says whether it tells right from wrong.
    """

    owner: Any
    function: str
    scenario: Callable[[pytest.MonkeyPatch], Awaitable[bool]]

    def __str__(self) -> str:
        return f"{self.owner.__name__.rpartition('.')[2]}.{self.function}"


def hasher() -> SecretHasher:
    return SecretHasher(Peppers([bytes(32)]), TAG_KEY, SystemEntropy(), threads=1)


def digest_of(credential: str, kind: Callable[[str], str] = str) -> SecretHash:
    sealed = hasher().adopt_digest(hashlib.sha256(credential.encode()).digest())
    return SecretHash(profile=sealed.profile, pepper_id=sealed.pepper_id, phc=kind(sealed.phc), tag=None)


# The scenarios.


async def a_generated_secret_is_refused_by_its_tag(_: pytest.MonkeyPatch) -> bool:
    made = hasher()
    pepper = Pepper(bytes(32))
    tag = Bytes(pepper.tag(KEY_ID, "secret"))
    sealed = SecretHash(profile=HashProfile.GENERATED, pepper_id=pepper.pepper_id, phc="", tag=tag)
    return made.refuses(KEY_ID, "wrong", sealed) and not made.refuses(KEY_ID, "secret", sealed)


async def a_whole_credential_is_proven_by_its_digest(_: pytest.MonkeyPatch) -> bool:
    sealed = digest_of("credential", Text)
    made = hasher()
    return await made.proves("", "credential", sealed) and not await made.proves("", "another", sealed)


async def a_form_is_found(_: pytest.MonkeyPatch) -> bool:
    entry = Entry(cast(Record, SimpleNamespace(secret=digest_of("credential", Text))))
    return entry.is_found_by(digest_of("credential").phc) and not entry.is_found_by(digest_of("another").phc)


async def a_key_id_has_the_right_tag(monkeypatch: pytest.MonkeyPatch) -> bool:
    key_id = key_format.render_key_id("lg", bytes(16), TAG_KEY)
    tag = key_format._tag
    monkeypatch.setattr(key_format, "_tag", lambda *arguments: Text(tag(*arguments)))
    return key_format.is_genuine_key_id(key_id, TAG_KEY) and not key_format.is_genuine_key_id(key_id, b"another")


def verifier() -> Verifier:
    """As much of one as comparing needs."""
    nothing: Any = SimpleNamespace(load=None)
    return Verifier(
        cache=cache.RecordCache(1),
        loader=nothing,
        feed=nothing,
        outage=nothing,
        hasher=SAME,
        renewal=nothing,
        limits=nothing,
        clock=nothing,
        **dict.fromkeys(_PARTS, nothing),
    )


SAME = hasher()
_KNOWN_PARTS = {"cache", "loader", "feed", "outage", "hasher", "renewal", "limits", "clock"}
_PARTS = set(inspect.signature(Verifier).parameters) - _KNOWN_PARTS


def proven_entry(secret: str) -> Entry:
    record = cast(Record, SimpleNamespace(secret=digest_of("x"), identity=SimpleNamespace(key_id=KEY_ID)))
    return Entry(record, Bytes(SAME.digest(secret)))


async def a_proven_secret_comes_again(monkeypatch: pytest.MonkeyPatch) -> bool:
    asked = verifier()
    monkeypatch.setattr(asked, "_decide", lambda *_: "decided")
    monkeypatch.setattr(asked, "_is_refused", lambda *_: None)
    known: Any = SimpleNamespace(entry=proven_entry("secret"))
    question: Any = None
    return bool(asked._answer(known, "secret", question)) and asked._answer(known, "wrong", question) is None


async def a_proven_secret_needs_no_second_proof(monkeypatch: pytest.MonkeyPatch) -> bool:
    asked = verifier()._proofs

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(asked, "_is_proven_by_hash", never)
    entry = proven_entry("secret")
    return await asked.is_proven(entry, "secret", "") and not await asked.is_proven(entry, "wrong", "")


PLACES = (
    Place(SecretHasher, "refuses", a_generated_secret_is_refused_by_its_tag),
    Place(SecretHasher, "_proves_imported", a_whole_credential_is_proven_by_its_digest),
    Place(Entry, "is_found_by", a_form_is_found),
    Place(key_format, "is_genuine_key_id", a_key_id_has_the_right_tag),
    Place(Verifier, "_answer", a_proven_secret_comes_again),
    Place(Proofs, "is_proven", a_proven_secret_needs_no_second_proof),
)
ELSEWHERE: Mapping[ModuleType, str] = {
    audit_log: "an offline walk by somebody who has the pepper, over hashes that stand in the log before them",
    paging: "of page tokens, which are no secrets of anybody's: their holder asked for them",
}


# The checks.


class _ToEquality(ast.NodeTransformer):
    """`a == b` in place of `hmac.compare_digest(a, b)`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) == "hmac.compare_digest":
            return ast.Compare(left=node.args[0], ops=[ast.Eq()], comparators=[node.args[1]])
        return node


def mutate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    function = cast(FunctionType, inspect.getattr_static(place.owner, place.function))
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    mutated = ast.fix_missing_locations(_ToEquality().visit(tree))
    assert "compare_digest" not in ast.unparse(mutated)
    namespace: dict[str, Any] = {}
    exec(compile(mutated, f"<{place}, mutated>", "exec"), function.__globals__, namespace)
    monkeypatch.setattr(place.owner, place.function, namespace[place.function])


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_a_comparison_takes_the_same_time_wherever_the_difference_lies(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        assert await place.scenario(patch)
    mutate(place, monkeypatch)
    with pytest.raises(ComparedByEquality):
        await place.scenario(monkeypatch)


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SERVER.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_every_comparison_has_its_scenario() -> None:
    found = set()
    for path, tree in modules():
        if path in {Path(module.__file__ or "") for module in ELSEWHERE}:
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and "compare_digest" in ast.unparse(
                function
            ):
                found.add((path, function.name))
    assert found == {(Path(inspect.getfile(place.owner)), place.function) for place in PLACES}


def test_no_secret_is_compared_by_equality() -> None:
    guilty = []
    for path, tree in modules():
        if "cli" in path.parts or path.name == "migrate.py":
            continue  # what administrators have typed on their own machines, and digests of files that we ship
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                sides = [node.left, *node.comparators]
                names = {ast.unparse(side).rpartition(".")[2] for side in sides}
                if names & SECRET_WORDS and not any(isinstance(side, ast.Constant) for side in sides):
                    guilty.append(f"{path.name}: {ast.unparse(node)}")
    assert guilty == []


def test_a_digest_is_worthless_without_the_pepper(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a mutant that keys it by nothing, or by what the database holds, is found."""

    def is_keyed() -> bool:
        sha256 = hashlib.sha256(b"credential").digest()
        one, other = (Pepper(bytes([number]) * 32).form(sha256) for number in (1, 2))
        unkeyed = [sha256, hashlib.sha256(sha256).digest(), hmac.digest(b"", sha256, "sha256")]
        guessed = [hmac.digest(sha256, sha256, "sha256"), hmac.digest(TAG_KEY, sha256, "sha256")]
        return one != other and not {one, other} & {f"sha256.{digest.hex()}" for digest in unkeyed + guessed}

    assert is_keyed()
    source = textwrap.dedent(inspect.getsource(Pepper.form))
    assert source.count("self._import_key") == 1
    for key in ('b""', "sha256", "bytes(32)"):
        namespace: dict[str, Any] = {}
        exec(source.replace("self._import_key", key), Pepper.form.__globals__, namespace)
        with monkeypatch.context() as patch:
            patch.setattr(Pepper, "form", namespace["form"])
            assert not is_keyed(), key


def test_the_key_of_digests_is_no_other_key() -> None:
    pepper = Pepper(bytes(32))
    assert len({pepper._import_key, pepper.derive("secret tag"), pepper._secret, pepper.derive("audit chain")}) == 4
