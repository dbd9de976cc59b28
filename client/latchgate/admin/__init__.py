"""The clients of AdminService, and the values that they take and return.

    from latchgate import AdminClient

    with AdminClient("127.0.0.1:50052", admin_key) as admin:
        made = admin.create_key(tenant="acme", roles=["reader"], display_name="web shop")
        hand_over(made.key_string)

What a call takes and returns is written once, as a function that builds it: `keys.py`, `tenants.py` and so on. The two
clients are tables of these functions. `AsyncAdminClient` is the same with `await` and `async for`.
"""

from latchgate.admin.aio import AsyncAdminClient, AsyncListed
from latchgate.admin.calls import Page
from latchgate.admin.client import AdminClient, Listed
from latchgate.admin.imports import ImportedKey, KeysImported
from latchgate.admin.key import Key, KeyChanged, KeyState, LastUse, NewKey
from latchgate.admin.key_states import KeysRevoked, LeakReport
from latchgate.admin.keys import KeyFields, KeyFilter
from latchgate.admin.plans import Plan, PlanChanged, PlanFields
from latchgate.admin.records import AuditEvent, BusyKey, KeySource, KeyUse, UsageBucket
from latchgate.admin.roles import Role, RoleChanged, RoleFields
from latchgate.admin.rotation import RotatedKey, Rotation
from latchgate.admin.support import Check, Explanation, LimitReset
from latchgate.admin.tenants import Tenant, TenantChanged, TenantFields
from latchgate.admin.values import IpAllowlist, Limit, Propagation, Quota, RateLimit

__all__ = [
    "AdminClient",
    "AsyncAdminClient",
    "AsyncListed",
    "AuditEvent",
    "BusyKey",
    "Check",
    "Explanation",
    "ImportedKey",
    "IpAllowlist",
    "Key",
    "KeyChanged",
    "KeyFields",
    "KeyFilter",
    "KeySource",
    "KeyState",
    "KeyUse",
    "KeysImported",
    "KeysRevoked",
    "LastUse",
    "LeakReport",
    "Limit",
    "LimitReset",
    "Listed",
    "NewKey",
    "Page",
    "Plan",
    "PlanChanged",
    "PlanFields",
    "Propagation",
    "Quota",
    "RateLimit",
    "Role",
    "RoleChanged",
    "RoleFields",
    "RotatedKey",
    "Rotation",
    "Tenant",
    "TenantChanged",
    "TenantFields",
    "UsageBucket",
]
