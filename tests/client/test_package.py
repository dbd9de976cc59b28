"""What is published: distributions that are whole, work alone, have types, and do what their README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.distributions import ROOT, build, environment_with
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, make_root_key

CLIENT = ROOT / "client"
PROGRAM = Path(__file__).with_name("user_program.py.txt")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    return {name: build(name, tmp_path_factory.mktemp(name)) for name in ("client", "server")}


@pytest.fixture(scope="module")
def python(built: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment where only the client is installed."""
    return environment_with(built["client"][1], tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def fresh_server(postgres: Postgres) -> Iterator[tuple[str, ServerProcess]]:
    database_url = postgres.new_database()
    root_key = make_root_key(database_url)
    with ServerProcess(database_url) as server:
        yield root_key, server


def files_of(archive: Path) -> set[str]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as sdist:
        return {member.name.partition("/")[2] for member in sdist.getmembers()}


@pytest.mark.parametrize("name", ["client", "server"])
def test_a_wheel_holds_the_package_its_license_and_nothing_else(built: dict[str, tuple[Path, Path]], name: str) -> None:
    sdist, wheel = built[name]
    package = wheel.name.split("-")[0]
    files = files_of(wheel)
    assert {file.split("/")[0].partition("-")[0] for file in files} == {package}
    assert f"{package}/py.typed" in files
    assert [file for file in files if file.endswith("dist-info/licenses/LICENSE")]
    assert not [file for file in files if "test" in file]
    tracked = subprocess.run(
        ["git", "ls-files", f"{name}/{package}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {file for file in files if ".dist-info/" not in file} == {file.removeprefix(f"{name}/") for file in tracked}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= files_of(sdist)


@pytest.mark.parametrize("name", ["client", "server"])
def test_the_license_is_the_one_of_the_project(name: str) -> None:
    assert (ROOT / name / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_both_distributions_have_the_same_version_and_the_server_asks_for_it() -> None:
    client, server = (
        tomllib.loads((ROOT / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for name in ("client", "server")
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", client["version"])
    assert client["version"] == server["version"]
    assert f"latchgate=={client['version']}" in server["dependencies"]


def test_the_client_needs_grpcio_and_protobuf_alone(python: Path) -> None:
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [re.split(r"\W", name)[0] for name in project["dependencies"]] == ["grpcio", "protobuf"]
    program = "import sys, latchgate, latchgate.v1.admin_service_pb2_grpc; print(latchgate.__file__, *sys.modules)"
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    where, *loaded = done.stdout.split()
    assert Path(where).is_relative_to(python.parents[1])
    assert not {"google.rpc", "google.api", "latchgate_server"} & set(loaded)


def test_the_readme_shows_what_its_examples_do(python: Path, fresh_server: tuple[str, ServerProcess]) -> None:
    root_key, server = fresh_server
    text = (CLIENT / "README.md").read_text(encoding="utf-8")
    program = "\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    shown = "".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    program = program.replace("127.0.0.1:50051", server.verify_address)
    program = program.replace("127.0.0.1:50052", server.admin_address)
    done = subprocess.run(
        [python, "-I", "-c", program],
        env={**os.environ, "LATCHGATE_ADMIN_KEY": root_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == shown


@pytest.mark.parametrize("source", ["a program", "the README"])
def test_what_users_write_is_checked_by_strict_types(python: Path, tmp_path: Path, source: str) -> None:
    """Against the installed wheel, in a folder from where nothing of this checkout is seen."""
    program = tmp_path / "program.py"
    if source == "a program":
        shutil.copyfile(PROGRAM, program)
    else:
        text = (CLIENT / "README.md").read_text(encoding="utf-8")
        program.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", str(python), program.name],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in {"MYPYPATH", "PYTHONPATH"}},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
