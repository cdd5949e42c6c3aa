"""Every live request of one model, and the moves between its states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from headrace.errors import Code, HeadraceError, RequestExists
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import (
    LANES,
    DispatchNumber,
    Ending,
    Held,
    LiveStatistics,
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
    Acknowledge,
    CancelOnWorker,
    Command,
    SendNotice,
    StoreResult,
    Submitted,
)
from headrace_scheduler.state.lanes import Lanes
from headrace_scheduler.state.observer import StateObserver
from headrace_scheduler.state.settled import SettledRequests
from headrace_scheduler.state.timers import Timers
from headrace_scheduler.state.waits import Waits
from headrace_scheduler.workers.preemption_candidates import PreemptionCandidates
from headrace_scheduler.workers.worker import Worker


class LiveRequests:
    """Requests by id, worker and gateway; each is in exactly one state.

        submitted ──► held ─────────► lost ◄──────────┐
            │           │ reported      │ gateway said │ worker gone, parked, vanished,
            │           ▼               ▼ where        │ dispatch unanswered
            ├───────────┼─────────► waiting ─────────► running
            │           │               ▲ dispatched      │
            │           └───────────────┼── found there ──┤
            │ lane full                 └─── refused ─────┘
            ▼
          ending ◄── deadline, patience, cancel, attempts exhausted: from every state

    From every state: settled by its gateway, then it is acknowledged and gone. When its
    gateway is gone, *orphaned*: another takes it over, and it is *lost* and asks that one
    where it stands; or nobody comes, or nobody can, and it is abandoned, or concluded where
    its end is to be kept. What ran comes back only through *lost*, and so with the output
    that its client has seen, and with all earlier attempts fenced.
    """

    def __init__(self, epoch: int, settings: SchedulerSettings, observer: StateObserver) -> None:
        self.epoch, self.settings, self.observer = epoch, settings, observer
        self.lanes = Lanes(settings)
        self.preemption_candidates = PreemptionCandidates(settings.max_preemptions)
        self.running = dict.fromkeys(LANES, 0)
        """How many run, by lane."""
        self.waits = Waits()
        self._outbox: list[Command] = []
        self._requests: dict[str, Request] = {}
        self._by_worker: dict[str, dict[str, Request]] = {}
        self._by_gateway: dict[str, dict[str, Request]] = {}
        self._notices: dict[str, dict[str, Request]] = {}
        self._orphans: dict[str, Request] = {}
        self.settled = SettledRequests()
        self._agenda = Timers(self._requests)
        self.ended_slots = 0
        """Slots that have become free for good: of callers' ended requests, not of lost ones."""

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))

    def get(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def on_worker(self, worker_id: str) -> Mapping[str, Request]:
        """What is believed to run there, by id: live, so not to be walked while it moves."""
        return self._by_worker.get(worker_id, {})

    def all_running(self) -> Iterator[Request]:
        """In no order."""
        return chain.from_iterable(map(dict.values, self._by_worker.values()))

    def of_gateway(self, gateway_id: str) -> list[Request]:
        return list(self._by_gateway.get(gateway_id, {}).values())

    def notices_for(self, gateway_id: str) -> Iterable[Request]:
        """Requests of a gateway that it is to be asked or told of."""
        return self._notices.get(gateway_id, {}).values()

    @property
    def has_notices(self) -> bool:
        """Whether any gateway is to be asked or told of anything."""
        return bool(self._notices)

    def command(self, command: Command) -> None:
        self._outbox.append(command)

    def take_commands(self) -> list[Command]:
        taken, self._outbox = self._outbox, []
        return taken

    # In

    def add(self, event: Submitted, *, now_s: float) -> Request | None:
        """Register a request as held; None if its message says nothing new."""
        request_id = event.record.request_id
        known = self._requests.get(request_id)
        if known is not None and known.sequence == event.sequence:
            known.acknowledgement = event.acknowledgement
            self.observer.ignored("redelivery")
            return None
        answered = self.settled.has_result_for(event)
        if known is not None or answered or self.settled.is_settled(request_id, event.sequence):
            self.command(Acknowledge(request_id, event.priority, event.acknowledgement))
            self.observer.ignored("duplicate")
            if answered or (known and known.gateway_id != event.record.gateway_id):
                self._refuse_duplicate_id(event)
            return None
        request = Request(
            event.record,
            event.priority,
            event.sequence,
            event.acknowledgement,
            arrival_s=event.arrival_s,
            deadline_s=event.deadline_s,
            patient_until_s=event.patient_until_s,
            queued_s=now_s,
            stored_bytes=event.stored_bytes,
            state=Held(),
        )
        self._requests[request_id] = request
        self._by_gateway.setdefault(request.gateway_id, {})[request_id] = request
        self.observer.submitted(request.lane)
        self.observer.moved(request.lane, "new", state_name(request.state))
        return request

    def _refuse_duplicate_id(self, event: Submitted) -> None:
        """Its id is another request's; said once, as a courtesy: if the word is lost, its gateway's
        own watch over deadlines ends it."""
        request_id = event.record.request_id
        error = RequestExists(f"there is a request with the id {request_id}", field="request_id")
        self.command(SendNotice(event.record.gateway_id, ((request_id, error),), ()))

    # Moves

    def wait(self, request: Request, *, now_s: float) -> None:
        request.queued_s = now_s
        request.prefix_wait_until_s = None
        self._move(request, Waiting())
        patient_until_s = float("inf") if request.has_started else request.patient_until_s
        self.schedule(request, min(request.deadline_s, patient_until_s))

    def run(self, request: Request, worker: Worker, attempt: int, dispatch: DispatchNumber) -> None:
        request.record.attempt = max(request.record.attempt, attempt)
        self._move(request, Running(worker.worker_id, attempt, dispatch))
        self.schedule(request, request.deadline_s + self.settings.deadline_grace_s)

    def vanish(self, request: Request, running: Running, *, now_s: float) -> None:
        """Its worker reports without it: it ended there, and its gateway is about to say so."""
        running.vanished_s = now_s
        self.ended_slots += 0 if request.is_probe else request.slots
        self.schedule(request, now_s + self.settings.settle_grace_s)

    def requeue(self, request: Request, cause: str, *, now_s: float) -> None:
        """The worker did not take it: nothing of this attempt is anywhere."""
        self.wait(request, now_s=request.queued_s)
        self.observer.returned(request.lane, cause, request.request_id)

    def adopt(self, request: Request, worker: Worker, attempt: int) -> None:
        """It runs there, whoever dispatched it."""
        request.has_started = True
        self.run(request, worker, attempt, (0, 0))
        self.observer.adopted(request.lane, request.request_id)

    def lose(
        self, request: Request, cause: str, *, now_s: float, worker_id: str | None = None
    ) -> None:
        """It does not run any more, or must not; ask its gateway where it stands.

        `worker_id` is where it may still run and is to be stopped.
        """
        request.has_started = True
        self._move_to_lost(request, request.record.attempt, worker_id, now_s)
        self.observer.returned(request.lane, cause, request.request_id)

    def recover(self, request: Request, *, now_s: float) -> None:
        """Nobody reported to run it; it may have run under an earlier leader."""
        self._move_to_lost(request, first_attempt(self.epoch), None, now_s)

    def _move_to_lost(
        self, request: Request, attempt: int, worker_id: str | None, now_s: float
    ) -> None:
        request.record.attempt = max(request.record.attempt, attempt)
        self._move(request, Lost(request.record.attempt, worker_id, notice_due_s=now_s))
        self.schedule(request, request.deadline_s)

    def orphan(self, request: Request, state: Orphaned, cause: str) -> None:
        """Its gateway is gone, or holds it no more."""
        request.orphaned_until_s = state.until_s
        self._move(request, state)
        self.schedule(request, min(state.until_s, request.deadline_s))
        self.observer.orphaned(request.lane, cause, request.request_id)

    def orphans(self) -> list[Request]:
        return list(self._orphans.values())

    @property
    def orphaned(self) -> int:
        return len(self._orphans)

    def reassign(self, request: Request, gateway_id: str, address: str, *, since: int) -> None:
        """Another gateway holds it from this attempt on."""
        record = request.record
        for index in (self._by_gateway, self._notices):
            if record.request_id in index.get(record.gateway_id, {}):
                _drop(index, record.gateway_id, record.request_id)
                index.setdefault(gateway_id, {})[record.request_id] = request
        request.gateway_id = record.gateway_id = gateway_id
        record.delivery_address = address
        record.held_since_attempt, record.attempt = since, max(record.attempt, since)

    def end(self, request: Request, error: HeadraceError, *, now_s: float) -> None:
        """End it from here: its gateway is told until it settles, its worker at once."""
        self._stop_on_worker(request, error.code.number)
        self._move(request, Ending(error, notice_due_s=now_s))
        self.observer.ended(request.lane, error.reason, request.request_id)

    # Out

    def settle(self, request: Request, code: int) -> None:
        """Its gateway is done with it."""
        if code != 0:
            self._stop_on_worker(request, Code.CANCELLED.number)
        self._leave(request, answered=code == 0 or request.record.detached)
        self.observer.settled(request.lane, code)

    def abandon(self, request: Request, cause: str) -> None:
        """Nobody waits for it."""
        self._stop_on_worker(request, Code.CANCELLED.number)
        self._leave(request, answered=False)
        self.observer.abandoned(request.lane, cause, request.request_id)

    def end_with_stored_result(self, request: Request, error: HeadraceError) -> None:
        """No gateway goes on with it, and somebody may yet ask for its end."""
        self._stop_on_worker(request, error.code.number)
        kept = StoreResult(request.record, error, request.priority, request.acknowledgement)
        self._leave(request, answered=True, last=kept)
        self.observer.ended(request.lane, error.reason, request.request_id)

    def _stop_on_worker(self, request: Request, code: int) -> None:
        if (worker_id := request.worker_id) is not None:
            attempt = request.record.attempt
            self.command(CancelOnWorker(worker_id, request.request_id, attempt, code))

    def _leave(self, request: Request, *, answered: bool, last: Command | None = None) -> None:
        request_id, acknowledgement = request.request_id, request.acknowledgement
        self._move(request, None)
        del self._requests[request_id]
        _drop(self._by_gateway, request.gateway_id, request_id)
        self.settled.add_ended(request, answered=answered)
        self.command(last or Acknowledge(request_id, request.priority, acknowledgement))

    def _move(self, request: Request, state: State | None) -> None:
        """None: it is gone."""
        self.observer.moved(request.lane, state_name(request.state), state_name(state))
        match request.state:
            case Waiting():
                self.lanes[request.lane].remove(request)
                self.waits.remove(request)
            case Running(worker_id=worker_id):
                self.running[request.lane] -= 1
                _drop(self._by_worker, worker_id, request.request_id)
                if request.state.vanished_s is None and isinstance(state, Ending | None):
                    self.ended_slots += 0 if request.is_probe else request.slots
                self.preemption_candidates.stopped(request)
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
                self.preemption_candidates.started(request)
            case Lost() | Ending():
                self._notices.setdefault(request.gateway_id, {})[request.request_id] = request
            case Orphaned():
                self._orphans[request.request_id] = request

    # Time

    def schedule(self, request: Request, due_s: float) -> None:
        """See the request again no later than `due_s`."""
        self._agenda.schedule(request, due_s)

    @property
    def next_due_s(self) -> float:
        return self._agenda.next_due_s

    def pop_due(self, now_s: float) -> Iterator[Request]:
        """Requests whose appointment has come; who sees one makes the next."""
        return self._agenda.pop_due(now_s)

    # Looking

    def statistics(self) -> LiveStatistics:
        states = [r.state for r in self._requests.values()]
        return LiveStatistics.of(states, timers=len(self._agenda))

    def check_integrity(self) -> None:
        """Raise AssertionError if an index and the states disagree."""
        found = set(self._requests)
        self.waits.check_integrity(self.lanes)
        running = {r.request_id: r for r in self.all_running()}
        self.preemption_candidates.check_integrity(running)
        for lane in self.lanes.values():
            lane.check_integrity()
        run = Counter(r.lane for r in self._requests.values() if isinstance(r.state, Running))
        assert self.running == dict.fromkeys(LANES, 0) | run
        expected: dict[type, set[str]] = {Orphaned: set(self._orphans)}
        expected[Waiting] = {r.request_id for lane in self.lanes.values() for r in lane}
        expected[Running] = set(running)
        for kind, ids in expected.items():
            assert ids == {i for i in found if isinstance(self._requests[i].state, kind)}, kind
        called = {i for i in found if isinstance(self._requests[i].state, Lost | Ending)}
        assert called == {i for ids in self._notices.values() for i in ids}
        assert found == {i for ids in self._by_gateway.values() for i in ids}


def _drop(index: dict[str, dict[str, Request]], key: str, request_id: str) -> None:
    ids = index[key]
    del ids[request_id]
    if not ids:
        del index[key]
