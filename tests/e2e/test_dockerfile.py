"""The image cannot be built where the tests run, so the Dockerfile is held against the tree and the command line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from latchgate_server.config import Settings

ROOT = Path(__file__).resolve().parents[2]

LISTENERS = ("verify_listen", "admin_listen", "metrics_listen")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its options (`--from=…`) apart from the rest."""

    name: str
    options: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.rest)

    @property
    def exec_form(self) -> list[str]:
        """The command of ENTRYPOINT, CMD or HEALTHCHECK; only the exec form gets SIGTERM and needs no shell."""
        words: list[str] = json.loads(self.rest.removeprefix("CMD "))
        return words


def instructions() -> list[Instruction]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        options = {}
        while option := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            options[option[1]] = option[2]
            rest = rest[option.end() :]
        found.append(Instruction(name, options, rest))
    return found


def final_stage(name: str) -> Instruction:
    """The last instruction of that name in the last stage: the one that counts."""
    everything = instructions()
    begin = max(index for index, instruction in enumerate(everything) if instruction.name == "FROM")
    return [instruction for instruction in everything[begin:] if instruction.name == name][-1]


def copied_from_tree() -> list[str]:
    return [
        source
        for instruction in instructions()
        if instruction.name == "COPY" and "from" not in instruction.options
        for source in instruction.words[:-1]
    ]


def run_commands() -> Sequence[str]:
    return [command for line in instructions() if line.name == "RUN" for command in line.rest.split("&&")]


def test_what_it_copies_exists_and_is_sent_to_the_builder() -> None:
    sources = copied_from_tree()
    ignore_file = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "*" in ignore_file
    assert {f"!{Path(source).parts[0]}" for source in sources} <= set(ignore_file)


def test_stages_it_copies_from_exist() -> None:
    stages = {line.words[-1] for line in instructions() if line.name == "FROM" and "AS" in line.words}

    assert {line.options["from"] for line in instructions() if line.name == "COPY" and "from" in line.options} == stages


def test_it_installs_only_what_is_pinned_and_the_tree() -> None:
    installs = [command for command in run_commands() if re.search(r"\b(pip install|pip sync|pip wheel)\b", command)]

    assert installs
    for command in installs:
        assert ("--require-hashes" in command) != ("--no-deps" in command), command
        assert "--no-build-isolation" in command or "pip wheel" not in command, command
        for lock in re.findall(r"\S+\.lock", command):
            assert lock in copied_from_tree()


def test_it_ends_as_a_fixed_user_that_is_not_root() -> None:
    user = final_stage("USER").rest.split(":")

    assert all(re.fullmatch(r"[1-9][0-9]*", number) for number in user)


def test_entry_point_is_the_script_that_the_server_installs() -> None:
    scripts = tomllib.loads((ROOT / "server/pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

    (entry_point,) = final_stage("ENTRYPOINT").exec_form
    assert entry_point in scripts
    assert final_stage("HEALTHCHECK").exec_form[0] == entry_point


@pytest.mark.parametrize("instruction", ["CMD", "HEALTHCHECK"])
def test_commands_it_runs_exist(instruction: str) -> None:
    arguments = final_stage(instruction).exec_form
    if instruction == "HEALTHCHECK":
        arguments = arguments[1:]

    asked = subprocess.run(
        [sys.executable, "-m", "latchgate_server", *arguments, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert asked.returncode == 0, asked.stderr
    assert arguments[0] in asked.stdout


def test_exposed_ports_are_the_defaults() -> None:
    defaults = [str(Settings.model_fields[listener].default) for listener in LISTENERS]

    assert defaults == ["127.0.0.1:50051", "127.0.0.1:50052", "127.0.0.1:9464"]
    assert final_stage("EXPOSE").words == [default.rpartition(":")[2] for default in defaults]
