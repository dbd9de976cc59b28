"""Text that a client sent, made fit to be kept: no secret, no control characters, no more than its bound."""

from __future__ import annotations

import re
from typing import Final

from latchgate_server.core import bounds
from latchgate_server.core.model import NOT_TOLD, RequestInfo

_SECRET: Final = re.compile(r"(_[0-9A-Za-z]{22}\.)[0-9A-Za-z]+")


def without_secrets(text: str) -> str:
    """The text with the secret half of each key string cut out."""
    return _SECRET.sub(r"\1…", text)


def kept(text: str, limit: int = bounds.REQUEST_INFO_LENGTH) -> str:
    """The text as it may be stored and logged; cut off at `limit` characters."""
    plain = without_secrets(text) if "." in text else text
    if not plain.isprintable():
        plain = "".join(symbol if symbol.isprintable() else "�" for symbol in plain)
    return plain[:limit]


def kept_request(request: RequestInfo | None) -> RequestInfo:
    """What may be kept of a description of a request: of its path no query, where credentials often stand."""
    if request is None:
        return NOT_TOLD
    path = request.path.partition("?")[0]
    return RequestInfo(kept(request.method), kept(request.host), kept(path), kept(request.user_agent))
