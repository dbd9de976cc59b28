"""`latchgate` as a shell finds it, without the second that each process takes to import it.

One process has imported everything and forks for each command. What is run is the same, with the caller's arguments,
environment, folder, standard streams and exit code.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import cache
from pathlib import Path

# What stands in the caller's PATH. It hands everything over and waits for the exit code.
STUB = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    told = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(link, [len(told).to_bytes(4, "big")], [0, 1, 2])
    link.sendall(told)
    sys.exit(int(link.recv(8) or b"1"))
"""


@cache
def quick_latchgate() -> Path:
    """The command, for as long as this process lives; its folder has nothing else in it."""
    stack = ExitStack()
    atexit.register(stack.close)
    # With a short path: a Unix socket's is limited to 107 bytes.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latchgate-")))
    stack.enter_context(_serving(str(folder / "cli")))
    command = folder / "bin" / "latchgate"
    command.parent.mkdir()
    command.write_text(STUB.format(python=sys.executable, address=str(folder / "cli")), encoding="ascii")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return command


@contextmanager
def _serving(address: str) -> Iterator[None]:
    # Where a test has something loaded into the processes that it starts, this one is none of them.
    env = os.environ | {"LD_PRELOAD": ""}
    with subprocess.Popen([sys.executable, "-m", __name__, address], env=env, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.terminate()


def _serve(address: str) -> None:
    from latchgate_server.cli import application, main

    # What a first command would import and look up once more.
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        application()(["keys", "list", "--help"], prog_name="latchgate", standalone_mode=False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        os.write(sys.stdout.fileno(), b"ready\n")
        while True:
            link, _ = listener.accept()
            # Two forks, so that this process need not wait and the first can tell the exit code of the second.
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _run(link, main)
            link.close()


def _run(link: socket.socket, main: object) -> None:
    size, streams, _, _ = socket.recv_fds(link, 4, 3)
    told = b""
    while len(told) < int.from_bytes(size, "big"):
        told += link.recv(65_536)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        link.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    link.close()
    arguments, environment, folder = json.loads(told)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    # What was opened on other files before does not know what these are.
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["latchgate", *arguments]
    code = 1
    try:
        assert callable(main)
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    except BaseException:  # noqa: BLE001 - told, where it would be lost below
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
