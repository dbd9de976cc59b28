"""The real Envoy loads the configurations in deploy/envoy, and JSON reaches every call through the transcoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.conformance.house import House
from tests.support import envoy as support
from tests.support.envoy import ROOT, Envoy, validate
from tests.support.server import ServerProcess

EXAMPLES = sorted((ROOT / "deploy/envoy").glob("*.yaml"))
HTTP: Any = annotations_pb2.http  # which has no type for mypy
TRANSCODER = ROOT / "deploy/envoy/json-transcoder.yaml"


@pytest.fixture(scope="module")
def descriptor_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.make_descriptor_set(tmp_path_factory.mktemp("descriptors"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_envoy_loads_an_example(example: Path, descriptor_set: Path) -> None:
    assert validate(example.read_text(encoding="utf-8"), descriptor_set.parent) == ""


def test_every_call_but_streams_has_a_path_of_its_own_over_http(descriptor_set: Path) -> None:
    rules = {}
    for file in FileDescriptorSet.FromString(descriptor_set.read_bytes()).file:
        for service in file.service:
            for method in service.method:
                rule: Any = method.options.Extensions[HTTP]
                verb = rule.WhichOneof("pattern")
                rules[method.name] = (verb, getattr(rule, verb)) if verb else None
                assert method.client_streaming or verb in {"get", "delete"} or rule.body == "*", method.name
    assert [name for name, rule in rules.items() if rule is None] == ["WatchKeys"]
    assert len(set(rules.values())) == len(rules)


@pytest.fixture(scope="module")
def json_client(latchgate: ServerProcess, descriptor_set: Path) -> Iterator[httpx.Client]:
    text = TRANSCODER.read_text(encoding="utf-8").replace("latchgate.binpb", str(descriptor_set))
    config = yaml.safe_load(text)
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"]["port_value"] = 0
    addresses = {"latchgate_verify": latchgate.verify_address, "latchgate_admin": latchgate.admin_address}
    for cluster in config["static_resources"]["clusters"]:
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        port = int(addresses[cluster["name"]].rpartition(":")[2])
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    with (
        Envoy(config) as envoy,
        httpx.Client(base_url=f"http://127.0.0.1:{envoy.port('json')}", trust_env=False) as client,
    ):
        yield client


def test_json_callers_verify_and_administer(json_client: httpx.Client, house: House, envoy_root_key: str) -> None:
    root = {"authorization": f"Bearer {envoy_root_key}"}
    tenant_id = house.tenant()
    body = {"key": {"tenant_id": tenant_id, "permissions": ["orders.*"]}}
    made = json_client.post("/v1/keys", json=body, headers=root)
    assert made.status_code == 200, made.text
    key_id, key_string = made.json()["key"]["key_id"], made.json()["key_string"]
    asked = {"key": key_string, "required_permissions": "orders.read"}
    assert json_client.post("/v1/keys:verify", json=asked).json()["decision"] == "DECISION_ALLOW"
    batch = json_client.post("/v1/keys:batchVerify", json={"requests": [asked, {}]}).json()
    assert [one["decision"] for one in batch["responses"]] == ["DECISION_ALLOW", "DECISION_DENY"]
    listed = json_client.get("/v1/keys", params={"filter.tenant_id": tenant_id}, headers=root).json()["keys"]
    assert [key["key_id"] for key in listed] == [key_id]
    changed = json_client.patch(f"/v1/keys/{key_id}", json={"key": {"display_name": "json"}}, headers=root)
    assert changed.json()["key"]["display_name"] == "json"
    assert json_client.post(f"/v1/keys/{key_id}:disable", json={"reason": "test"}, headers=root).status_code == 200
    denied = json_client.post("/v1/keys:verify", json=asked).json()
    assert denied["denial_reason"] == "DENIAL_REASON_API_KEY_DISABLED"
    assert json_client.delete(f"/v1/keys/{key_id}", headers=root).status_code == 200


def test_json_callers_are_told_what_is_wrong(json_client: httpx.Client, envoy_root_key: str) -> None:
    root = {"authorization": f"Bearer {envoy_root_key}"}
    unknown = json_client.get("/v1/tenants/nowhere", headers=root)
    assert (unknown.status_code, unknown.json()["details"][0]["reason"]) == (404, "RESOURCE_NOT_FOUND")
    assert json_client.get("/v1/tenants").status_code == 401
    assert json_client.get("/v1/tenants", params={"page_sise": "7"}, headers=root).status_code == 400
    assert json_client.get("/v1/nonsense", headers=root).status_code == 404
