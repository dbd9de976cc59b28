"""`latchgate envoy-config`: a bootstrap for Envoy that works as it is. Its text is envoy_bootstrap.yaml."""

from __future__ import annotations

import json
import os
from importlib import resources
from string import Template
from typing import Annotated

import typer

from latchgate_server.cli.remote import DEFAULTS, VERIFY_ADDRESS

_TEXT = "envoy_bootstrap.yaml"
_UNIX = "unix:"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("envoy-config")(envoy_config)


def envoy_config(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where Envoy takes requests.")] = "127.0.0.1:10000",
    upstream: Annotated[str, typer.Option(metavar="HOST:PORT", help="The service to protect.")] = "127.0.0.1:8000",
    latchgate: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help=f"The verify port, HOST:PORT or unix:PATH; else {VERIFY_ADDRESS}."),
    ] = None,
    admin: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where Envoy is administered and says that it is ready.")
    ] = "127.0.0.1:9901",
) -> None:
    """Print a configuration for Envoy with Latchgate in front of a service."""
    address = latchgate or os.environ.get(VERIFY_ADDRESS) or DEFAULTS[VERIFY_ADDRESS]
    values = {
        **_host_and_port("listen", listen),
        **_host_and_port("upstream", upstream),
        **_host_and_port("admin", admin),
        "latchgate_type": "STATIC" if address.startswith(_UNIX) else "STRICT_DNS",
        "latchgate_address": _latchgate_address(address),
    }
    text = resources.files(__package__).joinpath(_TEXT).read_text(encoding="utf-8")
    typer.echo(Template(text).substitute(values), nl=False)


def _host_and_port(option: str, address: str) -> dict[str, str]:
    """The parts of an address, as YAML; JSON is a part of it."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) <= 65_535):
        raise typer.BadParameter(f"{address!r} is not HOST:PORT", param_hint=f"--{option}")
    return {f"{option}_host": json.dumps(host), f"{option}_port": str(int(port))}


def _latchgate_address(address: str) -> str:
    if address.startswith(_UNIX):
        return f"{{ pipe: {{ path: {json.dumps(address.removeprefix(_UNIX))} }} }}"
    parts = _host_and_port("latchgate", address)
    return f"{{ socket_address: {{ address: {parts['latchgate_host']}, port_value: {parts['latchgate_port']} }} }}"
