"""Start everything, take the steps of steps.sh in one shell, print the commands with what they show, and clean up."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.support.ports import free_port, free_ports

HERE = Path(__file__).resolve().parent
ENVOY = HERE.parent / ".venv/envoy/envoy/_bin/envoy"
BEFORE_ROUTES = "                        # Public: no key is asked for. CHANGE.\n"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


def main() -> None:
    """Run the demonstration."""
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            sys.exit(f"the demonstration needs {program}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latchgate-demo-")))
        listen, upstream, verify, admin = (f"127.0.0.1:{port}" for port in free_ports(4))
        env = environment(folder, verify, admin) | {"API": f"http://{listen}"}
        python = sys.executable
        log = stack.enter_context((folder / "servers.log").open("w"))
        run = Servers(stack, env, log.fileno())
        run([python, "-m", "latchgate_server", "dev", "--data-dir", str(folder / "data")])
        run([python, str(HERE / "upstream.py"), upstream.rpartition(":")[2]])
        config = folder / "envoy.yaml"
        config.write_text(envoy_config(env, listen, upstream), encoding="utf-8")
        for address in (verify, admin, upstream):
            wait_for(address)
        run([str(ENVOY), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"])
        wait_for(listen)
        take_steps(folder, env)


def environment(folder: Path, verify: str, admin: str) -> dict[str, str]:
    """What servers and steps find in their environment: nothing of the caller's own settings of Latchgate."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATCHGATE_")}
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LATCHGATE_VERIFY_LISTEN": verify,
        "LATCHGATE_ADMIN_LISTEN": admin,
        "LATCHGATE_METRICS_LISTEN": "",
        "LATCHGATE_VERIFY_ADDRESS": verify,
        "LATCHGATE_ADMIN_ADDRESS": admin,
        "LATCHGATE_ADMIN_KEY_FILE": str(folder / "data/root.key"),
    }


class Servers:
    """Starts servers, and ends them with the stack."""

    def __init__(self, stack: ExitStack, env: Mapping[str, str], log: int) -> None:
        self._stack = stack
        self._env = env
        self._log = log

    def __call__(self, command: list[str]) -> None:
        """Start one."""
        process = subprocess.Popen(command, env=dict(self._env), stdout=self._log, stderr=self._log)
        self._stack.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server, the hard way where it does not by itself."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def envoy_config(env: Mapping[str, str], listen: str, upstream: str) -> str:
    """What `latchgate envoy-config` prints, with the routes of the demonstration."""
    command = [sys.executable, "-m", "latchgate_server", "envoy-config", "--listen", listen, "--upstream", upstream]
    command += ["--admin", f"127.0.0.1:{free_port()}"]
    printed = subprocess.run(command, env=dict(env), check=True, text=True, capture_output=True).stdout
    assert BEFORE_ROUTES in printed
    return printed.replace(BEFORE_ROUTES, (HERE / "routes.yaml").read_text(encoding="utf-8") + BEFORE_ROUTES)


def wait_for(address: str) -> None:
    """Return once somebody listens there."""
    host, _, port = address.rpartition(":")
    for _ in range(int(START_SECONDS / 0.1)):
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"nothing answers at {address}")


def take_steps(folder: Path, env: Mapping[str, str]) -> None:
    """Print each step, and what it shows."""
    script = ["set -e"]
    for line in (HERE / "steps.sh").read_text(encoding="utf-8").splitlines():
        shown = line if line.startswith("#") else f"$ {line}"
        quoted = shown.replace("'", "'\\''")
        script += [f"printf '%s\\n' '{quoted}'", line]
    bash = shutil.which("bash")
    assert bash is not None, "asked for above"
    done = subprocess.run([bash, "-c", "\n".join(script)], cwd=folder, env=dict(env), check=False)
    if done.returncode != 0:
        sys.exit(f"a step failed:\n{(folder / 'log').read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
