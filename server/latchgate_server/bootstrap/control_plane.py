"""The control plane: every use case of AdminService."""

from __future__ import annotations

from latchgate_server.admin.audit_log import AuditLog
from latchgate_server.admin.bulk import BulkRevocation
from latchgate_server.admin.explain import Explanations
from latchgate_server.admin.imports import Imports
from latchgate_server.admin.keys import Keys
from latchgate_server.admin.leaks import Leaks
from latchgate_server.admin.limits import LimitResets
from latchgate_server.admin.mutations import Mutations
from latchgate_server.admin.paging import PageTokens
from latchgate_server.admin.plans import Plans
from latchgate_server.admin.roles import Roles
from latchgate_server.admin.rotation import Rotation
from latchgate_server.admin.tenants import Tenants
from latchgate_server.admin.usage import Usage
from latchgate_server.bootstrap.database import Database
from latchgate_server.hashing import Peppers, SecretHasher
from latchgate_server.system import SystemClock
from latchgate_server.transport.admin_service import UseCases
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.verifier import Verifier


def build_use_cases(
    database: Database,
    mutations: Mutations,
    peppers: Peppers,
    hasher: SecretHasher,
    *,
    verifier: Verifier,
    limits: LimitCharger,
    key_prefix: str,
) -> UseCases:
    """Every use case, on one way to change anything."""
    store, tokens = database.store, PageTokens(peppers)
    return UseCases(
        tenants=Tenants(store.read, mutations, tokens),
        plans=Plans(store.read, mutations, tokens),
        roles=Roles(store.read, mutations, tokens),
        keys=Keys(store.read, mutations, tokens, hasher, key_prefix),
        bulk=BulkRevocation(store.read, mutations),
        rotation=Rotation(mutations, hasher, key_prefix),
        imports=Imports(store.read, mutations, hasher, SystemClock(), key_prefix),
        leaks=Leaks(verifier, mutations),
        explanations=Explanations(store.read, limits, SystemClock()),
        audit_log=AuditLog(store.read, tokens),
        limit_resets=LimitResets(mutations),
        usage=Usage(store.read, database.usage, tokens, SystemClock()),
    )
