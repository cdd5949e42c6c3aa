"""What time alone does: deadlines, patience, and the silence of workers and gateways."""

from __future__ import annotations

from headrace.errors import DeadlineExceeded, NoWorker, PatienceExhausted
from headrace_scheduler.machine.orphans import Orphans, cut_off_error
from headrace_scheduler.machine.reconciler import Reconciler
from headrace_scheduler.machine.wait_estimator import WaitEstimator
from headrace_scheduler.request.live_request import (
    Ending,
    Held,
    Orphaned,
    Request,
    Running,
    Waiting,
)
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.workers.fleet import Fleet

SWEEP_S = 0.1
"""Time between two checks for silent workers and gateways."""


class TimeoutChecker:
    """Ends the requests whose time is up, and drops workers and gateways that are silent."""

    def __init__(
        self,
        live: LiveRequests,
        fleet: Fleet,
        orphans: Orphans,
        reconciler: Reconciler,
        wait_estimator: WaitEstimator,
    ) -> None:
        self._settings = live.settings
        self._live, self._fleet, self._orphans = live, fleet, orphans
        self._reconciler, self._wait_estimator = reconciler, wait_estimator
        self._swept_s = float("-inf")

    @property
    def next_due_s(self) -> float:
        return min(self._swept_s + SWEEP_S, self._live.next_due_s)

    def check(self, *, now_s: float) -> None:
        for request in self._live.pop_due(now_s):
            self._review(request, now_s)
        if now_s - self._swept_s >= SWEEP_S:
            self._sweep(now_s)

    def _review(self, request: Request, now_s: float) -> None:
        """End a request whose timer has fired, or schedule the next one."""
        match request.state:
            case Ending() | Held():
                return
            case Orphaned(until_s=until_s):
                self._review_orphan(request, min(until_s, request.deadline_s), now_s)
                return
            case Running(vanished_s=float(vanished_s)) if (
                now_s >= vanished_s + self._settings.settle_grace_s
            ):
                self._live.lose(request, "vanished", now_s=now_s)
                return
            case Waiting() if not request.has_started and now_s >= request.queue_deadline_s:
                self._lose_patience(request, now_s)
                return
        deadline_s = request.deadline_s
        if isinstance(request.state, Running):
            # Why later: the worker ends it in time, with what it has generated.
            deadline_s += self._settings.deadline_grace_s
        if now_s >= deadline_s:
            fact = f"its deadline passed {now_s - request.deadline_s:.3g} s ago"
            self._live.end(request, DeadlineExceeded(fact), now_s=now_s)
        else:
            self._reschedule(request, deadline_s)

    def _review_orphan(self, request: Request, until_s: float, now_s: float) -> None:
        if now_s >= until_s:
            cause = "no client came back"
            fact = "its deadline passed while it had no gateway"
            error = DeadlineExceeded(fact) if request.record.detached else cut_off_error(cause)
            self._orphans.give_up(request, error, cause)
        else:
            self._live.schedule(request, until_s)

    def _reschedule(self, request: Request, deadline_s: float) -> None:
        match request.state:
            case Running(vanished_s=float(vanished_s)):
                self._live.schedule(request, vanished_s + self._settings.settle_grace_s)
            case Waiting() if not request.has_started:
                self._live.schedule(request, request.queue_deadline_s)
        self._live.schedule(request, deadline_s)

    def _lose_patience(self, request: Request, now_s: float) -> None:
        waited_s, model = now_s - request.arrival_s, request.record.model
        patience_s = request.queue_deadline_s - request.arrival_s
        retry_after_s = self._wait_estimator.retry_after_s(
            request, patience_s=patience_s, now_s=now_s
        )
        if not self._fleet.has_weights_for(request):
            name = ":".join(filter(None, (model, request.record.adapter)))
            fact = f"no worker served {name} within {waited_s:.3g} s"
            self._live.end(request, NoWorker(fact, retry_after_s=retry_after_s), now_s=now_s)
        else:
            fact = f"waited {waited_s:.3g} s in lane {model}/{request.priority}"
            error = PatienceExhausted(fact, retry_after_s=retry_after_s)
            self._live.end(request, error, now_s=now_s)

    def _sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        for worker in self._fleet.silent_since(now_s - self._settings.worker_silence_s):
            self._reconciler.drop_worker(worker.worker_id, is_failure=True, now_s=now_s)
        self._orphans.sweep(now_s=now_s)
