"""What is published: an example that works as it stands, and no dependency but two."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conformance.house import House
from tests.support.server import ServerProcess

CLIENT = Path(__file__).resolve().parents[2] / "client"


def test_the_example_of_the_readme_works(house: House, server: ServerProcess) -> None:
    example = re.search(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    key = house.key(owner="ada", permissions=["orders.read"]).key_string
    program = example[1].replace("127.0.0.1:50051", server.verify_address)
    program += "import sys\nprint(may_read_orders(sys.argv[1], ''), may_read_orders('garbage', ''))\n"
    done = subprocess.run(
        [sys.executable, "-c", program, key], capture_output=True, text=True, timeout=60, check=True, cwd=CLIENT
    )
    assert done.stdout == "denied: INVALID_API_KEY\nada None\n"


def test_the_client_needs_grpcio_and_protobuf_alone() -> None:
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [re.split(r"\W", name)[0] for name in project["dependencies"]] == ["grpcio", "protobuf"]
    program = "import sys, latchgate, latchgate.v1.admin_service_pb2_grpc; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CLIENT)
    loaded = done.stdout.split()
    # grpcio looks for its own companions by itself, and Python's distributions may load what they come with.
    foreign = {"google.rpc", "google.api", "latchgate_server", "structlog", "pydantic", "asyncpg"} & set(loaded)
    assert not foreign
