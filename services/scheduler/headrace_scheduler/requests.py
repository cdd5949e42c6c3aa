"""One live request: what was asked, what has been made of it, and where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.errors import HeadraceError
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace_scheduler.fairness import DEFAULT_TENANT

ATTEMPTS_PER_EPOCH_BITS = 20
HEADWAY_TOKENS = 8
"""Output after which a failure is the first again. Not one: a request that runs its workers out
of memory may make a token on each."""

DispatchNumber = tuple[int, int]
"""(epoch, number) of a dispatch; (0, 0) is before any."""


@dataclass(frozen=True, slots=True)
class Held:
    """Read after a take-over: it may run on a worker that has not yet been heard."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """In its lane. Every attempt up to `record.attempt` is over."""


@dataclass(slots=True)
class Running:
    """Given to a worker, or found running there."""

    worker_id: str
    attempt: int
    dispatch: DispatchNumber
    vanished_s: float | None = None
    """Since when reports of the worker leave it out: it ended there, and its gateway is
    about to say so."""


@dataclass(slots=True)
class Lost:
    """It stopped running, or may have; its gateway is asked where it stands.

    The gateway's answer fences: it takes nothing of attempts up to `attempt`
    any more. So the next attempt can go on exactly where the client's stream is.
    """

    attempt: int
    worker_id: str | None
    """Told to stop, once the gateway has fenced; None if it has nothing to stop."""
    ask_s: float
    """When the gateway is to be asked (again)."""
    is_given: bool = False
    """Its gateway has not asked for it, and is told what it is."""


@dataclass(slots=True)
class Ending:
    """It ended without a worker; its gateway is told until it settles."""

    error: HeadraceError
    tell_s: float


@dataclass(slots=True)
class Orphaned:
    """Its gateway is gone; it runs nowhere, and waits for a reader who comes to another, or for
    another gateway if it is detached."""

    until_s: float
    """Then nobody waits for it any more; infinity for detached ones."""
    worker_id: str | None
    """Told to park it; None once that is done, or it ran nowhere."""
    park_until_s: float
    """How long that is waited for: then it goes on from what is known."""
    gateway_id: str = ""
    """Gateway that fell silent with it; empty if it lives and does not hold it."""
    give_s: float = float("-inf")
    """Not to be given to a gateway before, if it is detached: one has just refused it."""

    def is_free(self, now_s: float) -> bool:
        """Whether it can go on elsewhere."""
        return self.worker_id is None or now_s >= self.park_until_s


State = Held | Waiting | Running | Lost | Orphaned | Ending


@dataclass(slots=True, eq=False)
class Request:
    """`record.attempt` is the newest attempt known; it never goes back."""

    record: RequestRecord
    priority: str
    sequence: int
    """Place in the stream: the order within the lane, also after a return to it."""
    acknowledgement: str
    arrival_s: float
    """On this process's monotonic clock, as all the following."""
    deadline_s: float
    """Infinity for none; so is the next."""
    patient_until_s: float
    queued_s: float
    stored_bytes: int
    state: State
    has_started: bool = False
    """Some worker has taken it once; patience is over."""
    last_failure: str = ""
    output_at_failure: int = 0
    dispatched_s: float = float("-inf")
    """When it last left its lane."""
    due_s: float = float("inf")
    """Earliest appointment in the agenda."""
    paid: float = 0.0
    """Charged to its tenant so far, in cost."""
    preemptions: int = 0
    """How often this leader had it parked for a more urgent one."""
    parked_for: str = ""
    """The one that is to start before it; empty once it has started again."""
    keeps_slots: int = 0
    """More than 0: it runs in so many by its lane's floor, and is not parked for urgent ones."""
    prefix_names: tuple[int, ...] | None = None
    """Of the blocks of its prompt; None until somebody has looked."""
    kept_until_s: float | None = None
    """Until when it is kept for the worker that holds its beginning; None if it never was."""
    orphaned_until_s: float = float("-inf")
    """If its gateway has been lost, when it would be given up."""

    @property
    def request_id(self) -> str:
        return self.record.request_id

    @property
    def gateway_id(self) -> str:
        return self.record.gateway_id

    @property
    def weights_digest(self) -> str:
        return self.record.weights_digest

    @property
    def adapter_digest(self) -> str:
        return self.record.adapter_digest

    @property
    def tenant(self) -> str:
        return self.record.tenant or DEFAULT_TENANT

    @property
    def has_run(self) -> bool:
        """Some worker has had it, as far as is known."""
        return self.has_started or isinstance(self.state, Running)

    @property
    def worker_id(self) -> str | None:
        """Where it runs, or may still: to be told, if it is to stop."""
        match self.state:
            case (
                Running(worker_id=str(worker_id), vanished_s=None)
                | Lost(worker_id=str(worker_id))
                | Orphaned(worker_id=str(worker_id))
            ):
                return worker_id
        return None

    @property
    def choices(self) -> int:
        return max(1, self.record.n)

    @property
    def slots(self) -> int:
        if not self.record.progress:  # Nearly all, and this is asked for all the time.
            return self.choices
        finished = sum(p.finish_reason != 0 for p in self.record.progress)
        return max(1, self.choices - finished)

    @property
    def prompt_tokens(self) -> int:
        """Of all that was sent, done or not."""
        inputs = sum(len(each.token_ids) for each in self.record.inputs)
        return len(self.record.prompt_ids) + inputs

    @property
    def max_output_tokens(self) -> int:
        return 0 if self.record.inputs else self.choices * self.record.sampling.max_tokens

    @property
    def output_tokens(self) -> int:
        progress = self.record.progress
        return sum(len(p.output_ids) for p in progress) if progress else 0

    @property
    def prefill_tokens(self) -> int:
        return len(self.record.prompt_ids) + self.input_tokens + self.output_tokens

    @property
    def input_tokens(self) -> int:
        """Of the inputs that have no vector yet; 0 where the model makes tokens."""
        record = self.record
        if not record.inputs:
            return 0
        done = {p.choice for p in record.progress if p.finish_reason != 0}
        return sum(len(each.token_ids) for i, each in enumerate(record.inputs) if i not in done)

    @property
    def message_bytes(self) -> int:
        """About; what earlier attempts made is not in the stored message."""
        return self.stored_bytes + 4 * self.output_tokens

    @property
    def cache_tokens(self) -> int:
        kept = len(self.record.prompt_ids) + self.record.sampling.max_tokens
        return self.slots * kept + self.input_tokens

    @property
    def has_output(self) -> bool:
        return self.output_tokens > 0

    @property
    def is_finished(self) -> bool:
        """Every choice is at its end: there is nothing to run."""
        return sum(p.finish_reason != 0 for p in self.record.progress) >= self.choices

    def count_failure(self, what: str) -> None:
        """Failures add up while the request makes no headway; what goes on between them is not
        what kills its workers, however many it outlives."""
        self.record.failures += 1
        self.last_failure = what
        self.see_headway()

    def see_headway(self) -> None:
        """Call where progress is known: of failures before headway, the latest alone counts."""
        if self.output_tokens >= self.output_at_failure + HEADWAY_TOKENS:
            self.record.failures = min(1, self.record.failures)
        self.output_at_failure = self.output_tokens

    def replace_progress(self, progress: Iterable[ChoiceProgress]) -> None:
        """What the gateway has is what the client saw; what others have beyond it is void."""
        kept = list(longest(progress, choices=self.choices))
        del self.record.progress[:]
        self.record.progress.extend(kept)

    def merge_progress(self, progress: Iterable[ChoiceProgress]) -> None:
        self.replace_progress([*self.record.progress, *progress])


