"""Pure: the newest report of each model's lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace.internal.v1.reports_pb2 import LaneReport, LaneState
from headrace.model_names import lane_id
from headrace.v1 import common_pb2, fleet_pb2


@dataclass(slots=True)
class _Leader:
    scheduler_id: str
    epoch: int
    received_s: float
    lanes: dict[int, LaneState] = field(default_factory=dict)


class ReportedLanes:
    """The newest report of each model. One older than `fresh_s` is not shown."""

    def __init__(self, *, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._leaders: dict[str, _Leader] = {}

    def take(self, report: LaneReport, now_s: float) -> bool:
        """Store a leader's report; return False for one of a deposed leader, which is ignored."""
        seen = self._leaders.get(report.model)
        if seen is not None and report.epoch < seen.epoch:
            return False
        self._leaders[report.model] = _Leader(
            report.scheduler_id, report.epoch, now_s, {s.priority: s for s in report.lanes}
        )
        return True

    def age_s(self, now_s: float) -> float | None:
        """Return the age of the newest report of any leader; None if there was none."""
        received_s = [leader.received_s for leader in list(self._leaders.values())]
        return now_s - max(received_s) if received_s else None

    def lanes(self, now_s: float) -> Iterator[fleet_pb2.Lane]:
        """Return the lanes of every leader that still reports, by model and priority."""
        for model, leader in sorted(self._leaders.items()):
            if now_s - leader.received_s > self._fresh_s:
                continue
            for _, state in sorted(leader.lanes.items()):
                yield _as_lane(model, leader.scheduler_id, state)

    def fresh_lane(
        self, model: str, priority: common_pb2.Priority.ValueType, now_s: float
    ) -> LaneState | None:
        """Return the newest report of a lane; None if there is none that is fresh."""
        leader = self._leaders.get(model)
        if leader is None or now_s - leader.received_s > self._fresh_s:
            return None
        return leader.lanes.get(priority)


def _as_lane(model: str, scheduler_id: str, state: LaneState) -> fleet_pb2.Lane:
    lane = fleet_pb2.Lane(
        model=model,
        priority=state.priority,
        waiting=state.waiting,
        running=state.running,
        max_waiting=state.max_waiting,
        scheduler=scheduler_id,
        lane_id=lane_id(model),
    )
    if state.HasField("oldest_wait"):
        lane.oldest_wait.CopyFrom(state.oldest_wait)
    if state.HasField("estimated_wait"):
        lane.estimated_wait.CopyFrom(state.estimated_wait)
    return lane
