"""A small world around the scheduler's machine: workers, gateways, a stream, and trouble.

No network and no clock. What the machine commands lies here until a
test carries it out or loses it; what happens is checked as it happens.
"""

from __future__ import annotations

from collections import Counter

from headrace.bus.subjects import ANY_GATEWAY
from headrace.internal.v1.dispatch_pb2 import DispatchRefusal, DispatchRefusalCause
from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership, Machine
from headrace_scheduler.request.prefixes import prefix_block_names
from headrace_scheduler.state.events import (
    Acknowledge,
    CancelOnWorker,
    Command,
    Dispatch,
    DispatchAnswered,
    DispatchUnanswered,
    Event,
    ParkOnWorker,
    SendNotice,
    StoreResult,
    Submitted,
)
from helpers.counting_observer import CountingObserver, apply_and_decide
from helpers.scheduler_checks import ParkingChecks, check_attempts
from helpers.scheduler_ends import check_end, come_to_rest
from helpers.scheduler_events import (
    MODEL,
    caught_up,
    lost,
    parked,
    point,
    prefixes_reported,
    reported,
    submitted,
)
from helpers.scheduler_gateways import Callers, Life
from helpers.scheduler_models import Client, WorkerModel, as_stored, unread
from helpers.scheduler_quota import stop_for_quota
from helpers.usage_ledger import ALIVE, BEFORE_PUBLISHING, UsageLedger

LENGTH = 3
"""Output tokens of every request."""


