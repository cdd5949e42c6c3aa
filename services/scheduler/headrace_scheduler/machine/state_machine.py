"""The state machine of one model's requests: events in, commands out, time as an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from headrace.bus.subjects import PRIORITIES
from headrace.errors import LaneFull, ModelNotFound, RequestCancelled
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.dispatcher import Dispatcher
from headrace_scheduler.machine.gateways import Gateways
from headrace_scheduler.machine.notices import Notices
from headrace_scheduler.machine.orphans import Orphans
from headrace_scheduler.machine.preemption import Preemption
from headrace_scheduler.machine.reconciler import Reconciler
from headrace_scheduler.machine.timeouts import TimeoutChecker
from headrace_scheduler.machine.wait_estimator import (
    TenantWaitEstimate,
    WaitEstimate,
    WaitEstimator,
)
from headrace_scheduler.request.live_request import (
    Ending,
    Held,
    Lost,
    Orphaned,
    Request,
    Running,
)
from headrace_scheduler.state.events import (
    BusDown,
    CancelRequested,
    Command,
    DispatchAnswered,
    DispatchUnanswered,
    Event,
    GatewayReported,
    LaneCaughtUp,
    ModelRemoved,
    NoticeAnswered,
    NoticeUnanswered,
    Parked,
    PrefixesReported,
    Settled,
    StreamLost,
    Submitted,
    TakeOverRequested,
    WeightsChanged,
    WorkerReported,
)
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.state.observer import StateObserver
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.routing import Routing


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    priority: str
    waiting: int
    running: int
    oldest_wait_s: float
    wait: WaitEstimate | None
    """Wait of a request behind all that wait; None while unknown."""
    tenants: Sequence[TenantWaitEstimate] = ()


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads which model, since when, and since when its process has received reports."""

    scheduler_id: str
    model: str
    epoch: int
    since_s: float
    listening_since_s: float


