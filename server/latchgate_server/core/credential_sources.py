"""Where in an HTTP request the credential is looked for, and what of it the upstream must not see.

    sources = source { "," source }
    source  = HEADER            the credential itself, such as x-api-key
            | "authorization"   with the scheme Bearer or ApiKey
            | "basic"           the authorization header with the scheme Basic: key id and secret as user and password
            | "query:" NAME     a query parameter
            | "pair:" HEADER "," HEADER     key id and secret apart

The first source that is in the request wins, whether its credential is any good or not. What clients send is taken
apart here without ever raising: what is no credential is denied later, like any other that is wrong.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from latchgate_server.core import bounds
from latchgate_server.core.http_names import header_name
from latchgate_server.core.key_format import has_key_id_form

HeaderValues = Callable[[str], Sequence[str]]
"""Gives the values of the header of a name in lower case, of which each may be several joined by commas."""

_AUTHORIZATION = "authorization"
_PARAMETER = re.compile(r"[A-Za-z0-9_.~-]+")
# Stands for a credential that was presented in a broken wrapping, and is none in any form.
_BROKEN = "\0"


class MalformedSources(ValueError):
    """The setting does not follow the grammar; the message says where, for people."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a request presents.

    credential: empty where there is none. is_ambiguous: one source has several that differ.
    headers, parameters: what the upstream must not see, parameters in every spelling that the request has.
    """

    credential: str = field(default="", repr=False)
    is_ambiguous: bool = False
    headers: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


class Presented(NamedTuple):
    """What one source has. credentials: those that differ. The rest: see Found; to be removed if this source wins."""

    credentials: Sequence[str] = ()
    headers: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Presented()"


class Source(Protocol):
    """One place where a credential may be."""

    @property
    def headers(self) -> tuple[str, ...]:
        """Headers that are a credential's alone, and so are never left for the upstream."""
        ...

    @property
    def challenges(self) -> tuple[str, ...]:
        """What WWW-Authenticate says of it (RFC 9110, section 11.6.1)."""
        ...

    def look(self, values: HeaderValues, query: str) -> Presented:
        """What a request has here."""
        ...


@dataclass(frozen=True, slots=True)
class HeaderSource:
    """A header that is the credential."""

    name: str
    challenges: tuple[str, ...] = ("ApiKey",)

    @property
    def headers(self) -> tuple[str, ...]:
        """As Source says."""
        return (self.name,)

    def look(self, values: HeaderValues, query: str) -> Presented:
        """As Source says."""
        return Presented(_distinct(values(self.name)))


@dataclass(frozen=True, slots=True)
class PairSource:
    """Two headers, one for the key id and one for the secret."""

    key_id: str
    secret: str
    challenges: tuple[str, ...] = ("ApiKey",)

    @property
    def headers(self) -> tuple[str, ...]:
        """As Source says."""
        return (self.key_id, self.secret)

    def look(self, values: HeaderValues, query: str) -> Presented:
        """As Source says."""
        key_ids, secrets = _distinct(values(self.key_id)), _distinct(values(self.secret))
        if len(key_ids) > 1 or len(secrets) > 1:
            return Presented((_BROKEN, ""))
        if not key_ids and not secrets:
            return Presented()
        return Presented((_joined("".join(key_ids), "".join(secrets)),))


@dataclass(frozen=True, slots=True)
class AuthorizationSource:
    """The authorization header with one of these schemes; `unwrap` makes the credential of what follows it."""

    schemes: frozenset[str]
    challenges: tuple[str, ...]
    unwrap: Callable[[str], str]
    headers: tuple[str, ...] = ()

    def look(self, values: HeaderValues, query: str) -> Presented:
        """As Source says. A header with other schemes only has no credential, and is the upstream's."""
        credentials, has_scheme = [], False
        for value in _distinct(values(_AUTHORIZATION)):
            scheme, _, rest = value.partition(" ")
            if scheme.lower() in self.schemes:
                has_scheme = True
                credentials.append(self.unwrap(rest.strip()))
            else:
                credentials.append(value)
        if not has_scheme:
            return Presented()
        return Presented(tuple(dict.fromkeys(filter(None, credentials))), (_AUTHORIZATION,))


@dataclass(frozen=True, slots=True)
class QuerySource:
    """A query parameter, however its name is percent-encoded."""

    pattern: re.Pattern[str]
    headers: tuple[str, ...] = ()
    challenges: tuple[str, ...] = ()

    def look(self, values: HeaderValues, query: str) -> Presented:
        """As Source says."""
        if not query:
            return Presented()
        found = self.pattern.findall(query)
        credentials = dict.fromkeys(unquote(value) for _, value in found if value)
        return Presented(tuple(credentials), parameters=tuple(dict.fromkeys(name for name, _ in found)))


