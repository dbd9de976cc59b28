"""VerifyService: the data plane over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import grpc

from latchgate.v1 import verify_service_pb2
from latchgate_server import observability
from latchgate_server.core import bounds
from latchgate_server.core.errors import InvalidRequest, Overloaded
from latchgate_server.core.ports import Clock, KeyVerifier
from latchgate_server.core.verification import Verification
from latchgate_server.transport.caller_key import Metadata
from latchgate_server.transport.callers import Callers
from latchgate_server.transport.convert_verify import UNDECIDED, batch_to, question_from, verification_to
from latchgate_server.transport.errors import Context, code_of, message_of
from latchgate_server.transport.request_ids import REQUEST_ID, RequestIds
from latchgate_server.transport.rpc import fail, report, timed
from latchgate_server.transport.traced import followed, noting
from latchgate_server.transport.watch_keys import KeyWatching

SERVICE: Final = verify_service_pb2.DESCRIPTOR.services_by_name["VerifyService"].full_name

# How many entries of a batch are decided before others get their turn: well under a millisecond's worth.
_STRETCH: Final = 64

DECISIONS_AT_ONCE: Final = 10 * bounds.BATCH_SIZE
"""Entries of all batches under way: a fraction of a second's worth."""

_REQUEST = verify_service_pb2.VerifyRequest


class VerifyServicer:
    """Translates, and nothing else. Its responses are serialised already; `handlers` says so to the server."""

    def __init__(
        self,
        verifier: KeyVerifier,
        clock: Clock,
        request_ids: RequestIds,
        watching: KeyWatching,
        callers: Callers | None = None,
    ) -> None:
        """callers: who may ask for decisions; None: whoever reaches the port."""
        self._verifier = verifier
        self._noting = noting(verifier)
        self._clock = clock
        self._request_ids = request_ids
        self._watching = watching
        self._callers = callers
        self._batched = 0

    async def Verify(self, request: verify_service_pb2.VerifyRequest, context: Context) -> bytes:
        """Decide one key."""
        try:
            if self._callers is not None:
                await self._callers.admit(context)
            return await _verify(self._noting, request)
        except Exception as error:  # noqa: BLE001 - whatever it is, no client sees a stack trace
            return await fail(context, "Verify", error, self._request_ids)

    def verify_at_once(self, payload: bytes, metadata: Metadata = (), peer: str = "") -> bytes | None:
        """Verify of a serialised request, where memory alone can tell; else, and for what is malformed, None.

        metadata, peer: the call's, by which callers that have to say who they are do so.
        """
        try:
            if self._callers is None:
                return self._recall(payload)
            return self._callers.answer_at_once(payload, metadata, peer, self._recall)
        except Exception:  # noqa: BLE001 - Verify meets the same, and knows what to tell
            return None

    def _recall(self, payload: bytes) -> bytes | None:
        """The same for whoever may ask. Raises what is wrong with the request."""
        return _from_memory(self._verifier, _REQUEST.FromString(payload))

    async def BatchVerify(self, request: verify_service_pb2.BatchVerifyRequest, context: Context) -> bytes:
        """Decide up to bounds.BATCH_SIZE keys, each as Verify would."""
        requests = request.requests
        try:
            if self._callers is not None:
                await self._callers.admit(context)
            self._require_room(len(requests))
        except Exception as error:  # noqa: BLE001 - as above
            return await fail(context, "BatchVerify", error, self._request_ids)
        self._batched += len(requests)
        try:
            with self._request_ids.noted(context) as request_id:
                context.set_trailing_metadata(((REQUEST_ID, request_id),))
                return await self._decide_all(requests, request_id)
        finally:
            self._batched -= len(requests)

    def _require_room(self, count: int) -> None:
        """Raises InvalidRequest and Overloaded where so many entries cannot be decided at once."""
        if count > bounds.BATCH_SIZE:
            raise InvalidRequest.of("requests", f"at most {bounds.BATCH_SIZE} entries, not {count}")
        if self._batched + count > DECISIONS_AT_ONCE:
            raise Overloaded("too many batches at once", retry_after=1.0)

    async def _decide_all(self, requests: Sequence[verify_service_pb2.VerifyRequest], request_id: str) -> bytes:
        responses = [UNDECIDED] * len(requests)
        errors: dict[int, verify_service_pb2.BatchVerifyError] = {}
        slow: list[int] = []
        for place, one in enumerate(requests):
            if place % _STRETCH == _STRETCH - 1:
                await asyncio.sleep(0)  # others want their turn
            try:
                response = _from_memory(self._verifier, one)
            except Exception as error:  # noqa: BLE001 - one entry's error is not the others'
                errors[place] = _batch_error(error, request_id)
                continue
            if response is None:
                slow.append(place)
            else:
                responses[place] = response
        # All of them ask the loader before it sends its next query, so that one query answers for all.
        outcomes = await asyncio.gather(
            *(_verify(self._verifier, requests[place]) for place in slow), return_exceptions=True
        )
        for place, outcome in zip(slow, outcomes, strict=True):
            if isinstance(outcome, bytes):
                responses[place] = outcome
            elif isinstance(outcome, Exception):
                errors[place] = _batch_error(outcome, request_id)
            else:
                raise outcome
        return batch_to(responses, errors)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """How the server shall call each RPC of VerifyService."""
        verify = timed("Verify", followed(SERVICE, "Verify", self.Verify), self._clock)
        batch_verify = timed("BatchVerify", followed(SERVICE, "BatchVerify", self.BatchVerify), self._clock)
        return {
            "Verify": grpc.unary_unary_rpc_method_handler(verify, request_deserializer=_REQUEST.FromString),
            "BatchVerify": grpc.unary_unary_rpc_method_handler(
                batch_verify, request_deserializer=verify_service_pb2.BatchVerifyRequest.FromString
            ),
            "WatchKeys": grpc.stream_stream_rpc_method_handler(
                self._watching.serve,
                request_deserializer=verify_service_pb2.WatchKeysRequest.FromString,
                response_serializer=verify_service_pb2.WatchKeysResponse.SerializeToString,
            ),
        }


def _from_memory(verifier: KeyVerifier, request: verify_service_pb2.VerifyRequest) -> bytes | None:
    verification = verifier.verify_from_memory(request.key, question_from(request), request.at_least_revision)
    return None if verification is None else _told(verification)


async def _verify(verifier: KeyVerifier, request: verify_service_pb2.VerifyRequest) -> bytes:
    question = question_from(request)
    return _told(await verifier.verify(request.key, question, request.at_least_revision))


def _told(verification: Verification) -> bytes:
    observability.count_decision(verification.denial_reason)
    return verification_to(verification)


def _batch_error(error: Exception, request_id: str) -> verify_service_pb2.BatchVerifyError:
    report("BatchVerify", error)
    code = code_of(error)
    observability.UNDECIDED.labels(code.name).inc()
    return verify_service_pb2.BatchVerifyError(code=code.value[0], message=message_of(error, request_id))
