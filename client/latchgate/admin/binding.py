"""What both clients of AdminService have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from latchgate.errors import CallFailed, Unavailable, call_failed

READ_TIMEOUT = 15.0
"""Seconds for a call that changes nothing, its retries included, and to find a server, unless told otherwise."""

CHANGE_TIMEOUT = 90.0
"""Seconds for a change: it waits for replicas that are gone until their leases, of up to 30 seconds, have run out."""

M = TypeVar("M", bound=Callable[..., Any])


def named_after(build: Callable[..., Any], method: M) -> M:
    """The method, with the name, the documentation and the parameters of the function that builds its call."""
    signature = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[own, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return method


def admin_call_failed(error: Any, address: str, seconds: float) -> CallFailed:
    """The error for a grpc.RpcError. One that ran out of time says who did not answer, and within how many seconds."""
    failed = call_failed(error)
    if failed.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(failed.code, f"no answer from {address} within {seconds:g} s")
    return failed
