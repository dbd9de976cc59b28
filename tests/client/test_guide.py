"""docs/guides/protect-a-service.md holds: each of its programs does what it is said to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.services import get
from tests.conformance.house import House
from tests.support.server import ServerProcess

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "protect-a-service.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def program(number: int, server: ServerProcess) -> dict[str, Any]:
    """The names that a program of the guide defines, with a server that is there."""
    names: dict[str, Any] = {"__name__": "service"}
    exec(compile(PROGRAMS[number].replace("127.0.0.1:50051", server.verify_address), GUIDE.name, "exec"), names)
    return names


@pytest.mark.parametrize(("number", "path"), [(0, "/orders"), (1, "/orders"), (2, "/sites/berlin")])
async def test_a_program_of_the_guide_lets_in_whom_it_says(
    house: House, server: ServerProcess, number: int, path: str
) -> None:
    app = program(number, server)["app"]
    allowed = house.key(permissions=["orders.read"], owner="ada", resources=["sites/berlin"])
    answers = [
        await get(app, path, {"x-api-key": key}) if key else await get(app, path)
        for key in (allowed.key_string, house.key().key_string, "")
    ]
    assert [answer.status for answer in answers] == [200, 403, 400]
    assert (allowed.key.tenant_id if path == "/orders" else "berlin, for ada") in answers[0].text


async def test_the_guides_program_for_grpc_lets_in_whom_it_says(house: House, server: ServerProcess) -> None:
    assert len(PROGRAMS) == 4
    names = program(3, server)
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(names["get_order"]) for name in ("GetOrder", "DeleteOrder")
    }
    running = names["server"]
    running.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.v1.Orders", methods)])
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    allowed = house.key(permissions=["orders.*"])
    codes = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method, key in (("GetOrder", allowed.key_string), ("DeleteOrder", allowed.key_string), ("GetOrder", "")):
            call: Any = channel.unary_unary(f"/shop.v1.Orders/{method}")
            try:
                assert call(b"", metadata=[("x-api-key", key)], timeout=20) == allowed.key.tenant_id.encode()
                codes.append(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.append(error.code())
    running.stop(None).wait()
    names["interceptor"].close()
    assert codes == [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED]
