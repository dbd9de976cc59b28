"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[str, typer.Option("--name", metavar="TEXT", help="A name for people.")]
Description = Annotated[str, typer.Option("--description", metavar="TEXT", help="What it is for.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="A tag; repeatable.")]
Permissions = Annotated[
    list[str] | None,
    typer.Option("--permission", metavar="GRANT", help="Such as orders.read or orders.*; repeatable."),
]
Claims = Annotated[
    str | None, typer.Option("--claims", metavar="JSON", help="An object that is told to the protected service.")
]
KeyLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--key-limit",
        metavar="LIMIT",
        help="Of each key: NAME=100/60s, NAME=100/60s:BURST or NAME=1000/day|month|lifetime; repeatable.",
    ),
]
TenantLimits = Annotated[
    list[str] | None,
    typer.Option("--tenant-limit", metavar="LIMIT", help="Shared by a tenant's keys, in the same form; repeatable."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the audit log.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.", show_default=False)]
CLEAR_HELP = "Empty what the option OPTION sets, such as name; repeatable."
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many; all without it.")]
PageToken = Annotated[
    str,
    typer.Option("--page-token", metavar="TOKEN", help="Go on where --limit ended a list."),
]
