"""The file that a new key string goes to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from latchgate_server.cli.failures import fail


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


def keep(key_string: str, file: TextIO, path: Path, key_id: str) -> None:
    """Write a key string that was just told to its file. Where that fails the command ends, naming the key."""
    try:
        print(key_string, file=file, flush=True)
    except OSError as error:
        fail(f"{key_id} was created, but {path} cannot be written: {error.strerror}; delete it and create another")
