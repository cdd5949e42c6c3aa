"""Pure: what the newest report of each lane refuses, and where requests are in it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from headrace.errors import CapacityError, LaneFull, PatienceExhausted
from headrace.fleet.lanes import ReportedLanes
from headrace.internal.v1.reports_pb2 import LaneReport, LaneState, TenantState
from headrace.priorities import priority_name
from headrace.v1 import common_pb2
from headrace_gateway.request.generation import Queued

DEFAULT_RETRY_S = 1.0
"""Where no estimate is known."""


@dataclass(slots=True)
class _Own:
    """Requests that this gateway has published and that no report can have counted yet."""

    publishing: int = 0
    published: int = 0
    """Since the last report."""

    @property
    def uncounted(self) -> int:
        return self.publishing + self.published


class LaneView(ReportedLanes):
    """The newest report of each model. A report older than `fresh_s` refuses nothing."""

    def __init__(self, *, fresh_s: float) -> None:
        super().__init__(fresh_s=fresh_s)
        self._own: dict[tuple[str, int], _Own] = {}

    def take(self, report: LaneReport, now_s: float) -> bool:
        """As `ReportedLanes.take`; what this gateway has published since is counted in it."""
        is_new = super().take(report, now_s)
        for (model, _), own in self._own.items():
            if is_new and model == report.model:
                own.published = 0
        return is_new

    def refusal(
        self,
        model: str,
        priority: common_pb2.Priority.ValueType,
        *,
        tenant: str,
        patience_s: float,
        now_s: float,
    ) -> CapacityError | None:
        """Return why one more request would be refused; None if it would not, or if unknown."""
        if (lane := self.fresh_lane(model, priority, now_s)) is None:
            return None
        waiting = lane.waiting + self._owned(model, priority).uncounted
        if waiting >= lane.max_waiting:
            excess = waiting - lane.max_waiting + 1
            return LaneFull(
                f"lane {lane_name(model, priority)} is full: {waiting} of {lane.max_waiting} wait",
                retry_after_s=excess * _seconds(lane.place_interval) or DEFAULT_RETRY_S,
            )
        own = _state_of(lane, tenant)
        wait_s, place_s = _seconds(own.estimated_wait), _seconds(own.place_interval)
        if own.HasField("estimated_wait") and wait_s > patience_s:
            return PatienceExhausted(
                f"lane {lane_name(model, priority)} would wait {wait_s:.1f} s, "
                f"beyond the patience of {patience_s:.1f} s",
                retry_after_s=max(wait_s - patience_s, place_s),
            )
        return None

    def place(
        self,
        model: str,
        priority: common_pb2.Priority.ValueType,
        *,
        tenant: str,
        sequence: int,
        now_s: float,
    ) -> Queued:
        """Return the place in the queue of the request with this stream sequence, if it waits."""
        if (lane := self.fresh_lane(model, priority, now_s)) is None:
            return Queued()
        own = _state_of(lane, tenant)
        if (found := standing(own, sequence)) is None:
            return Queued()
        place, ahead = found
        if not own.HasField("estimated_wait"):
            return Queued(ahead)
        behind_s = (own.waiting - place) * _seconds(own.place_interval)
        return Queued(ahead, max(0.0, _seconds(own.estimated_wait) - behind_s))

    @contextmanager
    def publishing(self, model: str, priority: common_pb2.Priority.ValueType) -> Iterator[None]:
        """Count a request that is published inside of the `with`, unless that raises."""
        own = self._owned(model, priority)
        own.publishing += 1
        try:
            yield
            own.published += 1
        finally:
            own.publishing -= 1

    def _owned(self, model: str, priority: common_pb2.Priority.ValueType) -> _Own:
        return self._own.setdefault((model, int(priority)), _Own())


def standing(state: TenantState, sequence: int) -> tuple[int, int] | None:
    """Return how many requests of its tenant, and of its lane, are ahead of the request with this
    stream sequence, by a leader's sketch; None: it does not wait.

    A request that was stored after the sketch was made is behind all of its tenant's in it.
    """
    sequences, last = state.sequences, len(state.sequences) - 1
    at = bisect_left(sequences, sequence)
    if not sequences:
        return None
    if at > last:
        return state.waiting, state.ahead[last] + 1
    if sequences[at] == sequence:
        return _place(state, at), state.ahead[at]
    if at == 0 or last + 1 == state.waiting:
        return None
    part = (sequence - sequences[at - 1]) / (sequences[at] - sequences[at - 1])
    before, after = _place(state, at - 1), _place(state, at)
    ahead = state.ahead[at - 1] + part * (state.ahead[at] - state.ahead[at - 1])
    return before + round(part * (after - before)), round(ahead)


def _place(state: TenantState, at: int) -> int:
    """Return the rank of a mark of the sketch; marks are at even distances."""
    return (state.waiting - 1) * at // max(1, len(state.sequences) - 1)


def _state_of(lane: LaneState, tenant: str) -> TenantState:
    """Return the report of a tenant; an empty one if it is unknown."""
    named = {state.tenant: state for state in lane.tenants}
    return named.get(tenant) or named.get("") or TenantState()


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def lane_name(model: str, priority: common_pb2.Priority.ValueType) -> str:
    return f"{model}/{priority_name(priority)}"
