"""The headers that tell an upstream who calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote

from latchgate_server.core import bounds
from latchgate_server.core.http_names import IDENTITY_PREFIX
from latchgate_server.core.model import Identity
from latchgate_server.transport.check_request import RouteMisconfigured

_NAMES = ("key-id", "tenant", "user", "owner", "roles", "permissions", "capabilities", "environment", "claims")
NAMES = frozenset(IDENTITY_PREFIX + name for name in _NAMES)
"""All of them."""

# Printable ASCII but for `%`, which begins an encoded byte.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def identity_headers(identity: Identity) -> Mapping[str, str]:
    """The value of each header by its name; empty: there is none.

    Raises RouteMisconfigured where all of them are longer than bounds.IDENTITY_HEADERS_BYTES: an upstream that is told
    a part of a key's restrictions might take it for all.
    """
    values = {
        "key-id": _text(identity.key_id),
        "tenant": _text(identity.tenant_id),
        "user": _text(identity.user),
        "owner": _text(identity.owner),
        "roles": ",".join(identity.role_ids),
        "permissions": ",".join(identity.permissions),
        "capabilities": ",".join(identity.capabilities),
        "environment": _text(identity.environment),
        "claims": _json(identity.claims) if identity.claims else "",
    }
    headers = {IDENTITY_PREFIX + name: value for name, value in values.items()}
    if sum(len(name) + len(value) for name, value in headers.items()) > bounds.IDENTITY_HEADERS_BYTES:
        raise RouteMisconfigured(
            f"what {identity.key_id} may do is longer than {bounds.IDENTITY_HEADERS_BYTES} bytes of headers; "
            "give the key fewer permissions or claims"
        )
    return headers


def _text(value: str) -> str:
    """The text with what is no printable ASCII percent-encoded (RFC 3986, section 2.1), and blanks at its ends."""
    encoded = quote(value, safe=_PLAIN, errors="replace")
    inner = encoded.strip(" ")
    if inner == encoded:
        return encoded
    left = len(encoded) - len(encoded.lstrip(" "))
    return "%20" * left + inner + "%20" * (len(encoded) - left - len(inner))


def _json(value: object) -> str:
    """JSON in printable ASCII."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False).replace("\x7f", "\\u007f")
