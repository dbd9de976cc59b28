"""Everything that can go wrong, as one tree.

LatchgateError
├── InvalidRequest        the request itself is malformed; names each field
├── AdminKeyRejected      no admin key, or one that does not verify
├── CallerKeyRejected     no key of a caller of the data plane, or one that does not verify
├── PermissionMissing     the caller's key lacks a permission
├── EscalationRefused     the change would grant more than its administrator holds
├── ResourceNotFound      does not exist, or lies where the administrator may not look
├── ResourceExists        the id is taken
├── EtagMismatch          somebody else changed it meanwhile
├── IllegalTransition     the key's state does not allow the change
├── ResourceInUse         something still refers to it
├── KeyLimitReached       the plan's max_keys
├── LastAdministrator     nobody would be left who can administer everything
├── RevisionNotReached    at_least_revision lies beyond the database's own revision
└── CannotDecide          nothing is wrong with the request; try again later
    ├── StoreUnavailable  the database cannot be reached
    ├── Overloaded        too much is being asked at once, or a lock is held for too long
    └── PepperMissing     the key was hashed under a pepper that is not configured

A denial is no error: it is a Decision. What each error becomes on the wire is said in transport/errors.py.
No message ever holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latchgate_server.core import bounds
from latchgate_server.core.model import DenialReason, KeyState


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks its bounds.

    field: its path in the request, for example `key.ip_allowlist.ranges[2]`.
    description: what is wrong and what would be right; for people.
    """

    field: str
    description: str


class LatchgateError(Exception):
    """Base of all errors that Latchgate raises on purpose.

    violations: where several parts of a request were refused, each of them; the first few where there are many.
    """

    violations: tuple[Violation, ...] = ()


class InvalidRequest(LatchgateError):
    """The request is malformed; `violations` has at least one entry, and the first few where there are many."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations[: bounds.VIOLATIONS])
        told = "; ".join(f"{v.field}: {v.description}" for v in self.violations)
        more = len(violations) - len(self.violations)
        super().__init__(f"{told}; and {more} more" if more else told)

    @classmethod
    def of(cls, field: str, description: str) -> InvalidRequest:
        """An error about a single field."""
        return cls([Violation(field, description)])


class AdminKeyRejected(LatchgateError):
    """The caller of AdminService is nobody we know; `denial_reason` says why its key was denied."""

    def __init__(self, denial_reason: DenialReason) -> None:
        self.denial_reason = denial_reason
        super().__init__(f"the admin key was rejected: {denial_reason.name}")


class CallerKeyRejected(LatchgateError):
    """The caller of the data plane is nobody we know; `denial_reason` says why its own key was denied."""

    def __init__(self, denial_reason: DenialReason) -> None:
        self.denial_reason = denial_reason
        missing = "; send one as `authorization: Bearer KEY`" if denial_reason is DenialReason.MISSING_API_KEY else ""
        super().__init__(f"the caller's own key was rejected: {denial_reason.name}{missing}")


class PermissionMissing(LatchgateError):
    """The caller lacks `permission`, or has it in another tenant than `tenant_id` (empty: in none)."""

    def __init__(self, permission: str, tenant_id: str = "") -> None:
        self.permission = permission
        where = f" in the tenant {tenant_id}" if tenant_id else ""
        super().__init__(f"this needs the permission {permission}{where}")


class EscalationRefused(LatchgateError):
    """The change would grant or loosen `permission`, which the administrator does not hold itself."""

    def __init__(self, permission: str) -> None:
        self.permission = permission
        super().__init__(f"you cannot grant what you do not hold: {permission}")


class _AboutResource(LatchgateError):
    """An error about the resource `id` of type `type`, for example `key`."""

    text = ""

    def __init__(self, type: str, id: str) -> None:
        self.type = type
        self.id = id
        super().__init__(self.text.format(type=type, id=id))


class ResourceNotFound(_AboutResource):
    """There is no such resource, as far as this administrator may know."""

    text = "{type} {id} does not exist"


class ResourceExists(_AboutResource):
    """The id is taken."""

    text = "{type} {id} exists already"


class EtagMismatch(_AboutResource):
    """The resource was changed after the etag in the request was read."""

    text = "{type} {id} was changed by somebody else; read it again and repeat your change on what you find"


class ResourceInUse(_AboutResource):
    """The resource `id` still refers to what should go; `type` and `id` name the one that refers."""

    text = "{type} {id} still refers to it"


class IllegalTransition(LatchgateError):
    """The key's state does not allow the change."""

    def __init__(self, state: KeyState, action: str, because: str = "") -> None:
        self.state = state
        super().__init__(f"a key that is {because or state.name.lower()} cannot be {action}")


class KeyLimitReached(LatchgateError):
    """The tenant has as many keys as its plan allows."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the tenant's plan allows {limit} keys; revoke or delete one first")


class LastAdministrator(LatchgateError):
    """The change would leave nobody who can administer everything, as the first administrator can."""

    def __init__(self) -> None:
        super().__init__(
            "this would leave no administrator of the tenant latchgate who holds * and latchgate.*, never expires and "
            "may call from your address; create another one first"
        )


class RevisionNotReached(LatchgateError):
    """No such revision has been committed."""

    def __init__(self, wanted: int, current: int) -> None:
        super().__init__(f"at_least_revision {wanted} lies beyond the database's revision {current}")


class CannotDecide(LatchgateError):
    """Nothing is wrong with the request, but it cannot be answered now.

    retry_after: seconds after which trying again makes sense.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StoreUnavailable(CannotDecide):
    """The database cannot be reached or does not take writes."""


class Overloaded(CannotDecide):
    """A bounded queue is full, or a lock was held by somebody else for too long."""


class PepperMissing(CannotDecide):
    """The key's hash was made under a pepper that this process was not given."""
