"""`latchgate verify`: a decision, its reason, its exit code."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.commands import DENIED, FAILED, Cli, NewKey, Ran, at_once


def test_verify_reads_standard_input_and_tells_who_the_key_speaks_for(cli: Cli, new_key: NewKey) -> None:
    key = new_key("--name", "billing", "--owner", "bob", "--role", "of-keys", "--tag", "a=b")

    piped, written, argument, nothing = at_once(
        [
            lambda: cli("verify", "-", stdin=key.key_string + "\n"),
            lambda: cli("verify", "-", "--output", "json", stdin=key.key_string),
            lambda: cli("verify", key.key_string),
            lambda: cli("verify", "-", code=DENIED),
        ]
    )

    assert piped.told == {
        "decision": "allow",
        "key id": key.key_id,
        "tenant": "of-keys",
        "name": "billing",
        "owner": "bob",
        "user": "bob",
        "tags": "a=b",
        "roles": "of-keys",
        "permissions": "orders.*",
        "capabilities": "exports",
    }
    assert argument.out == piped.out
    assert written.json["decision"] == "DECISION_ALLOW"
    assert written.json["identity"]["key_id"] == key.key_id
    assert nothing.told["reason"] == "MISSING_API_KEY"
    assert all(ran.err == "" for ran in (piped, written, argument, nothing))


def test_verify_gives_3_for_each_kind_of_denial(cli: Cli, new_key: NewKey) -> None:
    key = new_key("--ip", "10.0.0.0/8", "--resource", "sites/berlin/*", "--permission", "orders.read").key_string
    inside = ("--ip", "10.1.2.3")
    denied = {
        (): "IP_NOT_AUTHORIZED",
        ("--ip", "203.0.113.9"): "IP_NOT_AUTHORIZED",
        (*inside, "--tenant", "acme"): "TENANT_MISMATCH",
        (*inside, "--resource", "sites/rome"): "RESOURCE_NOT_IN_SCOPE",
        (*inside, "--capability", "imports"): "CAPABILITY_NOT_IN_PLAN",
        (*inside, "--requires", "orders.write"): "INSUFFICIENT_PERMISSIONS",
        (*inside, "--act-as", "alice"): "ACT_AS_NOT_ALLOWED",
    }
    allowed = (*inside, "--tenant", "of-keys", "--resource", "sites/berlin/x", "--capability", "exports")
    right = (*allowed, "--requires", "orders.read AND NOT orders.write")

    def denial(*options: str) -> Callable[[], Ran]:
        return lambda: cli("verify", "-", *options, stdin=key, code=DENIED)

    *found, ok, bad = at_once(
        [
            *(denial(*options) for options in denied),
            lambda: cli("verify", "-", *right, stdin=key),
            lambda: cli("verify", "-", "--requires", "orders.read AND", stdin=key, code=FAILED),
        ]
    )

    assert [ran.told["reason"] for ran in found] == list(denied.values())
    assert all(ran.told["message"] for ran in found)
    assert ok.told["decision"] == "allow"
    assert bad.err == "latchgate: --requires: a permission expected at the end\n"


def test_verify_denies_garbage_and_repeats_none_of_it(cli: Cli) -> None:
    garbage = ["\0\x1b[31m", "x" * 100_000, "\N{CYRILLIC SMALL LETTER A}" * 30, "a\nb\n"]

    ran = at_once([lambda text=text: cli("verify", "-", stdin=text, code=DENIED) for text in garbage])  # type: ignore[misc]  # a default binds each text

    assert {entry.out for entry in ran} == {ran[0].out}
    assert ran[0].told["reason"] == "INVALID_API_KEY"
