"""The client commands: what they print, how they end, what they never show."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

from tests.e2e.commands import (
    DONE,
    FAILED,
    KEY_STRING,
    TRAVELLED,
    USAGE,
    Cli,
    NewKey,
    Ran,
    at_once,
    on_terminal,
)
from tests.support.server import ServerProcess


def test_tenants(cli: Cli) -> None:
    options = ("--name", "Acme Inc.", "--tag", "region=eu", "--tag", "tier=gold", "--tenant-limit", "all=10/60s")
    created = cli("tenants", "create", "acme", *options)
    other = cli("tenants", "create", "other", "--output", "json")
    got, got_json = cli.both("tenants", "get", "acme")
    listed, listed_json = cli.both("tenants", "list")
    disabled, disabled_json = cli.both("tenants", "disable", "acme", "--reason", "unpaid")
    enabled = cli("tenants", "enable", "acme", "--reason", "paid")

    assert created.out == got.out
    assert TRAVELLED.fullmatch(created.err)
    assert got.err == other.err == ""
    assert set(other.json) == {"tenant", "propagation"}
    assert got.told["name"] == "Acme Inc."
    assert (got.told["state"], got.told["limits"]) == ("enabled", "all=10/1m")
    assert got_json["tenant"]["tags"] == {"region": "eu", "tier": "gold"}
    assert re.search(r"^acme +Acme Inc\. +- +enabled +\d+s ago$", listed.out, re.MULTILINE)
    assert [entry["tenant_id"] for entry in listed_json["tenants"]][:2] == ["acme", "latchgate"]
    assert listed_json["next_page_token"] == ""
    assert disabled.told["state"] == "disabled"
    assert disabled_json["tenant"]["enabled"] is False
    assert enabled.told["state"] == "enabled"


def test_plans(cli: Cli) -> None:
    limits = ("--key-limit", "calls=100/60s:200", "--key-limit", "prepaid=5/lifetime", "--tenant-limit", "all=9/day")
    created = cli("plans", "create", "pro", "--name", "Pro", "--capability", "exports", "--max-keys", "5", *limits)
    other = cli("plans", "create", "free", "--output", "json")
    got, got_json = cli.both("plans", "get", "pro")
    listed, listed_json = cli.both("plans", "list")

    assert created.out == got.out
    assert TRAVELLED.fullmatch(created.err)
    assert set(other.json) == {"plan", "propagation"}
    assert got.told["key limits"] == "calls=100/1m:200, prepaid=5/lifetime"
    assert got.told["tenant limits"] == "all=9/day"
    assert got_json["plan"]["max_keys"] == 5
    assert got_json["plan"]["capabilities"] == ["exports"]
    assert "calls=100/1m:200, prepaid=5/lifetime, all=9/day" in listed.out
    assert {"free", "pro"} <= {entry["plan_id"] for entry in listed_json["plans"]}


def test_roles(cli: Cli, tenant: str) -> None:
    words = ("--name", "Reader", "--description", "Reads orders")
    grants = ("--permission", "orders.read", "--permission", "orders.list", "--allow-act-as", "--claims", '{"max": 5}')
    created = cli("roles", "create", "reader", "--tenant", tenant, *words, *grants)
    other = cli("roles", "create", "for-all", "--output", "json")
    got, got_json = cli.both("roles", "get", "reader", "--tenant", tenant)
    listed, listed_json = cli.both("roles", "list", "--tenant", tenant)

    assert created.out == got.out
    assert TRAVELLED.fullmatch(created.err)
    assert set(other.json) == {"role", "propagation"}
    assert got.told["permissions"] == "orders.read, orders.list"
    assert (got.told["act as"], got.told["claims"]) == ("allowed", '{"max": 5}')
    assert got_json["role"]["allow_act_as"] is True
    assert got_json["role"]["claims"] == {"max": 5}
    assert re.search(r"^for-all +\(every\)", listed.out, re.MULTILINE)
    assert {"for-all", "of-keys", "reader"} <= {entry["role_id"] for entry in listed_json["roles"]}


def test_what_is_refused_is_told_in_one_line(cli: Cli, cli_server: ServerProcess, tenant: str) -> None:
    long = "x" * 201
    none, empty = "127.0.0.1:1", {"LATCHGATE_ADMIN_KEY_FILE": ""}
    key_id = "lg_0123456789012345678901"
    cases: list[tuple[tuple[str, ...], dict[str, str], int, str]] = [
        (("tenants", "get", "nowhere"), {}, FAILED, "tenant nowhere does not exist"),
        (("tenants", "create", tenant), {}, FAILED, f"tenant {tenant} exists already"),
        (
            ("tenants", "create", "Acme"),
            {},
            FAILED,
            "the tenant's id: 1 to 63 of a-z, 0-9 and '-', starting with a letter",
        ),
        (("tenants", "create", "x", "--name", long), {}, FAILED, "--name: at most 200 characters, not 201"),
        (("keys", "create"), {}, FAILED, "--tenant: .+"),
        (
            ("keys", "create", "--tenant", tenant, "--ip", "10.0.0.0/8", "--ip", "300.1.1.1", "--role", "A"),
            {},
            FAILED,
            "--role 1: the id of a role; --ip 2: neither an IPv4 or IPv6 address nor a CIDR range such as 10.0.0.0/8",
        ),
        (("tenants", "list", "--page-token", "x"), {}, FAILED, "--page-token: not one that this list gave; .+"),
        (("tenants", "list"), empty, FAILED, "no admin key: set LATCHGATE_ADMIN_KEY, or LATCHGATE_ADMIN_KEY_FILE .+"),
        (("tenants", "list"), {"LATCHGATE_ADMIN_KEY_FILE": "/no/file"}, FAILED, ".+_FILE /no/file cannot be read: .+"),
        (
            ("tenants", "list"),
            {"LATCHGATE_ADMIN_KEY": "lg_wrong"},
            FAILED,
            "the admin key was rejected: INVALID_API_KEY; it came from LATCHGATE_ADMIN_KEY",
        ),
        (("tenants", "list"), {"LATCHGATE_ADMIN_KEY": "lg_\xfcber"}, FAILED, "LATCHGATE_ADMIN_KEY holds no key: .+"),
        (
            ("tenants", "list"),
            {"LATCHGATE_ADMIN_ADDRESS": none},
            FAILED,
            rf"nothing answers at {none}; is latchgate running\? \(LATCHGATE_ADMIN_ADDRESS says where\)",
        ),
        (
            ("verify", "x"),
            {"LATCHGATE_VERIFY_ADDRESS": none},
            FAILED,
            rf"nothing answers at {none}; .+_VERIFY_ADDRESS.+",
        ),
        (
            ("verify", "x"),
            {"LATCHGATE_VERIFY_ADDRESS": "http://x:1"},
            FAILED,
            ".+_ADDRESS: HOST:PORT or unix:PATH is expected",
        ),
        (
            ("tenants", "list"),
            {"LATCHGATE_ADMIN_ADDRESS": cli_server.verify_address},
            FAILED,
            f"{cli_server.verify_address} does not offer this call: .+",
        ),
        (
            ("tenants", "list"),
            {"LATCHGATE_ADMIN_ADDRESS": cli_server.metrics_address},
            FAILED,
            ".+LATCHGATE_ADMIN_ADDRESS.+",
        ),
        (("tenants", "get"), {}, USAGE, "Missing argument 'TENANT'."),
        (("tenants", "lst"), {}, USAGE, "No such command 'lst'. Did you mean 'list'\\?"),
        (("tenants", "list", "--output", "xml"), {}, USAGE, "Invalid value for '--output'.+"),
        (("keys", "create", "--expire-time", "soon"), {}, USAGE, "Invalid value for --expire-time: 'soon' is not .+"),
        (("keys", "update", key_id), {}, USAGE, "nothing to change; .+"),
        (("keys", "update", key_id, "--name", "x", "--clear", "name"), {}, USAGE, "--name and --clear name exclude .+"),
        (
            ("keys", "disable", f"{key_id}.secret"),
            {},
            USAGE,
            "Invalid value for 'KEY_ID': a key id ends before the dot; .+",
        ),
        (
            ("verify", "a", f"{key_id}.secret"),
            {},
            USAGE,
            r"Got unexpected extra argument\(?s?\)? ?\(lg_0123456789012345678901\.…\)",
        ),
    ]

    def run(arguments: tuple[str, ...], env: dict[str, str], code: int) -> Callable[[], Ran]:
        return lambda: cli(*arguments, code=code, **env)

    for case, ran in zip(cases, at_once([run(*case[:3]) for case in cases]), strict=True):
        assert ran.out == "", case
        assert re.fullmatch(f"latchgate: {case[3]}\n", ran.err), (case, ran.err)


def test_arguments_that_are_no_text_are_refused(cli: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latchgate_server", b"verify", b"\xff\xfe"],
        env=cli.env,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (USAGE, b"latchgate: the command line is not UTF-8\n")


def test_help_is_plain_and_says_that_a_key_can_be_seen(cli: Cli) -> None:
    top, keys, verify = at_once(
        [lambda: cli("--help"), lambda: cli("keys", "update", "--help"), lambda: cli("verify", "--help")]
    )
    alone = cli("keys", code=USAGE)

    assert "tenants" in top.out
    assert all(f"--{name} " in keys.out for name in ("name", "role", "ip", "clear", "etag"))
    assert "list of\n  processes" in verify.out
    assert alone.err.startswith("Usage: latchgate keys ")


def test_what_cannot_be_undone_is_asked_about(cli: Cli, new_key: NewKey) -> None:
    key_id = new_key().key_id

    no_terminal = cli("keys", "delete", key_id, code=USAGE)
    no = on_terminal(cli, "keys", "revoke", key_id, typed="n")
    still = cli("keys", "get", key_id)
    yes = on_terminal(cli, "keys", "revoke", key_id, typed="y")
    deleted = on_terminal(cli, "keys", "delete", key_id, typed="y")

    assert no_terminal.err == "latchgate: this cannot be undone, and there is no terminal to ask on: add --yes\n"
    assert no.shown.startswith(f"Revoke {key_id} for good? [y/N]: ")
    assert (no.code, no.shown.splitlines()[-1]) == (FAILED, "latchgate: nothing was changed")
    assert still.told["state"] == "active"
    assert yes.code == DONE
    assert "revoked" in yes.shown
    assert (deleted.code, f"deleted {key_id}" in deleted.shown) == (DONE, True)


def test_a_terminal_has_colours_and_a_key_string_that_can_be_copied(cli: Cli, tenant: str) -> None:
    created = on_terminal(cli, "keys", "create", "--tenant", tenant, "--name", "a name of many words " * 5, columns=40)

    lines = created.shown.splitlines()
    assert created.code == DONE
    assert any(KEY_STRING.fullmatch(line) for line in lines)
    assert "\x1b[" in created.shown
    assert "a name of many words a name of many words" not in created.shown


def test_a_key_is_typed_unseen(cli: Cli, new_key: NewKey) -> None:
    key = new_key()

    verified = on_terminal(cli, "verify", "-", typed=key.key_string)

    assert verified.code == DONE
    assert key.key_string not in verified.shown
    assert key.key_id in verified.shown
