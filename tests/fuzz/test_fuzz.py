"""Random input, as much as a moment allows: the same each time. `make fuzz` goes on for as long as one likes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.contract import BUILT
from tests.fuzz.runner import fuzz
from tests.fuzz.targets import CALLERS, PARSERS, ControlPlane, DataPlane, Target
from tests.fuzz.world import World, told
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, make_root_key

SEED = 1
PARSED, ASKED, ADMINISTERED = 200, 60, 5
"""Values for each target of a kind."""


@pytest.fixture(scope="module", params=["native", "grpcio"])
def world(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[World]:
    url = postgres.new_database()
    root_key = make_root_key(url)
    with ServerProcess(url, {"transport": request.param}) as server:
        world = World(server, root_key)
        yield world
        world.close()
        log = "".join(server.log)
    assert "Traceback" not in log
    assert not told(log)
    assert not world.secrets.intersection(log.split('"'))


@pytest.mark.parametrize("target", PARSERS, ids=lambda target: target[0])
def test_a_parser_takes_anything(target: Target) -> None:
    fuzz(target, PARSED, SEED)


def test_whatever_callers_ask_is_answered_and_nothing_allowed_without_a_secret(world: World) -> None:
    plane = DataPlane(world)
    for target in plane.targets():
        fuzz(target, ASKED, SEED)
    plane.close()


@pytest.mark.parametrize("method", BUILT)
def test_whatever_administrators_ask_ends_in_order_and_tells_no_secret(world: World, method: str) -> None:
    plane = ControlPlane(world)
    mine = [target for target in plane.targets() if target[0].split()[0].rstrip(",") == method]
    assert len(mine) == len(CALLERS) + 1
    for target in mine:
        fuzz(target, ADMINISTERED, SEED)
    plane.close()
