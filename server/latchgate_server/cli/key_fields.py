"""The options that say what a key is to be, and the message and field mask that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from latchgate.v1 import key_pb2
from latchgate_server.cli.parsing import claims_from, limits_from, tags_from, time_from

Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="A name for people.")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")]
Owner = Annotated[
    str | None, typer.Option("--owner", metavar="TEXT", help="The person or service that it is issued to.")
]
DefaultUser = Annotated[
    str | None,
    typer.Option("--default-user", metavar="TEXT", help="The user of calls that name none; without: the owner."),
]
Environment = Annotated[
    str | None, typer.Option("--environment", metavar="TEXT", help="For example production or staging.")
]
Roles = Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help="A role that it holds; repeatable.")]
Resources = Annotated[
    list[str] | None,
    typer.Option("--resource", metavar="PATH", help="Only for sites/berlin or sites/berlin/*; repeatable."),
]
Ranges = Annotated[
    list[str] | None,
    typer.Option("--ip", metavar="RANGE", help="Only from 203.0.113.9 or 10.0.0.0/8; repeatable."),
]
Allowlist = Annotated[
    bool | None,
    typer.Option("--ip-allowlist/--no-ip-allowlist", help="Switch the addresses on or off; --ip switches them on."),
]
ExpireTime = Annotated[
    str | None,
    typer.Option("--expire-time", metavar="TIME", help="2027-01-31T12:00:00Z, or from now on: 90d; without: never."),
]
RotateBy = Annotated[
    str | None,
    typer.Option("--rotate-by-time", metavar="TIME", help="When it is due for rotation, as a reminder; likewise."),
]
KeyLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--key-limit",
        metavar="LIMIT",
        help="NAME=100/60s, NAME=100/60s:BURST or NAME=1000/day|month|lifetime; repeatable.",
    ),
]


class Clearable(StrEnum):
    """What `--clear` can name: the options of `keys update` that set a field."""

    NAME = "name"
    DESCRIPTION = "description"
    OWNER = "owner"
    DEFAULT_USER = "default-user"
    ENVIRONMENT = "environment"
    TAG = "tag"
    ROLE = "role"
    PERMISSION = "permission"
    RESOURCE = "resource"
    CLAIMS = "claims"
    IP = "ip"
    EXPIRE_TIME = "expire-time"
    ROTATE_BY_TIME = "rotate-by-time"
    KEY_LIMIT = "key-limit"


CLEARED: Mapping[Clearable, str] = {
    Clearable.NAME: "display_name",
    Clearable.DESCRIPTION: "description",
    Clearable.OWNER: "owner",
    Clearable.DEFAULT_USER: "default_user",
    Clearable.ENVIRONMENT: "environment",
    Clearable.TAG: "tags",
    Clearable.ROLE: "role_ids",
    Clearable.PERMISSION: "permissions",
    Clearable.RESOURCE: "resources",
    Clearable.CLAIMS: "claims",
    Clearable.IP: "ip_allowlist",
    Clearable.EXPIRE_TIME: "expire_time",
    Clearable.ROTATE_BY_TIME: "rotate_by_time",
    Clearable.KEY_LIMIT: "limits",
}
"""The fields of Key behind them."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a key is called and belongs to. None: the option was not given, here and below."""

    name: str | None
    description: str | None
    owner: str | None
    default_user: str | None
    environment: str | None
    tag: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Grants:
    """What a key may do."""

    role: Sequence[str] | None
    permission: Sequence[str] | None
    resource: Sequence[str] | None
    claims: str | None


@dataclass(frozen=True, slots=True)
class Restrictions:
    """Where, for how long and how often a key may be used."""

    ip: Sequence[str] | None
    ip_allowlist: bool | None
    expire_time: str | None
    rotate_by_time: str | None
    key_limit: Sequence[str] | None


def key_from(words: Words, grants: Grants, restrictions: Restrictions, now: float) -> tuple[key_pb2.Key, list[str]]:
    """The key that the options describe, and the fields that they name. now: Unix seconds, for times from now on."""
    limits, tags = restrictions.key_limit, words.tag
    expire_time, rotate_by_time = restrictions.expire_time, restrictions.rotate_by_time
    given: Mapping[str, Any] = {
        "display_name": words.name,
        "description": words.description,
        "owner": words.owner,
        "default_user": words.default_user,
        "environment": words.environment,
        "tags": None if tags is None else tags_from(tags),
        "role_ids": grants.role,
        "permissions": grants.permission,
        "resources": grants.resource,
        "claims": None if grants.claims is None else claims_from(grants.claims),
        "expire_time": None if expire_time is None else time_from(expire_time, "--expire-time", now),
        "rotate_by_time": None if rotate_by_time is None else time_from(rotate_by_time, "--rotate-by-time", now),
        "limits": None if limits is None else limits_from(limits, "--key-limit"),
    }
    fields = {name: value for name, value in given.items() if value is not None}
    key = key_pb2.Key(**fields)
    return key, [*fields, *_set_allowlist(key, restrictions)]


def _set_allowlist(key: key_pb2.Key, restrictions: Restrictions) -> list[str]:
    """Put the allowlist into the key, and name what of it was given. Ranges alone also switch it on."""
    if restrictions.ip is not None:
        key.ip_allowlist.ranges.extend(restrictions.ip)
        key.ip_allowlist.enabled = restrictions.ip_allowlist is not False
        return ["ip_allowlist"]
    if restrictions.ip_allowlist is not None:
        key.ip_allowlist.enabled = restrictions.ip_allowlist
        return ["ip_allowlist.enabled"]
    return []
