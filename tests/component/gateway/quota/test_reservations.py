"""What a request may use is reserved before it is queued, and nothing stays reserved in vain."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from headrace.bus import Bus, BusUnavailable
from headrace.clock import SystemClock
from headrace.errors import (
    BrokerUnavailable,
    InsufficientQuota,
    LaneFull,
    QuotaUnavailable,
    RateLimitExceeded,
    RequestExists,
)
from headrace.internal.v1.access_pb2 import (
    KeeperLoss,
    KeyRow,
    Limits,
    ModelLimits,
    TenantRow,
)
from headrace.internal.v1.quota_pb2 import LimitKind, QuotaRefusal, Reserve
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_gateway.base.calls import BatchRow
from headrace_gateway.request.generation import ValidRequest
from helpers.eventually import eventually
from helpers.gateway_actors import MODEL, leader, running_mesh, valid_request
from helpers.scripted_keeper import LIMITED, FixedRows, scripted_keeper


async def published(bus: Bus, count: int = 1) -> list[RequestRecord]:
    lane = await bus.take_over(MODEL, "standard")
    try:
        pulled = await lane.pull(max_messages=8, timeout_s=2.0 if count else 0.2)
    finally:
        await lane.close()
    assert len(pulled) == count
    return [RequestRecord.FromString(message.payload) for message in pulled]


def request(name: str = "r1", **changes: Any) -> ValidRequest:
    return dataclasses.replace(valid_request(name, n=2), **changes)


def refuse(reserve: Reserve) -> QuotaRefusal:
    until_ms = round(SystemClock().unix_s() * 1000) + 30_000
    kind = LimitKind.LIMIT_KIND_TOKENS_PER_MINUTE
    return QuotaRefusal(kind=kind, limit=1000, used=900, requested=203, retry_after_ms=until_ms)


async def test_a_request_is_reserved_whole_and_confirmed_once_it_is_stored(bus: Bus) -> None:
    async with (
        scripted_keeper(bus) as keeper,
        running_mesh(bus, rows=LIMITED) as gateway,
    ):
        await gateway.mesh.admission.open(request(key_id="k1", adapter="poet"))
        (reserve,) = keeper.reserved
        await eventually(lambda: keeper.confirmed == [reserve.reservation_id])
        assert keeper.released == []
    (record,) = await published(bus)
    assert (record.reservation_id, record.output_budget) == (reserve.reservation_id, 200)
    assert reserve.reservation_id.startswith("r1.")
    assert (reserve.tenant, reserve.key_id, reserve.model) == ("default", "k1", "toy:poet")
    assert (reserve.input_tokens, reserve.output_tokens, reserve.batch) == (3, 200, False)
    assert abs(reserve.deadline_ms - record.deadline.ToMilliseconds()) < 1000


@pytest.mark.parametrize(
    "rows",
    [
        FixedRows(),
        FixedRows([TenantRow(tenant="default")], [KeyRow(key_id="k1")]),
        FixedRows([TenantRow(tenant="other", limits=Limits(requests_per_minute=1))]),
        FixedRows(
            [TenantRow(tenant="default", model_limits=[ModelLimits(model="hill", limits=Limits())])]
        ),
    ],
    ids=["no rows", "no limits", "another tenant's", "another model's"],
)
async def test_without_any_limit_the_keeper_is_not_called(bus: Bus, rows: FixedRows) -> None:
    async with running_mesh(bus, rows=rows) as gateway:
        await gateway.mesh.admission.open(request(key_id="k1"))
    (record,) = await published(bus)
    assert (record.reservation_id, record.output_budget) == ("", 0)


async def test_a_batchs_row_whose_key_is_revoked_is_not_admitted_without_its_limits(
    bus: Bus,
) -> None:
    row = BatchRow("batch_1", 1, fresh=True)
    async with running_mesh(bus, rows=LIMITED) as gateway:
        with pytest.raises(QuotaUnavailable, match="key gone is not valid any more"):
            await gateway.mesh.admission.open(request(key_id="gone", row=row))
    await published(bus, count=0)


@pytest.mark.parametrize(
    "rows",
    [
        FixedRows(keys=[KeyRow(key_id="k1", limits=Limits(concurrent_requests=1))]),
        FixedRows(
            keys=[
                KeyRow(
                    key_id="k1",
                    model_limits=[ModelLimits(model=MODEL, limits=Limits(requests_per_day=9))],
                )
            ]
        ),
        FixedRows(
            [
                TenantRow(
                    tenant="default",
                    model_limits=[ModelLimits(model=MODEL, limits=Limits(tokens_per_day=9))],
                )
            ]
        ),
    ],
    ids=["the key's", "the key's for the model", "the tenant's for the model"],
)
async def test_a_limit_of_any_scope_is_reason_to_call(bus: Bus, rows: FixedRows) -> None:
    async with scripted_keeper(bus) as keeper, running_mesh(bus, rows=rows) as gateway:
        await gateway.mesh.admission.open(request(key_id="k1"))
        assert len(keeper.reserved) == 1


async def test_a_canary_reserves_nothing(bus: Bus) -> None:
    async with running_mesh(bus, rows=LIMITED) as gateway:
        await gateway.mesh.admission.open_canary(request())
    (record,) = await published(bus)
    assert record.reservation_id == ""


async def test_a_refused_request_reaches_no_lane_and_is_refused_again_without_a_call(
    bus: Bus,
) -> None:
    async with (
        scripted_keeper(bus, refuse) as keeper,
        running_mesh(bus, rows=LIMITED, quota_refusal_kept_s=60) as gateway,
    ):
        for name in ("r1", "r2"):
            with pytest.raises(RateLimitExceeded, match="Retry in 30 s") as refused:
                await gateway.mesh.admission.open(request(name))
            assert refused.value.retry_after_s == pytest.approx(30, abs=3)
        assert len(keeper.reserved) == 1
        assert len(gateway.mesh.requests) == 0
    await published(bus, count=0)


async def test_what_its_lane_refuses_is_returned(bus: Bus) -> None:
    async with (
        scripted_keeper(bus) as keeper,
        running_mesh(bus, rows=LIMITED) as gateway,
        leader(bus) as boss,
    ):
        await boss.report(waiting=5, max_waiting=5)
        await eventually(lambda: any(lane.waiting for lane in gateway.lanes()))
        with pytest.raises(LaneFull):
            await gateway.mesh.admission.open(request())
        await eventually(lambda: keeper.released == [keeper.reserved[0].reservation_id])
        assert keeper.confirmed == []


async def test_a_second_request_of_an_open_name_returns_its_own_reservation_alone(bus: Bus) -> None:
    async with scripted_keeper(bus) as keeper, running_mesh(bus, rows=LIMITED) as gateway:
        await gateway.mesh.admission.open(request())
        with pytest.raises(RequestExists):
            await gateway.mesh.admission.open(request())
        first, second = (reserve.reservation_id for reserve in keeper.reserved)
        await eventually(lambda: keeper.released == [second])
        assert keeper.confirmed == [first]


async def test_what_the_leader_takes_for_a_duplicate_is_returned(bus: Bus) -> None:
    async with (
        scripted_keeper(bus) as keeper,
        running_mesh(bus, rows=LIMITED) as gateway,
        leader(bus) as boss,
    ):
        await gateway.mesh.admission.open(request())
        await boss.notify(ended={"r1": RequestExists("there is a request of this id")})
        await eventually(lambda: keeper.released == [keeper.reserved[0].reservation_id])


async def test_a_silent_keeper_refuses_and_whatever_it_has_reserved_is_returned(bus: Bus) -> None:
    async with (
        scripted_keeper(bus, answers=False) as keeper,
        running_mesh(bus, rows=LIMITED) as gateway,
    ):
        with pytest.raises(QuotaUnavailable) as refused:
            await gateway.mesh.admission.open(request())
        assert refused.value.retry_after_s
        keeper.answers.set()
        await eventually(lambda: keeper.reserved[0].reservation_id in keeper.released)
    await published(bus, count=0)


async def test_a_tenant_that_allows_it_is_admitted_without_the_keeper(bus: Bus) -> None:
    row = TenantRow(
        tenant="default",
        limits=Limits(tokens_per_minute=1000),
        on_keeper_loss=KeeperLoss.KEEPER_LOSS_ALLOW,
    )
    async with running_mesh(bus, rows=FixedRows([row])) as gateway:
        await gateway.mesh.admission.open(request())
    (record,) = await published(bus)
    assert record.reservation_id.startswith("r1.")
    assert record.output_budget == 200


async def test_a_caller_that_leaves_while_the_keeper_decides_leaves_nothing_reserved(
    bus: Bus,
) -> None:
    async with (
        scripted_keeper(bus, answers=False) as keeper,
        running_mesh(bus, rows=LIMITED) as gateway,
    ):
        opening = asyncio.create_task(gateway.mesh.admission.open(request()))
        await eventually(lambda: len(keeper.reserved) == 1)
        opening.cancel()
        await asyncio.wait({opening})
        keeper.answers.set()
        await eventually(lambda: keeper.reserved[0].reservation_id in keeper.released)
    await published(bus, count=0)


async def test_a_caller_that_leaves_later_leaves_the_reservation_to_the_usage(bus: Bus) -> None:
    async with scripted_keeper(bus) as keeper, running_mesh(bus, rows=LIMITED) as gateway:
        generation = await gateway.mesh.admission.open(request())
        await generation.abandon()
        await eventually(lambda: len(keeper.confirmed) == 1)
        assert keeper.released == []


class _DeafStore:
    """A broker that answers everything but the storing of requests."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def submit(self, *args: Any, **kwargs: Any) -> int:
        raise BusUnavailable("no answer")


