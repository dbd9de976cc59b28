"""The systemd unit, the compose file and the manifests for Kubernetes in deploy/.

No cluster and no daemon runs them here, so they are held against the settings, the command line and the image.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from latchgate_server.bootstrap import CONNECTIONS
from latchgate_server.bootstrap.process import DRAIN_SECONDS
from latchgate_server.cli import application
from latchgate_server.config import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "latchgate.service"
COMPOSE = DEPLOY / "compose.yaml"
MANIFESTS = DEPLOY / "kubernetes"

VARIABLES = {f"LATCHGATE_{name.upper()}" for name in Settings.model_fields} | {"LATCHGATE_CONFIG"}
PORTS = {50051, 50052, 9464}
IMAGE_USER = 10001
# Quotas are given back and usage is written; then the replica deregisters.
LONGEST_DRAIN = 2 * DRAIN_SECONDS


def seconds(duration: str) -> float:
    """A duration as settings, systemd and compose write it."""
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, duration
    return float(match[1])


def assert_runs(arguments: list[str]) -> None:
    """These are a command of `latchgate` and its options."""
    group = typer.main.get_command(application())
    command = group.commands[arguments[0]]  # type: ignore[attr-defined]  # it is a group
    options = {option for parameter in command.params for option in parameter.opts}
    assert set(arguments[1:]) <= options


# systemd


def directives() -> dict[str, list[str]]:
    """Everything in the unit, by name."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_runs_a_command_with_settings_that_there_are() -> None:
    unit = directives()
    (command,) = unit["ExecStart"]
    assert_runs(shlex.split(command)[1:])
    values = dict(setting.split("=", 1) for setting in unit["Environment"])
    assert values.keys() <= VARIABLES
    credentials = {credential.partition(":")[0] for credential in unit["LoadCredential"]}
    assert credentials == {value.removeprefix("%d/") for value in values.values() if value.startswith("%d/")}


def test_the_unit_waits_for_a_drain_and_for_the_word_that_it_serves() -> None:
    unit = directives()
    assert unit["Type"] == ["notify"]
    assert seconds(unit["TimeoutStopSec"][0]) > LONGEST_DRAIN + 5


