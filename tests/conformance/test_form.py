"""Which server it is that the tests run on: the compiled one where they were asked to, and only then."""

from __future__ import annotations

import os

from tests.support.server import ServerProcess


def test_servers_are_compiled_where_they_are_meant_to_be(server: ServerProcess) -> None:
    (starting,) = [line for line in server.log if '"event": "starting"' in line]
    assert f'"compiled": {str("SERVER_PATH" in os.environ).lower()}' in starting
