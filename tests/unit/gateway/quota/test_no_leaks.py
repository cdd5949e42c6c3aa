"""Whatever happens to a call, each of its reservations is ended once: here or by the keeper."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from headrace.clock import SystemClock
from headrace.errors import HeadraceError, QuotaUnavailable
from headrace.internal.v1.access_pb2 import KeeperLoss, Limits, TenantRow
from headrace.internal.v1.quota_pb2 import (
    DescribeQuota,
    LimitKind,
    QuotaRefusal,
    QuotaReply,
    Reserve,
)
from headrace_gateway.quota.reservations import Quotas, Reservation
from helpers.gateway_actors import valid_request
from helpers.scripted_keeper import FixedRows

REFUSAL = QuotaRefusal(kind=LimitKind.LIMIT_KIND_CONCURRENT_REQUESTS, retry_after_ms=1000)


@dataclass
class ErraticKeeper:
    """Grants, refuses or is silent, in the order of its answers, after some turns of the loop."""

    answers: list[tuple[str, int]]
    may_be_reserved: set[str] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)

    async def reserve(self, reserve: Reserve) -> QuotaReply:
        kind, turns = self.answers.pop(0)
        if kind != "refuse":
            self.may_be_reserved.add(reserve.reservation_id)
        for _ in range(turns):
            await asyncio.sleep(0)
        if kind == "silent":
            raise QuotaUnavailable("no answer", retry_after_s=3)
        return QuotaReply(refusal=REFUSAL if kind == "refuse" else None)

    async def describe(self, describe: DescribeQuota) -> QuotaReply:
        return QuotaReply()

    def confirm(self, reservation_id: str, *, tenant: str) -> None:
        self.ended[reservation_id] += 1

    def release(self, reservation_id: str, *, tenant: str) -> None:
        self.ended[reservation_id] += 1


@dataclass
class Call:
    """Opens some requests, and does with each reservation what `ends` says, until it fails."""

    quotas: Quotas
    keeper: ErraticKeeper
    ends: list[str]

    async def run(self) -> None:
        requests = [valid_request(f"r{number}") for number in range(len(self.ends))]
        async with self.quotas.reserved(requests) as reservations:
            for reservation, end in zip(reservations, self.ends, strict=True):
                assert reservation is not None
                await asyncio.sleep(0)
                self._end(reservation, end)

    def _end(self, reservation: Reservation, end: str) -> None:
        match end:
            case "confirm":
                reservation.confirm()
            case "leave":
                reservation.leave()
                self.keeper.ended[reservation.reservation_id] += 1
            case "fail":
                raise RuntimeError


async def everything(call: Call, cancel_after: int) -> None:
    task = asyncio.create_task(call.run())
    for _ in range(cancel_after):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError, RuntimeError, HeadraceError):
        await task


ANSWERS = st.tuples(st.sampled_from(["grant", "grant", "refuse", "silent"]), st.integers(0, 3))
ENDS = st.sampled_from(["confirm", "confirm", "leave", "fail", "nothing"])


@given(
    st.lists(ANSWERS, min_size=4, max_size=4),
    st.lists(ENDS, min_size=1, max_size=4),
    st.integers(0, 30),
    st.booleans(),
)
def test_every_reservation_that_may_have_been_made_is_ended_once(
    answers: list[tuple[str, int]], ends: list[str], cancel_after: int, allows: bool
) -> None:
    keeper = ErraticKeeper(answers)
    row = TenantRow(tenant="default", limits=Limits(concurrent_requests=100))
    if allows:
        row.on_keeper_loss = KeeperLoss.KEEPER_LOSS_ALLOW
    quotas = Quotas(FixedRows([row]), keeper, SystemClock())
    asyncio.run(everything(Call(quotas, keeper, ends), cancel_after))
    assert keeper.may_be_reserved <= keeper.ended.keys()
    assert set(keeper.ended.values()) <= {1}