class CredentialSources:
    """The sources in their order."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._headers = tuple(dict.fromkeys(name for source in sources for name in source.headers))
        self.challenge = ", ".join(dict.fromkeys(challenge for source in sources for challenge in source.challenges))
        """What WWW-Authenticate says; empty where no source is a header."""

    @classmethod
    def parse(cls, text: str) -> CredentialSources:
        """Parse the setting. Raises MalformedSources."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > bounds.CREDENTIAL_SOURCES:
            raise MalformedSources(f"at most {bounds.CREDENTIAL_SOURCES} sources are expected")
        sources: list[Source] = []
        while parts:
            part = parts.pop(0)
            if part.startswith("pair:"):
                sources.append(_pair(part.removeprefix("pair:"), parts.pop(0) if parts else ""))
            else:
                sources.append(_source(part))
        return cls(sources)

    def find(self, values: HeaderValues, path: str) -> Found:
        """What a request presents. path: with the query, not decoded. Never raises."""
        query = path.partition("?")[2].partition("#")[0]
        winner: Presented | None = None
        headers, parameters = list(self._headers), list[str]()
        for source in self._sources:
            presented = source.look(values, query)
            parameters.extend(presented.parameters)
            wins = winner is None and bool(presented.credentials)
            if wins:
                winner = presented
            # What is left for the upstream may be a credential of its own, but none of ours.
            if wins or any(map(_is_ours, presented.credentials)):
                headers.extend(presented.headers)
        credentials = winner.credentials if winner else ()
        return Found(
            credential=credentials[0] if len(credentials) == 1 else "",
            is_ambiguous=len(credentials) > 1,
            headers=tuple(dict.fromkeys(headers)),
            parameters=tuple(dict.fromkeys(parameters)),
        )


def _is_ours(credential: str) -> bool:
    return has_key_id_form(credential.partition(".")[0])


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    """The values that differ, of headers that may be joined by commas (RFC 9110, section 5.3)."""
    parts = (part.strip(" \t") for value in values for part in value.split(","))
    return tuple(dict.fromkeys(filter(None, parts)))


def _joined(key_id: str, secret: str) -> str:
    return f"{key_id}.{secret}" if secret else key_id


def _basic(token: str) -> str:
    """Key id and secret of Basic authentication (RFC 7617); the whole credential may stand in place of the user."""
    try:
        text = base64.b64decode(token, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return _BROKEN
    key_id, colon, secret = text.partition(":")
    return _joined(key_id, secret) if colon and text != ":" else _BROKEN


def _as_it_is(token: str) -> str:
    return token


def _source(text: str) -> Source:
    if text == _AUTHORIZATION:
        return AuthorizationSource(frozenset({"bearer", "apikey"}), ("Bearer", "ApiKey"), _as_it_is)
    if text == "basic":
        return AuthorizationSource(frozenset({"basic"}), ('Basic realm="API key"',), _basic)
    if text.startswith("query:"):
        return QuerySource(_spelled(text.removeprefix("query:")))
    return HeaderSource(_header(text))


def _pair(key_id: str, secret: str) -> Source:
    names = _header(key_id), _header(secret)
    if names[0] == names[1]:
        raise MalformedSources(f"pair:{names[0]},{names[1]} names one header twice")
    return PairSource(*names)


def _header(text: str) -> str:
    name = header_name(text)
    if name is None or name == _AUTHORIZATION:
        raise MalformedSources(
            f"{text[: bounds.QUOTED_LENGTH]!r} is no source; expected are headers such as x-api-key, authorization, "
            "basic, query:NAME, and pair:HEADER,HEADER"
        )
    return name


def _spelled(name: str) -> re.Pattern[str]:
    """Finds a query parameter's name, in any spelling, and its value."""
    if len(name) > bounds.HEADER_NAME_LENGTH or not _PARAMETER.fullmatch(name):
        raise MalformedSources(f"query:{name[: bounds.QUOTED_LENGTH]} is expected to name a parameter such as api_key")
    spelled = "".join(f"(?:{re.escape(symbol)}|(?i:%{ord(symbol):02x}))" for symbol in name)
    return re.compile(rf"(?:^|(?<=&))({spelled})(?:=([^&]*)|(?=&|$))")
