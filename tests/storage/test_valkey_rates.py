"""Rate limits in a store that processes share: what one server promises, a cluster promises likewise."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import valkey

from latchgate_server.core.charging import Holder, Reset
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.storage.valkey_address import Endpoint, StoreAddress
from latchgate_server.system import SystemClock
from tests.support.certificates import Authority, Pair
from tests.support.rate_stores import opened, rate, taken
from tests.support.valkey import valkey_server
from tests.support.valkey_cluster import running_cluster


@dataclass
class Store:
    """address: as it is configured. ports: of all of its servers."""

    address: str
    ports: list[int]


@pytest.fixture(scope="module", params=["one server", "cluster"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "cluster":
        with running_cluster() as cluster:
            yield Store(cluster.address(), cluster.ports)
    else:
        with valkey_server() as server:
            yield Store(server.connection_url, [server.port])


async def test_what_several_processes_are_let_through_is_the_limit_for_every_tenant(store: Store) -> None:
    tenants = [f"acme-{number}" for number in range(12)]  # on all nodes, whichever they are
    async with opened(store.address) as one, opened(store.address) as other:
        for tenant_id in tenants:
            held = rate(tenant_id, 7)
            assert sum(await asyncio.gather(taken(one, held, times=6), taken(other, held, times=6))) == 7


async def test_all_limits_of_a_decision_give_or_none(store: Store) -> None:
    key, tenant, plan = rate("acme", 5), rate("acme", 2, Holder.TENANT), rate("acme", 5, Holder.TENANT)
    async with opened(store.address) as rates:
        assert await taken(rates, key, tenant, plan, times=4) == 2
        assert await taken(rates, key, plan, times=5) == 3, "a denial took nothing of the others"


async def test_a_limit_that_was_set_back_begins_with_what_was_left(store: Store) -> None:
    now = SystemClock().now()
    async with opened(store.address) as rates:
        assert await taken(rates, rate("acme", 5, reset=Reset(9, 3, now)), times=5) == 2


async def test_a_server_that_forgot_the_script_is_sent_it_again(store: Store) -> None:
    held = rate("acme", 3)
    async with opened(store.address) as rates:
        assert await taken(rates, held) == 1
        for port in store.ports:
            with closing(valkey.Valkey(port=port)) as client:
                client.script_flush()
        assert await taken(rates, held, times=3) == 2


async def test_what_a_cancelled_call_left_behind_is_read_by_nobody_else(store: Store) -> None:
    held = rate("acme", 1_000)
    async with opened(store.address) as rates:
        await taken(rates, held)
        for _ in range(20):
            calls = [asyncio.create_task(rates.charge([held], 1, 1)) for _ in range(40)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert all(len(answer.backlogs) == 1 for answer in answers if not isinstance(answer, BaseException))
        assert len((await rates.charge([held, rate("acme", 1)], 1, 0)).backlogs) == 2
        assert await taken(rates, held, times=100) == 100, "and no connection is lost to it"


async def test_a_user_with_no_more_rights_than_the_manual_says_is_enough(store: Store) -> None:
    manual = Path("docs/limits.md").read_text(encoding="utf-8")
    rights = re.findall(r"`(~latchgate:\*|\+[a-z|]+)`", manual)
    for port in store.ports:
        client: Any = valkey.Valkey(port=port)  # its methods have no types
        with closing(client):
            client.execute_command("ACL", "SETUSER", "latchgate", "on", ">sesame", *rights)
    async with opened(store.address.replace("//", "//latchgate:sesame@")) as rates:
        assert [await taken(rates, rate(f"acme-{number}", 3), times=4) for number in range(9)] == [3] * 9
    async with opened(store.address.replace("//", "//latchgate:wrong@")) as rates:
        with pytest.raises(StoreUnavailable, match="it refuses the user or the password"):
            await taken(rates, rate("acme", 3))


@pytest.mark.parametrize(
    "address",
    [
        "valkey://:sesame/@127.0.0.1:6379/0",
        "valkey://:sesame@127.0.0.1:port/0",
        "valkey://:sesame@[127.0.0.1:6379/0",
        "valkey://:sesame@a,,b/0",
        "valkey://:sesame@a:6379/0?unheard_of=1",
        "valkey://:sesame@a:6379/0?socket_timeout=soon",
    ],
)
def test_an_address_that_makes_no_sense_is_refused_and_not_quoted(address: str) -> None:
    with pytest.raises(ValueError, match=r"is expected|is not known") as refused:
        StoreAddress.parse(address)
    assert "sesame" not in str(refused.value)


def test_an_address_names_one_server_or_several_and_shows_no_password() -> None:
    read = StoreAddress.parse("rediss://user:s%2Fe@me@a:1,[::1]:2,B/0")
    assert [str(seed) for seed in read.seeds] == ["a:1", "::1:2", "b:6379"]
    assert read.options["password"] == "s/e@me"
    assert "me" not in repr(read)
    assert StoreAddress.parse("unix:///run/valkey.sock").seeds == (Endpoint("/run/valkey.sock", 0),)


async def test_over_tls_a_server_is_believed_with_a_certificate_for_its_own_name_alone(tmp_path: Path) -> None:
    authority, held = Authority(tmp_path), rate("acme", 3)
    with valkey_server() as server:
        for name, believed in (("127.0.0.1", True), ("elsewhere.test", False)):
            async with tls_in_front(server.port, authority.issue("store", name)) as port:
                address = f"valkeys://127.0.0.1:{port}/0?ssl_ca_certs={authority.file}"
                async with opened(address) as rates:
                    if believed:
                        assert await taken(rates, held) == 1
                    else:
                        with pytest.raises(StoreUnavailable, match="no connection"):
                            await taken(rates, held)


@asynccontextmanager
async def tls_in_front(port: int, pair: Pair) -> AsyncIterator[int]:
    """What is said to this port goes on to another one, in plaintext."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(65_536):
                writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, onward[1]), carry(onward[0], writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
