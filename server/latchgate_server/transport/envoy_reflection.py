"""What reflection tells of the verify port: its own services, and Envoy's, of which no generated code exists here."""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from latchgate.envoy.v1 import ext_authz_pb2
from latchgate.v1 import verify_service_pb2
from latchgate_server.transport.ext_authz import SERVICE

_FILE = "latchgate/envoy/v1/authorization.proto"


def described_services() -> DescriptorPool:
    """A pool of the services that the verify port offers.

    Apart from the default pool, so that a program may load Envoy's own protos beside this one.
    """
    pool = DescriptorPool()
    for file in (verify_service_pb2, health_pb2, reflection_pb2, ext_authz_pb2):
        _copy(file.DESCRIPTOR, pool)
    package, _, name = SERVICE.rpartition(".")
    described = FileDescriptorProto(
        name=_FILE, package=package, syntax="proto3", dependency=[ext_authz_pb2.DESCRIPTOR.name]
    )
    method = described.service.add(name=name).method.add(name="Check")
    method.input_type = f".{ext_authz_pb2.CheckRequest.DESCRIPTOR.full_name}"
    method.output_type = f".{ext_authz_pb2.CheckResponse.DESCRIPTOR.full_name}"
    pool.AddSerializedFile(described.SerializeToString())
    return pool


def _copy(file: FileDescriptor, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _copy(dependency, pool)
    pool.AddSerializedFile(file.serialized_pb)
