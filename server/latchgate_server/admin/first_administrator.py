"""Makes the tenant `latchgate` and its first administrator, who may grant everything; another where it is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from latchgate_server.admin.audit import Actor, AuditTrail, Change
from latchgate_server.admin.last_administrator import EVERYTHING
from latchgate_server.core.model import ROOT_TENANT, SYSTEM_ACTOR, HashProfile, Key, SecretHash, Tenant
from latchgate_server.core.ports import Store, Transaction
from latchgate_server.hashing import Peppers, SecretHasher

_OTHERS_TOLD = 20


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery found.

    others: ids of up to 20 keys that could administer everything already, if somebody has their secrets.
    tenant_enabled: whether the tenant was switched off, and is on again.
    """

    others: Sequence[str]
    tenant_enabled: bool


@dataclass(frozen=True, slots=True)
class FirstAdministrator:
    """Makes first administrators. prefix: leads their ids."""

    store: Store
    hasher: SecretHasher
    peppers: Peppers
    prefix: str

    async def create(self, tell: Callable[[str], None]) -> bool:
        """Make the tenant and its administrator; False where the tenant exists already.

        tell: is given the key string before the change is committed, so that no key is made that nobody was told.
        """
        key, sealed, key_string = await self._new_key("First administrator")
        async with self.store.change() as transaction:
            if await transaction.read.get_tenant(ROOT_TENANT):
                return False
            await self._insert(transaction, self._trail(transaction, "init"), key, sealed, with_tenant=True)
            tell(key_string)
        return True

    async def recover(self, tell: Callable[[str], None]) -> Recovered:
        """Make another such administrator, whoever there is already, and switch the tenant on where it is off.

        It changes no other key: which of them are lost or stolen, only their owners know. tell: as above.
        """
        key, sealed, key_string = await self._new_key("First administrator, recovered")
        async with self.store.change() as transaction:
            trail = self._trail(transaction, "init --recover")
            tenant = await transaction.read.get_tenant(ROOT_TENANT)
            was_off = tenant is not None and not tenant.enabled
            if tenant is not None and was_off:
                await transaction.update_tenant(replace(tenant, enabled=True))
                trail.add(Change(before=tenant, after=await transaction.read.get_tenant(ROOT_TENANT)))
            others = await transaction.read.administrators(ROOT_TENANT, EVERYTHING, _OTHERS_TOLD)
            await self._insert(transaction, trail, key, sealed, with_tenant=tenant is None)
            tell(key_string)
        return Recovered(others, was_off)

    async def _new_key(self, display_name: str) -> tuple[Key, SecretHash, str]:
        credential = self.hasher.make_credential(self.prefix)
        sealed = await self.hasher.seal(credential.key_id, credential.secret, HashProfile.GENERATED)
        key = Key(
            key_id=credential.key_id,
            tenant_id=ROOT_TENANT,
            display_name=display_name,
            permissions=EVERYTHING,
            created_by=SYSTEM_ACTOR,
        )
        return key, sealed, credential.key_string

    def _trail(self, transaction: Transaction, method: str) -> AuditTrail:
        return AuditTrail(transaction, self.peppers, Actor(key_id=SYSTEM_ACTOR), method)

    @staticmethod
    async def _insert(
        transaction: Transaction, trail: AuditTrail, key: Key, sealed: SecretHash, *, with_tenant: bool
    ) -> None:
        if with_tenant:
            tenant = Tenant(tenant_id=ROOT_TENANT, display_name="Administrators of Latchgate")
            await transaction.insert_tenant(tenant)
            trail.add(Change(before=None, after=tenant))
        await transaction.insert_key(key, sealed)
        trail.add(Change(before=None, after=key))
        await trail.write()
