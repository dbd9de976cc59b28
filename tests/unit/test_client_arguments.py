"""The arguments that editors are told of, those that are taken, and the fields of the protos are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from latchgate.admin import keys, plans, roles, tenants
from latchgate.results import Query, Question
from latchgate.v1 import admin_service_pb2, key_pb2, tenant_pb2

# What the server decides, and what names the resource.
NOT_CHOSEN = {"create_time", "update_time", "etag"}


@pytest.mark.parametrize(
    ("told", "taken", "message", "not_chosen"),
    [
        (
            keys.KeyFields,
            keys._FIELDS,
            key_pb2.Key,
            {"key_id", "tenant_id", "state", "expired", "created_by", "revoke_time", "revocation_reason", "last_use"}
            | {"predecessor_key_id", "successor_key_id"},
        ),
        (keys.KeyFilter, keys._FILTER, admin_service_pb2.KeyFilter, set()),
        (tenants.TenantFields, tenants._FIELDS, tenant_pb2.Tenant, {"tenant_id", "enabled"}),
        (plans.PlanFields, plans._FIELDS, tenant_pb2.Plan, {"plan_id"}),
        (roles.RoleFields, roles._FIELDS, tenant_pb2.Role, {"role_id", "tenant_id"}),
    ],
)
def test_every_field_that_can_be_chosen_is_an_argument(
    told: Any, taken: Mapping[str, tuple[str, object]], message: Any, not_chosen: set[str]
) -> None:
    assert list(told.__annotations__) == list(taken)
    chosen = set(message.DESCRIPTOR.fields_by_name) - not_chosen - NOT_CHOSEN
    assert {name for name, _ in taken.values()} == chosen


def test_a_question_is_a_query_without_its_key() -> None:
    assert list(Question.__annotations__) == [field.name for field in fields(Query) if field.name != "key"]
