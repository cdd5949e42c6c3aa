"""The scheduler's state machine under simulated workers: dispatches per CPU second, cost per event.

No broker and no network: 200 workers of 64 slots finish what they run, report and are given more,
in simulated time, while lanes of a set depth are kept full. Only the CPU of the machine, and of
reading what it is told by workers, is counted: what the simulation itself takes is measured by
running it once more with the machine's recorded commands, and taken off. (A clock read before and
after every event took up to 23 us here, half of what was measured.) "Conversations": every request
goes on with one of 60,000, whose last turns the workers hold.

python benchmarks/scheduler_scale.py --json benchmarks/results/scheduler_scale.json
"""

from __future__ import annotations

import gc
import heapq
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import rig
from headrace.bus.subjects import PRIORITIES
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import (
    GatewayReport,
    PrefixReport,
    Settlement,
    SettleRequest,
    WorkerReport,
)
from headrace.internal.v1.request_pb2 import RequestRecord, Sampling
from headrace_scheduler.app import YOUNG_OBJECTS
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Leadership, Machine
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.request.prefixes import prefix_block_names
from headrace_scheduler.state.events import (
    Dispatch,
    DispatchAnswered,
    Event,
    GatewayReported,
    LaneCaughtUp,
    PrefixesReported,
    Settled,
    Submitted,
    WorkerReported,
)
from headrace_worker.dispatch.report_delta import ChangeTracker

MODEL, DIGEST, GATEWAY = "tiny", "sha256:1", "gateway"
WORKERS, SLOTS = 200, 64
RUNS_S = 2.0
"""Mean time that a request runs."""
REPORT_S = 0.02
"""Between two reports of a worker whose slots become free all the time."""
BEAT_S = 0.5
"""Between two that name all that runs."""
DEPTHS = (1_000, 3_000, 10_000, 30_000, 100_000)
CONVERSATIONS = 60_000
PROMPT_TOKENS = 64
MEASURED = 12_000
"""Dispatched requests of a run."""


@dataclass(frozen=True, slots=True)
class Run:
    round: int
    waiting: int
    """Kept in the lanes."""
    conversations: bool
    """Whether workers hold what requests begin with."""
    dispatched: int
    batches: int
    events: int
    cpu_s: float
    """Of the machine alone."""
    simulated_s: float


