"""`latchgate keys`: from the making of a key to its end."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from tests.e2e.commands import FAILED, KEY_STRING, TRAVELLED, Cli, NewKey, at_once

EVERYTHING = {
    "name": "billing",
    "description": "Sends invoices",
    "owner": "bob",
    "default-user": "robot",
    "environment": "production",
    "tag": "team=money",
    "role": "of-keys",
    "permission": "invoices.*",
    "resource": "sites/berlin/*",
    "claims": '{"region": "eu"}',
    "ip": "10.0.0.0/8",
    "expire-time": "2099-01-01T00:00:00Z",
    "rotate-by-time": "90d",
    "key-limit": "calls=5/1m",
}
"""Each option of `keys create` and `keys update` that sets a field, by its name."""

SOON = ("--role", "of-keys", "--expire-time", "1d", "--rotate-by-time", "1d")


def key_ids(cli: Cli, tenant: str) -> set[str]:
    return {key["key_id"] for key in cli("keys", "list", "--tenant", tenant, "--output", "json").json["keys"]}


def everything() -> list[str]:
    return [part for name, value in EVERYTHING.items() for part in (f"--{name}", value)]


def test_a_key_is_created_with_every_field_and_its_key_string_told_once(cli: Cli, tenant: str) -> None:
    created = cli("keys", "create", "--tenant", tenant, *everything(), "--prefix", "acme_live")
    key_string = KEY_STRING.search(created.out)
    assert key_string
    key_id = key_string[0].partition(".")[0]
    got, got_json = cli.both("keys", "get", key_id)

    assert key_id.startswith("acme_live_")
    assert created.out.endswith(f"\nThe key string, told this once:\n{key_string[0]}\n")
    assert TRAVELLED.fullmatch(created.err)
    assert not KEY_STRING.search(got.out)
    assert created.out.startswith(got.out)
    assert set(EVERYTHING.values()) - set(got.told.values()) == {
        EVERYTHING["expire-time"],
        EVERYTHING["rotate-by-time"],
    }
    assert got.told["expires"].startswith("2099-01-01T00:00:00Z (in ")
    assert got_json["key"]["ip_allowlist"] == {"enabled": True, "ranges": ["10.0.0.0/8"]}
    assert got_json["key"]["rotate_by_time"] < got_json["key"]["expire_time"]


def test_a_repeated_request_tells_no_key_string(cli: Cli, tenant: str, tmp_path: Path) -> None:
    request = ("keys", "create", "--tenant", tenant, "--request-id", "6a0f2a52-0f5c-4f0e-9a57-1f6d3c1f9a10")

    first = cli(*request, "--output", "json").json
    again = cli(*request)
    into_file = cli(*request, "--key-file", str(tmp_path / "key"), code=FAILED)

    assert first["key_string"].startswith(first["key"]["key_id"])
    assert again.told["key id"] == first["key"]["key_id"]
    assert not KEY_STRING.search(again.out)
    assert "not told again" in again.err
    assert "not told again" in into_file.err
    assert not (tmp_path / "key").exists()


def test_lists_of_keys(cli: Cli, new_key: NewKey, tenant: str) -> None:
    key = new_key("--name", "wanted", "--owner", "carol", "--tag", "list=this", "--environment", "lists", *SOON)
    cli("keys", "disable", key.key_id)
    everywhere = ("--owner", "carol", "--role", "of-keys", "--environment", "lists", "--tag", "list=this")
    narrow = ("--state", "disabled", "--expires-before", "2d", "--rotation-due-before", "2d", "--search", "WANT")
    found, found_json = cli.both("keys", "list", "--tenant", tenant, *everywhere, *narrow)
    first, none = at_once(
        [
            lambda: cli("keys", "list", "--limit", "1", "--output", "json"),
            lambda: cli("keys", "list", "--owner", "nobody"),
        ]
    )
    rest = cli("keys", "list", "--page-token", first.json["next_page_token"], "--output", "json").json

    title, line = found.out.splitlines()
    assert title.split("  ")[0] == "KEY ID"
    assert re.fullmatch(rf"{key.key_id} +of-keys +wanted +of-keys +disabled +\d+s ago +-", line)
    assert [entry["key_id"] for entry in found_json["keys"]] == [key.key_id]
    assert len(first.json["keys"]) == 1
    assert first.json["keys"][0] not in rest["keys"]
    assert rest["next_page_token"] == ""
    assert none.out.splitlines() == ["KEY ID  TENANT  NAME  ROLES  STATE  CREATED  LAST USE"]


def test_an_update_changes_what_was_named_and_nothing_else(cli: Cli, new_key: NewKey) -> None:
    key_id = new_key(*everything()).key_id
    before = cli("keys", "get", key_id, "--output", "json").json["key"]

    renamed = cli("keys", "update", key_id, "--name", "other", "--tag", "a=b", "--etag", before["etag"])
    after = cli("keys", "get", key_id, "--output", "json").json["key"]
    stale = cli("keys", "update", key_id, "--name", "third", "--etag", before["etag"], code=FAILED)

    assert renamed.told["name"] == "other"
    assert {name for name in after if after[name] != before[name]} == {"display_name", "tags", "update_time", "etag"}
    assert after["tags"] == {"a": "b"}
    assert stale.err.startswith(f"latchgate: key {key_id} was changed by somebody else")


def test_an_update_clears_what_it_is_told_to(cli: Cli, new_key: NewKey) -> None:
    key_id = new_key(*everything()).key_id
    blank = cli("keys", "get", new_key().key_id, "--output", "json").json["key"]
    own = {"key_id", "create_time", "update_time", "etag"}

    switched = cli("keys", "update", key_id, "--no-ip-allowlist", "--output", "json").json["key"]
    emptied = cli("keys", "update", key_id, *(f"--clear={name}" for name in EVERYTHING), "--output", "json").json["key"]

    assert switched["ip_allowlist"] == {"enabled": False, "ranges": ["10.0.0.0/8"]}
    assert {name: value for name, value in emptied.items() if name not in own} == {
        name: value for name, value in blank.items() if name not in own
    }


def test_keys_are_switched_off_and_on_and_end(cli: Cli, new_key: NewKey) -> None:
    key, second = new_key(), new_key()

    disabled, disabled_json = cli.both("keys", "disable", key.key_id, "--reason", "left")
    enabled = cli("keys", "enable", key.key_id, "--reason", "back")
    expired, expired_json = cli.both("keys", "expire", key.key_id, "--reason", "over")
    revoked, revoked_json = cli.both("keys", "revoke", key.key_id, "--yes", "--reason", "leaked")
    deleted = cli("keys", "delete", key.key_id, "--yes", "--reason", "tidy")
    deleted_json = cli("keys", "delete", second.key_id, "--yes", "--output", "json").json

    assert [disabled.told["state"], enabled.told["state"], expired.told["state"]] == ["disabled", "active", "expired"]
    assert disabled_json["key"]["state"] == "STATE_DISABLED"
    assert expired_json["key"]["expired"] is True
    assert revoked.told["revoked"].endswith(": leaked")
    assert revoked_json["key"]["state"] == "STATE_REVOKED"
    assert deleted.out == f"deleted {key.key_id}\n"
    assert all(TRAVELLED.fullmatch(ran.err) for ran in (disabled, enabled, expired, revoked, deleted))
    assert list(deleted_json) == ["propagation"]
    assert "does not exist" in cli("keys", "get", key.key_id, code=FAILED).err


def test_a_key_file_is_for_its_owner_alone(cli: Cli, tenant: str, tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    mask = os.umask(0)
    try:
        table = cli("keys", "create", "--tenant", tenant, "--key-file", str(path))
    finally:
        os.umask(mask)
    other = tmp_path / "other.key"
    written = cli("keys", "create", "--tenant", tenant, "--key-file", str(other), "--output", "json").json

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key_string = path.read_text(encoding="ascii").removesuffix("\n")
    assert KEY_STRING.fullmatch(key_string)
    assert table.out == key_string.partition(".")[0] + "\n"
    assert TRAVELLED.fullmatch(table.err)
    assert written["key_string"] == ""
    assert other.read_text(encoding="ascii").startswith(written["key"]["key_id"])
    with path.open(encoding="ascii") as file:
        assert cli("verify", "-", stdin=file.read()).told["decision"] == "allow"


def test_a_key_file_overwrites_nothing_and_then_no_key_is_made(cli: Cli, tenant: str, tmp_path: Path) -> None:
    taken, link, refused = tmp_path / "taken", tmp_path / "link", tmp_path / "refused"
    taken.write_text("precious", encoding="ascii")
    link.symlink_to(tmp_path / "target")
    before = key_ids(cli, tenant)
    create = ("keys", "create", "--tenant", tenant)

    over_file, over_link, nowhere, bad = at_once(
        [
            lambda: cli(*create, "--key-file", str(taken), code=FAILED),
            lambda: cli(*create, "--key-file", str(link), code=FAILED),
            lambda: cli(*create, "--key-file", str(tmp_path / "no" / "folder"), code=FAILED),
            lambda: cli(*create, "--key-file", str(refused), "--role", "no-such-role", code=FAILED),
        ]
    )

    assert over_file.err == f"latchgate: {taken} exists already and is not overwritten; nothing was done\n"
    assert "is not overwritten" in over_link.err
    assert nowhere.err.endswith("cannot be made: No such file or directory; nothing was done\n")
    assert bad.err == "latchgate: role no-such-role does not exist\n"
    assert taken.read_text(encoding="ascii") == "precious"
    assert not (tmp_path / "target").exists()
    assert not refused.exists()
    assert key_ids(cli, tenant) == before
