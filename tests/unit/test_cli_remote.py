"""Lists are read page by page, and no `repr` or error shows the administrator's key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2
from latchgate_server.cli.remote import ADMIN_KEY, ADMIN_KEY_FILE, PAGE_SIZE, Admin, CallerKey, administration

SECRET = "V9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV"
KEY_STRING = f"lg_0123456789012345678901.{SECRET}"


class Tenants:
    """ListTenants with so many tenants, as a server answers it."""

    def __init__(self, count: int) -> None:
        self.ids = [f"t{number}" for number in range(count)]
        self.sizes: list[int] = []

    def __call__(self, request: pb.ListTenantsRequest, **call: Any) -> pb.ListTenantsResponse:
        begin = int(request.page_token or 0)
        end = begin + request.page_size
        self.sizes.append(request.page_size)
        assert len(self.sizes) < 10, "the list has no end"
        return pb.ListTenantsResponse(
            tenants=[tenant_pb2.Tenant(tenant_id=tenant_id) for tenant_id in self.ids[begin:end]],
            next_page_token=str(end) if end < len(self.ids) else "",
        )


@pytest.mark.parametrize(
    ("count", "limit", "sizes", "given", "more"),
    [
        (0, None, [PAGE_SIZE], 0, ""),
        (2 * PAGE_SIZE + 1, None, [PAGE_SIZE] * 3, 2 * PAGE_SIZE + 1, ""),
        (2 * PAGE_SIZE, None, [PAGE_SIZE] * 2, 2 * PAGE_SIZE, ""),
        (PAGE_SIZE * 2, 1, [1], 1, "1"),
        (PAGE_SIZE * 3, PAGE_SIZE + 5, [PAGE_SIZE, 5], PAGE_SIZE + 5, str(PAGE_SIZE + 5)),
        (3, 5, [5], 3, ""),
    ],
)
def test_a_list_has_every_page_or_as_much_as_was_asked_for(
    count: int, limit: int | None, sizes: list[int], given: int, more: str
) -> None:
    rpc: Any = Tenants(count)
    admin = Admin(stub=rpc, address="", key=CallerKey(KEY_STRING, ""))

    whole = admin.read_list(rpc, pb.ListTenantsRequest(), lambda page: page.tenants, limit)

    assert [tenant.tenant_id for tenant in whole.tenants] == rpc.ids[:given]
    assert whole.next_page_token == more
    assert rpc.sizes == sizes


def test_no_repr_shows_the_key() -> None:
    rpc: Any = Tenants(0)

    assert SECRET not in repr(Admin(stub=rpc, address="", key=CallerKey(KEY_STRING, "")))


@pytest.mark.parametrize(
    "mistake", [f"{KEY_STRING} {KEY_STRING}", f"\N{ZERO WIDTH SPACE}{KEY_STRING}", f"{KEY_STRING}\x00"]
)
def test_a_malformed_key_is_refused_without_showing_it(
    mistake: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key"
    path.write_text(mistake, encoding="utf-8")
    monkeypatch.delenv(ADMIN_KEY, raising=False)
    monkeypatch.setenv(ADMIN_KEY_FILE, str(path))

    with pytest.raises(typer.Exit), administration():
        pass

    assert (
        capsys.readouterr().err
        == f"latchgate: {ADMIN_KEY_FILE} {path} holds no key: one line of printable ASCII is expected\n"
    )
