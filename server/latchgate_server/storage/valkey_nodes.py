"""The servers of a store, and which of them keeps which slot: one server alone, or a cluster.

Which of the two it is, is asked of the servers that were named. A server keeps its own connections, and one that fails
takes nothing from the others: that, and a word to a new owner (ASKING) that no other command gets between, is why the
library's own client for clusters is not used here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from valkey.crc import VALKEY_CLUSTER_HASH_SLOTS as SLOTS
from valkey.exceptions import ResponseError, ValkeyError

from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.storage.valkey_address import Endpoint, StoreAddress
from latchgate_server.storage.valkey_node import ValkeyNode, reason_of


class ValkeyNodes:
    """Who keeps what, as far as is known. It is asked for anew when a server says or shows that it has changed."""

    def __init__(self, address: StoreAddress, patience: float) -> None:
        """patience: seconds that one server may take to say what it knows."""
        self._address = address
        self._patience = patience
        self._nodes: dict[Endpoint, ValkeyNode] = {}
        # The owner of each slot; empty until somebody has told.
        self._owners: list[Endpoint | None] = []
        # Every server that was told of, replicas too: whom to ask next time.
        self._known: set[Endpoint] = set()
        self._doubted: set[Endpoint] = set()
        self._asked = 0
        self._why = ""
        self._look: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def owner_name(self, slot: int) -> str:
        """The server that keeps a slot, by its address; all that were named, while nothing is known of it."""
        owner = self._owners[slot] if self._owners else None
        return str(owner) if owner else ",".join(map(str, self._address.seeds))

    def owners(self) -> Sequence[Endpoint]:
        """The servers that keep slots."""
        return sorted({owner for owner in self._owners if owner is not None})

    def slots_without_owner(self) -> int:
        """How many slots nobody keeps."""
        return self._owners.count(None)

    async def owner(self, slot: int) -> ValkeyNode:
        """The server that keeps a slot. Raises StoreUnavailable."""
        if not self._owners:
            await self.look()
        owner = self._owners[slot]
        if owner is None:
            self.look_soon()
            raise StoreUnavailable(f"no server of the cluster keeps slot {slot}")
        return self.node(owner)

    def node(self, endpoint: Endpoint) -> ValkeyNode:
        """The server at this address."""
        node = self._nodes.get(endpoint)
        if node is None:
            node = self._nodes[endpoint] = ValkeyNode(endpoint, self._address.pool(endpoint, self._patience))
        return node

    def move(self, slot: int, endpoint: Endpoint) -> ValkeyNode:
        """The server that keeps a slot from now on, as its last owner says. More may have moved."""
        self._owners[slot] = endpoint
        self.look_soon()
        return self.node(endpoint)

    def doubt(self, node: ValkeyNode) -> None:
        """Note that a server failed: another may have taken its place."""
        self._doubted.add(node.endpoint)
        _ = self._spawn(node.drop_idle())
        self.look_soon()

    def look_soon(self) -> None:
        """Begin to ask who keeps what, where nobody is asking yet."""
        if self._look is None or self._look.done():
            self._look = self._spawn(self._ask())

    async def look(self) -> None:
        """Ask who keeps what. Raises StoreUnavailable where nobody tells."""
        self.look_soon()
        if self._look is not None:
            # Others wait for the same answer, and it is of use after this caller has gone.
            await asyncio.shield(self._look)
        if not self._owners:
            raise StoreUnavailable(self._why)

    async def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()), return_exceptions=True)

    async def _ask(self) -> None:
        for endpoint in self._candidates():
            node = self.node(endpoint)
            try:
                async with asyncio.timeout(self._patience):
                    owners, known = _read(await node.slots(), endpoint)
            except ResponseError as error:
                if self._stands_alone(endpoint, error):
                    return
            except (ValkeyError, OSError, ValueError) as error:
                self._why = f"{endpoint}: {reason_of(error)}"
            else:
                if known:
                    self._adopt(owners, known)
                    return
                self._why = f"{endpoint}: its cluster keeps no slots yet"

    def _candidates(self) -> Iterable[Endpoint]:
        """Whom to ask: another one first each time, since one that is cut off goes on telling what it knew."""
        known = sorted(self._known)
        self._asked += 1
        turn = self._asked % (len(known) or 1)
        known = [*known[turn:], *known[:turn]]
        trusted = [endpoint for endpoint in known if endpoint not in self._doubted]
        return dict.fromkeys((*trusted, *self._address.seeds, *known))

    def _stands_alone(self, endpoint: Endpoint, error: ResponseError) -> bool:
        """Take a server that tells of no cluster for one that keeps everything; redirections are followed all the same.

        Whether that is so. Of several servers that are no cluster, none may count for all.
        """
        if self._owners:
            return True
        if len(self._address.seeds) > 1:
            self._why = f"{endpoint}: it tells of no cluster, which several hosts would have to be"
            return False
        if "cluster mode" in str(error):  # it was not even asked: the connection's database does not exist
            self._why = f"{endpoint}: {reason_of(error)}"
            return False
        self._owners = [endpoint] * SLOTS
        return True

    def _adopt(self, owners: list[Endpoint | None], known: set[Endpoint]) -> None:
        self._owners, self._known = owners, known
        self._doubted.clear()
        kept = known | set(self._address.seeds)
        for endpoint in [endpoint for endpoint in self._nodes if endpoint not in kept]:
            _ = self._spawn(self._retire(self._nodes.pop(endpoint)))

    async def _retire(self, node: ValkeyNode) -> None:
        try:
            await asyncio.sleep(self._patience)  # by then, no call of before is under way
        finally:
            await node.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_without_trouble(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _without_trouble(work: Coroutine[Any, Any, None]) -> None:
    """Closing a connection that is broken may fail; there is nobody to tell."""
    with suppress(ValkeyError, OSError):
        await work


def _read(reply: Any, asked: Endpoint) -> tuple[list[Endpoint | None], set[Endpoint]]:
    """The owners of all slots, and every server, from what CLUSTER SLOTS answers. Raises ValueError."""
    owners: list[Endpoint | None] = [None] * SLOTS
    known: set[Endpoint] = set()
    try:
        for first, last, *servers in reply:
            endpoints = [Endpoint(_host(host, asked), int(port)) for host, port, *_ in servers]
            known.update(endpoints)
            owners[first : last + 1] = [endpoints[0]] * (last + 1 - first)
    except (TypeError, IndexError) as error:
        raise ValueError("CLUSTER SLOTS answers in another form") from error
    if len(owners) != SLOTS:
        raise ValueError("CLUSTER SLOTS tells of slots that do not exist")
    return owners, known


def _host(host: bytes | None, asked: Endpoint) -> str:
    """A server that does not know its own address has the one that it was reached at."""
    return host.decode() if host else asked.host
