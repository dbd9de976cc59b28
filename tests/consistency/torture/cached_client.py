"""Clients with a cache of their own: a process each, that watches one replica through a proxy that fails on demand."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection

from latchgate import AsyncClient, CallFailed, Verification
from latchgate.v1 import decision_pb2
from latchgate.v1.verify_service_pb2 import VerifyRequest
from tests.consistency.torture.client import PAUSE_AFTER_ERROR, PERMISSION, ClientProcess, KeyUser, run_in_process
from tests.consistency.torture.cluster import Replica
from tests.consistency.torture.judge import ALLOW, ASKED, CACHED, ERROR
from tests.support.fault_proxy import FaultProxy

_STRETCH = 20
_PAUSE = 0.03  # after each stretch: what the cache answers takes next to nothing, and would fill the judge's time


class CachedClient:
    """One of them. changing: held by whoever pauses it or uses its proxy."""

    def __init__(self, replica: Replica, key: str, seed: int, stack: ExitStack) -> None:
        """key: of a caller that may watch."""
        self.replica = replica
        self.proxy = stack.enter_context(FaultProxy(f"tcp://{replica.verify_address}"))
        self.process = ClientProcess(verify_from_cache, self.proxy.address, key, replica.number, seed)
        self.changing = asyncio.Lock()


def verify_from_cache(connection: Connection, address: str, key: str, replica: int, seed: int) -> None:
    """What the process runs."""
    run_in_process(_Client(connection, random.Random(seed)).run(address, key, replica))


class _Client(KeyUser):
    async def run(self, address: str, key: str, replica: int) -> None:
        async with AsyncClient(address, key=key, cache=True) as client:
            await self.work([self._verify_in_a_loop(client, replica)])

    async def _verify_in_a_loop(self, client: AsyncClient, replica: int) -> None:
        key_strings: dict[bytes, str] = {}
        while True:
            for _ in range(_STRETCH):
                number, request = await self.next_key()
                if request not in key_strings:
                    key_strings[request] = VerifyRequest.FromString(request).key
                hits = client.cache_info().hits
                start = time.monotonic()
                try:
                    outcome = _outcome(await client.verify(key_strings[request], requires=PERMISSION))
                except CallFailed as error:
                    outcome = ERROR + int(error.code.value[0])
                from_cache = client.cache_info().hits > hits
                self.note(number, replica + (CACHED if from_cache else ASKED), outcome, start)
                if outcome >= ERROR:
                    await asyncio.sleep(PAUSE_AFTER_ERROR)
            await asyncio.sleep(_PAUSE)


def _outcome(verification: Verification) -> int:
    if verification.allowed:
        return ALLOW
    return int(decision_pb2.DenialReason.Value(f"DENIAL_REASON_{verification.reason}"))
