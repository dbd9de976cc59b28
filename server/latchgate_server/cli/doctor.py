"""The command `latchgate doctor`: what is wrong with a deployment, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.table import Table
from rich.text import Text

from latchgate_server.bootstrap import certificate_files
from latchgate_server.cli.connection import open_channel, tls_advice
from latchgate_server.cli.failures import FAILED
from latchgate_server.cli.output import Format, print_table
from latchgate_server.cli.remote import ADMIN_ADDRESS, VERIFY_ADDRESS
from latchgate_server.cli.text import printable
from latchgate_server.config import Settings, SettingsProblem, load_settings
from latchgate_server.core.diagnosis import Finding, Level
from latchgate_server.core.redaction import without_secrets
from latchgate_server.doctor import diagnose, judge_certificate
from latchgate_server.transport.certificates import CertificateFiles

_SECONDS = 3.0
_VERIFY_SERVICE = "latchgate.v1.VerifyService"
_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.WRONG: "red"}
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}  # noqa: S104 - what is listened on, to call it


def run(output: Format) -> None:
    """Check, tell, and leave with exit code 1 where something is wrong."""
    findings = _findings()
    is_well = all(finding.level is not Level.WRONG for finding in findings)
    if output is Format.JSON:
        told = {"findings": [asdict(finding) for finding in findings], "healthy": is_well}
        print(without_secrets(json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False)))
    else:
        _print(findings)
    if not is_well:
        raise typer.Exit(FAILED)


def _findings() -> Sequence[Finding]:
    try:
        settings = load_settings()
    except (SettingsProblem, OSError) as problem:
        advice = "correct it; nothing else could be checked"
        return [Finding("settings", Level.WRONG, line, advice) for line in str(problem).splitlines()]
    found = asyncio.run(diagnose(settings))
    certificate = judge_certificate(settings)
    own = None if certificate is None or certificate.level is Level.WRONG else certificate_files(settings)
    about_tls = [] if certificate is None else [certificate]
    return [Finding("settings", Level.OK, "they parse"), *about_tls, *found, *_ports(settings, own)]


def _ports(settings: Settings, own: CertificateFiles | None) -> Iterator[Finding]:
    """Whether both ports answer, and say that they are well."""
    for check, variable, listened, service in (
        ("verify port", VERIFY_ADDRESS, settings.verify_listen, _VERIFY_SERVICE),
        ("admin port", ADMIN_ADDRESS, settings.admin_listen, ""),
    ):
        elsewhere = os.environ.get(variable)
        yield _port(check, elsewhere or _callable(listened), variable, service, certificate=None if elsewhere else own)


def _callable(listened: str) -> str:
    """An address to call, for one to listen on."""
    host, colon, port = listened.rpartition(":")
    return f"{_EVERYWHERE.get(host, host)}{colon}{port}"


def _port(check: str, address: str, variable: str, service: str, certificate: CertificateFiles | None) -> Finding:
    """certificate: this machine's own server's, where it is the one that is asked."""
    if address.endswith(":0"):
        return Finding(
            check, Level.WARNING, "the system chooses it anew at each start", f"say in {variable} which it is"
        )
    with open_channel(address, certificate) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(  # type: ignore[attr-defined]  # its stubs lack it
                health_pb2.HealthCheckRequest(service=service), timeout=_SECONDS
            )
        except grpc.RpcError as error:
            if problem := tls_advice(address, error.details() or "", certificate):
                return Finding(check, Level.WRONG, f"{address} cannot be asked", problem)
            found = f"{address} does not answer: {error.code().name}"
            advice = f"start `latchgate serve`, or say in {variable} where it listens"
            return Finding(check, Level.WRONG, found, advice)
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Finding(check, Level.OK, f"{address} is serving")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    found = f"{address} answers, but says {status}: it is starting or stopping, or has lost the database"
    return Finding(check, Level.WRONG, found, "see its log")


def _print(findings: Sequence[Finding]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        told = finding.found + (f"\n→ {finding.advice}" if finding.advice else "")
        level = Text(finding.level.value, style=_STYLES[finding.level])
        table.add_row(level, Text(finding.check), Text("\n").join(map(_line, told.split("\n"))))
    print_table(table)


def _line(text: str) -> Text:
    return Text(printable(without_secrets(text)))
