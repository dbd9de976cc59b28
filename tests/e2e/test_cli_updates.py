"""Commands that change and delete tenants, plans and roles, and what every command line needs: reach and completion."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from latchgate.v1 import admin_service_pb2
from tests.e2e.commands import FAILED, KEY_STRING, TRAVELLED, USAGE, Cli, NewKey, on_terminal
from tests.support.quick_cli import quick_latchgate

CLI = Path(__file__).parents[2] / "server/latchgate_server/cli"


def test_every_call_of_an_administrator_has_a_command() -> None:
    called = {name for file in CLI.glob("*.py") for name in re.findall(r"stub\.([A-Z]\w+)", file.read_text("utf-8"))}
    offered = {method.name for method in admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods}
    assert offered - called == set()


def test_a_tenant_is_changed_and_deleted(cli: Cli) -> None:
    cli("plans", "create", "changed-1")
    cli("tenants", "create", "changed", "--name", "Old", "--tag", "a=b", "--tenant-limit", "all=10/60s")
    before = cli("tenants", "get", "changed", "--output", "json").json["tenant"]

    updated = cli("tenants", "update", "changed", "--name", "New", "--plan", "changed-1", "--etag", before["etag"])
    stale = cli("tenants", "update", "changed", "--name", "Newer", "--etag", before["etag"], code=FAILED)
    cleared = cli("tenants", "update", "changed", "--clear", "tag", "--clear", "plan", "--output", "json").json
    role = cli("roles", "create", "changed", "--tenant", "changed", "--output", "json").json
    deleted = cli("tenants", "delete", "changed", "--yes", "--reason", "gone")

    assert (updated.told["name"], updated.told["plan"], updated.told["tags"]) == ("New", "changed-1", "a=b")
    assert TRAVELLED.fullmatch(updated.err)
    assert stale.err.startswith("latchgate: tenant changed was changed by somebody else")
    assert (cleared["tenant"]["tags"], cleared["tenant"]["plan_id"]) == ({}, "")
    assert cleared["tenant"]["limits"] == before["limits"]
    assert role["role"]["tenant_id"] == "changed"
    assert deleted.out == "deleted changed\n"
    assert TRAVELLED.fullmatch(deleted.err)
    assert cli("tenants", "get", "changed", code=FAILED).err == "latchgate: tenant changed does not exist\n"


def test_a_plan_is_changed_and_deleted_once_nobody_is_on_it(cli: Cli) -> None:
    cli("plans", "create", "changed", "--name", "Old", "--capability", "export", "--max-keys", "3")
    cli("tenants", "create", "on-changed", "--plan", "changed")

    updated = cli(
        *("plans", "update", "changed", "--capability", "import", "--capability", "export", "--key-limit", "all=1/day"),
        *("--clear", "max-keys"),
    )
    in_use = cli("plans", "delete", "changed", "--yes", code=FAILED)
    cli("tenants", "update", "on-changed", "--clear", "plan")
    deleted = cli("plans", "delete", "changed", "--yes", "--output", "json").json

    assert updated.told["name"] == "Old"
    assert set(updated.told["capabilities"].split(", ")) == {"import", "export"}
    assert (updated.told["max keys"], updated.told["key limits"]) == ("any number", "all=1/day")
    assert in_use.err == "latchgate: tenant on-changed still refers to it\n"
    assert list(deleted) == ["propagation"]


def test_a_role_is_changed_and_deleted_once_no_key_holds_it(cli: Cli, tenant: str, new_key: NewKey) -> None:
    of_tenant = ("--tenant", tenant)
    cli("roles", "create", "changed", *of_tenant, "--permission", "a.read", "--allow-act-as", "--claims", '{"x": 1}')
    key_id = new_key("--role", "changed").key_id

    updated = cli("roles", "update", "changed", *of_tenant, "--permission", "b.read", "--no-allow-act-as")
    cleared = cli("roles", "update", "changed", *of_tenant, "--clear", "claims", "--clear", "permission")
    in_use = cli("roles", "delete", "changed", *of_tenant, "--yes", code=FAILED)
    cli("keys", "update", key_id, "--clear", "role")
    deleted = cli("roles", "delete", "changed", *of_tenant, "--yes")

    assert (updated.told["permissions"], updated.told["claims"]) == ("b.read", '{"x": 1}')
    assert "act as" not in updated.told
    assert not {"permissions", "claims"} & cleared.told.keys()
    assert in_use.err == f"latchgate: key {key_id} still refers to it\n"
    assert deleted.out == "deleted changed\n"


@pytest.mark.parametrize("group", ["tenants", "plans", "roles"])
def test_a_change_of_nothing_or_of_one_thing_twice_is_wrong_usage(cli: Cli, group: str) -> None:
    nothing = cli(group, "update", "x", code=USAGE)
    twice = cli(group, "update", "x", "--name", "y", "--clear", "name", code=USAGE)
    assert nothing.err == f"latchgate: nothing to change; `latchgate {group} update --help` shows what can be\n"
    assert twice.err == "latchgate: --name and --clear name exclude each other\n"


@pytest.mark.parametrize("group", ["tenants", "plans", "roles"])
def test_what_cannot_be_undone_is_asked_about(cli: Cli, group: str) -> None:
    cli(group, "create", "asked")
    unasked = cli(group, "delete", "asked", code=USAGE)
    refused = on_terminal(cli, group, "delete", "asked", typed="n")
    kept = cli(group, "get", "asked")
    agreed = on_terminal(cli, group, "delete", "asked", typed="y")

    assert unasked.err == "latchgate: this cannot be undone, and there is no terminal to ask on: add --yes\n"
    assert refused.code == FAILED
    assert re.search(rf"Delete the {group[:-1]} asked.* cannot be recovered", refused.shown)
    assert "nothing was changed" in refused.shown
    assert kept.told[group[:-1]] == "asked"
    assert (agreed.code, "deleted asked" in agreed.shown) == (0, True)


def test_a_rotation_tells_the_new_key_string_once_and_repeated_no_more(cli: Cli, new_key: NewKey) -> None:
    request = ("--request-id", "0a3bf86f-06fd-4d35-8a0e-6c2bd9b4a70e", "--grace", "1h")
    old = new_key()
    first = cli("keys", "rotate", old.key_id, *request)
    again = cli("keys", "rotate", old.key_id, *request)

    key_string = first.out.splitlines()[-1]
    assert KEY_STRING.fullmatch(key_string)
    assert first.out.count(key_string) == 1
    assert key_string.partition(".")[0] == first.told["key id"] == again.told["key id"]
    assert not KEY_STRING.search(again.out)
    assert "not told again" in again.err
    assert f"the old key {old.key_id} is valid for another 1h\n" in first.err


def test_revoking_in_bulk_takes_the_filters_of_lists(cli: Cli, new_key: NewKey, tenant: str) -> None:
    new_key("--name", "bulk-wanted", "--expire-time", "1d", "--rotate-by-time", "1d")
    new_key("--name", "bulk-spared")
    narrow = ("--search", "bulk-", "--expires-before", "2d", "--rotation-due-before", "2d")
    assert cli("keys", "revoke-all", "--tenant", tenant, *narrow, "--yes").out == "1 keys revoked\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ten", ["tenants"]),
        ("plans ", ["create", "get", "list", "update", "delete"]),
        ("tenants list --output ", ["table", "json"]),
        ("roles update x --clear ", ["name", "description", "permission", "claims"]),
        ("keys list --expires", ["--expires-before"]),
    ],
)
def test_bash_completes_what_is_typed(typed: str, offered: list[str]) -> None:
    script = f"""
        PATH={quick_latchgate().parent}:$PATH
        eval "$(latchgate --show-completion bash)"
        IFS=' ' read -ra COMP_WORDS <<< "latchgate {typed}"
        [[ "{typed}" == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _latchgate_completion latchgate
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_installing_completion_says_what_it_did_and_touches_the_home_alone(cli: Cli, tmp_path: Path) -> None:
    done = cli("--install-completion", "bash", HOME=str(tmp_path))
    assert "bash completion installed in " in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bash_completions", ".bashrc"]
