"""Latchgate behind Envoy in place of three systems' own key checks, line by line of what each documents.

XDENT: "Authentication". Semarchy xDM: "Manage API keys". xAssets: "API Key Management".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.conformance.house import House
from tests.conformance.sample_keys import claims, update
from tests.support.envoy import Envoy, Reply, get
from tests.support.upstream import Seen

PATH = "/api/v1/Identity"


def call(envoy: Envoy, *headers: tuple[str, str], source: str = "127.0.0.1") -> Reply:
    return get(envoy.port(), PATH, *headers, source=source)


def error(reply: Reply) -> tuple[int, str]:
    """Status and error code; the body is what XDENT documents it to be."""
    assert reply.header("content-type") == "application/json"
    assert list(reply.json) == ["Code", "Message"]
    assert all(isinstance(value, str) and value for value in reply.json.values())
    return reply.status, reply.json["Code"]


def wrong(secret: str) -> str:
    return secret[:-1] + ("0" if secret[-1] != "0" else "1")


# XDENT.


@pytest.fixture
def company(house: House) -> str:
    return house.tenant()


@pytest.fixture
def made(house: House, company: str) -> pb.CreateKeyResponse:
    return house.key(company)


def test_xdent_only_an_administrator_account_can_manage_api_keys(house: House, made: pb.CreateKeyResponse) -> None:
    nobody = house.caller(made.key_string)
    with pytest.raises(Exception, match=r"latchgate\.keys\.create"):
        nobody.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=made.key.tenant_id)))


def test_xdent_the_key_is_shown_only_once(house: House, made: pb.CreateKeyResponse) -> None:
    secret = made.key_string.partition(".")[2]
    assert secret not in str(house.root.GetKey(pb.GetKeyRequest(key_id=made.key.key_id)))


def test_xdent_every_call_must_include_the_header_in_key_id_and_secret_format(
    envoy: Envoy, made: pb.CreateKeyResponse
) -> None:
    assert call(envoy, ("X-Api-Key", made.key_string)).status == 200


def test_xdent_without_the_header_the_api_returns_400(envoy: Envoy) -> None:
    assert error(call(envoy)) == (400, "MISSING_API_KEY")


def test_xdent_a_key_that_does_not_exist_or_is_invalid(envoy: Envoy, house: House, made: pb.CreateKeyResponse) -> None:
    for value in ("nonsense", "KeyId.Secret", f"lg_{'0' * 22}.{made.key_string.partition('.')[2]}"):
        assert error(call(envoy, ("X-Api-Key", value))) == (401, "INVALID_API_KEY")
    house.root.DeleteKey(pb.DeleteKeyRequest(key_id=made.key.key_id))
    assert error(call(envoy, ("X-Api-Key", made.key_string))) == (401, "INVALID_API_KEY")


def test_xdent_only_the_key_id_without_the_secret(envoy: Envoy, made: pb.CreateKeyResponse) -> None:
    assert error(call(envoy, ("X-Api-Key", made.key.key_id))) == (401, "SECRET_REQUIRED")
    assert error(call(envoy, ("X-Api-Key", f"{made.key.key_id}."))) == (401, "SECRET_REQUIRED")


def test_xdent_an_invalid_secret(envoy: Envoy, made: pb.CreateKeyResponse) -> None:
    key_id, _, secret = made.key_string.partition(".")
    assert error(call(envoy, ("X-Api-Key", f"{key_id}.{wrong(secret)}"))) == (401, "INVALID_SECRET")


def test_xdent_api_access_is_disabled_for_the_company(
    envoy: Envoy, house: House, company: str, made: pb.CreateKeyResponse
) -> None:
    house.root.DisableTenant(pb.DisableTenantRequest(tenant_id=company))
    assert error(call(envoy, ("X-Api-Key", made.key_string))) == (401, "COMPANY_API_DISABLED")
    house.root.EnableTenant(pb.EnableTenantRequest(tenant_id=company))
    assert call(envoy, ("X-Api-Key", made.key_string)).status == 200


@pytest.mark.parametrize("switch", ["deactivate", "delete"])
def test_xdent_a_key_can_be_deactivated_or_deleted_without_affecting_other_keys(
    envoy: Envoy, house: House, company: str, made: pb.CreateKeyResponse, switch: str
) -> None:
    other = house.key(company)
    if switch == "deactivate":
        house.root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id))
        assert error(call(envoy, ("X-Api-Key", made.key_string))) == (401, "API_KEY_DISABLED")
    else:
        house.root.DeleteKey(pb.DeleteKeyRequest(key_id=made.key.key_id))
        assert error(call(envoy, ("X-Api-Key", made.key_string))) == (401, "INVALID_API_KEY")
    assert call(envoy, ("X-Api-Key", other.key_string)).status == 200


def test_xdent_the_ip_toggle_applies_with_addresses_and_not_without(
    envoy: Envoy, house: House, made: pb.CreateKeyResponse
) -> None:
    """Adding or removing an address takes effect within 5 minutes there, and at once here."""
    header = ("X-Api-Key", made.key_string)

    def set_allowlist(enabled: bool, *ranges: str) -> None:
        allowlist = key_pb2.IpAllowlist(enabled=enabled, ranges=ranges)
        update(house.root, made.key.key_id, "ip_allowlist", ip_allowlist=allowlist)

    set_allowlist(True)
    assert call(envoy, header).status == 200, "it does not apply until at least one address has been added"
    set_allowlist(True, "127.0.0.9", "2001:db8::1")
    assert error(call(envoy, header)) == (403, "IP_NOT_AUTHORIZED")
    assert call(envoy, header, source="127.0.0.9").status == 200
    set_allowlist(False, "127.0.0.9")
    assert call(envoy, header).status == 200
    set_allowlist(True, "127.0.0.1")
    assert call(envoy, header).status == 200


# Semarchy xDM.


def test_semarchy_the_key_is_in_a_header_called_api_key(envoy: Envoy, made: pb.CreateKeyResponse) -> None:
    assert call(envoy, ("API-Key", made.key_string)).status == 200
    reply = get(envoy.port(), PATH, ("api-key", f"{made.key_string} "))
    assert reply.status == 200


def test_semarchy_a_key_has_roles_and_a_default_user(envoy: Envoy, house: House, company: str) -> None:
    role_id = house.role(company, permissions=["orders.admin"])
    own = house.key(company, role_ids=[role_id], default_user="integration")
    reply = get(envoy.port(), "/admin", ("API-Key", own.key_string))
    assert reply.status == 200
    seen = Seen.of(reply.body).identity
    assert (seen["roles"], seen["user"], seen["permissions"]) == (role_id, "integration", "orders.admin")
    without = house.key(company)
    assert get(envoy.port(), "/admin", ("API-Key", without.key_string)).status == 403


def test_semarchy_a_key_expires_now_and_is_re_enabled_by_a_later_date_or_none(
    envoy: Envoy, house: House, made: pb.CreateKeyResponse
) -> None:
    header = ("API-Key", made.key_string)
    later = Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    for path_value in (later, None):
        house.root.ExpireKey(pb.ExpireKeyRequest(key_id=made.key.key_id))
        assert error(call(envoy, header)) == (401, "API_KEY_EXPIRED")
        request = pb.UpdateKeyRequest(
            key=key_pb2.Key(key_id=made.key.key_id, expire_time=path_value),
            update_mask=FieldMask(paths=["expire_time"]),
        )
        house.root.UpdateKey(request)
        assert call(envoy, header).status == 200


@pytest.mark.parametrize(
    ("ranges", "status"), [([], 200), (["192.168.0.1", "127.0.0.0/8"], 200), (["172.16.0.0/12"], 403)]
)
def test_semarchy_only_listed_origins_may_connect_and_an_empty_list_allows_all(
    envoy: Envoy, house: House, company: str, ranges: list[str], status: int
) -> None:
    own = house.key(company, ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=ranges))
    assert call(envoy, ("API-Key", own.key_string)).status == status


def test_semarchy_a_key_may_be_deactivated_temporarily_or_permanently(
    envoy: Envoy, house: House, made: pb.CreateKeyResponse
) -> None:
    header, key_id = ("API-Key", made.key_string), made.key.key_id
    house.root.DisableKey(pb.DisableKeyRequest(key_id=key_id))
    assert error(call(envoy, header)) == (401, "API_KEY_DISABLED")
    house.root.EnableKey(pb.EnableKeyRequest(key_id=key_id))
    assert call(envoy, header).status == 200
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key_id))
    assert error(call(envoy, header)) == (401, "API_KEY_DISABLED")


# xAssets: key and secret are a pair, in two headers here, and every failure to authenticate reads the same.


@pytest.fixture
def pair(other_house: House) -> pb.CreateKeyResponse:
    return other_house.key(claims=claims(company="Berlin"))


def pair_call(envoy: Envoy, key: str, secret: str) -> Reply:
    return get(envoy.port("other"), PATH, ("X-Key-Id", key), ("X-Key-Secret", secret))


def test_xassets_a_key_and_secret_pair_is_taken_and_record_filters_reach_the_service(
    envoy: Envoy, pair: pb.CreateKeyResponse
) -> None:
    key_id, _, secret = pair.key_string.partition(".")
    reply = pair_call(envoy, key_id, secret)
    assert reply.status == 200
    assert Seen.of(reply.body).identity["claims"] == '{"company":"Berlin"}'


def test_xassets_a_disabled_deleted_or_wrong_key_is_an_invalid_one_on_the_next_request(
    envoy: Envoy, other_house: House, pair: pb.CreateKeyResponse
) -> None:
    key_id, _, secret = pair.key_string.partition(".")
    replies: list[Any] = [pair_call(envoy, key_id, wrong(secret)), pair_call(envoy, key_id, "")]
    other_house.root.DisableKey(pb.DisableKeyRequest(key_id=key_id))
    replies.append(pair_call(envoy, key_id, secret))
    other_house.root.EnableKey(pb.EnableKeyRequest(key_id=key_id))
    assert pair_call(envoy, key_id, secret).status == 200
    other_house.root.DeleteKey(pb.DeleteKeyRequest(key_id=key_id))
    replies.append(pair_call(envoy, key_id, secret))
    assert {reply.status for reply in replies} == {401}
    assert {reply.json["error"] for reply in replies} == {"INVALID_API_KEY"}


def test_xassets_a_rotation_is_a_second_key_and_then_the_end_of_the_first(
    envoy: Envoy, other_house: House, pair: pb.CreateKeyResponse
) -> None:
    successor = other_house.root.RotateKey(
        pb.RotateKeyRequest(key_id=pair.key.key_id, grace_period=Duration(seconds=3_600))
    )
    for made in (pair, successor):
        assert pair_call(envoy, *made.key_string.split(".")).status == 200
    other_house.root.DisableKey(pb.DisableKeyRequest(key_id=pair.key.key_id))
    assert pair_call(envoy, *pair.key_string.split(".")).status == 401
    assert pair_call(envoy, *successor.key_string.split(".")).status == 200


def test_xassets_a_group_without_access_gets_insufficient_permissions(envoy: Envoy, pair: pb.CreateKeyResponse) -> None:
    key_id, _, secret = pair.key_string.partition(".")
    reply = get(envoy.port("other"), "/admin", ("X-Key-Id", key_id), ("X-Key-Secret", secret))
    assert (reply.status, reply.json["error"]) == (403, "INSUFFICIENT_PERMISSIONS")
