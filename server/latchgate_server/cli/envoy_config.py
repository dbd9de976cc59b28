"""`latchgate envoy-config`: a bootstrap for Envoy that works as it is. Its text is envoy_bootstrap.yaml."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from importlib import resources
from string import Template
from typing import Annotated

import typer

from latchgate_server.cli.remote import DEFAULTS, VERIFY_ADDRESS

_TEXT = "envoy_bootstrap.yaml"
_UNIX = "unix:"
_TLS = Template(
    """
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext$sni
          common_tls_context:
            alpn_protocols: [h2]$own
            validation_context:
              trusted_ca: { filename: $ca }
              # Without this, anybody with a certificate of that authority's could stand in for Latchgate.
              match_typed_subject_alt_names:
                - { san_type: $san_type, matcher: { exact: $name } }"""
)
_OWN_CERTIFICATE = Template(
    """
            tls_certificates:
              - certificate_chain: { filename: $cert }
                private_key: { filename: $key }"""
)
_CALLER = Template(
    """
                        # Who asks: a key with the permission latchgate.verify, from Envoy's environment.
                        initial_metadata:
                          - { key: authorization, value: "Bearer %ENVIRONMENT($variable)%" }"""
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("envoy-config")(envoy_config)


def envoy_config(  # noqa: PLR0913 - each is an option
    *,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where Envoy takes requests.")] = "127.0.0.1:10000",
    upstream: Annotated[str, typer.Option(metavar="HOST:PORT", help="The service to protect.")] = "127.0.0.1:8000",
    latchgate: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help=f"The verify port, HOST:PORT or unix:PATH; else {VERIFY_ADDRESS}."),
    ] = None,
    ca: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Speak TLS to Latchgate: the certificate of whoever signed its own."),
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name in Latchgate's certificate, if not its address."),
    ] = None,
    cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Envoy's own certificate, where LATCHGATE_VERIFY_AUTH is mtls.")
    ] = None,
    cert_key: Annotated[str | None, typer.Option("--key", metavar="FILE", help="Its private key.")] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The variable with Envoy's own key string, where LATCHGATE_VERIFY_AUTH is key."
        ),
    ] = None,
    admin: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where Envoy is administered and says that it is ready.")
    ] = "127.0.0.1:9901",
) -> None:
    """Print a configuration for Envoy with Latchgate in front of a service.

    Files are read by Envoy, where Envoy runs.
    """
    address = latchgate or os.environ.get(VERIFY_ADDRESS) or DEFAULTS[VERIFY_ADDRESS]
    values = {
        **_host_and_port("listen", listen),
        **_host_and_port("upstream", upstream),
        **_host_and_port("admin", admin),
        "latchgate_type": "STATIC" if address.startswith(_UNIX) else "STRICT_DNS",
        "latchgate_address": _latchgate_address(address),
        "latchgate_tls": _tls(address, ca, server_name, cert, cert_key),
        "latchgate_caller": _caller(key_variable),
    }
    text = resources.files(__package__).joinpath(_TEXT).read_text(encoding="utf-8")
    typer.echo(Template(text).substitute(values), nl=False)


def _tls(address: str, ca: str | None, server_name: str | None, cert: str | None, key: str | None) -> str:
    """How Envoy speaks TLS to Latchgate, as YAML; empty: it does not."""
    if (cert is None) != (key is None):
        raise typer.BadParameter("a certificate needs --cert and --key", param_hint="--cert" if cert else "--key")
    if ca is None:
        for option, given in (("--server-name", server_name), ("--cert", cert)):
            if given is not None:
                raise typer.BadParameter("it needs --ca, which says whom to trust", param_hint=option)
        return ""
    name = server_name or ("localhost" if address.startswith(_UNIX) else address.rpartition(":")[0].strip("[]"))
    own = "" if cert is None else _OWN_CERTIFICATE.substitute(cert=json.dumps(cert), key=json.dumps(key))
    return _TLS.substitute(
        ca=json.dumps(ca),
        own=own,
        sni="" if _is_address(name) else f"\n          sni: {json.dumps(name)}",
        san_type="IP_ADDRESS" if _is_address(name) else "DNS",
        name=json.dumps(name),
    )


def _caller(variable: str | None) -> str:
    """What Envoy shows Latchgate of itself, as YAML; empty: nothing."""
    if variable is None:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise typer.BadParameter(f"{variable!r} is no name of a variable", param_hint="--key-variable")
    return _CALLER.substitute(variable=variable)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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