@dataclass(frozen=True, slots=True)
class LiveStatistics:
    held: int
    waiting: int
    running: int
    lost: int
    ending: int
    orphaned: int
    appointments: int
    """Bounded by the live requests, whatever their deadlines."""

    @classmethod
    def of(cls, states: Iterable[State], *, appointments: int) -> LiveStatistics:
        count = Counter(map(type, states))
        return cls(
            held=count[Held],
            waiting=count[Waiting],
            running=count[Running],
            lost=count[Lost],
            ending=count[Ending],
            orphaned=count[Orphaned],
            appointments=appointments,
        )


def longest(progress: Iterable[ChoiceProgress], *, choices: int) -> list[ChoiceProgress]:
    """One entry per choice, the longest; of equals the finished one."""
    best: dict[int, ChoiceProgress] = {}
    for entry in progress:
        if entry.choice >= choices:
            continue
        known = best.get(entry.choice)
        if known is None or _extent(entry) > _extent(known):
            best[entry.choice] = entry
    return [best[choice] for choice in sorted(best)]


def _extent(entry: ChoiceProgress) -> tuple[int, bool]:
    return len(entry.output_ids), entry.finish_reason != 0


def without_prompt(record: RequestRecord) -> RequestRecord:
    """What a gateway has to know of a request that it holds."""
    told = RequestRecord()
    told.CopyFrom(record)
    for field in ("prompt_ids", "inputs", "trace_context"):
        told.ClearField(field)
    return told


def first_attempt(epoch: int) -> int:
    """Below every attempt of this leadership, not below any of an earlier one."""
    return epoch << ATTEMPTS_PER_EPOCH_BITS
