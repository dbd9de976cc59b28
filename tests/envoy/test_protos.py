"""The messages that Latchgate shares with Envoy mean the same on the wire, by Envoy's own protos."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from latchgate.envoy.v1 import ext_authz_pb2
from tests.support.envoy import ROOT

FOLDER = ".venv/xds"
# Ours, and what Envoy calls it.
NAMES = {
    "CheckRequest": "envoy.service.auth.v3.CheckRequest",
    "AttributeContext": "envoy.service.auth.v3.AttributeContext",
    "AttributeContext.Peer": "envoy.service.auth.v3.AttributeContext.Peer",
    "AttributeContext.Request": "envoy.service.auth.v3.AttributeContext.Request",
    "AttributeContext.HttpRequest": "envoy.service.auth.v3.AttributeContext.HttpRequest",
    "AttributeContext.TLSSession": "envoy.service.auth.v3.AttributeContext.TLSSession",
    "Address": "envoy.config.core.v3.Address",
    "SocketAddress": "envoy.config.core.v3.SocketAddress",
    "Pipe": "envoy.config.core.v3.Pipe",
    "EnvoyInternalAddress": "envoy.config.core.v3.EnvoyInternalAddress",
    "Metadata": "envoy.config.core.v3.Metadata",
    "HeaderMap": "envoy.config.core.v3.HeaderMap",
    "HeaderValue": "envoy.config.core.v3.HeaderValue",
    "HeaderValueOption": "envoy.config.core.v3.HeaderValueOption",
    "QueryParameter": "envoy.config.core.v3.QueryParameter",
    "HttpStatus": "envoy.type.v3.HttpStatus",
    "RpcStatus": "google.rpc.Status",
    "DeniedHttpResponse": "envoy.service.auth.v3.DeniedHttpResponse",
    "OkHttpResponse": "envoy.service.auth.v3.OkHttpResponse",
    "CheckResponse": "envoy.service.auth.v3.CheckResponse",
}
ENUM_AS_NUMBER = {("HttpStatus", "code"), ("SocketAddress", "protocol")}
"""Where ours has an int32, which is the same on the wire, for an enum of Envoy's."""

# Runs with Envoy's protos alone, and prints their fields in the form of `fields` below.
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from google.protobuf.descriptor_pool import Default
from envoy.service.auth.v3 import external_auth_pb2
from envoy.type.v3 import http_status_pb2

def fields(message):
    return {
        f.name: [f.number, f.type, f.is_repeated, f.message_type.full_name if f.message_type else "",
                 f.containing_oneof.name if f.containing_oneof else ""]
        for f in message.fields
    }

pool = Default()
described = {name: fields(pool.FindMessageTypeByName(name)) for name in json.loads(sys.argv[2])}
statuses = list(http_status_pb2.StatusCode.values())
(method,) = pool.FindServiceByName("envoy.service.auth.v3.Authorization").methods
(action,) = pool.FindMessageTypeByName("envoy.config.core.v3.HeaderValueOption").enum_types
print(json.dumps({
    "messages": described,
    "statuses": statuses,
    "method": method.full_name,
    "actions": {name: value.number for name, value in action.values_by_name.items()},
}))
"""


@pytest.fixture(scope="module")
def envoys() -> Any:
    subprocess.run(["make", "-s", f"{FOLDER}/installed"], cwd=ROOT, check=True, timeout=300)
    # Without site packages, which have another protobuf and other generated code.
    command = [sys.executable, "-S", "-c", PROGRAM, str(ROOT / FOLDER), json.dumps(sorted(NAMES.values()))]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ours(name: str) -> Descriptor:
    outer, _, inner = name.partition(".")
    message = ext_authz_pb2.DESCRIPTOR.message_types_by_name[outer]
    return message.nested_types_by_name[inner] if inner else message


def fields(name: str) -> dict[str, list[Any]]:
    found = {}
    for field in ours(name).fields:
        kind = FieldDescriptor.TYPE_ENUM if (name, field.name) in ENUM_AS_NUMBER else field.type
        inner = field.message_type.full_name if field.message_type else ""
        if field.message_type and field.message_type.GetOptions().map_entry:
            inner = f"{NAMES[name]}.{field.message_type.name}"
        local = inner.removeprefix("latchgate.envoy.v1.")
        oneof = field.containing_oneof.name if field.containing_oneof else ""
        found[field.name] = [field.number, kind, field.is_repeated, NAMES.get(local, inner), oneof]
    return found


def test_every_message_of_ours_is_compared() -> None:
    described = set()
    for message in ext_authz_pb2.DESCRIPTOR.message_types_by_name.values():
        described |= {message.name}
        described |= {
            f"{message.name}.{inner.name}" for inner in message.nested_types if not inner.GetOptions().map_entry
        }
    assert described == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_field_of_ours_is_a_field_of_envoys(envoys: Any, name: str) -> None:
    theirs = envoys["messages"][NAMES[name]]
    assert fields(name) == {field: theirs.get(field) for field in fields(name)}


def test_what_to_do_with_a_header_has_envoys_numbers(envoys: Any) -> None:
    actions = ext_authz_pb2.HeaderValueOption.DESCRIPTOR.enum_types_by_name["HeaderAppendAction"].values_by_name
    assert {name: value.number for name, value in actions.items()} == envoys["actions"]


def test_the_method_is_envoys(envoys: Any) -> None:
    assert envoys["method"] == "envoy.service.auth.v3.Authorization.Check"


def test_the_statuses_that_an_operator_may_choose_are_those_that_envoy_can_send(envoys: Any) -> None:
    from latchgate_server.core.http_denials import _POSSIBLE

    assert {status for status in envoys["statuses"] if 400 <= status < 600} == _POSSIBLE
