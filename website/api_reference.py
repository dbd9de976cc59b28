"""The pages about the API and its errors, worked out from the protos and their comments."""

from __future__ import annotations

from collections.abc import Iterator

from latchgate_server.core.denials import MESSAGES
from latchgate_server.core.http_denials import HttpDenial, HttpDenials
from website.protos import Call, Proto, Service, protos

_SERVICES = ("verify_service", "admin_service")
_SHARED = ("decision", "key", "tenant", "audit")

_API = """\
Package `latchgate.v1`. Both services speak gRPC. A call that shows an HTTP form can be made as JSON over HTTP
[behind Envoy](../envoy.md)."""

_DENIALS = """\
A denial is an answer: `VerifyResponse.denial_reason`. Behind Envoy, and in the client's middleware, it is an HTTP
response, which [can be changed](../envoy.md#denials). The first check that fails is the reason; these are in the order
of the checks."""

_ERRORS = """\
The name is in `google.rpc.ErrorInfo.reason`, with the domain `latchgate.v1`, among the details of the gRPC status.
Other details name the fields that are wrong (`google.rpc.BadRequest`) or say how long to wait
(`google.rpc.RetryInfo`)."""


def api_page() -> str:
    """Every service, call, message and enumeration, in Markdown."""
    files = protos()
    lines = [
        "# The API",
        "",
        _API,
    ]
    for name in _SERVICES:
        for service in files[name].services():
            lines += _service(service)
        lines += ["", f"### Messages of {name}.proto"]
        lines += _types(files[name])
    lines += ["", "## What both services share"]
    for name in _SHARED:
        lines += _types(files[name])
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """Every reason of a denial and of an error, in Markdown."""
    files, http = protos(), HttpDenials({})
    comments = _comments(files["decision"], "DenialReason", "DENIAL_REASON_")
    lines = [
        "# Errors and denials",
        "",
        _DENIALS,
        "",
        "## Denials",
        "",
        "| reason | HTTP | `Code` | |",
        "| --- | --- | --- | --- |",
        *(_denial(reason.name, http.of(reason), comments[reason.name]) for reason in MESSAGES),
        _denial("could not decide", http.unavailable, "A gRPC error, not a decision: treat it as a no."),
        "",
        "## Errors",
        "",
        _ERRORS,
        "",
        "| reason | |",
        "| --- | --- |",
    ]
    errors = _comments(files["error_reason"], "ErrorReason", "ERROR_REASON_")
    lines += [f"| `{name}` | {comment} |" for name, comment in errors.items() if name != "UNSPECIFIED"]
    return "\n".join(lines) + "\n"


def _denial(name: str, told: HttpDenial, comment: str) -> str:
    reason = f"`{name}`" if name.isupper() else name
    return f"| {reason} | {told.status} | `{told.code}` | {comment} |"


def _comments(proto: Proto, enumeration: str, prefix: str) -> dict[str, str]:
    [found] = [each for each in proto.types() if each.name == enumeration]
    return {member.name.removeprefix(prefix): member.comment for member in found.members}


def _service(service: Service) -> Iterator[str]:
    yield from ("", f"## {service.name}", "", service.comment)
    for call in service.calls:
        yield from ("", f"### {call.name}", "", call.comment, "", _signature(call))


def _signature(call: Call) -> str:
    http = f"<br>`{call.http}`" if call.http else ""
    return f"`{call.request}` → `{call.response}`{http}"


def _types(proto: Proto) -> Iterator[str]:
    for each in proto.types():
        yield from ("", f"#### {each.name}", "", each.comment)
        if not each.members:
            continue
        is_enumeration = not any(member.type for member in each.members)
        yield from ("", "| value | |" if is_enumeration else "| field | type | |")
        yield "| --- | --- |" if is_enumeration else "| --- | --- | --- |"
        for member in each.members:
            type_ = "" if is_enumeration else f" `{member.type}` |"
            yield f"| `{member.name}` |{type_} {member.comment.replace('|', '&#124;')} |"
