"""Reserves what a request may use, before it is queued, and returns what is never queued.

A request of 12 tokens with `max_tokens` 100 and two choices, of a key with limits:

    reserve    the keeper counts one request and 212 tokens against every limit, or against none
    published  the lane has it: `confirm`. From now on its usage ends the reservation
    refused    the lane is full, or the id is taken: `release`, as if it had never been sent
    unknown    the broker did not answer: neither. If the request is stored, its usage ends the
               reservation; if not, the keeper returns it after 30 s
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum, auto
from secrets import token_hex
from typing import Protocol

from headrace.clock import Clock
from headrace.errors import HeadraceError, InsufficientQuota, QuotaUnavailable
from headrace.internal.v1.access_pb2 import KeeperLoss
from headrace.internal.v1.quota_pb2 import DescribeQuota, LimitState, QuotaReply, Reserve
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_gateway.base import metrics
from headrace_gateway.quota.call_limits import note_limits
from headrace_gateway.quota.limits import (
    Rows,
    has_limits,
    limits_of,
    most_at_once,
    most_tokens_at_once,
)
from headrace_gateway.quota.memory import RefusalMemory
from headrace_gateway.quota.refusals import limit_name, refusal_error, until_all_fit
from headrace_gateway.quota.together import all_or_worst
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.payer import Payer, TokenRange

REVOKED_RETRY_S = 1.0
"""By then control has cancelled the batch."""


class Keeper(Protocol):
    """The quota keeper, as `headrace.quota.QuotaClient` calls it."""

    async def reserve(self, reserve: Reserve) -> QuotaReply: ...

    async def describe(self, describe: DescribeQuota) -> QuotaReply: ...

    def confirm(self, reservation_id: str, *, tenant: str) -> None: ...

    def release(self, reservation_id: str, *, tenant: str) -> None: ...


class _State(Enum):
    RESERVED = auto()
    LEFT = auto()
    """Confirmed, or for the keeper to end."""
    RELEASED = auto()


class Reservation:
    """What is reserved for one request. Exactly one of confirm, leave and release ends it here."""

    def __init__(self, quotas: Quotas, payer: Payer, reserve: Reserve) -> None:
        self._quotas, self._payer, self._reserve = quotas, payer, reserve
        self._state = _State.RESERVED

    @property
    def reservation_id(self) -> str:
        return self._reserve.reservation_id

    @property
    def output_tokens(self) -> int:
        """Of all choices together."""
        return self._reserve.output_tokens

    async def charge(self, *, is_one_of_several: bool = False) -> None:
        """Reserve it. An error leaves nothing reserved, once `release` has been called.

        Raises:
            HeadraceError: as `Quotas.extend`.
        """
        tokens = self._reserve.input_tokens + self._reserve.output_tokens
        self._quotas.check(self._payer, TokenRange(tokens, tokens))
        try:
            await self._quotas.charge(
                self._payer, self._reserve, is_one_of_several=is_one_of_several
            )
        except QuotaUnavailable:
            # Why admitted: its usage is charged when it ends.
            is_admitted = self._quotas.survives_keeper(self._payer)
            outcome = "admitted" if is_admitted else "refused"
            metrics.quota_unavailable_total.labels(outcome).inc()
            if not is_admitted:
                raise
        except HeadraceError:
            self._state = _State.RELEASED  # Nothing was charged.
            raise

    def confirm(self) -> None:
        """Report that the request is stored."""
        if self._leave(_State.LEFT):
            self._quotas.keeper.confirm(self.reservation_id, tenant=self._payer.tenant)

    def leave(self) -> None:
        """Leave it to the keeper: it is not known whether the request is stored."""
        self._leave(_State.LEFT)

    def release(self) -> None:
        """Return all of it, unless it has been confirmed or left."""
        if self._leave(_State.RELEASED):
            self._quotas.keeper.release(self.reservation_id, tenant=self._payer.tenant)

    def _leave(self, state: _State) -> bool:
        is_first = self._state is _State.RESERVED
        if is_first:
            self._state = state
        return is_first


class Quotas:
    """The limits of this gateway's callers."""

    def __init__(
        self,
        rows: Rows,
        keeper: Keeper,
        clock: Clock,
        *,
        refusal_kept_s: float = 1.0,
        ahead_tokens: int = 512,
    ) -> None:
        """`ahead_tokens`: output that is reserved before it is made, of all choices together."""
        self.keeper, self.ahead_tokens = keeper, ahead_tokens
        self.rows, self._clock = rows, clock
        self._memory = RefusalMemory(kept_ms=round(refusal_kept_s * 1000))

    def check(self, payer: Payer, tokens: TokenRange) -> None:
        """Refuse now what the keeper would refuse for sure; it is not asked.

        Raises:
            RateLimitExceeded: a request with so many tokens was refused a moment ago.
            InsufficientQuota: the same.
        """
        now_ms = self._now_ms()
        if (reply := self._memory.find(payer, tokens, now_ms)) is not None:
            metrics.quota_refusals_total.labels(limit_name(reply.refusal.kind), "memory").inc()
            raise self._refused(payer, reply, now_ms)

    def most_at_once(self, payer: Payer) -> int | None:
        """Return how many requests the limits can admit at one moment; None: any number."""
        return most_at_once(limits_of(payer, self.rows))

    @asynccontextmanager
    async def reserved(
        self, requests: Sequence[ValidRequest]
    ) -> AsyncIterator[list[Reservation | None]]:
        """Reserve for all of the requests, or for none; None is of a request without any limit.

        What is neither confirmed nor left inside of the `with` is returned when it is left.

        Raises:
            RateLimitExceeded: the limits do not admit them now.
            InsufficientQuota: not today, not for this month's budget, or never.
            QuotaUnavailable: the keeper does not answer, and the tenant does not allow that.
        """
        self._check_together(requests)
        reservations = [self._begin(request) for request in requests]
        begun = [each for each in reservations if each is not None]
        try:
            if len(begun) > 1:
                # Why at once: they are one message to the keeper.
                await all_or_worst(each.charge(is_one_of_several=True) for each in begun)
            elif begun:
                await begun[0].charge()
            yield reservations
        finally:
            for each in begun:
                each.release()

    def confirm(self, record: RequestRecord) -> None:
        """Report that a request is stored, whose gateway may have died before it could."""
        if record.reservation_id:
            self.keeper.confirm(record.reservation_id, tenant=record.tenant)

    async def count_request(self, request: ValidRequest) -> str:
        """Count a request that needs no tokens, as it is answered from a cache.

        Returns:
            The id of its reservation, which its usage record ends; empty: no limit applies.

        Raises:
            HeadraceError: as `reserved`.
        """
        if (reservation := self._begin(replace(request, prompt_ids=(), inputs=(), n=0))) is None:
            return ""
        try:
            await reservation.charge()
            reservation.confirm()
        finally:
            reservation.release()
        return reservation.reservation_id

    def uncount_request(self, request: ValidRequest, reservation_id: str) -> None:
        """Return what `count_request` has counted."""
        if reservation_id:
            self.keeper.release(reservation_id, tenant=request.tenant)

    def release(self, record: RequestRecord) -> None:
        """Return what is reserved for a published request that its leader does not run."""
        if record.reservation_id:
            self.keeper.release(record.reservation_id, tenant=record.tenant)

    async def describe(self, payer: Payer) -> list[LimitState]:
        """Return the state of every limit of the caller; of single models, of the payer's alone.

        Raises:
            QuotaUnavailable: the keeper does not answer.
        """
        if not has_limits(payer, self.rows):
            return []
        describe = DescribeQuota(tenant=payer.tenant, key_id=payer.key_id, model=payer.model)
        return list((await self.keeper.describe(describe)).limits)

    async def charge(
        self, payer: Payer, reserve: Reserve, *, is_one_of_several: bool = False
    ) -> None:
        """Reserve for a request that is to be queued.

        Raises:
            HeadraceError: as `extend`; but QuotaUnavailable always if the keeper does not answer.
        """
        reply = await self._reserve(reserve)
        now_ms = self._now_ms()
        if reply.HasField("refusal"):
            tokens = reserve.input_tokens + reserve.output_tokens
            self._memory.add(payer, tokens, reply, now_ms)
            if is_one_of_several:
                reply = until_all_fit(reply)
            raise self._refused(payer, reply, now_ms)
        note_limits(reply.limits, now_ms)

    async def extend(self, record: RequestRecord, output_tokens: int) -> None:
        """Reserve output of a running request up to this total; what was reserved before is not
        charged again.

        Raises:
            RateLimitExceeded: not now; what was reserved before stays.
            InsufficientQuota: not before a day or a budget begins again, or never.
            QuotaUnavailable: the keeper does not answer, and the tenant does not allow that.
        """
        batch = bool(record.batch_id)
        payer = Payer(record.tenant, record.key_id, record.listed_model, batch=batch)
        reserve = Reserve(
            reservation_id=record.reservation_id,
            tenant=record.tenant,
            key_id=record.key_id,
            model=record.listed_model,
            input_tokens=record.prompt_tokens,
            output_tokens=output_tokens,
            batch=batch,
            deadline_ms=record.deadline.ToMilliseconds(),
        )
        try:
            reply = await self._reserve(reserve)
        except QuotaUnavailable:
            if self.survives_keeper(payer):
                return
            raise
        # Why it is not remembered: it says nothing of requests that are not queued yet.
        if reply.HasField("refusal"):
            raise self._refused(payer, reply, self._now_ms())

    async def _reserve(self, reserve: Reserve) -> QuotaReply:
        began_s = self._clock.monotonic_s()
        reply = await self.keeper.reserve(reserve)
        metrics.quota_decision_seconds.observe(self._clock.monotonic_s() - began_s)
        if reply.HasField("refusal"):
            metrics.quota_refusals_total.labels(limit_name(reply.refusal.kind), "keeper").inc()
        return reply

    def survives_keeper(self, payer: Payer) -> bool:
        """Return whether the tenant's requests are admitted while the keeper does not answer."""
        tenant = self.rows.tenant(payer.tenant)
        allow = KeeperLoss.KEEPER_LOSS_ALLOW
        return tenant is not None and tenant.row.on_keeper_loss == allow

    def _begin(self, request: ValidRequest) -> Reservation | None:
        payer = request.payer
        if payer.batch and payer.key_id and self.rows.key(payer.key_id) is None:
            # Why: the key was checked when the batch was created, and without it the row would have
            # no limits but the tenant's.
            raise QuotaUnavailable(
                f"key {payer.key_id} is not valid any more, and its limits are not known",
                retry_after_s=REVOKED_RETRY_S,
            )
        if not has_limits(payer, self.rows):
            return None
        reserve = Reserve(
            # Why random: a request's id may be used again after its end.
            reservation_id=f"{request.key}.{token_hex(8)}",
            tenant=payer.tenant,
            key_id=payer.key_id,
            model=payer.model,
            input_tokens=request.prompt_tokens,
            output_tokens=request.first_output_tokens(self.ahead_tokens),
            batch=payer.batch,
            is_part=payer.is_part,
            deadline_ms=self._now_ms() + round(request.timeout_s * 1000),
        )
        return Reservation(self, payer, reserve)

    def _check_together(self, requests: Sequence[ValidRequest]) -> None:
        """Refuse requests of one call that can never be admitted at one moment.

        Why here: the keeper sees them one by one, and would say when the last of them fits.
        """
        payer = requests[0].payer
        if len(requests) < 2 or payer.batch:
            return
        limits = list(limits_of(payer, self.rows))
        tokens = sum(
            request.prompt_tokens + request.first_output_tokens(self.ahead_tokens)
            for request in requests
        )
        bounds = (
            ("requests", len(requests), most_at_once(limits)),
            ("tokens", tokens, most_tokens_at_once(limits)),
        )
        for name, needed, most in bounds:
            if most is not None and needed > most:
                raise InsufficientQuota(
                    f"The call needs {needed} {name} at once, and the limits of tenant"
                    f" {payer.tenant} and its key admit {most}. Send less input in one call."
                )

    def _refused(self, payer: Payer, reply: QuotaReply, now_ms: int) -> HeadraceError:
        note_limits(reply.limits, now_ms)
        tenant = self.rows.tenant(payer.tenant)
        currency = tenant.row.currency if tenant is not None else ""
        return refusal_error(reply.refusal, payer, now_ms, currency=currency or "USD")

    def _now_ms(self) -> int:
        return round(self._clock.unix_s() * 1000)
