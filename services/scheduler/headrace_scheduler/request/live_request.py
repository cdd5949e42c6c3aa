"""One live request: its record, its progress, and the state that it is in.

The states and the events that lead from one to another are the table of
`state.transitions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.bus.subjects import PRIORITIES
from headrace.errors import HeadraceError
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace_scheduler.request.fairness import DEFAULT_TENANT, Account
from headrace_scheduler.request.prefixes import NO_MATCH, PrefixMatch

PROBES = "probe"
"""The lane of the gateways' own requests. It is the most urgent and its requests are short; no
metric and no estimate counts them, because an idle mesh is probed all the time."""
LANES = (PROBES, *PRIORITIES)
"""Every lane of a model, the most urgent first."""
ATTEMPTS_PER_EPOCH_BITS = 20
PROGRESS_TOKENS = 8
"""Output tokens after which the count of failures starts again. Not one: a request that exhausts
its workers' memory may make one token on each."""

DispatchNumber = tuple[int, int]
"""(epoch, number) of a dispatch; (0, 0) comes before all."""


@dataclass(frozen=True, slots=True)
class Held:
    """Read after a take-over; it may run on a worker that has not reported yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """In its lane. Every attempt up to `record.attempt` is over."""


@dataclass(slots=True)
class Running:
    """Dispatched to a worker, or found running there."""

    worker_id: str
    attempt: int
    dispatch: DispatchNumber
    vanished_s: float | None = None
    """Since when the worker's reports leave it out: it has ended there, and its gateway is
    expected to settle it."""


@dataclass(slots=True)
class Lost:
    """It stopped running, or may have; its gateway is requested to fence it.

    The gateway's answer says how much output the client has and promises that nothing is
    accepted from attempts up to `attempt`. So the next attempt continues exactly there.
    """

    attempt: int
    worker_id: str | None
    """Worker to cancel it on once the gateway has fenced; None if it runs nowhere."""
    notice_due_s: float
    """When the gateway is to be requested (again)."""
    sends_record: bool = False
    """Whether the notice carries the record: this gateway has not requested it."""
    waits_for_quota: bool = False
    """Whether its gateway has fenced it and holds it back until the quota keeper grants more."""


@dataclass(slots=True)
class Ending:
    """It ended without a worker; its gateway is notified until it settles the request."""

    error: HeadraceError
    notice_due_s: float


@dataclass(slots=True)
class Orphaned:
    """Its gateway is gone. It runs nowhere and waits until its client connects to another gateway,
    or, if it is detached, until another gateway accepts it."""

    until_s: float
    """When it is abandoned; infinity for detached requests."""
    worker_id: str | None
    """Worker that was requested to park it; None once it has, or if it ran nowhere."""
    park_deadline_s: float
    """How long its output so far is awaited; then it continues from what is known."""
    gateway_id: str = ""
    """Gateway that fell silent with it; empty if that gateway lives and does not hold it."""
    assignable_from_s: float = float("-inf")
    """Earliest time to assign it to another gateway, if it is detached: one has just refused."""

    def can_move(self, now_s: float) -> bool:
        """Return whether another gateway can take it over now."""
        return self.worker_id is None or now_s >= self.park_deadline_s


State = Held | Waiting | Running | Lost | Orphaned | Ending


def state_name(state: State | None) -> str:
    """Return the name of a state in logs and metrics; None is a request that has left."""
    return "gone" if state is None else type(state).__name__.lower()


@dataclass(slots=True, eq=False)
class Request:
    """`record.attempt` is the newest attempt known; it never decreases. Times are of this
    process's monotonic clock."""

    record: RequestRecord
    priority: str
    """Its lane on the bus."""
    sequence: int
    """Place in the stream: the order within its lane, also after it returned to the lane."""
    acknowledgement: str
    arrival_s: float
    deadline_s: float
    """Infinity if it has none."""
    queue_deadline_s: float
    """When its patience ends, if it has not started; infinity if it has none."""
    stored_bytes: int = 0
    queued_s: float = float("-inf")
    """When it entered its lane."""
    state: State = Held()
    has_started: bool = False
    """Whether any worker has accepted it; then its patience counts no more."""
    last_failure: str = ""
    output_at_failure: int = 0
    dispatched_s: float = float("-inf")
    """When it last left its lane."""
    first_dispatched_s: float = float("-inf")
    """When it first did, as far as this leader knows."""
    dispatches: int = 0
    """How often this leader has dispatched it, or found it running."""
    engine: str = ""
    """Name of the engine that ran it last."""
    account: Account | None = None
    """The account of its tenant in its lane, once it was looked up."""
    charged: float = 0.0
    """Cost charged to that account so far."""
    preemptions: int = 0
    """How often this leader has had it parked for a more urgent request."""
    parked_for: str = ""
    """The request that is to start before it; empty once it has started again."""
    floor_slots: int = 0
    """Slots in which it runs by its lane's floor: if not 0, it is not preempted."""
    prefix_blocks: tuple[int, ...] | None = None
    """Names of its prompt's blocks; None until they are computed."""
    prefix_wait_until_s: float | None = None
    """Until when it is held back for a worker that has its prefix; None if it never was."""
    prefix_match: PrefixMatch = NO_MATCH
    """The workers that it is held back for."""
    orphaned_until_s: float = float("-inf")
    """When it would be abandoned, if its gateway has been lost."""

    # Why copied: these are read with every event, and a record makes each string anew.
    request_id: str = field(init=False)
    is_probe: bool = field(init=False)
    lane: str = field(init=False)
    """Where it waits and is counted: its priority, or `PROBES`."""
    gateway_id: str = field(init=False)
    """The gateway that holds it; `LiveRequests.reassign` changes it with the record."""
    tenant: str = field(init=False)
    weights_digest: str = field(init=False)
    """Empty for any."""
    adapter_digest: str = field(init=False)
    """Empty for none."""
    choices: int = field(init=False)
    prompt_tokens: int = field(init=False)
    """Of the prompt, or of all inputs, finished ones included."""
    max_output_tokens: int = field(init=False)

    # What follows from its progress; `_recount` keeps it.
    slots: int = field(init=False)
    """Unfinished choices; at least 1."""
    output_tokens: int = field(init=False)
    input_tokens: int = field(init=False)
    """Of the inputs without a vector; 0 where the model generates tokens."""
    prefill_tokens: int = field(init=False)
    cache_tokens: int = field(init=False)
    """Most tokens that it may come to hold in the cache."""

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
        self._recount()

    def _recount(self) -> None:
        record = self.record
        done = {p.choice for p in record.progress if p.finish_reason != 0}
        self.slots = max(1, self.choices - len(done))
        self.output_tokens = sum(len(p.output_ids) for p in record.progress)
        left = (each for i, each in enumerate(record.inputs) if i not in done)
        self.input_tokens = sum(len(each.token_ids) for each in left)
        prompt_tokens = len(record.prompt_ids)
        self.prefill_tokens = prompt_tokens + self.input_tokens + self.output_tokens
        per_slot = prompt_tokens + record.sampling.max_tokens
        self.cache_tokens = self.slots * per_slot + self.input_tokens

    @property
    def has_run(self) -> bool:
        """Whether any worker has had it, as far as is known."""
        return self.has_started or self.is_running

    @property
    def is_running(self) -> bool:
        return isinstance(self.state, Running)

    @property
    def waits_for_quota(self) -> bool:
        return isinstance(self.state, Lost) and self.state.waits_for_quota

    @property
    def worker_id(self) -> str | None:
        """The worker where it runs, or may still run."""
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
        """Its approximate size in a dispatch; the stored message has no output of attempts."""
        return self.stored_bytes + 4 * self.output_tokens

    @property
    def is_finished(self) -> bool:
        """Whether every choice is at its end, so that there is nothing to run."""
        return sum(p.finish_reason != 0 for p in self.record.progress) >= self.choices

    def count_failure(self, what: str) -> None:
        """Count a failure of an attempt.

        Failures add up only while the request makes no progress between them: a request that
        progresses is not what makes its workers fail, however many of them it outlives.
        """
        self.record.failures += 1
        self.last_failure = what
        self.reset_failures_on_progress()

    def reset_failures_on_progress(self) -> None:
        """Keep only the latest failure if output has grown since. Call where progress is known."""
        if self.output_tokens >= self.output_at_failure + PROGRESS_TOKENS:
            self.record.failures = min(1, self.record.failures)
        self.output_at_failure = self.output_tokens

    def replace_progress(self, progress: Iterable[ChoiceProgress]) -> None:
        """Take the gateway's progress, which is what the client saw; all other output is void."""
        kept = list(longest_progress(progress, choices=self.choices))
        del self.record.progress[:]
        self.record.progress.extend(kept)
        self._recount()

    def merge_progress(self, progress: Iterable[ChoiceProgress]) -> None:
        self.replace_progress([*self.record.progress, *progress])


def longest_progress(progress: Iterable[ChoiceProgress], *, choices: int) -> list[ChoiceProgress]:
    """Return one entry for each choice, the longest; of equal ones the finished one."""
    best: dict[int, ChoiceProgress] = {}
    for entry in progress:
        if entry.choice < choices:
            best[entry.choice] = max(best.get(entry.choice, entry), entry, key=_length)
    return [best[choice] for choice in sorted(best)]


def _length(entry: ChoiceProgress) -> tuple[int, bool]:
    return len(entry.output_ids), entry.finish_reason != 0


def without_prompt(record: RequestRecord) -> RequestRecord:
    """Return a copy with what a gateway has to know of a request that it holds."""
    copy = RequestRecord()
    copy.CopyFrom(record)
    for name in ("prompt_ids", "inputs", "trace_context"):
        copy.ClearField(name)
    return copy


def first_attempt(epoch: int) -> int:
    """Return a number below every attempt of this leadership and above all of earlier ones."""
    return epoch << ATTEMPTS_PER_EPOCH_BITS
