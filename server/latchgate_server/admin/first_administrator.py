"""Makes the tenant `latchgate` and its first administrator, who may grant everything."""

from __future__ import annotations

from collections.abc import Callable

from latchgate_server.admin.audit import Actor, AuditTrail, Change
from latchgate_server.core.model import ROOT_TENANT, SYSTEM_ACTOR, HashProfile, Key, Tenant
from latchgate_server.core.ports import Store
from latchgate_server.hashing import Peppers, SecretHasher


async def create_first_administrator(
    store: Store, hasher: SecretHasher, peppers: Peppers, prefix: str, tell: Callable[[str], None]
) -> bool:
    """Create both; False where the tenant exists already.

    tell: is given the key string before the change is committed, so that no key is made that nobody was told.
    """
    credential = hasher.make_credential(prefix)
    sealed = await hasher.seal(credential.key_id, credential.secret, HashProfile.GENERATED)
    async with store.change() as transaction:
        if await transaction.read.get_tenant(ROOT_TENANT):
            return False
        trail = AuditTrail(transaction, peppers, Actor(key_id=SYSTEM_ACTOR), "init")
        tenant = Tenant(tenant_id=ROOT_TENANT, display_name="Administrators of Latchgate")
        key = Key(
            key_id=credential.key_id,
            tenant_id=ROOT_TENANT,
            display_name="First administrator",
            permissions=("*", "latchgate.*"),
            created_by=SYSTEM_ACTOR,
        )
        await transaction.insert_tenant(tenant)
        trail.add(Change(before=None, after=tenant))
        await transaction.insert_key(key, sealed)
        trail.add(Change(before=None, after=key))
        await trail.write()
        tell(credential.key_string)
    return True
