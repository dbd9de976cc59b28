"""AdminService: the control plane over gRPC."""

from __future__ import annotations

from dataclasses import dataclass

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import admin_service_pb2_grpc
from latchgate_server.admin.access import Access, Caller
from latchgate_server.admin.audit_log import AuditLog
from latchgate_server.admin.bulk import BulkRevocation
from latchgate_server.admin.explain import Explanations
from latchgate_server.admin.imports import Imports
from latchgate_server.admin.keys import Keys
from latchgate_server.admin.leaks import Leaks
from latchgate_server.admin.limits import LimitResets
from latchgate_server.admin.paging import PageRequest
from latchgate_server.admin.plans import Plans
from latchgate_server.admin.roles import Roles
from latchgate_server.admin.rotation import Rotation
from latchgate_server.admin.tenants import Tenants
from latchgate_server.admin.usage import Usage
from latchgate_server.core.ports import Clock
from latchgate_server.transport.convert_admin import (
    id_from,
    optional_tenant_id_from,
    page_from,
    plan_changes_from,
    plan_from,
    plan_to,
    propagation_to,
    reason_from,
    role_changes_from,
    role_from,
    role_to,
    tenant_changes_from,
    tenant_from,
    tenant_id_from,
    tenant_to,
)
from latchgate_server.transport.convert_audit import (
    audit_event_to,
    audit_filter_from,
    explanation_to,
    leaks_from,
    rotation_from,
)
from latchgate_server.transport.convert_imports import imported_to, imports_from
from latchgate_server.transport.convert_keys import filter_from, key_changes_from, key_id_from, key_to, new_key_from
from latchgate_server.transport.convert_limits import limit_status_to, reset_from
from latchgate_server.transport.convert_usage import (
    bucket_to,
    busiest_to,
    key_source_to,
    key_use_to,
    rotation_to,
    usage_query_from,
)
from latchgate_server.transport.convert_verify import question_from
from latchgate_server.transport.request_ids import RequestIds
from latchgate_server.transport.rpc import AdmitsAdministrators, admin_rpc


@dataclass(frozen=True, slots=True)
class UseCases:
    """What AdminService offers."""

    tenants: Tenants
    plans: Plans
    roles: Roles
    keys: Keys
    bulk: BulkRevocation
    rotation: Rotation
    imports: Imports
    leaks: Leaks
    explanations: Explanations
    audit_log: AuditLog
    limit_resets: LimitResets
    usage: Usage


