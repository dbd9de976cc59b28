"""Where a new key string goes: a file for its owner alone, or standard output, once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from latchgate_server.cli.failures import fail
from latchgate_server.cli.output import remark


@contextmanager
def new_secret_file(path: Path) -> Iterator[TextIO]:
    """A new file that only its owner can read, open for writing while the context lasts.

    It is there before anything else happens: where it cannot be made the command ends. Where the context fails, the
    file is gone again.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        fail(f"{path} exists already and is not overwritten; nothing was done")
    except OSError as error:
        fail(f"{path} cannot be made: {error.strerror}; nothing was done")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def tell_key_string(key_string: str) -> None:
    """Print a key string on a line of its own, for in a table it could be wrapped; or say why there is none."""
    if key_string:
        print(f"\nThe key string, told this once:\n{key_string}")
    else:
        remark("created by an earlier command with this --request-id; its key string is not told again")


def keep(key_string: str, file: TextIO, path: Path, key_id: str) -> None:
    """Write a key string that was just told to its file. Where there is none, or that fails, the command ends."""
    if not key_string:
        fail(f"{key_id} was created by an earlier command with this --request-id; its key string is not told again")
    try:
        print(key_string, file=file, flush=True)
    except OSError as error:
        fail(f"{key_id} was created, but {path} cannot be written: {error.strerror}; delete it and create another")
