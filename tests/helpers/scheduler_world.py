"""A small world around the scheduler's machine: workers, gateways, a stream, and trouble.

No network and no clock. What the machine commands lies here until somebody
carries it out or loses it; what happens is checked as it happens.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from headrace.internal.v1.dispatch_pb2 import DispatchRefusal, DispatchRefusalCause
from headrace.internal.v1.reports_pb2 import ResumePoint
from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace_scheduler.events import (
    Acknowledge,
    CancelOnWorker,
    CancelRequested,
    Command,
    Dispatch,
    DispatchAnswered,
    DispatchUnanswered,
    Event,
    NoticeAnswered,
    NoticeUnanswered,
    Notify,
    ParkOnWorker,
    Submitted,
)
from headrace_scheduler.machine import Leadership, Machine
from headrace_scheduler.policy import Policy
from headrace_scheduler.requests import Waiting
from helpers.scheduler_events import (
    MODEL,
    CountingJournal,
    caught_up,
    gateway_reported,
    lost,
    parked,
    point,
    reported,
    settled,
    submitted,
)
from helpers.world_actors import Client, WorkerModel

LENGTH = 3
"""Output tokens of every request."""
GATEWAY = "g"
MAX_PREEMPTIONS = 2


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.epoch = 0
        self.workers: dict[str, WorkerModel] = {}
        self.clients: dict[str, Client] = {}
        self.stored: dict[str, Submitted] = {}
        self.acknowledged: Counter[str] = Counter()
        self.dispatched: dict[str, int] = {}
        self.pending: list[Command] = []
        self.trusts_accounts = True
        """Nothing has happened that allows a worker to be given more than it has room for."""
        self.new_leader()

    # The machine

    def new_leader(self) -> None:
        """The old one is gone, and all that it had on its way."""
        self.epoch += 1
        self.pending = []
        leadership = Leadership("s", MODEL, self.epoch, self.now_s, listening_since_s=0.0)
        self.journal = CountingJournal()
        policy = Policy(max_attempts=1000, max_preemptions=MAX_PREEMPTIONS)
        self.machine = Machine(leadership, policy, self.journal)
        self.parked_for: dict[str, str] = {}
        """Who is to start before a victim does."""
        self.preempted: defaultdict[str, set[int]] = defaultdict(set)
        """Attempts that were to be parked."""
        self.tell(*self.stored.values(), *caught_up())

    def tell(self, *events: Event) -> None:
        for event in events:
            self.machine.apply(event, now_s=self.now_s)
        commands = self.machine.decide(now_s=self.now_s)
        self.machine.check_integrity()
        for command in commands:
            match command:
                case Acknowledge(request_id):
                    self.stored.pop(request_id, None)
                    self.acknowledged[request_id] += 1
                case Dispatch():
                    self._check_attempts(command)
                    self._check_victims(command)
                    self.pending.append(command)
                case ParkOnWorker():
                    self._check_parking(command)
                    self.pending.append(command)
                case _:
                    self.pending.append(command)

    def _check_attempts(self, dispatch: Dispatch) -> None:
        for record in dispatch.message.requests:
            before = self.dispatched.get(record.request_id, 0)
            assert record.attempt > before, "attempts only grow"
            self.dispatched[record.request_id] = record.attempt
            for worker in self.workers.values():
                running = worker.running.get(record.request_id)
                client = self.clients[record.request_id]
                assert running is None or not client.open or running.attempt <= client.fence, (
                    "two attempts that the gateway would both take from"
                )

    def _check_parking(self, command: ParkOnWorker) -> None:
        """Bulk requests alone are parked, for somebody urgent, and not for ever."""
        assert self.stored[command.request_id].priority == "bulk"
        found = self.machine.find(command.request_id)
        if found is not None and found.running:
            assert self._waits(found.request.parked_for) or command in self.pending
            self.parked_for[command.request_id] = found.request.parked_for
            self.preempted[command.request_id].add(command.attempt)
            assert len(self.preempted[command.request_id]) <= MAX_PREEMPTIONS

    def _check_victims(self, dispatch: Dispatch) -> None:
        for record in dispatch.message.requests:
            urgent = self.parked_for.pop(record.request_id, "")
            assert not self._waits(urgent), "a victim before the one it was parked for"

    def _waits(self, request_id: str) -> bool:
        found = self.machine.find(request_id)
        return found is not None and isinstance(found.request.state, Waiting)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        dropped = self.journal.counts["worker lost"]
        self.tell(gateway_reported(GATEWAY, heard_s=self.now_s))
        if self.journal.counts["worker lost"] > dropped and self.pending:
            # A dispatch that was on its way all the time arrives at a worker that was given up.
            self.trusts_accounts = False

    # Callers

    def submit(self, request_id: str, n: int, priority: str) -> None:
        event = submitted(
            request_id, len(self.clients) + 1, now_s=self.now_s, n=n, priority=priority
        )
        self.clients[request_id] = Client()
        self.stored[request_id] = event
        self.tell(event)

    def settle(self, request_id: str, code: int = 0) -> None:
        self.clients[request_id].open = False
        self.tell(settled(request_id, code=code))

    def cancel(self, request_id: str) -> None:
        self.tell(CancelRequested(request_id))

    # Workers

    def report(self, worker: WorkerModel, *, full: bool = False) -> None:
        if worker.alive:
            self.tell(self._made(worker, full=full))

    def delay_report(self, worker: WorkerModel) -> None:
        """It comes when others have come, or never."""
        if worker.alive:
            worker.late.append(self._made(worker, full=False))

    def hear_late(self, worker: WorkerModel) -> None:
        self.tell(worker.late.pop())

    def _made(self, worker: WorkerModel, *, full: bool) -> Event:
        worker.number += 1
        running = {i: r.attempt for i, r in worker.running.items()}
        named = worker.changes.report(worker.number, running, full=full)
        return reported(
            worker.worker_id,
            worker.number,
            heard_s=self.now_s,
            free=worker.free,
            total=worker.slots,
            running=dict(named.running),
            since=named.since,
            ended=named.ended,
            counted=worker.counted,
        )

    def step(self, worker: WorkerModel) -> None:
        """Everything that runs there makes one token."""
        for request_id in list(worker.running):
            self._make_token(worker, request_id)

    def _make_token(self, worker: WorkerModel, request_id: str) -> None:
        record, client = worker.running[request_id], self.clients[request_id]
        if not client.open or record.attempt <= client.fence or record.attempt < client.newest:
            return
        client.newest = record.attempt
        made = len(record.progress[0].output_ids) if record.progress else 0
        assert made == len(client.seen), "a gap, or a repeat"
        client.seen.append(made)
        del record.progress[:]
        record.progress.append(ChoiceProgress(output_ids=client.seen))
        if len(client.seen) == LENGTH:
            del worker.running[request_id]
            self.report(worker)
            self.settle(request_id)

    def park(self, worker: WorkerModel, request_id: str, error: str) -> None:
        record = worker.running.pop(request_id)
        made = list(record.progress[0].output_ids) if record.progress else []
        self.tell(parked(worker.worker_id, point(request_id, record.attempt, made, error=error)))
        self.report(worker)

    def lose_stream(self, worker: WorkerModel, request_id: str) -> None:
        record = worker.running[request_id]
        client = self.clients[request_id]
        if client.open and client.newest == record.attempt:
            self.tell(lost(worker.worker_id, point(request_id, record.attempt, client.seen)))

    # What was commanded

    def carry_out(self, command: Command) -> None:
        self.pending.remove(command)
        match command:
            case Dispatch():
                self._take(command)
            case Notify():
                self._take_notice(command)
            case CancelOnWorker(worker_id, request_id, attempt):
                worker = self.workers.get(worker_id)
                running = worker.running.get(request_id) if worker else None
                if worker and running is not None and running.attempt <= attempt:
                    del worker.running[request_id]
                    self.report(worker)
            case ParkOnWorker(worker_id, _, request_id, attempt):
                worker = self.workers.get(worker_id)
                running = worker.running.get(request_id) if worker else None
                if worker and running is not None and running.attempt == attempt:
                    self.park(worker, request_id, "")

    def carry_out_all(self) -> None:
        while self.pending:
            self.carry_out(self.pending[0])
        for worker in self.workers.values():
            self.report(worker)

    def lose(self, command: Command, *, arrives: bool) -> None:
        """No answer comes; the message itself may have arrived."""
        self.pending.remove(command)
        self.trusts_accounts = False
        match command:
            case Dispatch(worker_id, number):
                worker = self.workers[worker_id]
                if arrives and worker.alive:
                    self._run(worker, command)
                self.tell(DispatchUnanswered(worker_id, number))
            case Notify():
                if arrives:
                    self._notice(command)
                self.tell(NoticeUnanswered(command))

    def _take(self, command: Dispatch) -> None:
        worker = self.workers[command.worker_id]
        if not worker.alive:
            self.tell(DispatchUnanswered(command.worker_id, command.number))
            return
        refused = self._run(worker, command)
        cause = DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL
        refusals = tuple(DispatchRefusal(request_id=i, cause=cause) for i in refused)
        self.tell(DispatchAnswered(command.worker_id, command.number, refusals))

    def _run(self, worker: WorkerModel, command: Dispatch) -> list[str]:
        refused = []
        for record in command.message.requests:
            worker.running.pop(record.request_id, None)
            if record.n > worker.free:
                assert not self.trusts_accounts, "a worker was given more than it has room for"
                refused.append(record.request_id)
            else:
                worker.running[record.request_id] = record
        worker.counted = (command.message.epoch, command.number)
        return refused

    def _take_notice(self, command: Notify) -> None:
        points, unknown = self._notice(command)
        self.tell(NoticeAnswered(command, points, unknown))
        for request_id, error in command.ended:
            if self.clients[request_id].open:
                self.settle(request_id, error.code.number)

    def _notice(self, command: Notify) -> tuple[tuple[ResumePoint, ...], tuple[str, ...]]:
        points, unknown = [], [i for i, _ in command.ended if not self.clients[i].open]
        for request_id, attempt in command.fences:
            client = self.clients[request_id]
            if client.open:
                client.fence = max(client.fence, attempt)
                points.append(point(request_id, client.newest, client.seen))
            else:
                unknown.append(request_id)
        return tuple(points), tuple(unknown)

    # The end

    def come_to_rest(self) -> None:
        """No more trouble: everything that is asked is answered, everything that runs runs on."""
        for _ in range(200):
            if not self.stored:
                break
            for worker in self.workers.values():
                worker.alive = True
                self.step(worker)
                self.report(worker, full=True)
            self.carry_out_all()
            self.pass_time(0.3)

    def check_end(self) -> None:
        assert not self.stored, f"never ended: {self.stored}"
        live = self.machine.statistics()
        assert (live.held, live.waiting, live.running, live.lost, live.ending) == (0, 0, 0, 0, 0)
        assert set(self.acknowledged) == set(self.clients)
        for request_id, client in self.clients.items():
            assert not client.open, f"{request_id} never got its end"
            assert client.seen == list(range(len(client.seen)))
