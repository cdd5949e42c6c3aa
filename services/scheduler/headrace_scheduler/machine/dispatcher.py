"""Dispatches batches to workers and applies their answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil

from headrace.errors import EngineFailed, InvalidRequest
from headrace.internal.v1.dispatch_pb2 import (
    DispatchRefusal,
    DispatchRefusalCause,
    DispatchRequest,
)
from headrace_scheduler.machine.attempts import is_on_last_attempt
from headrace_scheduler.request.live_request import DispatchNumber, Request, Running, Waiting
from headrace_scheduler.state.events import (
    Dispatch,
    DispatchAnswered,
    DispatchUnanswered,
    StepDown,
)
from headrace_scheduler.state.live import LiveRequests
from headrace_scheduler.workers.fleet import Fleet
from headrace_scheduler.workers.forming import LaneView, form_batch
from headrace_scheduler.workers.preemption_candidates import LOWEST_PRIORITY
from headrace_scheduler.workers.routing import Routing
from headrace_scheduler.workers.worker import Worker

LAST_ATTEMPT_GAP_S = 0.5
"""Time that a worker must have survived a last attempt before it gets another. Too short: a request
that kills its worker ends others with it. Too long: where none does, the last one waits this
often."""
_SHORT_CAUSES = {
    DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL: "full",
    DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_DRAINING: "draining",
    DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_WRONG_MODEL: "wrong model",
}


class Dispatcher:
    """Sends each worker one dispatch at a time.

    So a worker's dispatches are counted in order, its room is known when the
    next is formed, and requests that arrive while it answers leave as a batch.
    """

    def __init__(
        self, scheduler_id: str, live: LiveRequests, fleet: Fleet, routing: Routing
    ) -> None:
        self._scheduler_id = scheduler_id
        self._live, self._fleet, self._routing = live, fleet, routing
        self._in_flight: dict[int, tuple[Request, ...]] = {}
        """Requests by dispatch number, until the dispatch is answered or fails."""

    def plan(self, *, now_s: float) -> list[Dispatch]:
        dispatches: list[Dispatch] = []
        self._routing.begin_round()
        if not (waiting := self._live.lanes.waiting):
            return dispatches
        for worker in self._routing.ranked(self._fleet.with_room()):
            if batch := self._form(worker, waiting, now_s):
                dispatches.append(self._send(worker, batch, now_s))
                if not (waiting := waiting - len(batch)):
                    break
        return dispatches

    def _form(self, worker: Worker, waiting: int, now_s: float) -> tuple[Request, ...]:
        lanes, settings = self._live.lanes, self._live.settings
        share, views = self._fleet.fair_share(worker, waiting), self._views(worker, now_s)
        batch = form_batch(views, worker, settings, now_s=now_s, share=share)
        lanes.set_credits(batch.credits)
        for request in batch.claimed:
            request.floor_slots = request.slots
        self._keep_often_parked(batch.requests)
        return batch.requests

    def _keep_often_parked(self, batch: Sequence[Request]) -> None:
        """Let bulk requests that were parked `max_preemptions` times run by their lane's floor, as
        far as it goes.

        Why not all: a day's rows would each come to that, and then hold every slot.
        """
        most = self._live.settings.max_preemptions
        often = [r for r in batch if r.preemptions >= most and r.lane == LOWEST_PRIORITY]
        if not often:  # Nearly always, and this is done for every dispatch.
            return
        bulk = (r for r in batch if r.lane == LOWEST_PRIORITY)
        room = self._floor_room - sum(r.floor_slots for r in bulk)
        for request in often:
            if not request.floor_slots and room > 0:
                request.floor_slots = request.slots
                room -= request.slots

    def _views(self, worker: Worker, now_s: float) -> list[LaneView]:
        """Return the lanes without what is held back for other workers, with bulk requests only as
        far as they leave room for others, and with at most one request on its last attempt; none
        while another such has just started there.

        Why: a worker's death is a failure of all that ran there. Together, the others would
        end with the one that killed it.
        """
        has_one = False
        bulk_taken, bulk_most = self._bulk_slots(worker)
        self._routing.begin_worker()

        def may_leave(request: Request) -> bool:
            nonlocal has_one, bulk_taken
            if not worker.could_run(request):
                return False  # Why first: one that waits for another worker must not count.
            if self._routing.is_for_another(request, worker, now_s=now_s):
                return False
            if request.parked_for and self._could_run(request.parked_for, worker):
                return False
            if request.lane == LOWEST_PRIORITY:
                if bulk_taken and bulk_taken + request.slots > bulk_most:
                    return False
                bulk_taken += request.slots
            if is_on_last_attempt(self._live, request):
                must_wait = has_one or self._has_fresh_last_attempt(worker)
                has_one = True
                return not must_wait
            return True

        return [
            LaneView(lane.in_order(may_leave), lane.credit, self._max_claims(name))
            for name, lane in self._live.lanes.items()
        ]

    def _bulk_slots(self, worker: Worker) -> tuple[int, int]:
        """Return the slots of a worker that bulk requests have, and the most that they may have if
        it is more than one of them.

        Where they cannot be parked, they leave a lane's share to the other requests, which would
        wait until one of them ends.
        """
        total, settings = worker.total_slots, self._live.settings
        if worker.parks or not settings.preemption:
            return 0, total
        running = self._live.on_worker(worker.worker_id).values()
        taken = sum(r.slots for r in running if r.lane == LOWEST_PRIORITY)
        return taken, total - max(1, int(settings.floor_share * total))

    def _could_run(self, urgent_id: str, worker: Worker) -> bool:
        """Return whether a more urgent request, for which others were parked, still waits and
        could run on this worker."""
        urgent = self._live.get(urgent_id)
        if urgent is None or not isinstance(urgent.state, Waiting):
            return False
        return worker.could_run(urgent)

    def _max_claims(self, lane: str) -> float:
        """Return the slots that a lane may still take by its floor, which are not preempted.

        Why bounded: bulk requests are long. By places alone they would come to hold
        every slot, and no more urgent request could get one.
        """
        is_bounded = lane == LOWEST_PRIORITY and self._live.settings.preemption
        if not is_bounded or self._live.lanes[lane].credit < 1.0:
            return float("inf")
        return self._floor_room

    @property
    def _floor_room(self) -> int:
        """Slots of the bulk lane's floor in which nothing runs by it yet."""
        floor = max(1, ceil(self._live.settings.floor_share * self._fleet.capacity))
        return floor - self._live.preemptible.floor_slots_in_use

    def _has_fresh_last_attempt(self, worker: Worker) -> bool:
        """Return whether a last attempt has just started on a worker, by the worker's reports: on
        a busy machine it may take long to start."""
        return any(
            worker.reported_s - request.dispatched_s < LAST_ATTEMPT_GAP_S
            and is_on_last_attempt(self._live, request)
            for request in self._live.on_worker(worker.worker_id).values()
        )

    def _send(self, worker: Worker, batch: tuple[Request, ...], now_s: float) -> Dispatch:
        number = self._fleet.occupy(worker, batch)
        self._in_flight[number] = batch
        self._live.observer.dispatched(worker.worker_id, batch, now_s)
        for request in batch:
            if tokens := self._routing.matched_tokens(request, worker):
                self._live.observer.prefix_held(request, tokens)
            request.dispatched_s = now_s
            if not request.has_started:
                request.first_dispatched_s = now_s
            attempt = self._live.next_attempt(request)
            self._live.run(request, worker, attempt, (self._live.epoch, number))
        message = DispatchRequest(
            scheduler_id=self._scheduler_id,
            epoch=self._live.epoch,
            number=number,
            requests=[r.record for r in batch],
            seconds_left=[r.deadline_s - now_s for r in batch],
        )
        return Dispatch(worker.worker_id, number, message)

    def on_answered(self, event: DispatchAnswered, *, now_s: float) -> None:
        refusals = {r.request_id: r for r in event.refusals}
        worker = self._fleet.get(event.worker_id)
        if worker is not None:
            self._fleet.mark_answered(worker, event.number, refusals)
        for request in self._take_in_flight(event.number):
            refusal = refusals.get(request.request_id)
            if refusal is None:
                request.has_started = True
            else:
                self._on_refusal(request, refusal, worker, now_s=now_s)

    def _on_refusal(
        self, request: Request, refusal: DispatchRefusal, worker: Worker | None, *, now_s: float
    ) -> None:
        causes = DispatchRefusalCause
        match refusal.cause:
            case causes.DISPATCH_REFUSAL_CAUSE_INVALID:
                self._live.requeue(request, "invalid")
                self._live.end(request, InvalidRequest(refusal.message), now_s=now_s)
            case causes.DISPATCH_REFUSAL_CAUSE_NOT_RESUMABLE:
                last = f"; before that, {request.last_failure}" if request.last_failure else ""
                self._live.requeue(request, "not resumable")
                self._live.end(request, EngineFailed(refusal.message + last), now_s=now_s)
            case causes.DISPATCH_REFUSAL_CAUSE_STALE_LEADER:
                # Why not requeued: the present leader has it, or will read it.
                self._live.command(StepDown(refusal.message))
            case cause:
                if worker is not None:
                    self._fleet.mark_full(worker)
                self._live.requeue(request, _SHORT_CAUSES.get(cause, "refused"))

    def on_unanswered(self, event: DispatchUnanswered) -> None:
        """Keep the requests of a dispatch that the worker may run until it reports again.

        Why: only then is it known whether it has failed with them. If it falls silent, they may be
        what has ended it, and must not end one worker after another.
        """
        batch = list(self._take_in_flight(event.number))
        worker = self._fleet.get(event.worker_id)
        if event.is_disconnected:
            for request in batch:
                self._live.requeue(request, "worker disconnected")
        if worker is None or worker.unanswered != event.number:
            return  # It was dropped, and perhaps has reported again, since.
        self._fleet.mark_full(worker)
        if event.is_disconnected:
            self._fleet.close_dispatch(worker, event.number)
        else:
            worker.timed_out = batch

    def on_report(self, worker_id: str, *, now_s: float) -> None:
        """Apply what a worker's report shows of a dispatch that it has not answered in time.

        If the report counts it, only the answer was lost. Otherwise the requests are lost, which
        is no failure of theirs; their gateways fence this attempt before there is another.
        """
        worker = self._fleet.get(worker_id)
        if worker is None or worker.timed_out is None or worker.unanswered is None:
            return
        dispatch, batch = (self._live.epoch, worker.unanswered), worker.timed_out
        self._fleet.close_dispatch(worker, worker.unanswered)
        for request in self._running_by(dispatch, batch):
            if worker.counted >= dispatch:
                request.has_started = True
            else:
                self._live.lose(request, "unanswered", now_s=now_s, worker_id=worker_id)

    def _take_in_flight(self, number: int) -> Iterator[Request]:
        return self._running_by((self._live.epoch, number), self._in_flight.pop(number, ()))

    def _running_by(self, dispatch: DispatchNumber, batch: Iterable[Request]) -> Iterator[Request]:
        """Iterate over the requests of a dispatch that are still believed to run by it."""
        for request in batch:
            if self._live.get(request.request_id) is not request:
                continue  # It has left meanwhile.
            match request.state:
                case Running(dispatch=ran_by) if ran_by == dispatch:
                    yield request
