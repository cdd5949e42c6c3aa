"""A lease as the one process that holds it, or would like to, sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from headrace.bus.errors import BusError, LeaseTaken
from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace.telemetry.condition_log import ConditionLog

log = logging.getLogger(__name__)

RENEW_S = 1.0
"""Longest wait for one renewal to be answered."""
NEVER = float("-inf")


class LeaseLost(Exception):
    """This process no longer holds the lease."""


class Leases(Protocol):
    """Of `headrace.bus.Leases`, which says more."""

    async def acquire(self, name: str, holder: str, *, ttl_s: int) -> int: ...

    async def renew(self, name: str, holder: str, *, ttl_s: int) -> None: ...

    async def release(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Which lease, whose, and for how long."""

    name: str
    holder: str
    ttl_s: int
    renew_s: float
    facts: Mapping[str, object] = field(default_factory=dict)
    """What lines in the log say besides."""


class HeldLease:
    """At most one process holds a lease.

    This one does until `ttl_s` after the start of the last call that renewed it: by its own clock
    never longer than by the broker's.

        if (epoch := await lease.try_acquire()) is not None:
            try:
                …                           # beside `renew_until_lost`, while `is_held`
            finally:
                await lease.release()
    """

    def __init__(
        self,
        leases: Leases,
        terms: LeaseTerms,
        clock: Clock,
        on_failed_renewal: Callable[[], object] = lambda: None,
    ) -> None:
        self._leases, self._terms, self._clock = leases, terms, clock
        self._on_failed_renewal = on_failed_renewal
        self._until_s = NEVER
        self._seen_s = self._other_seen_s = NEVER
        self._unknown = ConditionLog(log, active="lease.unknown", cleared="lease.known")

    @property
    def is_held(self) -> bool:
        return self._clock.monotonic_s() < self._until_s

    @property
    def is_known(self) -> bool:
        """Whether this process holds it, or has seen lately that another does."""
        return self._clock.monotonic_s() - self._seen_s < self._terms.ttl_s

    @property
    def other_is_known(self) -> bool:
        """Whether another process was seen to hold it lately."""
        return self._clock.monotonic_s() - self._other_seen_s < self._terms.ttl_s

    async def try_acquire(self) -> int | None:
        """Return the epoch if the lease was free and is ours now; else None."""
        started_s, terms = self._clock.monotonic_s(), self._terms
        try:
            async with asyncio.timeout(terms.ttl_s / 2):
                epoch = await self._leases.acquire(terms.name, terms.holder, ttl_s=terms.ttl_s)
        except LeaseTaken:
            self._unknown.cleared(started_s, **terms.facts)
            self._seen_s = self._other_seen_s = started_s
            return None
        except (BusError, TimeoutError) as error:
            self._unknown.active(started_s, **terms.facts, why=str(error) or "no answer")
            return None
        self._unknown.cleared(started_s, **terms.facts)
        self._until_s = started_s + terms.ttl_s
        self._seen_s = started_s
        return epoch

    async def renew_until_lost(self) -> NoReturn:
        """Renew the lease for as long as that succeeds.

        Raises:
            LeaseLost: another process has it, or its life has passed without a renewal.
        """
        terms = self._terms
        while True:
            await asyncio.sleep(terms.renew_s)
            started_s = self._clock.monotonic_s()
            try:
                async with asyncio.timeout(RENEW_S):
                    await self._leases.renew(terms.name, terms.holder, ttl_s=terms.ttl_s)
            except LeaseTaken as error:
                self._until_s = NEVER
                raise LeaseLost(str(error)) from error
            except (BusError, TimeoutError) as error:
                self._on_failed_renewal()
                recheck_cancelled()
                if not self.is_held:
                    raise LeaseLost(f"not renewed in {terms.ttl_s} s: {error!r}") from error
            else:
                self._until_s, self._seen_s = started_s + terms.ttl_s, started_s
                recheck_cancelled()

    async def release(self) -> None:
        """Release the lease if it is held, so that a standby need not wait until it expires."""
        if not self.is_held:
            return
        self._until_s = NEVER
        try:
            async with asyncio.timeout(RENEW_S):
                await self._leases.release(self._terms.name)
        except (BusError, TimeoutError) as error:
            log.info("lease.not_released", extra={**self._terms.facts, "why": repr(error)})


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, and of the groups in it."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
