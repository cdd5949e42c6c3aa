"""A small world around the scheduler's machine: workers, gateways, a stream, and trouble.

No network and no clock. What the machine commands lies here until somebody
carries it out or loses it; what happens is checked as it happens.
"""

from __future__ import annotations

from collections import Counter

from headrace.internal.v1.dispatch_pb2 import DispatchRefusal, DispatchRefusalCause
from headrace.internal.v1.reports_pb2 import ResumePoint
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace_scheduler.answering import taken_over
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
from helpers.scheduler_checks import MAX_PREEMPTIONS, ParkingChecks, check_attempts
from helpers.scheduler_events import (
    MODEL,
    CountingJournal,
    asked,
    caught_up,
    gateway_reported,
    lost,
    parked,
    point,
    settled,
    submitted,
)
from helpers.scheduler_models import Client, WorkerModel

LENGTH = 3
"""Output tokens of every request."""


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.policy = Policy(max_attempts=1000, max_preemptions=MAX_PREEMPTIONS)
        self.epoch = 0
        self.workers: dict[str, WorkerModel] = {}
        self.clients: dict[str, Client] = {}
        self.stored: dict[str, Submitted] = {}
        self.acknowledged: Counter[str] = Counter()
        self.dispatched: dict[str, int] = {}
        self.pending: list[Command] = []
        self.heard = {"g": True, "h": True}  # A dead gateway comes back under another name.
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
        self.machine = Machine(leadership, self.policy, self.journal)
        self.parking = ParkingChecks(self.machine)
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
                    check_attempts(command, self.dispatched, self.workers.values(), self.clients)
                    self.parking.dispatched(command)
                    self.pending.append(command)
                case ParkOnWorker():
                    if not command.orphaned:
                        self.parking.parked(command, self.stored[command.request_id].priority)
                    self.pending.append(command)
                case _:
                    self.pending.append(command)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        dropped = self.journal.counts["worker lost"]
        for gateway_id, lives in self.heard.items():
            if lives:
                taken = {
                    i: c.since
                    for i, c in self.clients.items()
                    if c.open and c.since and not c.away and c.gateway == gateway_id
                }
                self.tell(gateway_reported(gateway_id, heard_s=self.now_s, taken_over=taken))
        if self.journal.counts["worker lost"] > dropped and self.pending:
            # A dispatch that was on its way all the time arrives at a worker that was given up.
            self.trusts_accounts = False

    # Callers

    def submit(self, request_id: str, n: int, priority: str, *, attachable: bool = False) -> None:
        gateway = next(g for g, lives in self.heard.items() if lives)
        event = submitted(
            request_id,
            len(self.clients) + 1,
            now_s=self.now_s,
            n=n,
            priority=priority,
            gateway=gateway,
            attachable=attachable,
        )
        self.clients[request_id] = Client(gateway=gateway, attachable=attachable)
        self.stored[request_id] = event
        self.tell(event)

    def settle(self, request_id: str, code: int = 0) -> None:
        client = self.clients[request_id]
        client.open = False
        self.tell(settled(request_id, code=code, since=client.since))

    def cancel(self, request_id: str) -> None:
        self.clients[request_id].is_cancelled = True
        self.tell(CancelRequested(request_id))

    # Gateways

    def kill_gateway(self, gateway_id: str) -> None:
        """Its clients may come to another; those of answers in one piece do not."""
        self.heard[gateway_id] = False
        self.heard[f"{gateway_id}'"] = True
        for client in self.clients.values():
            if client.gateway == gateway_id and client.open:
                client.away = client.open = client.attachable
                client.died_s = self.now_s

    def come_back(self, request_id: str, gateway_id: str) -> None:
        """The client comes to a gateway, which asks for its request, and asks again."""
        client = self.clients[request_id]
        if not client.away or not self.heard[gateway_id]:
            return
        self.tell(asked(request_id, gateway_id, unreachable=client.gateway))
        found = self.machine.find(request_id)
        if found is None:
            if not self.machine.is_holding:  # It was abandoned; the client is told so.
                in_time = self.now_s < client.died_s + self.policy.orphan_grace_s
                assert client.is_cancelled or not in_time, request_id
                client.open = client.away = False
            return
        answer = taken_over(found.request, asked(request_id, gateway_id).request)
        if answer.gateway_id == gateway_id:
            self._hold(request_id, client, gateway_id, answer.record)

    def _hold(
        self, request_id: str, client: Client, gateway_id: str, record: RequestRecord
    ) -> None:
        made = list(record.progress[0].output_ids) if record.progress else []
        assert made == client.seen[: len(made)] or client.seen == made[: len(client.seen)]
        client.away, client.gateway, client.seen = False, gateway_id, made
        client.since, client.fence = record.held_since_attempt, record.attempt
        client.newest = record.attempt
        self.tell(asked(request_id, gateway_id, stands=point(request_id, record.attempt, made)))

    # Workers

    def report(self, worker: WorkerModel, *, full: bool = False) -> None:
        if worker.alive:
            self.tell(worker.report(self.now_s, full=full))

    def delay_report(self, worker: WorkerModel) -> None:
        """It comes when others have come, or never."""
        if worker.alive:
            worker.late.append(worker.report(self.now_s, full=False))

    def hear_late(self, worker: WorkerModel) -> None:
        self.tell(worker.late.pop())

    def step(self, worker: WorkerModel) -> None:
        """Everything that runs there makes one token."""
        for request_id in list(worker.running):
            self._make_token(worker, request_id)

    def _make_token(self, worker: WorkerModel, request_id: str) -> None:
        record, client = worker.running[request_id], self.clients[request_id]
        deaf = not client.open or client.away or record.gateway_id != client.gateway
        if deaf or record.attempt <= client.fence or record.attempt < client.newest:
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
        if client.open and not client.away and client.newest == record.attempt:
            self.tell(lost(worker.worker_id, point(request_id, record.attempt, client.seen)))

    # What was commanded

    def carry_out(self, command: Command) -> None:
        self.pending.remove(command)
        match command:
            case Dispatch():
                self._take(command)
            case Notify():
                self._take_notice(command)
            case CancelOnWorker() | ParkOnWorker():
                request_id = command.request_id
                worker = self.workers.get(command.worker_id)
                running = worker.running.get(request_id) if worker else None
                if not worker or running is None or running.attempt > command.attempt:
                    return
                if isinstance(command, ParkOnWorker):
                    if command.orphaned or running.attempt == command.attempt:
                        self.park(worker, request_id, "")
                else:
                    del worker.running[request_id]
                    self.report(worker)

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
                if arrives and self.heard[command.gateway_id]:
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
        if not self.heard[command.gateway_id]:
            self.tell(NoticeUnanswered(command, nobody_listens=True))
            return
        points, unknown = self._notice(command)
        self.tell(NoticeAnswered(command, points, unknown))
        for request_id, error in command.ended:
            if self._holds(command.gateway_id, request_id):
                self.settle(request_id, error.code.number)

    def _notice(self, command: Notify) -> tuple[tuple[ResumePoint, ...], tuple[str, ...]]:
        gateway_id = command.gateway_id
        points, unknown = [], [i for i, _ in command.ended if not self._holds(gateway_id, i)]
        for request_id, attempt in command.fences:
            client = self.clients[request_id]
            if self._holds(gateway_id, request_id):
                client.fence = max(client.fence, attempt)
                points.append(point(request_id, client.newest, client.seen))
            else:
                unknown.append(request_id)
        return tuple(points), tuple(unknown)

    def _holds(self, gateway_id: str, request_id: str) -> bool:
        client = self.clients[request_id]
        return client.open and not client.away and client.gateway == gateway_id

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
            self._come_back_all()
            self.pass_time(0.3)
        self._come_back_all()

    def _come_back_all(self) -> None:
        living = next(g for g, lives in self.heard.items() if lives)
        for request_id in self.clients:
            self.come_back(request_id, living)

    def check_end(self) -> None:
        assert not self.stored, f"never ended: {self.stored}"
        live = self.machine.statistics()
        assert (live.held, live.waiting, live.running, live.lost, live.ending) == (0, 0, 0, 0, 0)
        assert live.orphaned == 0
        assert set(self.acknowledged) == set(self.clients)
        for request_id, client in self.clients.items():
            assert not client.open, f"{request_id} never got its end"
            assert client.seen == list(range(len(client.seen)))
