"""What a caller has used, as gateways ask for it."""

from __future__ import annotations

from headrace.internal.v1.own_usage_pb2 import OwnUsageRequest, OwnUsageResponse
from headrace_control.metering.own_usage import OwnUsage
from headrace_control.store import Store
from helpers.usage_records import START_MS, usage_message


async def used(store: Store, **asked: object) -> OwnUsageResponse:
    request = OwnUsageRequest(tenant="acme", **asked)  # type: ignore[arg-type]
    answer = await OwnUsage(store.usage_sums).answer(request.SerializeToString())
    return OwnUsageResponse.FromString(answer)


async def test_a_key_has_its_own_usage_and_the_tenant_that_of_all(store: Store) -> None:
    messages = [usage_message(1), usage_message(2, key_id="k2"), usage_message(3, tenant="other")]
    await store.usage.record(messages)
    own = await used(store, key_id="k2")
    assert (own.requests, own.input_tokens, own.cached_input_tokens) == (1, 10, 4)
    assert own.output_tokens == 5
    assert (await used(store)).requests == 2
    assert await used(store, key_id="k3") == OwnUsageResponse()


async def test_what_ended_before_that_time_does_not_count(store: Store) -> None:
    await store.usage.record([usage_message(1, end_ms=START_MS), usage_message(2)])
    assert (await used(store, since_ms=START_MS + 10**9)).requests == 0
    assert (await used(store, since_ms=START_MS)).requests == 2


async def test_parts_are_by_key_model_and_batch(store: Store) -> None:
    messages = [
        usage_message(1),
        usage_message(2),
        usage_message(3, batch_id="batch_1", batch_line=1, model="other"),
        usage_message(4, tenant="other"),
    ]
    await store.usage.record(messages)
    found = await used(store, in_parts=True)
    assert [(p.key_id, p.model, p.batch, p.requests, p.tokens) for p in found.parts] == [
        ("k1", "valley", False, 2, 30),
        ("k1", "other", True, 1, 15),
    ]
