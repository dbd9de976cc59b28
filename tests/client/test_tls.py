"""Servers that ask who calls: over TLS, with certificates and keys, and what is told where one of them is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from latchgate import TLS, AsyncClient, CallFailed, Client, NotAuthenticated, PermissionDenied, Query, Unavailable
from tests.client.blocking import open_admin
from tests.conformance.house import House
from tests.support.certificates import Authority, Pair
from tests.support.server import Admin, ServerProcess


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pair:
    """The client's own certificate."""
    return authority.issue("client", "backend.test")


@pytest.fixture(scope="module")
def by_key(module_database: str, root_key: str, authority: Authority) -> Iterator[ServerProcess]:
    """Over TLS, with a key of the caller's."""
    settings = {**authority.issue("server").settings(), "verify_auth": "key"}
    with ServerProcess(module_database, settings) as process:
        yield process


@pytest.fixture(scope="module")
def house(by_key: ServerProcess, root_key: str, authority: Authority) -> Iterator[House]:
    root = Admin(by_key.admin_address, root_key, credentials=authority.credentials())
    yield House(root)
    root.close()


@pytest.fixture(scope="module")
def by_certificate(module_database: str, root_key: str, authority: Authority) -> Iterator[ServerProcess]:
    """Over mTLS."""
    settings = {
        **authority.issue("server").settings(),
        "tls_client_ca": str(authority.file),
        "verify_auth": "mtls",
        "admin_client_cert": "require",
    }
    with ServerProcess(module_database, settings) as process:
        yield process


class Asking:
    """Either client, asked for one decision."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, address: str, asked: str, **options: Any) -> list[bool]:
        """Whether the key is allowed, alone and in a batch."""
        if self.kind == "Client":
            with Client(address, **options) as client:
                answers = [client.verify(asked), *client.verify_many([Query(key=asked)])]
        else:
            answers = asyncio.run(self._ask(address, asked, options))
        return [not isinstance(answer, CallFailed) and answer.allowed for answer in answers]

    async def _ask(self, address: str, asked: str, options: Mapping[str, Any]) -> list[Any]:
        async with AsyncClient(address, **options, coalesce="coalescing" in self.kind) as client:
            return [await client.verify(asked), *await client.verify_many([Query(key=asked)])]


@pytest.fixture(params=["Client", "AsyncClient", "AsyncClient, coalescing"])
def ask(request: pytest.FixtureRequest) -> Asking:
    return Asking(request.param)


def test_a_caller_with_a_key_is_answered_over_tls(
    ask: Asking, by_key: ServerProcess, authority: Authority, house: House
) -> None:
    caller = house.key(permissions=["latchgate.verify"]).key_string
    asked = house.key().key_string
    assert ask(by_key.verify_address, asked, key=caller, tls=TLS(ca=authority.file)) == [True, True]


def test_a_caller_whose_key_is_missing_or_wrong_or_lacks_the_permission_is_told(
    ask: Asking, by_key: ServerProcess, authority: Authority, house: House
) -> None:
    tls, asked = TLS(ca=authority.file), house.key().key_string
    with pytest.raises(NotAuthenticated, match="MISSING_API_KEY; send one") as missing:
        ask(by_key.verify_address, asked, tls=tls)
    assert (missing.value.reason, missing.value.metadata) == (
        "CALLER_KEY_REJECTED",
        {"denial_reason": "MISSING_API_KEY"},
    )
    with pytest.raises(NotAuthenticated, match="INVALID_API_KEY") as wrong:
        ask(by_key.verify_address, asked, key=f"x{asked}", tls=tls)
    assert asked.partition(".")[2] not in str(wrong.value)
    with pytest.raises(PermissionDenied) as lacking:
        ask(by_key.verify_address, asked, key=asked, tls=tls)
    assert lacking.value.metadata == {"permission": "latchgate.verify"}


def test_a_caller_with_a_certificate_is_answered(
    ask: Asking, by_certificate: ServerProcess, authority: Authority, own: Pair, house: House
) -> None:
    tls = TLS(ca=str(authority.file), cert=own.cert, key=own.key)
    assert ask(by_certificate.verify_address, house.key().key_string, tls=tls) == [True, True]


@pytest.mark.parametrize("kind", ["AdminClient", "AsyncAdminClient"])
def test_an_administrator_with_a_certificate_is_let_in(
    kind: str,
    by_certificate: ServerProcess,
    root_key: str,
    authority: Authority,
    own: Pair,
) -> None:
    tls = TLS(ca=authority.file, cert=own.cert, key=own.key)
    with open_admin(kind, by_certificate.admin_address, root_key, tls=tls) as admin:
        assert admin.get_tenant("latchgate").tenant_id == "latchgate"
    with (
        open_admin(kind, by_certificate.admin_address, "x.y", tls=TLS(ca=authority.file), timeout=0.5) as admin,
        pytest.raises(Unavailable, match="where it asks for a certificate"),
    ):
        admin.get_tenant("latchgate")


def test_a_server_may_be_known_by_another_name_than_its_address(
    ask: Asking, by_key: ServerProcess, authority: Authority, house: House
) -> None:
    caller = house.key(permissions=["latchgate.verify"]).key_string
    known = TLS(ca=authority.file, server_name="latchgate.test")
    assert ask(by_key.verify_address, caller, key=caller, tls=known) == [True, True]
    with pytest.raises(Unavailable, match="certificate is for another name"):
        ask(by_key.verify_address, "x", tls=TLS(ca=authority.file, server_name="other.test"), timeout=0.3)


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("another authority", r"its certificate is not trusted; TLS\(ca=…\) is the file of whoever signed it"),
        ("a public authority", "its certificate is not trusted"),
        ("plaintext", r"it hangs up; where it speaks TLS, say so with tls=TLS\(…\)"),
        ("no certificate", r"it hangs up; where it asks for a certificate, TLS\(cert=…, key=…\) are yours"),
        ("a certificate of nobody's", "signed by nobody whom it trusts"),
        ("a server without TLS", "it does not speak TLS"),
    ],
)
def test_a_client_that_is_not_connected_says_why(
    kind: str,
    server: ServerProcess,
    by_certificate: ServerProcess,
    authority: Authority,
    tmp_path: Path,
    case: str,
    told: str,
) -> None:
    stranger = Authority(tmp_path)
    pair = stranger.issue("stranger")
    address = server.verify_address if case == "a server without TLS" else by_certificate.verify_address
    tls = {
        "another authority": TLS(ca=stranger.file),
        "a public authority": TLS(),
        "plaintext": None,
        "no certificate": TLS(ca=authority.file),
        "a certificate of nobody's": TLS(ca=authority.file, cert=pair.cert, key=pair.key),
        "a server without TLS": TLS(ca=authority.file),
    }[case]
    with pytest.raises(Unavailable, match=f"no connection to {address}: .*{told}"):
        Asking(kind)(address, "x", tls=tls, timeout=0.3)