class AdminServicer(AdmitsAdministrators, admin_service_pb2_grpc.AdminServiceServicer):
    """Translates, and nothing else."""

    def __init__(self, access: Access, use_cases: UseCases, clock: Clock, request_ids: RequestIds) -> None:
        super().__init__(access, clock, request_ids)
        self._tenants = use_cases.tenants
        self._plans = use_cases.plans
        self._roles = use_cases.roles
        self._keys = use_cases.keys
        self._bulk = use_cases.bulk
        self._rotation = use_cases.rotation
        self._imports = use_cases.imports
        self._leaks = use_cases.leaks
        self._explanations = use_cases.explanations
        self._audit_log = use_cases.audit_log
        self._limit_resets = use_cases.limit_resets
        self._usage = use_cases.usage

    @admin_rpc
    async def CreateTenant(self, request: pb.CreateTenantRequest, caller: Caller) -> pb.CreateTenantResponse:
        tenant, propagation = await self._tenants.create(caller, tenant_from(request.tenant))
        return pb.CreateTenantResponse(tenant=tenant_to(tenant), propagation=propagation_to(propagation))

    @admin_rpc
    async def GetTenant(self, request: pb.GetTenantRequest, caller: Caller) -> pb.GetTenantResponse:
        tenant = await self._tenants.get(caller, tenant_id_from(request.tenant_id))
        return pb.GetTenantResponse(tenant=tenant_to(tenant))

    @admin_rpc
    async def ListTenants(self, request: pb.ListTenantsRequest, caller: Caller) -> pb.ListTenantsResponse:
        page = await self._tenants.list(caller, page_from(request))
        return pb.ListTenantsResponse(tenants=map(tenant_to, page.items), next_page_token=page.next_token)

    @admin_rpc
    async def UpdateTenant(self, request: pb.UpdateTenantRequest, caller: Caller) -> pb.UpdateTenantResponse:
        changes, tenant = tenant_changes_from(request), request.tenant
        stored, propagation = await self._tenants.update(caller, tenant.tenant_id, changes, tenant.etag)
        return pb.UpdateTenantResponse(tenant=tenant_to(stored), propagation=propagation_to(propagation))

    @admin_rpc
    async def EnableTenant(self, request: pb.EnableTenantRequest, caller: Caller) -> pb.EnableTenantResponse:
        tenant, propagation = await self._tenants.set_enabled(
            caller, tenant_id_from(request.tenant_id), enabled=True, reason=reason_from(request.reason)
        )
        return pb.EnableTenantResponse(tenant=tenant_to(tenant), propagation=propagation_to(propagation))

    @admin_rpc
    async def DisableTenant(self, request: pb.DisableTenantRequest, caller: Caller) -> pb.DisableTenantResponse:
        tenant, propagation = await self._tenants.set_enabled(
            caller, tenant_id_from(request.tenant_id), enabled=False, reason=reason_from(request.reason)
        )
        return pb.DisableTenantResponse(tenant=tenant_to(tenant), propagation=propagation_to(propagation))

    @admin_rpc
    async def DeleteTenant(self, request: pb.DeleteTenantRequest, caller: Caller) -> pb.DeleteTenantResponse:
        tenant_id = tenant_id_from(request.tenant_id)
        propagation = await self._tenants.delete(caller, tenant_id, reason_from(request.reason))
        return pb.DeleteTenantResponse(propagation=propagation_to(propagation))

    @admin_rpc
    async def CreatePlan(self, request: pb.CreatePlanRequest, caller: Caller) -> pb.CreatePlanResponse:
        plan, propagation = await self._plans.create(caller, plan_from(request.plan))
        return pb.CreatePlanResponse(plan=plan_to(plan), propagation=propagation_to(propagation))

    @admin_rpc
    async def GetPlan(self, request: pb.GetPlanRequest, caller: Caller) -> pb.GetPlanResponse:
        plan = await self._plans.get(caller, id_from("plan_id", request.plan_id))
        return pb.GetPlanResponse(plan=plan_to(plan))

    @admin_rpc
    async def ListPlans(self, request: pb.ListPlansRequest, caller: Caller) -> pb.ListPlansResponse:
        page = await self._plans.list(caller, page_from(request))
        return pb.ListPlansResponse(plans=map(plan_to, page.items), next_page_token=page.next_token)

    @admin_rpc
    async def UpdatePlan(self, request: pb.UpdatePlanRequest, caller: Caller) -> pb.UpdatePlanResponse:
        changes, plan = plan_changes_from(request), request.plan
        stored, propagation = await self._plans.update(caller, plan.plan_id, changes, plan.etag)
        return pb.UpdatePlanResponse(plan=plan_to(stored), propagation=propagation_to(propagation))

    @admin_rpc
    async def DeletePlan(self, request: pb.DeletePlanRequest, caller: Caller) -> pb.DeletePlanResponse:
        propagation = await self._plans.delete(caller, id_from("plan_id", request.plan_id))
        return pb.DeletePlanResponse(propagation=propagation_to(propagation))

    @admin_rpc
    async def CreateRole(self, request: pb.CreateRoleRequest, caller: Caller) -> pb.CreateRoleResponse:
        role, propagation = await self._roles.create(caller, role_from(request.role))
        return pb.CreateRoleResponse(role=role_to(role), propagation=propagation_to(propagation))

    @admin_rpc
    async def GetRole(self, request: pb.GetRoleRequest, caller: Caller) -> pb.GetRoleResponse:
        role_id, tenant_id = id_from("role_id", request.role_id), optional_tenant_id_from(request.tenant_id)
        return pb.GetRoleResponse(role=role_to(await self._roles.get(caller, role_id, tenant_id)))

    @admin_rpc
    async def ListRoles(self, request: pb.ListRolesRequest, caller: Caller) -> pb.ListRolesResponse:
        page = await self._roles.list(caller, optional_tenant_id_from(request.tenant_id), page_from(request))
        return pb.ListRolesResponse(roles=map(role_to, page.items), next_page_token=page.next_token)

    @admin_rpc
    async def UpdateRole(self, request: pb.UpdateRoleRequest, caller: Caller) -> pb.UpdateRoleResponse:
        changes, role = role_changes_from(request), request.role
        stored, propagation = await self._roles.update(caller, (role.role_id, role.tenant_id), changes, role.etag)
        return pb.UpdateRoleResponse(role=role_to(stored), propagation=propagation_to(propagation))

    @admin_rpc
    async def DeleteRole(self, request: pb.DeleteRoleRequest, caller: Caller) -> pb.DeleteRoleResponse:
        role_id, tenant_id = id_from("role_id", request.role_id), optional_tenant_id_from(request.tenant_id)
        propagation = await self._roles.delete(caller, role_id, tenant_id)
        return pb.DeleteRoleResponse(propagation=propagation_to(propagation))

    @admin_rpc
    async def CreateKey(self, request: pb.CreateKeyRequest, caller: Caller) -> pb.CreateKeyResponse:
        draft, repeatable = new_key_from(request)
        key, credential, propagation = await self._keys.create(caller, draft, request.prefix, repeatable)
        return pb.CreateKeyResponse(
            key=key_to(key, self._clock.now()),
            key_string=credential.key_string if credential else "",
            propagation=propagation_to(propagation),
        )

    @admin_rpc
    async def GetKey(self, request: pb.GetKeyRequest, caller: Caller) -> pb.GetKeyResponse:
        key = await self._keys.get(caller, key_id_from(request.key_id))
        return pb.GetKeyResponse(key=key_to(key, self._clock.now()))

    @admin_rpc
    async def ListKeys(self, request: pb.ListKeysRequest, caller: Caller) -> pb.ListKeysResponse:
        page = await self._keys.list(caller, filter_from(request.filter), page_from(request))
        now = self._clock.now()
        return pb.ListKeysResponse(keys=[key_to(key, now) for key in page.items], next_page_token=page.next_token)

    @admin_rpc
    async def UpdateKey(self, request: pb.UpdateKeyRequest, caller: Caller) -> pb.UpdateKeyResponse:
        changes = key_changes_from(request)
        key, propagation = await self._keys.update(caller, request.key.key_id, changes, request.key.etag)
        return pb.UpdateKeyResponse(key=key_to(key, self._clock.now()), propagation=propagation_to(propagation))

    @admin_rpc
    async def EnableKey(self, request: pb.EnableKeyRequest, caller: Caller) -> pb.EnableKeyResponse:
        key_id = key_id_from(request.key_id)
        key, propagation = await self._keys.enable(caller, key_id, reason_from(request.reason))
        return pb.EnableKeyResponse(key=key_to(key, self._clock.now()), propagation=propagation_to(propagation))

    @admin_rpc
    async def DisableKey(self, request: pb.DisableKeyRequest, caller: Caller) -> pb.DisableKeyResponse:
        key_id = key_id_from(request.key_id)
        key, propagation = await self._keys.disable(caller, key_id, reason_from(request.reason))
        return pb.DisableKeyResponse(key=key_to(key, self._clock.now()), propagation=propagation_to(propagation))

    @admin_rpc
    async def ExpireKey(self, request: pb.ExpireKeyRequest, caller: Caller) -> pb.ExpireKeyResponse:
        key_id = key_id_from(request.key_id)
        key, propagation = await self._keys.expire(caller, key_id, reason_from(request.reason))
        return pb.ExpireKeyResponse(key=key_to(key, self._clock.now()), propagation=propagation_to(propagation))

    @admin_rpc
    async def RevokeKey(self, request: pb.RevokeKeyRequest, caller: Caller) -> pb.RevokeKeyResponse:
        key_id = key_id_from(request.key_id)
        key, propagation = await self._keys.revoke(caller, key_id, reason_from(request.reason))
        return pb.RevokeKeyResponse(key=key_to(key, self._clock.now()), propagation=propagation_to(propagation))

    @admin_rpc
    async def BatchRevokeKeys(self, request: pb.BatchRevokeKeysRequest, caller: Caller) -> pb.BatchRevokeKeysResponse:
        matching, reason = filter_from(request.filter), reason_from(request.reason)
        if request.dry_run:
            return pb.BatchRevokeKeysResponse(revoked=await self._bulk.count(caller, matching))
        revoked, propagation = await self._bulk.revoke(caller, matching, reason)
        return pb.BatchRevokeKeysResponse(revoked=revoked, propagation=propagation_to(propagation))

    @admin_rpc
    async def DeleteKey(self, request: pb.DeleteKeyRequest, caller: Caller) -> pb.DeleteKeyResponse:
        key_id = key_id_from(request.key_id)
        propagation = await self._keys.delete(caller, key_id, reason_from(request.reason))
        return pb.DeleteKeyResponse(propagation=propagation_to(propagation))

    @admin_rpc
    async def RotateKey(self, request: pb.RotateKeyRequest, caller: Caller) -> pb.RotateKeyResponse:
        grace, expire_time, repeatable = rotation_from(request)
        key, credential, predecessor, propagation = await self._rotation.rotate(
            caller, request.key_id, grace=grace, expire_time=expire_time, call=repeatable
        )
        now = self._clock.now()
        return pb.RotateKeyResponse(
            key=key_to(key, now),
            key_string=credential.key_string if credential else "",
            predecessor=key_to(predecessor, now),
            propagation=propagation_to(propagation),
        )

    @admin_rpc
    async def ImportKeys(self, request: pb.ImportKeysRequest, caller: Caller) -> pb.ImportKeysResponse:
        drafts, now = await imports_from(request), self._clock.now()
        if request.dry_run:
            return pb.ImportKeysResponse(keys=await imported_to(await self._imports.check(caller, drafts), now))
        keys, propagation = await self._imports.run(caller, drafts)
        return pb.ImportKeysResponse(keys=await imported_to(keys, now), propagation=propagation_to(propagation))

    @admin_rpc
    async def ReportLeakedKeys(
        self, request: pb.ReportLeakedKeysRequest, caller: Caller
    ) -> pb.ReportLeakedKeysResponse:
        key_ids, propagation = await self._leaks.report(caller, *leaks_from(request))
        return pb.ReportLeakedKeysResponse(disabled_key_ids=key_ids, propagation=propagation_to(propagation))

    @admin_rpc
    async def ExplainKey(self, request: pb.ExplainKeyRequest, caller: Caller) -> pb.ExplainKeyResponse:
        question = question_from(request.request)
        return explanation_to(await self._explanations.explain(caller, key_id_from(request.key_id), question))

    @admin_rpc
    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, caller: Caller) -> pb.ListAuditEventsResponse:
        page = await self._audit_log.list(caller, audit_filter_from(request), page_from(request))
        return pb.ListAuditEventsResponse(events=map(audit_event_to, page.items), next_page_token=page.next_token)

    @admin_rpc
    async def ResetLimit(self, request: pb.ResetLimitRequest, caller: Caller) -> pb.ResetLimitResponse:
        key_id, tenant_id, name, remaining = reset_from(request)
        reason = reason_from(request.reason)
        if key_id:
            status, propagation = await self._limit_resets.reset_keys(caller, key_id, name, remaining, reason)
        else:
            status, propagation = await self._limit_resets.reset_tenants(caller, tenant_id, name, remaining, reason)
        return pb.ResetLimitResponse(limit=limit_status_to(status), propagation=propagation_to(propagation))

    @admin_rpc
    async def GetUsage(self, request: pb.GetUsageRequest, caller: Caller) -> pb.GetUsageResponse:
        query = usage_query_from(request, self._clock.now())
        buckets = await self._usage.count(caller, query)
        return pb.GetUsageResponse(buckets=[bucket_to(bucket, query.length) for bucket in buckets])

    @admin_rpc
    async def ListKeyUses(self, request: pb.ListKeyUsesRequest, caller: Caller) -> pb.ListKeyUsesResponse:
        uses = await self._usage.uses(caller, key_id_from(request.key_id))
        return pb.ListKeyUsesResponse(uses=map(key_use_to, uses))

    @admin_rpc
    async def ListKeySources(self, request: pb.ListKeySourcesRequest, caller: Caller) -> pb.ListKeySourcesResponse:
        page = await self._usage.sources(caller, key_id_from(request.key_id), page_from(request))
        return pb.ListKeySourcesResponse(sources=map(key_source_to, page.items), next_page_token=page.next_token)

    @admin_rpc
    async def ListBusiestKeys(self, request: pb.ListBusiestKeysRequest, caller: Caller) -> pb.ListBusiestKeysResponse:
        tenant_id = optional_tenant_id_from(request.tenant_id) or None
        return busiest_to(*await self._usage.busiest(caller, tenant_id, PageRequest(request.page_size, "")))

    @admin_rpc
    async def GetRotation(self, request: pb.GetRotationRequest, caller: Caller) -> pb.GetRotationResponse:
        state = await self._usage.rotation(caller, key_id_from(request.key_id))
        return rotation_to(state, self._clock.now())