def test_the_unit_may_do_little() -> None:
    unit = directives()
    for name in (
        "DynamicUser",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "NoNewPrivileges",
        "MemoryDenyWriteExecute",
    ):
        assert unit[name] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["LimitCORE"] == ["0"], "a core holds every pepper"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_understands_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(
        UNIT.read_text(encoding="utf-8").replace("/opt/latchgate/bin/latchgate", shutil.which("true") or "")
    )
    for check in (["verify"], ["security", "--offline=true", "--threshold=15", "--no-pager"]):
        done = subprocess.run(
            ["systemd-analyze", *check, str(unit)], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(unit) not in done.stderr, done.stderr


@pytest.mark.parametrize("file", [UNIT, COMPOSE, MANIFESTS / "kustomization.yaml"], ids=lambda file: file.name)
def test_each_way_to_run_it_says_how_the_first_administrator_is_made(file: Path) -> None:
    """Without one nobody can make a key."""
    remarks = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(re.search(r"\binit\b", line) for line in remarks)


# Containers


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return services


def test_compose_runs_commands_with_settings_that_there_are() -> None:
    own = {name: service for name, service in compose().items() if service["image"].startswith("latchgate:")}
    assert own.keys() == {"migrate", "init", "latchgate"}
    for service in own.values():
        assert_runs(service["command"])
        assert service["environment"].keys() <= VARIABLES
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert (COMPOSE.parent / service["build"]["context"] / "Dockerfile").is_file()


def test_compose_waits_for_what_is_needed_and_for_a_drain() -> None:
    services = compose()
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            if how["condition"] == "service_healthy" and needed != "latchgate":  # whose image says how it is asked
                assert services[needed]["healthcheck"]["test"]
    latchgate = services["latchgate"]
    delay = seconds(latchgate["environment"]["LATCHGATE_DRAIN_DELAY"])
    assert seconds(latchgate["stop_grace_period"]) > delay + LONGEST_DRAIN
    (allowed,) = re.findall(r"max_connections=(\d+)", " ".join(services["postgres"]["command"]))
    assert int(allowed) >= 3 * CONNECTIONS + 20


def test_compose_gives_envoy_its_configuration() -> None:
    envoy = compose()["envoy"]
    (mounted,) = [volume.split(":")[0] for volume in envoy["volumes"]]
    config = yaml.safe_load((COMPOSE.parent / mounted).read_text(encoding="utf-8"))
    clusters = {cluster["name"]: cluster for cluster in config["static_resources"]["clusters"]}
    for name in ("latchgate", "upstream"):
        (endpoint,) = clusters[name]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        assert endpoint["endpoint"]["address"]["socket_address"]["address"] == name
        assert name in compose()


def manifests(folder: Path = MANIFESTS) -> Iterator[dict[str, Any]]:
    """What `kubectl kustomize` would put together: the resources of a kustomization."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    for resource in kustomization["resources"]:
        yield from yaml.safe_load_all((folder / resource).read_text(encoding="utf-8"))


def of_kind(kind: str, folder: Path = MANIFESTS) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests(folder) if manifest["kind"] == kind]


def pods() -> list[dict[str, Any]]:
    (deployment,), (job,) = of_kind("Deployment"), of_kind("Job", MANIFESTS / "migrate")
    return [manifest["spec"]["template"]["spec"] for manifest in (deployment, job)]


def settings_of_kubernetes() -> dict[str, str]:
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text(encoding="utf-8"))
    (generated,) = kustomization["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generated["literals"])


def test_manifests_run_commands_with_settings_that_there_are() -> None:
    values = settings_of_kubernetes()
    Settings.model_validate({name.removeprefix("LATCHGATE_").lower(): value for name, value in values.items()})
    for pod in pods():
        (container,) = pod["containers"]
        assert_runs(container["args"])
        assert {variable["name"] for variable in container["env"]} | values.keys() <= VARIABLES


def test_pods_are_nobody_and_write_nowhere() -> None:
    for pod in pods():
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == IMAGE_USER
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert f"USER {IMAGE_USER}:{IMAGE_USER}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_probes_ask_ports_and_services_that_there_are() -> None:
    (container,) = pods()[0]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert set(ports.values()) == PORTS
    listened = {int(value.rpartition(":")[2]) for name, value in settings_of_kubernetes().items() if "LISTEN" in name}
    assert listened == PORTS
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == ports["verify"]
    assert container["readinessProbe"]["grpc"]["service"] == "latchgate.v1.VerifyService"
    assert "service" not in container["livenessProbe"]["grpc"], "an outage of the database restarts nobody"
    for service in of_kind("Service"):
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_selectors_find_the_pods() -> None:
    (deployment,), (budget,) = of_kind("Deployment"), of_kind("PodDisruptionBudget")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"], budget["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in of_kind("Service")]
    for selector in selectors:
        assert selector.items() <= labels
    assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]


def test_a_pod_has_time_for_its_drain() -> None:
    delay = seconds(settings_of_kubernetes()["LATCHGATE_DRAIN_DELAY"])
    assert pods()[0]["terminationGracePeriodSeconds"] > delay + LONGEST_DRAIN


def test_secrets_are_referred_to_and_the_pepper_is_where_it_is_looked_for() -> None:
    (container,) = pods()[0]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["LATCHGATE_DATABASE_URL"]["valueFrom"]["secretKeyRef"]["name"] == "latchgate-database"
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "pepper"]
    assert variables["LATCHGATE_PEPPER_FILE"]["value"].startswith(mount["mountPath"] + "/")
    assert of_kind("Secret") == []


def test_the_network_policy_opens_each_port_to_its_own_callers() -> None:
    (policy,) = of_kind("NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    opened = [
        (rule["from"][0]["namespaceSelector"]["matchLabels"].popitem(), rule["ports"][0]["port"])
        for rule in policy["spec"]["ingress"]
    ]
    assert len({label for label, _ in opened}) == len(PORTS)
    assert {port for _, port in opened} == PORTS
