"""What `dev`, `serve`, `migrate` and `init` do. It imports the whole server, which client commands do not need."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from latchgate_server import bootstrap, dev
from latchgate_server.admin.audit_log import ChainCheck
from latchgate_server.cli.failures import FAILED, fail
from latchgate_server.config import Settings, SettingsProblem, load_settings
from latchgate_server.core.errors import CannotDecide, LatchgateError
from latchgate_server.embedded import EmbeddedProblem
from latchgate_server.logs import configure_logging
from latchgate_server.storage.failures import StatementRefused, told_at_start
from latchgate_server.storage.migrate import SchemaProblem, pending
from latchgate_server.storage.migrate import migrate as migrate_database
from latchgate_server.supervisor import READY, supervise
from latchgate_server.transport.certificates import CertificateFiles
from latchgate_server.transport.server import NoSuchTransport

_TOLD = (SettingsProblem, SchemaProblem, StatementRefused, NoSuchTransport, EmbeddedProblem, LatchgateError, OSError)
"""What keeps a process from starting, and says so in words for an operator."""


def run_dev(data_dir: Path) -> None:
    """Serve with everything under one folder, until SIGINT or SIGTERM."""
    with _told_in_one_line():
        settings = _settings()
        settings.require_local_listeners()
        bootstrap.check_certificates(settings)
        bootstrap.check_limit_store(settings)
        if settings.workers > 1:
            raise SettingsProblem(f"LATCHGATE_WORKERS={settings.workers}: `dev` runs one process; `serve` runs several")
        dev.run(data_dir, settings, _say)


def run_server(*, insecure: bool, worker: bool) -> None:
    """Serve until SIGINT or SIGTERM.

    insecure: plaintext is allowed on addresses that are not loopback. worker: this is a supervisor's process.
    """
    with _told_in_one_line():
        settings = _settings()
        if not worker and not insecure:
            settings.require_local_listeners()
        if not worker:
            bootstrap.check_certificates(settings)
            bootstrap.check_limit_store(settings)
        if worker:
            bootstrap.run_server(settings, lambda _: _tell_supervisor(), as_worker=True)
        elif settings.workers > 1:
            asyncio.run(bootstrap.check_start(settings))
            asyncio.run(supervise(settings))
        else:
            bootstrap.run_server(settings)


def _tell_supervisor() -> None:
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()


def run_migrations() -> None:
    """Bring the schema up to date and say what was applied."""
    with _told_in_one_line():
        settings = _settings()
        done = asyncio.run(migrate_database(settings.require_database_url(), settings.lease))
    for migration in done.applied:
        typer.echo(f"applied {migration.version:04} {migration.name}")
    if not done.applied:
        typer.echo("the schema is current")
    if not done.timeout_set:
        typer.echo(
            "note: let the database's owner set idle_in_transaction_session_timeout below LATCHGATE_LEASE on it, "
            "so that a forgotten session cannot hold up changes",
            err=True,
        )


def check_migrations() -> None:
    """Say which migrations are missing; exit code 1 where some are."""
    with _told_in_one_line():
        missing = asyncio.run(pending(_settings().require_database_url()))
    for migration in missing:
        typer.echo(f"missing {migration.version:04} {migration.name}")
    if missing:
        raise typer.Exit(FAILED)
    typer.echo("the schema is current")


def make_first_administrator() -> None:
    """Make the first administrator and print its key string."""
    with _told_in_one_line():
        if not asyncio.run(bootstrap.initialize(_settings(), typer.echo)):
            fail("there is a first administrator already; where it is lost, `latchgate init --recover` makes another")


def recover_administration() -> None:
    """Make another administrator like the first, print its key string, and tell who else there is."""
    with _told_in_one_line():
        recovered = asyncio.run(bootstrap.recover(_settings(), typer.echo))
    if recovered.tenant_enabled:
        typer.echo("note: the tenant latchgate was disabled, and is enabled again", err=True)
    if recovered.others:
        ids = ", ".join(recovered.others)
        typer.echo(f"note: these could administer everything already; revoke those that are lost: {ids}", err=True)


def check_audit_log(anchor: tuple[int, bytes] | None) -> ChainCheck:
    """Walk the audit log. anchor: a head that an earlier walk gave."""
    with _told_in_one_line():
        return asyncio.run(bootstrap.check_audit_log(_settings(), anchor))


def own_verify_port() -> tuple[str, CertificateFiles | None]:
    """Where this machine's settings let VerifyService listen, and with which certificate."""
    with _told_in_one_line():
        settings = _settings()
        return settings.verify_listen, bootstrap.certificate_files(settings)


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """Turn what can go wrong at start into a line and exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except CannotDecide as error:
        fail(told_at_start(error))
    except _TOLD as error:
        fail(str(error))


def _settings() -> Settings:
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    return settings


def _say(addresses: bootstrap.Addresses, data_dir: Path) -> None:
    """Tell what is listening, and a first call that works when pasted."""
    root_key = shlex.quote(str(data_dir / dev.ROOT_KEY_FILE))
    command = _command()
    print(
        f"""
Latchgate is serving; Ctrl-C stops it.

  VerifyService   {addresses.verify}
  AdminService    {addresses.admin}
  metrics         {f"http://{addresses.metrics}/metrics" if addresses.metrics else "off"}
  data            {data_dir}
  root key        {root_key}

Paste this into another terminal for a first decision, about the root key itself:

  LATCHGATE_VERIFY_ADDRESS={addresses.verify} {command} verify - < {root_key}

and this to go on as administrator:

  export LATCHGATE_ADMIN_ADDRESS={addresses.admin} LATCHGATE_ADMIN_KEY_FILE={root_key}
  {command} tenants create acme
""",
        flush=True,
    )


def _command() -> str:
    """How to call this installation: by its name alone where that finds it."""
    own = Path(sys.executable).with_name("latchgate")
    found = shutil.which("latchgate")
    return "latchgate" if found and Path(found).resolve() == own.resolve() else shlex.quote(str(own))
