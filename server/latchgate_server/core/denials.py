"""What people are told about each denial. None of these texts holds anything that a client sent."""

from __future__ import annotations

from collections.abc import Mapping

from latchgate_server.core.model import DenialReason

MESSAGES: Mapping[DenialReason, str] = {
    DenialReason.MISSING_API_KEY: "No API key was presented.",
    DenialReason.INVALID_API_KEY: "The API key does not exist or is invalid.",
    DenialReason.SECRET_REQUIRED: "The secret part of the API key is missing; the form is KeyId.Secret.",
    DenialReason.INVALID_SECRET: "The secret part of the API key is wrong.",
    DenialReason.TENANT_DISABLED: "API access is switched off for this tenant.",
    DenialReason.API_KEY_REVOKED: "This API key was revoked.",
    DenialReason.API_KEY_DISABLED: "This API key is disabled.",
    DenialReason.API_KEY_EXPIRED: "This API key has expired.",
    DenialReason.IP_NOT_AUTHORIZED: "This API key may not be used from this address.",
    DenialReason.TENANT_MISMATCH: "There is no such resource.",
    DenialReason.RESOURCE_NOT_IN_SCOPE: "There is no such resource.",
    DenialReason.CAPABILITY_NOT_IN_PLAN: "The tenant's plan does not include this.",
    DenialReason.INSUFFICIENT_PERMISSIONS: "This API key lacks a permission that this needs.",
    DenialReason.ACT_AS_NOT_ALLOWED: "This API key may not act as another user.",
    DenialReason.RATE_LIMITED: "Too many requests; try again later.",
    DenialReason.QUOTA_EXCEEDED: "The quota is used up.",
}
