"""Lane reports to the gateways and gauges for Prometheus, at regular intervals."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from headrace.bus import Messages, subjects
from headrace.clock import Clock
from headrace.internal.v1.reports_pb2 import LaneReport, LaneState, TenantState
from headrace.v1.common_pb2 import Priority
from headrace_scheduler.base import metrics
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import LaneStatistics, Leadership, Machine
from headrace_scheduler.machine.wait_estimator import TenantWaitEstimate, WaitEstimate


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
        state = report.lanes.add(
            priority=Priority.Value(f"PRIORITY_{lane.priority.upper()}"),
            waiting=lane.waiting,
            running=lane.running,
            max_waiting=max_waiting,
            tenants=map(_tenant_state, lane.tenants),
        )
        if lane.waiting:
            state.oldest_wait.FromNanoseconds(int(lane.oldest_wait_s * 1e9))
        _set_wait(state, lane.wait)
    return report


def _tenant_state(estimate: TenantWaitEstimate) -> TenantState:
    state = TenantState(
        tenant=estimate.tenant,
        waiting=estimate.waiting,
        sequences=[mark.sequence for mark in estimate.marks],
        ahead=[mark.ahead for mark in estimate.marks],
    )
    _set_wait(state, estimate.wait)
    return state


def _set_wait(state: LaneState | TenantState, wait: WaitEstimate | None) -> None:
    if wait is not None:
        state.estimated_wait.FromNanoseconds(int(wait.wait_s * 1e9))
        state.place_interval.FromNanoseconds(int(wait.place_s * 1e9))


def _set_gauges(model: str, lanes: Sequence[LaneStatistics]) -> None:
    for lane in lanes:
        labels = (model, lane.priority)
        metrics.waiting.labels(*labels).set(lane.waiting)
        metrics.running.labels(*labels).set(lane.running)
        metrics.oldest_wait_s.labels(*labels).set(lane.oldest_wait_s)
        wait_s = math.nan if lane.wait is None else lane.wait.wait_s
        metrics.estimated_wait_s.labels(*labels).set(wait_s)
