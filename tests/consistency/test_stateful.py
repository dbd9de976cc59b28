"""No interleaving lets a decision be older than a change that has returned.

Hypothesis makes up what administrators, a hand at psql, replicas, their connections and time do, and in which order. A
model of three dictionaries knows what the answer is after each change. Whatever happened, a decision that starts now
must be the model's answer after the last change that has returned, or after a later one that is still on its way: never
an older one, and never an error, as the database is always there.

The same examples every time, in some seconds. STATEFUL_EXAMPLES=2000 tries that many others instead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from tests.consistency.machine import Replicas
from tests.consistency.world import Deployment, open_deployment

EXAMPLES = int(os.environ.get("STATEFUL_EXAMPLES", "0"))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of this test's own, which runs only while a rule does."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def deployment(loop: asyncio.AbstractEventLoop, database_url: str) -> Iterator[Deployment]:
    """What the examples share; each has tenants, keys and replicas of its own."""
    context = open_deployment(database_url)
    yield loop.run_until_complete(context.__aenter__())
    loop.run_until_complete(context.__aexit__(None, None, None))


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_no_decision_is_older_than_a_change_that_has_returned(
    loop: asyncio.AbstractEventLoop, deployment: Deployment
) -> None:
    profile = settings(
        max_examples=EXAMPLES or 40,
        derandomize=not EXAMPLES,
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    Replicas.loop, Replicas.deployment = loop, deployment
    run_state_machine_as_test(Replicas, settings=profile)
