"""AdminService as the contract has it, and how much of it this version offers."""

from __future__ import annotations

from latchgate.v1 import admin_service_pb2 as pb

METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods}

NOT_BUILT: set[str] = set()
"""What this version does not offer yet; a call that is built leaves this list."""

BUILT = sorted(METHODS.keys() - NOT_BUILT)
