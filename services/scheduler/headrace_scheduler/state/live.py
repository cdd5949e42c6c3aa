"""Every live request of one model, indexed, and the moves between their states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from headrace.errors import Code, HeadraceError
from headrace.internal.v1.reports_pb2 import Settlement
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import (
    LANES,
    DispatchNumber,
    Ending,
    Lost,
    Orphaned,
    Request,
    Running,
    State,
    Waiting,
    first_attempt,
    state_name,
)
from headrace_scheduler.state.events import (
    CancelOnWorker,
    Command,
)
from headrace_scheduler.state.lanes import Lanes
from headrace_scheduler.state.lazy_heap import LazyHeap
from headrace_scheduler.state.observer import StateObserver
from headrace_scheduler.state.settled import (
    SettledRequests,
    abandoned,
    acknowledge,
    acknowledge_settled,
    acknowledge_unsettled,
    refuse_duplicate,
    store_result,
)
from headrace_scheduler.state.waits import Waits
from headrace_scheduler.workers.preemption_candidates import PreemptionCandidates
from headrace_scheduler.workers.worker import Worker


class LiveRequests:
    """Requests by id, worker and gateway; each is in exactly one state.

    `state.transitions` draws the states and lists all moves between them. What ran continues only
    by way of *lost*: with the output that its client has, and with all earlier attempts fenced.
    """

    def __init__(self, epoch: int, settings: SchedulerSettings, observer: StateObserver) -> None:
        self.epoch, self.settings, self.observer = epoch, settings, observer
        self.lanes = Lanes(settings)
        self.preemptible = PreemptionCandidates()
        self.running = dict.fromkeys(LANES, 0)
        """Number of running requests by lane."""
        self.waits = Waits()
        self.settled = SettledRequests()
        self.ended_slots = 0
        """Slots freed for good: those of callers' ended requests, not of lost ones."""
        self._commands: list[Command] = []
        self._requests: dict[str, Request] = {}
        self._by_worker: dict[str, dict[str, Request]] = {}
        self._by_gateway: dict[str, dict[str, Request]] = {}
        self._notices: dict[str, dict[str, Request]] = {}
        self._orphans: dict[str, Request] = {}
        self._timers = LazyHeap()

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))

    def __len__(self) -> int:
        return len(self._requests)

    def get(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def on_worker(self, worker_id: str) -> Mapping[str, Request]:
        """Return what is believed to run there, by id: a live view, which moves change."""
        return self._by_worker.get(worker_id, {})

    def all_running(self) -> Iterator[Request]:
        """Iterate over the running requests, in no order."""
        return chain.from_iterable(map(dict.values, self._by_worker.values()))

    def of_gateway(self, gateway_id: str) -> list[Request]:
        return list(self._by_gateway.get(gateway_id, {}).values())

    def notices_for(self, gateway_id: str) -> Iterable[Request]:
        """Return the lost and ending requests of a gateway, about which it gets notices."""
        return self._notices.get(gateway_id, {}).values()

    @property
    def has_notices(self) -> bool:
        return bool(self._notices)

    def command(self, command: Command) -> None:
        self._commands.append(command)

    def take_commands(self) -> list[Command]:
        taken, self._commands = self._commands, []
        return taken

    # In

    def add(self, request: Request, *, now_s: float) -> bool:
        """Add a request as held; return False if its message is a redelivery or a duplicate."""
        request_id = request.request_id
        known = self._requests.get(request_id)
        if known is not None and known.sequence == request.sequence:
            known.acknowledgement = request.acknowledgement
            self.observer.ignored("redelivery")
            return False
        if (settlement := self.settled.pop_early(request)) is not None:
            self.command(acknowledge_settled(request, settlement))
            self.observer.settled(request, settlement.code)
            return False
        has_result = self.settled.has_result_for(request)
        if known is not None or has_result or self.settled.is_settled(request):
            self.observer.ignored("duplicate")
            is_refused = has_result or (known and known.gateway_id != request.gateway_id)
            remove = refuse_duplicate(request, known) if is_refused else [acknowledge(request)]
            self._commands.extend(remove)
            return False
        request.queued_s = now_s
        self._requests[request_id] = request
        self._by_gateway.setdefault(request.gateway_id, {})[request_id] = request
        self.observer.moved(request, "new", state_name(request.state))
        return True

    # Moves

    def wait(self, request: Request, *, now_s: float) -> None:
        """Put it into its lane."""
        request.queued_s = now_s
        request.prefix_wait_until_s = None
        self._move(request, Waiting())
        queue_deadline_s = float("inf") if request.has_started else request.queue_deadline_s
        self.schedule(request, min(request.deadline_s, queue_deadline_s))

    def run(self, request: Request, worker: Worker, attempt: int, dispatch: DispatchNumber) -> None:
        request.record.attempt = max(request.record.attempt, attempt)
        request.dispatches, request.engine = request.dispatches + 1, worker.engine
        self._move(request, Running(worker.worker_id, attempt, dispatch))
        self.schedule(request, request.deadline_s + self.settings.deadline_grace_s)

    def next_attempt(self, request: Request) -> int:
        """Return a number above every attempt of this and of earlier leaderships."""
        return max(request.record.attempt, first_attempt(self.epoch)) + 1

    def vanish(self, request: Request, running: Running, *, now_s: float) -> None:
        """Note that its worker reports it no more: its gateway is expected to settle it."""
        running.vanished_s = now_s
        self.ended_slots += 0 if request.is_probe else request.slots
        self.schedule(request, now_s + self.settings.settle_grace_s)

    def requeue(self, request: Request, cause: str) -> None:
        """Return it to its lane: the worker refused it, so nothing of this attempt runs."""
        request.dispatches -= 1
        self.wait(request, now_s=request.queued_s)
        self.observer.happened("returned", request, cause)

    def adopt(self, request: Request, worker: Worker, attempt: int) -> None:
        """Take it for running there, whichever leader dispatched it."""
        request.has_started = True
        self.run(request, worker, attempt, (0, 0))
        self.observer.happened("adopted", request, "reported")

    def lose(
        self, request: Request, cause: str, *, now_s: float, worker_id: str | None = None
    ) -> Lost:
        """Have its gateway fence it: it runs no more, or must not.

        Args:
            worker_id: where it may still run and is to be cancelled.
        """
        request.has_started = True
        lost = self._move_to_lost(request, request.record.attempt, worker_id, now_s)
        self.observer.happened("returned", request, cause)
        return lost

    def recover(self, request: Request, *, now_s: float) -> None:
        """Have its gateway fence it: no worker runs it, but one may have under another leader."""
        self._move_to_lost(request, first_attempt(self.epoch), None, now_s)

    def _move_to_lost(
        self, request: Request, attempt: int, worker_id: str | None, now_s: float
    ) -> Lost:
        request.record.attempt = max(request.record.attempt, attempt)
        lost = Lost(request.record.attempt, worker_id, notice_due_s=now_s)
        self._move(request, lost)
        self.schedule(request, request.deadline_s)
        return lost

    def orphan(self, request: Request, state: Orphaned, cause: str) -> None:
        """Note that its gateway is gone, or does not hold it any more."""
        request.orphaned_until_s = state.until_s
        self._move(request, state)
        self.schedule(request, min(state.until_s, request.deadline_s))
        self.observer.happened("orphaned", request, cause)

    def orphans(self) -> list[Request]:
        return list(self._orphans.values())

    @property
    def orphaned(self) -> int:
        return len(self._orphans)

    def reassign(self, request: Request, gateway_id: str, address: str, *, since: int) -> None:
        """Make another gateway its holder, from the attempt `since` on."""
        record = request.record
        for index in (self._by_gateway, self._notices):
            if record.request_id in index.get(record.gateway_id, {}):
                _drop(index, record.gateway_id, record.request_id)
                index.setdefault(gateway_id, {})[record.request_id] = request
        request.gateway_id = record.gateway_id = gateway_id
        record.delivery_address = address
        record.held_since_attempt, record.attempt = since, max(record.attempt, since)

    def end(self, request: Request, error: HeadraceError, *, now_s: float) -> None:
        """End it from here: its worker is cancelled, its gateway notified until it settles."""
        self._stop_on_worker(request, error.code.number)
        self._move(request, Ending(error, notice_due_s=now_s))
        self.observer.happened("ended", request, error.reason)

    # Out

    def settle(self, request: Request, settlement: Settlement) -> None:
        """Remove it: its gateway has relayed its end."""
        code = settlement.code
        if code != 0:
            self._stop_on_worker(request)
        has_result = code == 0 or request.record.detached
        self._leave(request, acknowledge_settled(request, settlement), has_result=has_result)
        self.observer.settled(request, code)

    def end_unread(self, request: Request, error: HeadraceError) -> None:
        """Remove it with this error, which no client waits for."""
        self._leave(request, acknowledge_unsettled(request, error), has_result=False)
        self.observer.settled(request, error.code.number)

    def abandon(self, request: Request, error: HeadraceError, cause: str) -> None:
        """Remove it without an end: no client waits for it."""
        self._stop_on_worker(request)
        self._leave(request, abandoned(request, error), has_result=False)
        self.observer.happened("abandoned", request, cause)

    def end_with_stored_result(self, request: Request, error: HeadraceError) -> None:
        """Remove it, with the error as its stored result: no gateway holds it."""
        self._stop_on_worker(request, error.code.number)
        self._leave(request, store_result(request, error), has_result=True)
        self.observer.happened("ended", request, error.reason)

    def _stop_on_worker(self, request: Request, code: int = Code.CANCELLED.number) -> None:
        if (worker_id := request.worker_id) is not None:
            attempt = request.record.attempt
            self.command(CancelOnWorker(worker_id, request.request_id, attempt, code))

    def _leave(self, request: Request, last: Command, *, has_result: bool) -> None:
        request_id = request.request_id
        self._move(request, None)
        del self._requests[request_id]
        self._timers.remove(request_id)
        _drop(self._by_gateway, request.gateway_id, request_id)
        self.settled.add_ended(request, has_result=has_result)
        self.command(last)

    def _move(self, request: Request, state: State | None) -> None:
        """Change its state, and the indices with it; None means that it is gone."""
        self.observer.moved(request, state_name(request.state), state_name(state))
        match request.state:
            case Waiting():
                self.lanes[request.lane].remove(request)
                self.waits.remove(request)
            case Running(worker_id=worker_id):
                self.running[request.lane] -= 1
                _drop(self._by_worker, worker_id, request.request_id)
                if request.state.vanished_s is None and isinstance(state, Ending | None):
                    self.ended_slots += 0 if request.is_probe else request.slots
                self.preemptible.stopped(request)
            case Lost() | Ending():
                _drop(self._notices, request.gateway_id, request.request_id)
            case Orphaned():
                del self._orphans[request.request_id]
        if state is not None:
            request.state = state
        match state:
            case Waiting():
                self.lanes[request.lane].put(request)
                self.waits.put(request)
            case Running(worker_id=worker_id):
                self.running[request.lane] += 1
                self._by_worker.setdefault(worker_id, {})[request.request_id] = request
                self.lanes[request.lane].start(request)
                self.preemptible.started(request)
            case Lost() | Ending():
                self._notices.setdefault(request.gateway_id, {})[request.request_id] = request
            case Orphaned():
                self._orphans[request.request_id] = request

    # Time

    def schedule(self, request: Request, due_s: float) -> None:
        """Have the request reviewed no later than `due_s`."""
        if due_s < self._timers.time_s(request.request_id):
            self._timers.put(request.request_id, due_s)

    @property
    def next_due_s(self) -> float:
        return self._timers.first_s

    def pop_due(self, now_s: float) -> Iterator[Request]:
        """Iterate over the requests that are due for review; the caller schedules the next."""
        return (self._requests[request_id] for request_id in self._timers.pop_until(now_s))

    # Looking

    def statistics(self) -> Counter[str]:
        """Return the number of requests by state, and as "timers" that of the heap's entries."""
        counts = Counter(state_name(request.state) for request in self._requests.values())
        return counts + Counter(timers=len(self._timers))

    def check_integrity(self) -> None:
        """Raise AssertionError if an index and the states disagree."""
        found = set(self._requests)
        self.waits.check_integrity(self.lanes)
        running = {r.request_id: r for r in self.all_running()}
        self.preemptible.check_integrity(running)
        for lane in self.lanes.values():
            lane.check_integrity()
        run = Counter(r.lane for r in self._requests.values() if isinstance(r.state, Running))
        assert self.running == dict.fromkeys(LANES, 0) | run
        expected: dict[type, set[str]] = {Orphaned: set(self._orphans)}
        expected[Waiting] = {r.request_id for lane in self.lanes.values() for r in lane}
        expected[Running] = set(running)
        for kind, ids in expected.items():
            assert ids == {i for i in found if isinstance(self._requests[i].state, kind)}, kind
        notified = {i for i in found if isinstance(self._requests[i].state, Lost | Ending)}
        assert notified == {i for ids in self._notices.values() for i in ids}
        assert found == {i for ids in self._by_gateway.values() for i in ids}


def _drop(index: dict[str, dict[str, Request]], key: str, request_id: str) -> None:
    ids = index[key]
    del ids[request_id]
    if not ids:
        del index[key]