async def test_what_may_be_stored_is_neither_confirmed_nor_returned(bus: Bus) -> None:
    deaf: Any = _DeafStore(bus)
    async with (
        scripted_keeper(bus) as keeper,
        running_mesh(deaf, rows=LIMITED, submit_timeout_s=0.2) as gateway,
    ):
        with pytest.raises(BrokerUnavailable):
            await gateway.mesh.admission.open(request())
        # What was sent before goes with or before the next call.
        await gateway.mesh.quotas.describe(request().payer)
        assert (keeper.confirmed, keeper.released) == ([], [])


async def test_several_requests_are_admitted_together_or_not_at_all(bus: Bus) -> None:
    def refuse_second(reserve: Reserve) -> QuotaRefusal | None:
        return refuse(reserve) if reserve.reservation_id.startswith("r2.") else None

    requests = [request("r1", n=1), request("r2", n=1), request("r3", n=1)]
    async with (
        scripted_keeper(bus, refuse_second) as keeper,
        running_mesh(bus, rows=LIMITED) as gateway,
    ):
        with pytest.raises(RateLimitExceeded):
            await gateway.mesh.admission.open_all(requests)
        granted = {
            reserve.reservation_id
            for reserve in keeper.reserved
            if not reserve.reservation_id.startswith("r2.")
        }
        assert len(granted) == 2
        await eventually(lambda: set(keeper.released) == granted)
    await published(bus, count=0)


@pytest.mark.parametrize(
    ("limits", "fact"),
    [
        (Limits(tokens_per_minute=1000, tokens_per_day=205), "206 tokens at once, .* admit 205"),
        (Limits(concurrent_requests=1), "2 requests at once, .* admit 1"),
    ],
)
async def test_what_no_moment_can_admit_together_is_refused_for_good(
    bus: Bus, limits: Limits, fact: str
) -> None:
    rows = FixedRows([TenantRow(tenant="default", limits=limits)])
    async with running_mesh(bus, rows=rows) as gateway:
        with pytest.raises(InsufficientQuota, match=fact) as refused:
            await gateway.mesh.admission.open_all([request("r1", n=1), request("r2", n=1)])
        assert refused.value.retry_after_s is None
