"""Lane reports to the gateways and gauges for Prometheus, at regular intervals."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from headrace.bus import Messages, subjects
from headrace.clock import Clock
from headrace.internal.v1.reports_pb2 import LaneReport, LaneState, TenantState
from headrace.v1.common_pb2 import Priority
from headrace_scheduler.base import metrics
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import LaneStatistics, Leadership, Machine
from headrace_scheduler.machine.wait_estimator import TenantWaitEstimate


async def report_lanes(
    machine: Machine, bus: Messages, settings: SchedulerSettings, clock: Clock
) -> None:
    """Report until cancelled."""
    leadership = machine.leadership
    while True:
        lanes = machine.lanes(now_s=clock.monotonic_s())
        report = lane_report(leadership, lanes, max_waiting=settings.max_waiting)
        await bus.publish(subjects.LANE_REPORTS, report.SerializeToString())
        _set_gauges(leadership.model, lanes)
        live, slots = machine.fleet_statistics()
        metrics.workers.labels(leadership.model).set(live)
        metrics.free_slots.labels(leadership.model).set(slots)
        await asyncio.sleep(settings.lane_report_s)


def lane_report(
    leadership: Leadership, lanes: Sequence[LaneStatistics], *, max_waiting: int
) -> LaneReport:
    """Return a report by which gateways may refuse requests; an unknown wait is left out."""
    report = LaneReport(
        scheduler_id=leadership.scheduler_id, model=leadership.model, epoch=leadership.epoch
    )
    for lane in lanes:
        state = LaneState(
            priority=Priority.Value(f"PRIORITY_{lane.priority.upper()}"),
            waiting=lane.waiting,
            running=lane.running,
            max_waiting=max_waiting,
            oldest_wait=_duration(lane.oldest_wait_s) if lane.waiting else None,
            tenants=map(_tenant_state, lane.tenants),
        )
        if lane.wait is not None:
            state.estimated_wait.CopyFrom(_duration(lane.wait.wait_s))
            state.place_interval.CopyFrom(_duration(lane.wait.place_s))
        report.lanes.append(state)
    return report


def _tenant_state(estimate: TenantWaitEstimate) -> TenantState:
    state = TenantState(
        tenant=estimate.tenant,
        waiting=estimate.waiting,
        sequences=[mark.sequence for mark in estimate.marks],
        ahead=[mark.ahead for mark in estimate.marks],
    )
    if estimate.wait is not None:
        state.estimated_wait.CopyFrom(_duration(estimate.wait.wait_s))
        state.place_interval.CopyFrom(_duration(estimate.wait.place_s))
    return state


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


def _set_gauges(model: str, lanes: Sequence[LaneStatistics]) -> None:
    for lane in lanes:
        labels = (model, lane.priority)
        metrics.waiting.labels(*labels).set(lane.waiting)
        metrics.running.labels(*labels).set(lane.running)
        metrics.oldest_wait_s.labels(*labels).set(lane.oldest_wait_s)
        wait_s = math.nan if lane.wait is None else lane.wait.wait_s
        metrics.estimated_wait_s.labels(*labels).set(wait_s)