class Machine:
    """One leadership of one model: `apply` an event, then `decide` what to do.

    After a take-over it holds the requests that it reads until the workers have
    reported what they run: those that run are adopted, the gateways of the others
    report how much output their clients have.
    """

    def __init__(
        self, leadership: Leadership, settings: SchedulerSettings, observer: StateObserver
    ) -> None:
        self.leadership, self._settings = leadership, settings
        now_s = leadership.since_s
        self._live = LiveRequests(leadership.epoch, settings, observer)
        self._fleet = Fleet(leadership.model, leadership.epoch)
        self._gateways = Gateways()
        self._orphans = Orphans(self._live, self._gateways)
        self._notices = Notices(self._live, self._gateways, self._orphans)
        self._routing = Routing(self._fleet, settings)
        self._reconciler = Reconciler(self._live, self._fleet, self._routing)
        self._dispatcher = Dispatcher(
            leadership.scheduler_id, self._live, self._fleet, self._routing
        )
        self._preemption = Preemption(self._live, self._fleet)
        self._wait_estimator = WaitEstimator(self._live, self._fleet, self._preemption, now_s=now_s)
        self._timeouts = TimeoutChecker(
            self._live, self._fleet, self._orphans, self._reconciler, self._wait_estimator
        )
        self._lanes_behind = set(PRIORITIES)
        self.is_holding = True
        self._removed = False

    # Events

    def apply(self, event: Event, *, now_s: float) -> None:
        match event:
            case Submitted(request):
                self._submit(request, now_s)
            case LaneCaughtUp(priority):
                self._lanes_behind.discard(priority)
            case WorkerReported(report, received_s):
                if self._reconciler.on_report(report, received_s=received_s, now_s=now_s):
                    self._dispatcher.on_report(report.worker_id, now_s=now_s)
            case PrefixesReported(report):
                self._routing.apply_report(report)
            case GatewayReported():
                self._on_gateway_report(event, now_s)
            case DispatchAnswered():
                self._dispatcher.on_answered(event, now_s=now_s)
            case DispatchUnanswered():
                self._dispatcher.on_unanswered(event)
            case Parked(parked):
                self._orphans.on_parked(parked)
                self._reconciler.on_parked(parked, now_s=now_s)
            case StreamLost(lost):
                points = list(lost.points)
                self._reconciler.on_stream_lost(lost.worker_id, points, now_s=now_s)
            case Settled():
                self._settle(event, now_s)
            case CancelRequested(request_id):
                self._cancel(request_id, now_s)
            case TakeOverRequested(message):
                resume = partial(self._notices.resume, now_s=now_s)
                self._orphans.take_over(message, resume, now_s=now_s)
            case NoticeAnswered():
                self._notices.on_answered(event, now_s=now_s)
            case NoticeUnanswered():
                self._notices.on_unanswered(event, now_s=now_s)
            case BusDown():
                self._fleet.restart_silence(now_s)
                self._gateways.restart_silence(now_s)
            case ModelRemoved(removed):
                self._removed = removed
            case WeightsChanged(weights):
                self._live.lanes.set_weights(weights)

    def _submit(self, request: Request, now_s: float) -> None:
        if not self._live.add(request, now_s=now_s):
            return
        depth = len(self._live.lanes[request.lane])
        self._orphans.on_submitted(request, now_s=now_s)
        if isinstance(request.state, Orphaned):
            return
        self._gateways.add_named(request.gateway_id, now_s=now_s)
        found = self._fleet.find_stray(request.request_id)
        if found is not None and self._reconciler.adopt(request, *found):
            pass
        elif self.is_holding:
            pass  # It was admitted under an earlier leader: no bound applies, and it may run.
        elif request.is_probe:
            self._live.wait(request, now_s=now_s)
        elif (over := depth - self._settings.max_waiting - self._fleet.free_slots(request)) >= 0:
            self._refuse(request, depth, over + 1, now_s)
        else:
            self._live.wait(request, now_s=now_s)
            self._wait_estimator.on_arrival(request, now_s=now_s)

    def _refuse(self, request: Request, depth: int, excess: int, now_s: float) -> None:
        retry_after_s = self._wait_estimator.retry_after_full_s(
            request.priority, excess=excess, now_s=now_s
        )
        lane = f"{self.leadership.model}/{request.priority}"
        fact = f"lane {lane} is full at {depth} requests; retry in {retry_after_s:.3g} s"
        self._live.end(request, LaneFull(fact, retry_after_s=retry_after_s), now_s=now_s)

    def _on_gateway_report(self, event: GatewayReported, now_s: float) -> None:
        gateway_id = event.report.gateway_id
        if event.report.leaving:
            self._orphans.gateway_gone(gateway_id, "gateway left", now_s=now_s)
        else:
            self._gateways.apply_report(event.report, now_s=event.received_s)
            self._orphans.apply_report(gateway_id, event.report, now_s=now_s)

    def _settle(self, event: Settled, now_s: float) -> None:
        for settlement in event.request.settlements:
            request = self._live.get(settlement.request_id)
            if request is not None:
                if settlement.held_since_attempt < request.record.held_since_attempt:
                    # Its client has connected to another gateway: this one was taken for gone.
                    self._live.observer.ignored("former gateway")
                else:
                    self._live.lanes[request.lane].end(request, settlement.output_tokens)
                    self._wait_estimator.on_settled(request, settlement, now_s=now_s)
                    self._live.settle(request, settlement)
            elif self.is_holding:
                self._live.settled.settle_early(settlement)

    def _cancel(self, request_id: str, now_s: float) -> None:
        request = self._live.get(request_id)
        if request is None:
            return
        error = RequestCancelled(f"request {request_id} was cancelled")
        if isinstance(request.state, Orphaned):
            self._orphans.give_up(request, error, "cancelled")
        elif not isinstance(request.state, Ending):
            self._live.end(request, error, now_s=now_s)

    # Decisions

    def decide(self, *, now_s: float) -> list[Command]:
        """Return what to do now, in order. Call after every event and at `next_due_s`."""
        self._timeouts.check(now_s=now_s)
        if self.is_holding:
            self._end_hold(now_s)
        if self._removed:
            self._end_all(now_s)
        dispatches = self._dispatcher.plan(now_s=now_s)
        self._preemption.plan(now_s=now_s)
        self._wait_estimator.measure(now_s=now_s)
        notices = self._notices.plan(now_s=now_s)
        return [*self._live.take_commands(), *dispatches, *notices]

    def next_due_s(self) -> float:
        """Return when to decide again if no event comes before."""
        return min(
            self._timeouts.next_due_s,
            self._notices.next_due_s,
            self._batch_due_s(),
            self._routing.next_due_s,
        )

    def _batch_due_s(self) -> float:
        max_wait_s = self._settings.max_batch_wait_s
        if max_wait_s <= 0 or not self._fleet.has_room:
            return float("inf")
        return self._live.waits.queued_s + max_wait_s

    def _end_hold(self, now_s: float) -> None:
        """Stop holding once all lanes are read and every worker has reported, or the adoption
        window is over."""
        window_s = self._settings.adoption_window_s
        since_s = self.leadership.since_s
        knows_all = now_s >= self.leadership.listening_since_s + window_s
        all_reported = all(w.received_s >= since_s for w in self._fleet)
        is_complete = not self._lanes_behind and knows_all and all_reported
        if not is_complete and now_s < since_s + window_s:
            return
        self.is_holding = False
        self._live.settled.forget_early()
        self._orphans.forget_announced()
        for request in self._live:
            if isinstance(request.state, Held):
                self._live.recover(request, now_s=now_s)

    def _end_all(self, now_s: float) -> None:
        """End all that waits for a model that is no longer configured; what runs may finish."""
        error = ModelNotFound(f"model {self.leadership.model} is not configured any more")
        for lane in self._live.lanes.values():
            for request in list(lane):
                self._live.end(request, error, now_s=now_s)
        for request in self._live.orphans():
            self._orphans.give_up(request, error, "model removed")

    # Looking

    @property
    def is_empty(self) -> bool:
        """Whether all lanes have been read to their end and no request of them is live."""
        return not self.is_holding and not self._lanes_behind and not self._live

    def lanes(self, *, now_s: float) -> Sequence[LaneStatistics]:
        return [
            LaneStatistics(
                priority,
                len(self._live.lanes[priority]),
                self._live.running[priority],
                self._live.waits.oldest_s(priority, now_s),
                self._wait_estimator.of_lane(priority, now_s=now_s),
                self._wait_estimator.of_tenants(priority, now_s=now_s),
            )
            for priority in PRIORITIES
        ]

    def find(self, request_id: str) -> Request | None:
        return self._live.get(request_id)

    def requests(self) -> list[Request]:
        """Return the live requests as they are now, in no order."""
        return list(self._live)

    def worker_name(self, request: Request) -> str:
        """Return the name of the worker that runs a request; empty unless it runs."""
        state = request.state
        worker = self._fleet.get(state.worker_id) if isinstance(state, Running) else None
        return "" if worker is None else worker.name

    def fleet_statistics(self) -> tuple[int, int]:
        """Return the number of live workers and that of their free slots."""
        return len(self._fleet), self._fleet.free_slots()

    def statistics(self) -> Counter[str]:
        """Return the number of live requests by state, and that of scheduled timers."""
        return self._live.statistics()

    def check_integrity(self) -> None:
        """Raise AssertionError if parts of the machine disagree about a request."""
        self._live.check_integrity()
        self._fleet.check_integrity()
        self._routing.check_integrity()
        watched = set(self._gateways.ids)
        for request in self._live:
            if isinstance(request.state, Running):
                assert self._fleet.get(request.state.worker_id) is not None, request.state
            if isinstance(request.state, Lost):
                assert request.state.attempt <= request.record.attempt
            if not isinstance(request.state, Orphaned):
                assert request.gateway_id in watched, "its silence would not be noticed"
