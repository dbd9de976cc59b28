"""Each rule of the protocol is needed: without it, there is an interleaving in which a revoked key passes.

Every scenario is played twice, on the code as it is, where the promise holds, and on the code with that one rule
broken, where it does not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.consistency.mutants.catalogue import MUTANTS
from tests.consistency.mutants.mutant import BrokenPromise, Mutant
from tests.consistency.world import Deployment, open_deployment, open_world


@pytest.fixture(scope="module")
async def deployment(module_database: str) -> AsyncIterator[Deployment]:
    """It, with its administrator."""
    async with open_deployment(module_database) as made:
        yield made


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
async def test_the_promise_needs_the_rule_that(
    mutant: Mutant, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(deployment) as world:
        await mutant.scenario(world)
    mutant.apply(monkeypatch)
    async with open_world(deployment) as world:
        with pytest.raises(BrokenPromise):
            await mutant.scenario(world)
