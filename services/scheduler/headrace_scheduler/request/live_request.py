"""One live request: what was asked, what has been made of it, and where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.bus.subjects import PRIORITIES
from headrace.errors import HeadraceError
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace_scheduler.request.fairness import DEFAULT_TENANT, Account
from headrace_scheduler.request.prefixes import NO_MATCH
from headrace_scheduler.request.prefixes import Held as PrefixMatch

PROBES = "probe"
"""The lane of gateways' own requests. It goes first and is short; no figure and no estimate
counts it, for an idle mesh is probed all the time."""
LANES = (PROBES, *PRIORITIES)
"""Where requests wait, the most urgent first."""
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
    notice_due_s: float
    """When the gateway is to be asked (again)."""
    sends_record: bool = False
    """Its gateway has not asked for it, and is told what it is."""


@dataclass(slots=True)
class Ending:
    """It ended without a worker; its gateway is told until it settles."""

    error: HeadraceError
    notice_due_s: float


@dataclass(slots=True)
class Orphaned:
    """Its gateway is gone; it runs nowhere, and waits for a reader who comes to another, or for
    another gateway if it is detached."""

    until_s: float
    """Then nobody waits for it any more; infinity for detached ones."""
    worker_id: str | None
    """Told to park it; None once that is done, or it ran nowhere."""
    park_deadline_s: float
    """How long that is waited for: then it goes on from what is known."""
    gateway_id: str = ""
    """Gateway that fell silent with it; empty if it lives and does not hold it."""
    assignable_from_s: float = float("-inf")
    """Not to be given to a gateway before, if it is detached: one has just refused it."""

    def can_move(self, now_s: float) -> bool:
        """Whether it can go on elsewhere."""
        return self.worker_id is None or now_s >= self.park_deadline_s


State = Held | Waiting | Running | Lost | Orphaned | Ending


def state_name(state: State | None) -> str:
    """Return what logs and figures call a state; None is that of a request that has left."""
    return "gone" if state is None else type(state).__name__.lower()


@dataclass(slots=True, eq=False)
class Request:
    """`record.attempt` is the newest attempt known; it never goes back."""

    record: RequestRecord
    priority: str
    """Its lane on the bus."""
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
    account: Account | None = None
    """Its tenant's in its lane, once it was looked up there."""
    paid: float = 0.0
    """Charged to that so far, in cost."""
    preemptions: int = 0
    """How often this leader had it parked for a more urgent one."""
    parked_for: str = ""
    """The one that is to start before it; empty once it has started again."""
    floor_slots: int = 0
    """More than 0: it runs in so many by its lane's floor, and is not parked for urgent ones."""
    prefix_blocks: tuple[int, ...] | None = None
    """Of the blocks of its prompt; None until somebody has looked."""
    prefix_wait_until_s: float | None = None
    """Until when it is kept for the worker that holds its beginning; None if it never was."""
    prefix_match: PrefixMatch = NO_MATCH
    """Meanwhile, who holds it."""
    orphaned_until_s: float = float("-inf")
    """If its gateway has been lost, when it would be given up."""

    # Read from the record once. Asked for with every event, and a record that is read again
    # makes each string anew.
    request_id: str = field(init=False)
    is_probe: bool = field(init=False)
    lane: str = field(init=False)
    """Where it waits and is counted: its priority, or `PROBES`."""
    gateway_id: str = field(init=False)
    """Who holds it; `LiveRequests.reassign` changes it with the record."""
    tenant: str = field(init=False)
    weights_digest: str = field(init=False)
    """Empty: any."""
    adapter_digest: str = field(init=False)
    """Empty: none."""
    choices: int = field(init=False)
    prompt_tokens: int = field(init=False)
    """Of all that was sent, done or not."""
    max_output_tokens: int = field(init=False)

    # What its progress leaves and has made.
    slots: int = field(init=False)
    """Choices that are still to run; at least 1."""
    output_tokens: int = field(init=False)
    input_tokens: int = field(init=False)
    """Of the inputs that have no vector yet; 0 where the model makes tokens."""
    prefill_tokens: int = field(init=False)
    cache_tokens: int = field(init=False)
    """Most that it may come to hold in the cache."""

    def __post_init__(self) -> None:
        record = self.record
        self.request_id, self.gateway_id = record.request_id, record.gateway_id
        self.is_probe = record.probe
        self.lane = PROBES if record.probe else self.priority
        self.tenant = record.tenant or DEFAULT_TENANT
        self.weights_digest, self.adapter_digest = record.weights_digest, record.adapter_digest
        self.choices = max(1, record.n)
        inputs = sum(len(each.token_ids) for each in record.inputs)
        self.prompt_tokens = len(record.prompt_ids) + inputs
        self.max_output_tokens = 0 if record.inputs else self.choices * record.sampling.max_tokens
        self._take_stock()

    def _take_stock(self) -> None:
        """Call where progress has changed."""
        record = self.record
        done = {p.choice for p in record.progress if p.finish_reason != 0}
        self.slots = max(1, self.choices - len(done))
        self.output_tokens = sum(len(p.output_ids) for p in record.progress)
        left = (each for i, each in enumerate(record.inputs) if i not in done)
        self.input_tokens = sum(len(each.token_ids) for each in left)
        prompt_tokens = len(record.prompt_ids)
        self.prefill_tokens = prompt_tokens + self.input_tokens + self.output_tokens
        kept_tokens = prompt_tokens + record.sampling.max_tokens
        self.cache_tokens = self.slots * kept_tokens + self.input_tokens

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
    def message_bytes(self) -> int:
        """About; what earlier attempts made is not in the stored message."""
        return self.stored_bytes + 4 * self.output_tokens

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
        self._take_stock()

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
    timers: int
    """Bounded by the live requests, whatever their deadlines."""

    @classmethod
    def of(cls, states: Iterable[State], *, timers: int) -> LiveStatistics:
        count = Counter(map(type, states))
        return cls(
            held=count[Held],
            waiting=count[Waiting],
            running=count[Running],
            lost=count[Lost],
            ending=count[Ending],
            orphaned=count[Orphaned],
            timers=timers,
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
    for name in ("prompt_ids", "inputs", "trace_context"):
        told.ClearField(name)
    return told


def first_attempt(epoch: int) -> int:
    """Below every attempt of this leadership, not below any of an earlier one."""
    return epoch << ATTEMPTS_PER_EPOCH_BITS
