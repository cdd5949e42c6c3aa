"""GET /v2/key: what the key of a call may do, and what is left of its limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import httpx
import pytest

from headrace.auth.caller import Caller
from headrace.auth.check.interceptor import AccessInterceptor
from headrace.internal.v1.access_pb2 import KeyRow, Limits, ModelLimits, TenantRow
from headrace.v1.access_pb2 import Access
from headrace.v1.own_key_pb2 import GetOwnKeyRequest
from headrace.v1.own_key_pb2_grpc import OwnKeyServiceStub
from headrace_gateway.api.http.rejection import reject_call
from helpers.running_api import RunningApi, running_api
from helpers.scripted_admission import ScriptedAdmission
from helpers.scripted_keeper import FixedRows

CALLER = Caller(
    "acme",
    key_id="k1",
    person="p1",
    scopes=frozenset({"generate", "models:read"}),
    models=frozenset({"valley"}),
)
ROWS = FixedRows(
    [
        TenantRow(tenant="acme", currency="EUR", limits=Limits(requests_per_minute=20)),
        TenantRow(tenant="free"),
    ],
    [
        KeyRow(
            key_id="k1",
            expire_ms=1_900_000_000_000,
            model_limits=[ModelLimits(model="valley", limits=Limits(tokens_per_day=900))],
        )
    ],
)


class FixedGate:
    caller = CALLER

    def admit(self, access: Access | None, headers: Mapping[str, str], context: Any) -> Caller:
        return self.caller


@pytest.fixture
def gate() -> FixedGate:
    return FixedGate()


@pytest.fixture
async def api(admission: ScriptedAdmission, gate: FixedGate) -> AsyncIterator[RunningApi]:
    interceptor = AccessInterceptor(gate, reject=reject_call)
    async with running_api(admission, interceptor=interceptor, rows=ROWS) as running:
        yield running


async def test_a_key_and_each_of_its_limits_once(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v2/key")
    reset = {"used": "1", "reset_time": "2027-01-15T08:00:00Z"}
    assert answer.json() == {
        "name": "tenants/acme/keys/k1",
        "tenant": "tenants/acme",
        "person": "people/p1",
        "scopes": ["generate", "models:read"],
        "models": ["valley"],
        "expire_time": "2030-03-17T17:46:40Z",
        "currency": "EUR",
        "limits": [
            {
                "limit": "requests_per_minute",
                "subject": "tenants/acme",
                "model": "",
                "value": "20",
                "remaining": "19",
                **reset,
            },
            {
                "limit": "budget_per_month",
                "subject": "tenants/acme/keys/k1",
                "model": "",
                "value": "5000000000",
                "remaining": "4999999999",
                **reset,
            },
            {
                "limit": "tokens_per_day",
                "subject": "tenants/acme/keys/k1",
                "model": "valley",
                "value": "900",
                "remaining": "899",
                **reset,
            },
        ],
        "usage_today": {
            "requests": "3",
            "input_tokens": "40",
            "cached_input_tokens": "0",
            "output_tokens": "5",
            "cost_nanos": "7",
        },
    }


async def test_without_key_and_limits_there_is_little_to_say(
    channel: grpc.aio.Channel, gate: FixedGate
) -> None:
    gate.caller = Caller("free")
    found = await OwnKeyServiceStub(channel).GetOwnKey(GetOwnKeyRequest())
    assert (found.name, found.tenant, found.currency) == ("", "tenants/free", "USD")
    assert not found.limits
    assert not found.HasField("expire_time")
    assert not found.HasField("usage_today"), "control does not answer"
