"""What REST calls of the administration may name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from headrace.admin.v1 import keys_pb2, operations_pb2, sessions_pb2, tenants_pb2
from headrace.errors import InvalidRequest
from headrace_control.api.rest_fields import check_body, check_query


def method(module: Any, service: str, name: str) -> MethodDescriptor:
    found: MethodDescriptor = module.DESCRIPTOR.services_by_name[service].methods_by_name[name]
    return found


CREATE_KEY = method(keys_pb2, "KeyService", "CreateKey")
ROTATE_KEY = method(keys_pb2, "KeyService", "RotateKey")
GET_KEY = method(keys_pb2, "KeyService", "GetKey")
LIST_KEYS = method(keys_pb2, "KeyService", "ListKeys")
UPDATE_KEY = method(keys_pb2, "KeyService", "UpdateKey")
CREATE_TENANT = method(tenants_pb2, "TenantService", "CreateTenant")
DRAIN = method(operations_pb2, "OperationService", "DrainWorker")
CREATE_SESSION = method(sessions_pb2, "SessionService", "CreateSession")


@pytest.mark.parametrize(
    ("called", "body"),
    [
        (CREATE_KEY, {}),
        (CREATE_KEY, {"scopes": ["generate"], "display_name": "a", "labels": {"any": "name"}}),
        (CREATE_KEY, {"displayName": "a", "expireTime": "2030-01-01T00:00:00Z"}),
        (CREATE_KEY, {"limits": {"requestsPerMinute": 5, "tokens_per_day": "7"}, "models": None}),
        (ROTATE_KEY, {"grace": "3600s"}),
        (CREATE_TENANT, {"defaultPriority": "PRIORITY_STANDARD"}),
        (GET_KEY, {}),
    ],
)
def test_fields_have_both_of_their_names_and_any_value_of_their_type(
    called: MethodDescriptor, body: Any
) -> None:
    check_body(called, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("called", "body", "field", "says"),
    [
        (CREATE_KEY, {"network": []}, "key.network", "key.network; did you mean key.networks?"),
        (CREATE_KEY, {"zzz": 1}, "key.zzz", "key.zzz; key has name, display_name, "),
        (CREATE_KEY, {"key": {}}, "key.key", "unknown field key.key; "),
        (
            CREATE_KEY,
            {"limits": {"tokens_per_dag": 1}},
            "key.limits.tokens_per_dag",
            "did you mean key.limits.tokens_per_day?",
        ),
        (CREATE_KEY, {"limits": 5}, "key.limits", "key.limits must be a JSON object"),
        (CREATE_KEY, {"networks": "10.0.0.0/8"}, "key.networks", "key.networks cannot be read: "),
        (
            CREATE_KEY,
            {"display_name": "a", "displayName": "b"},
            "display_name",
            "key has display_name twice",
        ),
        (ROTATE_KEY, {"grace": "an hour"}, "grace", "grace cannot be read: "),
        (ROTATE_KEY, {"grade": "3600s"}, "grade", "unknown field grade; did you mean grace?"),
        (CREATE_KEY, {"a\nb": 1}, "key.a\nb", "key.'a\\nb'; "),
        (GET_KEY, {"name": "x"}, None, "GetKey takes no body"),
    ],
)
def test_what_would_be_passed_over_is_refused_by_name(
    called: MethodDescriptor, body: Any, field: str | None, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_body(called, json.dumps(body).encode())
    assert says in caught.value.message
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"scopes": ["generate"], "scopes": ["embed"]}', "has scopes twice in one object"),
        (b'{"labels": {"a": "1", "a": "2"}}', "has a twice in one object"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{'scopes': []}", "is no JSON"),
        (b'{"limits": {"tokens_per_day": NaN}}', "is no JSON"),
        (b'{"display_name": "\xff"}', "is no JSON"),
        (b"[" * 24_000, "is nested too deeply"),
        (b'{"a": ' + b"1" * 20_000 + b"}", "is no JSON"),
        (b'{"' + b"a" * 20_000 + b'": 1}', "aaa…"),
    ],
)
def test_a_body_is_one_json_object_in_which_each_name_is_once(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_body(CREATE_KEY, body)
    assert says in caught.value.message
    assert len(caught.value.message) < 500


def test_an_error_does_not_repeat_what_may_be_a_secret() -> None:
    for body in ({"key": ["hr_secret"]}, {"key": {"k": "hr_secret"}}, {"kay": "hr_secret"}):
        with pytest.raises(InvalidRequest) as caught:
            check_body(CREATE_SESSION, json.dumps(body).encode())
        assert "hr_secret" not in caught.value.message


@pytest.mark.parametrize(
    ("called", "target"),
    [
        (LIST_KEYS, "/v2/admin/tenants/acme/keys"),
        (LIST_KEYS, "/v2/admin/tenants/acme/keys?page_size=5&showEnded=true&page_token="),
        (UPDATE_KEY, "/v2/admin/tenants/acme/keys/k?update_mask=models"),
        (UPDATE_KEY, "/v2/admin/tenants/acme/keys/k?update_mask.paths=models"),
    ],
)
def test_parameters_are_fields_of_the_request(called: MethodDescriptor, target: str) -> None:
    check_query(called, target)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/x?page_sice=5", "unknown parameter page_sice; did you mean page_size?"),
        ("/x?zzz", "unknown parameter zzz; the call has parent, page_size, page_token, show_ended"),
        ("/x?page%5Fsice=5", "unknown parameter page_sice; "),
        ("/x?page_size.a=5", "unknown parameter page_size.a; page_size has none"),
    ],
)
def test_other_parameters_are_refused_by_name(target: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_query(LIST_KEYS, target)
    assert says in caught.value.message