class World(Callers):
    def __init__(self, settings: SchedulerSettings) -> None:
        super().__init__()
        self.now_s = 100.0
        self.settings = settings
        self.epoch = 0
        self.workers: dict[str, WorkerModel] = {}
        self.stored: dict[str, Submitted] = {}
        self.unread: list[Submitted] = []
        """By the leader, which has yet to come to the end of its lanes."""
        self.acknowledged: Counter[str] = Counter()
        self.dispatched: dict[str, int] = {}
        self.pending: list[Command] = []
        self.ledger = UsageLedger()
        self.trusts_accounts = True
        """Nothing has happened that allows a worker to be given more than it has room for."""
        self.new_leader()
        self.read_on(0)

    # The machine

    def new_leader(self, *, has_listened: bool = False) -> None:
        """The old one is gone, and all that it had on its way; the new one is to read the lanes.

        `has_listened`: it knows what was reported lately.
        """
        self.epoch += 1
        for command in self.pending:
            if isinstance(command, SendNotice):
                self.keep_for_frozen(command)
        self.pending, self.leader_dies = [], ALIVE
        leadership = Leadership("s", MODEL, self.epoch, self.now_s, listening_since_s=0.0)
        self.observer = CountingObserver()
        self.machine = Machine(leadership, self.settings, self.observer)
        self.parking = ParkingChecks(self.machine)
        self.unread = unread(self.stored)
        if has_listened:
            self.report_all(full=True)
            self.beat()

    def read_on(self, count: int) -> None:
        """The leader reads so many messages of its lanes, or comes to their end."""
        if self.unread:
            now, self.unread = self.unread[:count], self.unread[count:]
            self.apply(*map(as_stored, now))
        if not self.unread and self.machine.is_holding:
            self.apply(*caught_up())

    def apply(self, *events: Event) -> None:
        commands = apply_and_decide(self.machine, self.observer, events, now_s=self.now_s)
        self.machine.check_integrity()
        self.is_crowded |= self.observer.counts["abandoned: too many orphans"] > 0
        for command in commands:
            match command:
                case Acknowledge(unsettled=None):
                    self._acknowledge(command)
                case Dispatch():
                    check_attempts(command, self.dispatched, self.workers.values(), self.clients)
                    self.parking.dispatched(command)
                    self.pending.append(command)
                case ParkOnWorker():
                    if not command.orphaned:
                        self.parking.parked(
                            command, self.stored[command.request_id].request.priority
                        )
                    self.pending.append(command)
                case SendNotice():
                    self.notified_ends.update(request_id for request_id, _ in command.ended)
                    self.pending.append(command)
                case _:
                    self.pending.append(command)

    def _acknowledge(self, command: Acknowledge) -> None:
        request_id, client = command.request_id, self.clients[command.request_id]
        if self.leader_dies != BEFORE_PUBLISHING:
            self.ledger.publish(command, client)
        if self.leader_dies:
            return
        assert client.kept or not client.detached, f"there is no result of {request_id}"
        self.stored.pop(request_id, None)
        self.acknowledged[request_id] += 1

    def pass_time(self, seconds: float) -> None:
        self.read_on(len(self.unread))
        self.now_s += seconds
        dropped = self.observer.counts["worker lost"]
        self.apply()
        self.beat()
        if self.observer.counts["worker lost"] > dropped and self.pending:
            # A dispatch that was on its way all the time arrives at a worker that was given up.
            self.trusts_accounts = False

    # Callers

    def submit(
        self,
        request_id: str,
        n: int = 1,
        priority: str = "standard",
        *,
        attachable: bool = False,
        detached: bool = False,
        tenant: str = "",
        beginning: int | None = None,
        time_s: float = float("inf"),
        patience_s: float = float("inf"),
        resent: bool = False,
    ) -> None:
        """`beginning`: one of so many that prompts have in common. `resent`: by an operator."""
        gateway = ANY_GATEWAY if resent else self.living()[0]
        start = 10**6 * len(self.clients) if beginning is None else 1000 * beginning
        event = submitted(
            request_id,
            len(self.clients) + 1,
            now_s=self.now_s,
            n=n,
            priority=priority,
            gateway=gateway,
            attachable=attachable,
            detached=detached,
            tenant=tenant,
            digest="w1",
            prompt=list(range(start, start + 40)),
            deadline_s=self.now_s + time_s,
            queue_deadline_s=self.now_s + patience_s,
        )
        client = Client(gateway=gateway, attachable=attachable, detached=detached, away=resent)
        client.deadline_s = self.now_s + time_s
        self.clients[request_id] = client
        self.stored[request_id] = event
        if self.unread:
            self.unread.append(event)
        else:
            self.apply(as_stored(event))

    # Workers

    def report(self, worker: WorkerModel, *, full: bool = False) -> None:
        if worker.alive:
            self.apply(worker.report(self.now_s, full=full))

    def report_all(self, *, full: bool) -> None:
        for worker in self.workers.values():
            self.report(worker, full=full)

    def report_prefixes(self, worker: WorkerModel, beginning: int, blocks: int, full: bool) -> None:
        """It holds so much of one of the beginnings, and no more of it."""
        prompt = list(range(1000 * beginning, 1000 * beginning + 40))
        shared = submitted("", digest="w1", prompt=prompt)
        names, where = prefix_block_names(shared.request.record), worker.worker_id
        self.apply(prefixes_reported(where, names[:blocks], dropped=names[blocks:], full=full))

    def retire(self, worker: WorkerModel) -> None:
        """It has drained: it leaves, and another comes."""
        for request_id in list(worker.running):
            self.park(worker, request_id, "")
        worker.number += 1
        number, name = worker.number, f"{worker.worker_id}'"
        self.apply(reported(worker.worker_id, number, received_s=self.now_s, leaving=True))
        del self.workers[worker.worker_id]
        self.workers[name] = WorkerModel(name, worker.slots)

    def delay_report(self, worker: WorkerModel) -> None:
        """It comes when others have come, or never."""
        worker.late += [worker.report(self.now_s, full=False)] if worker.alive else []

    def deliver_late_report(self, worker: WorkerModel) -> None:
        self.apply(worker.late.pop())

    def step(self, worker: WorkerModel) -> None:
        """Everything that runs there makes one token."""
        for request_id in list(worker.running):
            self._make_token(worker, request_id)

    def _make_token(self, worker: WorkerModel, request_id: str) -> None:
        record, client = worker.running[request_id], self.clients[request_id]
        is_cut_off = not self.is_connected(request_id) or record.gateway_id != client.gateway
        if is_cut_off or record.attempt <= client.fence or record.attempt < client.newest:
            if self.gateways[record.gateway_id].life is Life.LIVES:
                # Its gateway stops an attempt that it does not accept.
                del worker.running[request_id]
                self.report(worker)
            return
        client.newest = record.attempt
        if client.waits_for_quota:
            stop_for_quota(self, worker, record, reports=True)
            return
        made = len(record.progress[0].output_ids) if record.progress else 0
        assert made == len(client.seen), "a gap, or a repeat"
        client.seen.append(made)
        client.made = max(client.made, len(client.seen))
        del record.progress[:]
        record.progress.append(ChoiceProgress(output_ids=client.seen))
        if len(client.seen) == LENGTH:
            del worker.running[request_id]
            self.report(worker)
            self.settle(request_id)

    def park(self, worker: WorkerModel, request_id: str, error: str) -> None:
        record = worker.running.pop(request_id)
        made = list(record.progress[0].output_ids) if record.progress else []
        self.apply(parked(worker.worker_id, point(request_id, record.attempt, made, error=error)))
        self.report(worker)

    def lose_stream(self, worker: WorkerModel, request_id: str) -> None:
        record = worker.running[request_id]
        client = self.clients[request_id]
        if self.is_connected(request_id) and client.newest == record.attempt:
            self.apply(lost(worker.worker_id, point(request_id, record.attempt, client.seen)))

    # What was commanded

    def carry_out(self, command: Command) -> None:
        self.pending.remove(command)
        match command:
            case Dispatch():
                self._take(command)
            case SendNotice():
                self.on_notice(command)
            case Acknowledge():
                self._acknowledge(command)
            case StoreResult(record, error, acknowledge):
                made = sum(len(p.output_ids) for p in record.progress)
                self.store_result(record.request_id, error.code.number, made)
                self._acknowledge(acknowledge)
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
                worker = self.workers.get(worker_id)
                if arrives and worker is not None and worker.alive:
                    self._run(worker, command)
                self.apply(DispatchUnanswered(worker_id, number))
            case SendNotice():
                self.lose_notice(command, arrives=arrives)

    def _take(self, command: Dispatch) -> None:
        worker = self.workers.get(command.worker_id)
        if worker is None or not worker.alive:
            self.apply(DispatchUnanswered(command.worker_id, command.number, is_disconnected=True))
            return
        refused, cause = self._run(worker, command)
        refusals = tuple(DispatchRefusal(request_id=i, cause=cause) for i in refused)
        self.apply(DispatchAnswered(command.worker_id, command.number, refusals))

    def _run(
        self, worker: WorkerModel, command: Dispatch
    ) -> tuple[list[str], DispatchRefusalCause.ValueType]:
        worker.counted = (command.message.epoch, command.number)
        if worker.draining:
            cause = DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_DRAINING
            return [record.request_id for record in command.message.requests], cause
        refused = []
        for record in command.message.requests:
            worker.running.pop(record.request_id, None)
            if record.n > worker.free:
                assert not self.trusts_accounts, "a worker was given more than it has room for"
                refused.append(record.request_id)
            else:
                worker.running[record.request_id] = record
        return refused, DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL

    # The end

    def come_to_rest(self) -> None:
        """No more trouble: every call is answered, everything that runs runs on."""
        come_to_rest(self)

    def check_end(self) -> None:
        check_end(self)
