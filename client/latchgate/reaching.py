"""Why there is no connection, where a call has waited for one in vain: gRPC itself only says that time ran out."""

from __future__ import annotations

from typing import Any

import grpc

from latchgate.connection import TLS
from latchgate.errors import CallFailed, Unavailable

HEALTH = "/grpc.health.v1.Health/Check"
"""What every server answers, whoever asks; an empty message asks for the whole of it."""

_PROBE_SECONDS = 0.05
_LAST = "last error: "


def explained(failed: CallFailed, channel: grpc.Channel, address: str, tls: TLS | None) -> CallFailed:
    """The error, with what is wrong with the connection where a call ran out of time for want of one."""
    if failed.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return failed
    probe: Any = channel.unary_unary(HEALTH)
    try:
        probe(b"", timeout=_PROBE_SECONDS)
    except grpc.RpcError as error:
        return _explained(failed, error, address, tls)
    return failed


async def explained_aio(failed: CallFailed, channel: grpc.aio.Channel, address: str, tls: TLS | None) -> CallFailed:
    """The same for asyncio."""
    if failed.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return failed
    probe: Any = channel.unary_unary(HEALTH)
    try:
        await probe(b"", timeout=_PROBE_SECONDS)
    except grpc.aio.AioRpcError as error:
        return _explained(failed, error, address, tls)
    return failed


def _explained(failed: CallFailed, probed: Any, address: str, tls: TLS | None) -> CallFailed:
    """A probe does not wait for a connection, and so ends with what became of the last attempt."""
    details = probed.details() or ""
    if probed.code() is not grpc.StatusCode.UNAVAILABLE or _LAST not in details:
        return failed
    return Unavailable(failed.code, f"no connection to {address}: {_told(details, tls)}")


def _told(details: str, tls: TLS | None) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return "its certificate is not trusted; TLS(ca=…) is the file of whoever signed it"
    if "Hostname Verification" in details:
        return "its certificate is for another name; TLS(server_name=…) says for which"
    if "WRONG_VERSION_NUMBER" in details:
        return "it does not speak TLS"
    if "Socket closed" not in details:
        return details.rpartition(_LAST)[2]
    if tls is None:
        return "it hangs up; where it speaks TLS, say so with tls=TLS(…)"
    if tls.cert is None:
        return "it hangs up; where it asks for a certificate, TLS(cert=…, key=…) are yours"
    return "it hangs up; TLS(cert=…) may be signed by nobody whom it trusts"
