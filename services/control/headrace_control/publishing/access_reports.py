"""Stores what gateways report of keys: uses, digests under a new pepper, failed attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from google.protobuf.message import DecodeError

from headrace.clock import Clock
from headrace.internal.v1 import access_pb2
from headrace_control.base import metrics
from headrace_control.base.published_rows import EPOCH, time_of
from headrace_control.base.records import Digest, FailedAttempts, KeyUse

log = logging.getLogger(__name__)


class Uses(Protocol):
    """Of the store."""

    async def record(
        self,
        gateway_id: str,
        sequence: int,
        *,
        uses: Sequence[KeyUse] = (),
        failures: Sequence[FailedAttempts] = (),
        pepper_id: str,
    ) -> bool: ...


class AccessReports:
    """Answers a report once it is stored. A gateway repeats what was not answered; what comes
    again is answered, and not stored twice."""

    def __init__(
        self, uses: Uses, *, is_active: Callable[[], bool], pepper_id: Callable[[], str]
    ) -> None:
        """`pepper_id`: of the pepper whose digests may be stored; empty: none."""
        self._uses, self._is_active, self._pepper_id = uses, is_active, pepper_id

    async def answer(self, payload: bytes) -> bytes:
        """Store a report, and return the answer."""
        try:
            report = access_pb2.AccessReport.FromString(payload)
        except DecodeError:
            # Answered, for the gateway would repeat it for ever.
            log.warning("access_report.unreadable", extra={"bytes": len(payload)})
            return access_pb2.AccessReportResponse().SerializeToString()
        if not self._is_active():
            raise RuntimeError("this process is not the active one")
        is_new = await self._uses.record(
            report.gateway_id,
            report.sequence,
            uses=[_use(each) for each in report.uses],
            failures=[_failures(each) for each in report.failures],
            pepper_id=self._pepper_id(),
        )
        if is_new:
            metrics.reports.inc()
        return access_pb2.AccessReportResponse().SerializeToString()


class SettledPepper:
    """Says which pepper's digests may be stored: the current one, once all gateways must know it.

    Why not at once: a gateway that has not read the new file yet would refuse the key.
    """

    def __init__(self, current: Callable[[], str], clock: Clock, settle_s: float) -> None:
        """`current`: id of the current pepper; empty where there is none."""
        self._current, self._clock, self._settle_s = current, clock, settle_s
        self._seen, self._since_s = current(), clock.monotonic_s()

    def pepper_id(self) -> str:
        """Return the current pepper's id; empty while it is too new."""
        now_s, current = self._clock.monotonic_s(), self._current()
        if current != self._seen:
            self._seen, self._since_s = current, now_s
        return current if now_s - self._since_s >= self._settle_s else ""


def _use(use: access_pb2.KeyUse) -> KeyUse:
    renewed = use.renewed if use.HasField("renewed") else None
    return KeyUse(
        key_id=use.key_id,
        last_use_time=time_of(use.last_used_ms) or EPOCH,
        client=use.client,
        renewed=None
        if renewed is None
        else Digest(renewed.digest, renewed.pepper_id, time_of(renewed.expire_ms)),
    )


def _failures(failed: access_pb2.FailedAttempts) -> FailedAttempts:
    return FailedAttempts(
        client=failed.client,
        reason=failed.reason,
        key_id=failed.key_id,
        count=failed.count,
        first_time=time_of(failed.first_ms) or EPOCH,
        last_time=time_of(failed.last_ms) or EPOCH,
    )
