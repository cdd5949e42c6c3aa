"""One worker of a model: its last report, less what was dispatched to it since."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.internal.v1.reports_pb2 import ServedModel
from headrace_scheduler.request.live_request import DispatchNumber, Request


@dataclass(slots=True)
class Occupied:
    """What a dispatched request occupies until a report counts it."""

    slots: int
    cache_tokens: int


@dataclass(slots=True, eq=False)
class Worker:
    worker_id: str
    name: str
    received_s: float = float("-inf")
    """When its last report was received, or later, if none could be received."""
    reported_s: float = float("-inf")
    """When its last report was received."""
    report_number: int = 0
    total_slots: int = 0
    reported_slots: int = 0
    """Free slots by its last report; so are the next."""
    reported_cache_tokens: int = 0
    counted: DispatchNumber = (0, 0)
    """Last dispatch that the report counts."""
    weights_digest: str = ""
    engine: str = ""
    """Its name."""
    adapter_digests: frozenset[str] = frozenset()
    token_s: float = 0.0
    """Recent time between two output tokens of a request there; 0 while unknown."""
    parks: bool = False
    """Whether it can park a running request so that another worker can resume it."""
    running: dict[str, int] = field(default_factory=dict)
    """Attempt by request id, as reported."""
    draining: bool = False
    is_full: bool = False
    """It refused a request for want of room; believed until its next report."""
    unreported: dict[int, dict[str, Occupied]] = field(default_factory=dict)
    """By dispatch number, what its reports do not yet count."""
    taken: Occupied = field(default_factory=lambda: Occupied(0, 0))
    """The sum of `unreported`; kept because it is read with every event."""
    unanswered: int | None = None
    """Number of the one dispatch whose answer is awaited."""
    timed_out: Sequence[Request] | None = None
    """The requests of that dispatch, once no answer to it has come in time."""
    strays: dict[str, float] = field(default_factory=dict)
    """Requests that it runs and this leader does not know, and since when."""

    def apply_report(self, served: ServedModel) -> None:
        """Copy what a report says of room and weights: both are read with every event."""
        self.total_slots, self.reported_slots = served.total_slots, served.free_slots
        self.reported_cache_tokens = served.free_cache_tokens
        self.counted = served.dispatch_epoch, served.dispatch_number
        self.token_s = served.token_time.ToNanoseconds() / 1e9
        card = served.card
        self.weights_digest, self.engine = card.weights_digest, card.engine
        self.adapter_digests = frozenset(a.digest for a in card.adapters if a.digest)
        self.parks = card.capabilities.park and card.capabilities.resume

    @property
    def free_slots(self) -> int:
        return max(0, self.reported_slots - self.taken.slots)

    @property
    def free_cache_tokens(self) -> int:
        return max(0, self.reported_cache_tokens - self.taken.cache_tokens)

    @property
    def is_open(self) -> bool:
        """Whether anything may be dispatched to it."""
        return not self.draining and not self.is_full

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs there, so that waiting for a fuller batch costs only time."""
        return not self.running and not self.unreported

    def has_weights_for(self, request: Request) -> bool:
        """Return whether it serves the weights and the adapter that a request was made for."""
        return request.weights_digest in ("", self.weights_digest) and (
            not request.adapter_digest or request.adapter_digest in self.adapter_digests
        )

    def could_run(self, request: Request) -> bool:
        """Return whether it could run a request if it were empty."""
        return self.has_weights_for(request) and request.slots <= self.total_slots

    @property
    def slot_totals(self) -> SlotTotals:
        free, total = self.free_slots, self.total_slots
        return SlotTotals(
            weights_digest=self.weights_digest,
            open_slots=free if self.is_open else 0,
            capacity=0 if self.draining else total,
            taken=0 if self.draining else total - free,
            draining=total - free if self.draining else 0,
            parks=self.parks,
        )

    @property
    def load(self) -> float:
        """Share of its slots that are taken, from 0 to 1."""
        return 1.0 - self.free_slots / max(1, self.total_slots)

    def occupy(self, number: int, batch: Iterable[Request]) -> None:
        """Count a dispatch that is being sent."""
        self.unanswered = number
        self.unreported[number] = {r.request_id: Occupied(r.slots, r.cache_tokens) for r in batch}
        for occupied in self.unreported[number].values():
            self.taken.slots += occupied.slots
            self.taken.cache_tokens += occupied.cache_tokens

    def vacate(self, number: int, request_ids: Iterable[str]) -> None:
        """Record the answer to a dispatch: these of its requests do not occupy anything."""
        if self.unanswered == number:
            self.unanswered = None
        dispatched = self.unreported.get(number, {})
        for request_id in request_ids:
            if (occupied := dispatched.pop(request_id, None)) is not None:
                self.taken.slots -= occupied.slots
                self.taken.cache_tokens -= occupied.cache_tokens
        if not dispatched:
            self.unreported.pop(number, None)

    def forget(self, number: int) -> None:
        """Count a dispatch no more: a report counts it, or the next one will."""
        self.vacate(number, list(self.unreported.get(number, {})))

    def check_integrity(self) -> None:
        """Raise AssertionError if `taken` is not the sum of `unreported`."""
        occupied = [o for d in self.unreported.values() for o in d.values()]
        slots, tokens = sum(o.slots for o in occupied), sum(o.cache_tokens for o in occupied)
        assert (slots, tokens) == (self.taken.slots, self.taken.cache_tokens)


class SlotTotals(NamedTuple):
    """What one worker adds to the sums of its fleet."""

    weights_digest: str
    open_slots: int
    """Free, and available now."""
    capacity: int
    """All of its slots, unless it drains."""
    taken: int
    """Taken slots of that capacity."""
    draining: int
    """Taken slots while it drains."""
    parks: bool


@dataclass(frozen=True, slots=True)
class RunningChanges:
    """What a report says of a worker's requests."""

    worker: Worker
    running: dict[str, int]
    """Attempt by request id: all that run, or those that changed."""
    gone: Iterable[str] | None
    """Requests that should run there and do not; None if all that the report leaves out are."""