class SilentJournal:
    """Hears everything, says nothing."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


class Worker:
    def __init__(self, name: str) -> None:
        self.name = name
        self.card = ModelCard(model=MODEL, weights_digest=DIGEST, context_tokens=4096)
        self.running: dict[str, int] = {}
        self.number = self.answered = 0
        self._changes, self._full_s = ChangeTracker(), float("-inf")

    def report(self, now_s: float) -> bytes:
        self.number += 1
        full = now_s - self._full_s >= BEAT_S
        named = self._changes.delta(self.number, dict(self.running), full=full)
        if not named.since:
            self._full_s = now_s
        report = WorkerReport(
            worker_id=self.name, name=self.name, number=self.number, since=named.since
        )
        served = report.models.add(
            card=self.card,
            total_slots=SLOTS,
            free_slots=SLOTS - len(self.running),
            free_cache_tokens=1 << 30,
            ended=named.ended,
            running_requests=len(self.running),
            dispatch_epoch=1,
            dispatch_number=self.answered,
        )
        for request_id, attempt in named.running.items():
            served.running.add(request_id=request_id, attempt=attempt)
        return report.SerializeToString()


class Decided:
    """The machine, and a record of what it had dispatched."""

    def __init__(self) -> None:
        settings = SchedulerSettings(max_waiting=1 << 30)
        leadership = Leadership("scheduler", MODEL, 1, 0.0, listening_since_s=-10.0)
        self._machine = Machine(leadership, settings, SilentJournal())
        self.record: list[list[Dispatch]] = []

    def read(self, payload: bytes, now_s: float) -> Event:
        return WorkerReported(WorkerReport.FromString(payload), now_s)

    def apply(self, events: Sequence[Event], now_s: float) -> list[Dispatch]:
        for event in events:
            self._machine.apply(event, now_s=now_s)
        commands = self._machine.decide(now_s=now_s)
        self._machine.next_due_s()
        self.record.append([c for c in commands if isinstance(c, Dispatch)])
        return self.record[-1]


class Replayed:
    """The same commands, without the machine."""

    def __init__(self, record: Iterable[list[Dispatch]]) -> None:
        self._record = iter(record)

    def read(self, payload: bytes, now_s: float) -> Event:
        return LaneCaughtUp("")

    def apply(self, events: Sequence[Event], now_s: float) -> list[Dispatch]:
        return next(self._record)


class World:
    """Time, workers and callers around a machine, or around what one has decided."""

    def __init__(
        self, depth: int, seed: int, scheduler: Decided | Replayed, *, conversations: bool
    ) -> None:
        self.now_s, self.events = 0.0, 0
        self.dispatched = self.batches = 0
        self._draw = random.Random(seed)
        self._depth, self._sequence, self._conversations = depth, 0, conversations
        self._scheduler = scheduler
        self._workers = {f"w{n}": Worker(f"w{n}") for n in range(WORKERS)}
        self._ends: list[tuple[float, str, str]] = []
        self._reports: list[tuple[float, str]] = []

    def fill(self) -> None:
        """Workers announce themselves, the lanes are filled."""
        for name, worker in self._workers.items():
            self._hear(worker)
            heapq.heappush(self._reports, (self._draw.uniform(0, REPORT_S), name))
            if self._conversations:
                self._apply(PrefixesReported(self._held_by(int(name[1:]))))
        self._apply(GatewayReported(GatewayReport(gateway_id=GATEWAY, number=1), self.now_s))
        self._apply(*map(LaneCaughtUp, PRIORITIES))
        self._apply(*(self._submitted() for _ in range(self._depth)))
        while self._sequence - self.dispatched < self._depth:
            self._apply(*(self._submitted() for _ in range(1000)))

    def _held_by(self, number: int) -> PrefixReport:
        report = PrefixReport(worker_id=f"w{number}", model=MODEL, full=True)
        for conversation in range(number, CONVERSATIONS, WORKERS):
            prompt_ids = [conversation] * PROMPT_TOKENS
            report.held.extend(
                prefix_block_names(RequestRecord(weights_digest=DIGEST, prompt_ids=prompt_ids))
            )
        return report

    def run(self, dispatches: int) -> None:
        until = self.dispatched + dispatches
        while self.dispatched < until:
            self.now_s, name = heapq.heappop(self._reports)
            ended = list(self._ended())
            for worker_name, request_id in ended:
                self._workers[worker_name].running.pop(request_id, None)
            if ended:
                settlements = [Settlement(request_id=r) for _, r in ended]
                request = SettleRequest(gateway_id=GATEWAY, settlements=settlements)
                self._apply(Settled(request), *(self._submitted() for _ in ended))
            heapq.heappush(self._reports, (self.now_s + REPORT_S, name))
            self._hear(self._workers[name])

    def _ended(self) -> Iterator[tuple[str, str]]:
        while self._ends and self._ends[0][0] <= self.now_s:
            yield heapq.heappop(self._ends)[1:]

    def _hear(self, worker: Worker) -> None:
        self._apply(self._scheduler.read(worker.report(self.now_s), self.now_s))

    def _apply(self, *events: Event) -> None:
        """Apply, decide, and let workers answer at once."""
        pending: list[Event] = list(events)
        while pending:
            self.events += len(pending)
            pending = [self._obey(c) for c in self._scheduler.apply(pending, self.now_s)]

    def _obey(self, dispatch: Dispatch) -> Event:
        worker = self._workers[dispatch.worker_id]
        worker.answered = dispatch.number
        for record in dispatch.message.requests:
            worker.running[record.request_id] = record.attempt
            ends_s = self.now_s + self._draw.expovariate(1 / RUNS_S)
            heapq.heappush(self._ends, (ends_s, worker.name, record.request_id))
        self.dispatched += len(dispatch.message.requests)
        self.batches += 1
        return DispatchAnswered(dispatch.worker_id, dispatch.number, ())

    def _submitted(self) -> Submitted:
        self._sequence += 1
        record = RequestRecord(
            request_id=f"r{self._sequence}",
            tenant=f"t{self._sequence % 8}",
            model=MODEL,
            weights_digest=DIGEST,
            prompt_ids=[self._draw.randrange(CONVERSATIONS)] * PROMPT_TOKENS,
            sampling=Sampling(max_tokens=64),
            n=1,
            gateway_id=GATEWAY,
        )
        never_s = float("inf")
        request = Request(
            record,
            PRIORITIES[self._sequence % 3],
            self._sequence,
            f"a{self._sequence}",
            self.now_s,
            never_s,
            never_s,
            stored_bytes=400,
        )
        return Submitted(request)


def one_run(depth: int, round: int, *, conversations: bool) -> Run:
    decided = Decided()
    world = World(depth, round, decided, conversations=conversations)
    whole_s, *counts, simulated_s = measured(world)
    again = World(depth, round, Replayed(decided.record), conversations=conversations)
    own_s, *same = measured(again)
    assert [*counts, simulated_s] == same, "it is the same world"
    dispatched, batches, events = map(int, counts)
    cpu_s = whole_s - own_s
    return Run(round, depth, conversations, dispatched, batches, events, cpu_s, simulated_s)


def measured(world: World) -> list[float]:
    """CPU seconds of a run; what it dispatched, in how many batches, after how many events; its
    own seconds."""
    world.fill()
    world.run(MEASURED // 4)  # past the first rush
    before = (world.dispatched, world.batches, world.events, world.now_s)
    began_s = time.process_time()
    world.run(MEASURED)
    cpu_s = time.process_time() - began_s
    after = (world.dispatched, world.batches, world.events, world.now_s)
    return [cpu_s, *(b - a for a, b in zip(before, after, strict=True))]


def main() -> None:
    arguments = rig.options(__doc__ or "").parse_args()
    before = rig.facts()
    gc.set_threshold(YOUNG_OBJECTS)  # As the process has it.
    kinds = [(depth, False) for depth in DEPTHS] + [(depth, True) for depth in DEPTHS[::2]]
    runs = [
        one_run(depth, round, conversations=conversations)
        for round in range(arguments.rounds)
        for depth, conversations in kinds
    ]
    rows = []
    for depth, conversations in kinds:
        its = [run for run in runs if (run.waiting, run.conversations) == (depth, conversations)]
        rows.append(
            (
                f"{depth:,}" + (", conversations" if conversations else ""),
                f"{rig.median([run.dispatched / run.cpu_s for run in its]):,.0f}",
                f"{rig.median([run.cpu_s / run.events for run in its]) * 1e6:.0f} us",
                f"{rig.median([run.dispatched / run.batches for run in its]):.1f}",
            )
        )
    rig.show(("waiting", "dispatches/CPU s", "CPU per event", "requests per batch"), rows)
    rig.keep(arguments.json, before, {"runs": [asdict(run) for run in runs]})


if __name__ == "__main__":
    main()
