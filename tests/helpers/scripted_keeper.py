"""A quota keeper that a test scripts, and rows of tenants and keys with limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from headrace.auth.tables import Key, Tenant
from headrace.bus import Bus, NoReply, subjects
from headrace.internal.v1.access_pb2 import KeyRow, Limits, TenantRow
from headrace.internal.v1.own_usage_pb2 import OwnUsageRequest, OwnUsageResponse
from headrace.internal.v1.quota_pb2 import (
    DescribeQuota,
    LimitKind,
    LimitScope,
    LimitState,
    QuotaCall,
    QuotaRefusal,
    QuotaReply,
    QuotaRequest,
    QuotaResponse,
    Reserve,
)


def _admits(reserve: Reserve) -> QuotaRefusal | None:
    return None


@dataclass
class ScriptedKeeper:
    """Refuses what `decide` returns a refusal for."""

    decide: Callable[[Reserve], QuotaRefusal | None] = _admits
    limits: list[LimitState] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, there is no answer."""
    calls: list[QuotaCall] = field(default_factory=list)

    async def answer(self, payload: bytes) -> bytes:
        request = QuotaRequest.FromString(payload)
        self.calls += request.calls
        await self.answers.wait()
        replies, time_ms = map(self._reply, request.calls), round(time.time() * 1000)
        return QuotaResponse(replies=replies, time_ms=time_ms).SerializeToString()

    def _reply(self, call: QuotaCall) -> QuotaReply:
        refusal = self.decide(call.reserve) if call.HasField("reserve") else None
        return QuotaReply(refusal=refusal, limits=self.limits)

    @property
    def reserved(self) -> list[Reserve]:
        return [call.reserve for call in self.calls if call.HasField("reserve")]

    @property
    def released(self) -> list[str]:
        return [call.release.reservation_id for call in self.calls if call.HasField("release")]

    @property
    def confirmed(self) -> list[str]:
        return [call.confirm.reservation_id for call in self.calls if call.HasField("confirm")]


@asynccontextmanager
async def scripted_keeper(
    bus: Bus, decide: Callable[[Reserve], QuotaRefusal | None] = _admits, *, answers: bool = True
) -> AsyncIterator[ScriptedKeeper]:
    keeper = ScriptedKeeper(decide)
    if answers:
        keeper.answers.set()
    served = await bus.serve(subjects.QUOTA, keeper.answer)
    try:
        yield keeper
    finally:
        keeper.answers.set()
        await served.close()


class StandinKeeper:
    """A keeper in this process: of each limit 1 is used."""

    RESET_MS = 1_800_000_000_000

    async def reserve(self, reserve: Reserve) -> QuotaReply:
        return QuotaReply()

    async def describe(self, describe: DescribeQuota) -> QuotaReply:
        """Describe 20 requests a minute of the tenant, the key's budget, and a limit of a model."""
        states = [
            self._state("REQUESTS_PER_MINUTE", "TENANT", 20),
            self._state("BUDGET_PER_MONTH", "KEY", 5_000_000_000),
        ]
        if describe.model:
            states.append(self._state("TOKENS_PER_DAY", "KEY_MODEL", 900, describe.model))
        return QuotaReply(limits=states)

    def confirm(self, reservation_id: str, *, tenant: str) -> None: ...

    def release(self, reservation_id: str, *, tenant: str) -> None: ...

    def _state(self, kind: str, scope: str, limit: int, model: str = "") -> LimitState:
        return LimitState(
            kind=LimitKind.Value(f"LIMIT_KIND_{kind}"),
            scope=LimitScope.Value(f"LIMIT_SCOPE_{scope}"),
            model=model,
            limit=limit,
            remaining=limit - 1,
            used=1,
            reset_ms=self.RESET_MS,
        )


class StandinControl:
    """Every key has used the same; a tenant without a key is not known."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        asked = OwnUsageRequest.FromString(payload)
        if not asked.key_id:
            raise NoReply("there is no control")
        used = OwnUsageResponse(requests=3, input_tokens=40, output_tokens=5, cost_nanos=7)
        return used.SerializeToString()


class FixedRows:
    """Rows as `AccessTables` has them."""

    def __init__(self, tenants: Iterable[TenantRow] = (), keys: Iterable[KeyRow] = ()) -> None:
        self._tenants = {row.tenant: Tenant.parse(row.SerializeToString()) for row in tenants}
        self._keys = {row.key_id: Key.parse(row.SerializeToString()) for row in keys}

    def tenant(self, name: str) -> Tenant | None:
        return self._tenants.get(name)

    def key(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)


NO_LIMITS = FixedRows()
LIMITED = FixedRows([TenantRow(tenant="default", limits=Limits(tokens_per_minute=1000))])
"""The tenant of calls without a key has a limit."""
