"""Calls that are safe to repeat: a request id makes one key, however often the call is made."""

from __future__ import annotations

from latchgate_server.admin.access import require_visible
from latchgate_server.admin.mutations import Mutation
from latchgate_server.core.errors import InvalidRequest
from latchgate_server.core.model import Key
from latchgate_server.core.ports import RepeatableCall


async def key_made_before(mutation: Mutation, call: RepeatableCall | None) -> Key | None:
    """The key that the caller's earlier call with this request id made, as it is now; None where there was none.

    Raises InvalidRequest where the earlier call was another one: who repeats by mistake shall not take an old key for
    the one that was asked for. Raises ResourceNotFound where the key is gone.
    """
    if call is None:
        return None
    read, caller = mutation.transaction.read, mutation.caller
    earlier = await read.find_request(caller.key_id, call.request_id)
    if earlier is None:
        return None
    if earlier.digest not in (None, call.digest):
        raise InvalidRequest.of(
            "request_id",
            "you have used it for another call; take a new one for each call that is no repetition",
        )
    return require_visible(await read.get_key(earlier.key_id), earlier.key_id, caller)
