"""Names of HTTP headers that an operator may choose (RFC 9110, section 5.1), in lower case."""

from __future__ import annotations

import re

from latchgate_server.core import bounds

IDENTITY_PREFIX = "x-latchgate-"
"""What the headers begin with that tell an upstream who calls. A client's own are never believed."""

# Without these a request would be another one, or none.
_RESERVED = frozenset({"connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"})
_NAME = re.compile(r"[a-z0-9][a-z0-9!#$&'*+.^_`|~-]*")


def header_name(text: str) -> str | None:
    """The name in lower case; None for what is no header's name, or one that Latchgate or HTTP needs itself."""
    name = text.strip().lower()
    if len(name) > bounds.HEADER_NAME_LENGTH or not _NAME.fullmatch(name):
        return None
    if name in _RESERVED or is_identity_header(name):
        return None
    return name


def is_identity_header(name: str) -> bool:
    """Whether an upstream may take the header, named in lower case, for one that tells who calls.

    Many frameworks read `_` in a header's name as `-`.
    """
    return name.replace("_", "-").startswith(IDENTITY_PREFIX)
