"""From a request to the question for Latchgate, and from the answer to what becomes of the request. No I/O."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from latchgate.errors import CallFailed, InvalidRequest
from latchgate.guard import refusals
from latchgate.guard.credentials import Found, HeaderValues, find_key
from latchgate.guard.refusals import Refusal
from latchgate.guard.requirements import Requirement
from latchgate.results import Query, Verification

_log = logging.getLogger("latchgate")
_LOG_SECONDS = 60.0
# One character more than any key, address or text of a request that is recorded has.
_KEY_LENGTH = 1_025
_ADDRESS_LENGTH = 65
_TEXT_LENGTH = 2_001


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as its framework tells of it. The texts are what a client wrote; peer: the address that it has."""

    found: Found
    client_ip: str
    method: str = ""
    host: str = ""
    path: str = ""
    user_agent: str = ""


def asked_over_http(values: HeaderValues, *, peer: str, client_ip_header: str | None, method: str, path: str) -> Asked:
    """A request over HTTP.

    peer: the address of whoever connected. client_ip_header: the header that is believed instead; where it was repeated
    it is no address.
    """
    return Asked(
        found=find_key(values),
        client_ip=peer if client_ip_header is None else ",".join(values(client_ip_header.lower())),
        method=method,
        host="".join(values("host")[:1]),
        path=path,
        user_agent="".join(values("user-agent")[:1]),
    )


def query_for(asked: Asked, requirement: Requirement, parts: Mapping[str, str]) -> Query | Refusal:
    """What to ask. parts: of the path, by their names."""
    if asked.found.is_ambiguous:
        return refusals.AMBIGUOUS
    if not requirement.places <= parts.keys():
        return refusals.MISCONFIGURED
    filled = requirement.filled(parts)
    if filled is None:
        return refusals.NOT_FOUND
    tenant, resource = filled
    return Query(
        key=_text(asked.found.key, _KEY_LENGTH),
        client_ip=_text(asked.client_ip, _ADDRESS_LENGTH),
        tenant=_text(tenant, _TEXT_LENGTH),
        requires=requirement.permissions,
        capability=requirement.capability,
        resource=_text(resource, _TEXT_LENGTH),
        cost=requirement.cost,
        method=_text(asked.method, _TEXT_LENGTH),
        host=_text(asked.host, _TEXT_LENGTH),
        path=_text(asked.path, _TEXT_LENGTH),
        user_agent=_text(asked.user_agent, _TEXT_LENGTH),
    )


def refusal_of(verification: Verification) -> Refusal | None:
    """What the client is told; None: the request may pass."""
    if not verification.allowed:
        return refusals.denied(verification)
    # Who is let in is known, or nobody is.
    return refusals.unavailable() if verification.identity is None else None


class Failures:
    """What becomes of requests about which nothing could be decided: none passes, and the log says so now and then."""

    def __init__(self) -> None:
        self._silent_until = -_LOG_SECONDS

    def refusal_for(self, error: CallFailed, requirement: Requirement) -> Refusal:
        """What the client is told."""
        self._report(error)
        if not isinstance(error, InvalidRequest):
            return refusals.unavailable(error.retry_after)
        # What cannot be asked is the fault of whoever wrote the requirement, unless a client's path filled it in.
        return refusals.NOT_FOUND if requirement.places else refusals.MISCONFIGURED

    def _report(self, error: CallFailed) -> None:
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_SECONDS
            _log.error("a request is refused, as Latchgate could not decide about it: %s", error)


def _text(text: str, length: int) -> str:
    """The text without what no message can carry, cut off where it is certainly too long."""
    return text[:length].encode("utf-8", "replace").decode()
