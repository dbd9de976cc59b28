"""Callers of the data plane: which of them may ask, where they have to say who they are.

A caller's key is decided about like any other, from memory where that can tell, so that asking costs two decisions in
place of one. Its own limits are not charged, as those of an administrator's key are not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core.errors import CallerKeyRejected, LatchgateError, PermissionMissing
from latchgate_server.core.model import DenialReason, Question
from latchgate_server.core.permissions import Permission
from latchgate_server.core.ports import Clock, KeyVerifier
from latchgate_server.core.record import Record
from latchgate_server.core.usage import RecordsUsage
from latchgate_server.core.verification import Verification
from latchgate_server.transport.caller_key import Metadata, caller_key, peer_address
from latchgate_server.transport.errors import Context

VERIFY = "latchgate.verify"
"""What a caller needs to ask for decisions, where the server asks its callers for a key."""

_LOG_SECONDS = 60.0

_log = structlog.get_logger()


class Callers:
    """Lets callers of the data plane in by a key of theirs: `authorization: Bearer KEY`."""

    def __init__(self, verifier: KeyVerifier, quiet: KeyVerifier, usage: RecordsUsage, clock: Clock) -> None:
        """quiet: decides as `verifier` does, and counts nothing in `usage`."""
        self._verifier = verifier
        self._quiet = quiet
        self._usage = usage
        self._clock = clock
        self._silent_until = -_LOG_SECONDS

    def answer_at_once(
        self, payload: bytes, metadata: Metadata, peer: str, answer: Callable[[bytes], bytes | None]
    ) -> bytes | None:
        """What `answer` makes of the payload, where memory alone tells that this caller may ask for decisions.

        None where it does not tell that, or `answer` gives None: then the call goes on to its handler, where `admit`
        tells, and counts the caller's use, which so far is counted nowhere. peer: gRPC's name for it.
        """
        key_string = caller_key(metadata)
        if not key_string:
            return None
        question = _question(VERIFY, peer_address(peer))
        caller = self._quiet.verify_from_memory(key_string, question)
        if caller is None or caller.denial_reason is not None:
            return None
        response = answer(payload)
        if response is not None:
            self._usage.record(caller, question, caller.record)
        return response

    async def admit(self, context: Context, permission: str = VERIFY) -> Record:
        """The record of the caller's key, which has the permission.

        Raises CallerKeyRejected, PermissionMissing, and CannotDecide where there is no telling.
        """
        address = peer_address(context.peer())
        try:
            return await self._admit(caller_key(context.invocation_metadata()), permission, address)
        except (CallerKeyRejected, PermissionMissing) as error:
            self._report(error, address)
            raise

    async def _admit(self, key_string: str | None, permission: str, address: str) -> Record:
        if key_string is None:
            raise CallerKeyRejected(DenialReason.INVALID_API_KEY)
        question = _question(permission, address)
        verification = self._verifier.verify_from_memory(key_string, question)
        if verification is None:
            verification = await self._verifier.verify(key_string, question)
        return _admitted(verification, permission)

    def _report(self, error: LatchgateError, address: str) -> None:
        """Count it, and log it, but not for each call of a busy stranger."""
        reason = error.denial_reason if isinstance(error, CallerKeyRejected) else DenialReason.INSUFFICIENT_PERMISSIONS
        observability.CALLERS_REJECTED.labels(reason.name).inc()
        now = self._clock.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_SECONDS
            _log.warning(log_events.CALLER_REJECTED, error=str(error), client_ip=address)


def _admitted(verification: Verification, permission: str) -> Record:
    if verification.denial_reason is DenialReason.INSUFFICIENT_PERMISSIONS:
        raise PermissionMissing(permission)
    if verification.denial_reason is not None or verification.record is None:
        raise CallerKeyRejected(verification.denial_reason or DenialReason.INVALID_API_KEY)
    return verification.record


@lru_cache(maxsize=4_096)
def _question(permission: str, address: str) -> Question:
    return Question(client_ip=address, requirement=Permission(permission), cost=None)
