"""Form a batch: which waiting requests one worker is sent together, now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from headrace_scheduler.base.settings import SchedulerSettings


class Weights(Protocol):
    """The weights that a request needs."""

    @property
    def weights_digest(self) -> str:
        """Empty for any."""
        ...

    @property
    def adapter_digest(self) -> str:
        """Empty for none."""
        ...


class Candidate(Weights, Protocol):
    """A waiting request, as far as forming a batch depends on it."""

    @property
    def slots(self) -> int:
        """Unfinished choices."""
        ...

    @property
    def prefill_tokens(self) -> int: ...

    @property
    def cache_tokens(self) -> int:
        """Most tokens that it may come to hold in the cache."""
        ...

    @property
    def message_bytes(self) -> int: ...

    @property
    def queued_s(self) -> float:
        """When it entered its lane."""
        ...


C = TypeVar("C", bound=Candidate)


class Room(NamedTuple):
    """What one worker has free."""

    slots: int
    total_slots: int
    cache_tokens: int
    weights_digest: str
    idle: bool
    """Whether nothing runs there, so that waiting for a fuller batch costs only time."""
    adapter_digests: frozenset[str] = frozenset()

    def has_weights_for(self, request: Weights) -> bool:
        return has_weights(request, self.weights_digest, self.adapter_digests)


def has_weights(request: Weights, digest: str, adapter_digests: Set[str]) -> bool:
    """Return whether these weights and adapters are those that a request was made for."""
    return request.weights_digest in ("", digest) and (
        not request.adapter_digest or request.adapter_digest in adapter_digests
    )


class LaneView(NamedTuple, Generic[C]):
    waiting: Iterable[C]
    """Requests that could run there, in the order in which they are to leave."""
    credit: float = 0.0
    """Earned by being passed over; a whole credit buys an aged head the next place."""
    claims: float = float("inf")
    """Slots for which it may buy places ahead of more urgent lanes; the last may exceed them."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[C]):
    requests: tuple[C, ...]
    credits: tuple[float, ...]
    """Credits of the lanes after this batch."""
    claimed: tuple[C, ...] = ()
    """Requests that go ahead of a more urgent lane, for a credit."""


class _Queue(Generic[C]):
    """One lane while a batch is formed: its head and its credit."""

    def __init__(self, lane: LaneView[C]) -> None:
        self.credit, self.claims = lane.credit, lane.claims
        self._rest = iter(lane.waiting)
        self.head = next(self._rest, None)

    def take(self) -> C:
        taken = self.head
        assert taken is not None
        self.head = next(self._rest, None)
        return taken


def can_ever_run(request: Candidate, room: Room) -> bool:
    """Return whether the worker could run a request if it were empty."""
    return room.has_weights_for(request) and request.slots <= room.total_slots


class _Draft(Generic[C]):
    """A batch that is being formed."""

    def __init__(self, room: Room, settings: SchedulerSettings, max_requests: float) -> None:
        self._room, self._settings, self._max_requests = room, settings, max_requests
        self.requests: list[C] = []
        self._slots = self._cache_tokens = self._prefill_tokens = self._bytes = 0

    def fits(self, head: C) -> bool:
        if len(self.requests) == self._max_requests:
            return False
        if self._slots + head.slots > self._room.slots:
            return False
        if not self.requests and self._room.idle:
            return True
        if self._cache_tokens + head.cache_tokens > self._room.cache_tokens:
            return False
        return not self.requests or (
            self._prefill_tokens + head.prefill_tokens <= self._settings.max_batch_prefill_tokens
            and self._bytes + head.message_bytes <= self._settings.max_batch_bytes
        )

    def add(self, request: C) -> None:
        self.requests.append(request)
        self._slots += request.slots
        self._cache_tokens += request.cache_tokens
        self._prefill_tokens += request.prefill_tokens
        self._bytes += request.message_bytes

    def should_wait(self, now_s: float) -> bool:
        """Return whether an idle worker's batch should wait for more requests."""
        if not self._room.idle or not self.requests or self._slots == self._room.slots:
            return False
        return now_s - min(r.queued_s for r in self.requests) < self._settings.max_batch_wait_s


def form_batch(
    lanes: Sequence[LaneView[C]],
    room: Room,
    settings: SchedulerSettings,
    *,
    now_s: float,
    share: float = float("inf"),
) -> Batch[C]:
    """Choose the requests of a worker's next batch, at most `share` of them.

    `lanes` are ordered by urgency. The most urgent lane is served first, and
    within it the first in its order. A lane that is passed over earns
    `floor_share` of a place each time; once its head has waited `ageing_s` it
    spends a whole place to go first: so priority is strict in a burst, and under
    endless load the less urgent lanes keep their share.

    Nothing overtakes a head that does not fit now but would fit an emptier
    worker, because it would starve. An idle worker takes a head whatever its
    tokens, and its batch waits until it is full or its oldest request has waited
    `max_batch_wait_s`. A busy worker's batch does not wait: its next step is wait enough.
    """
    queues = [_Queue(lane) for lane in lanes]
    claimed: list[C] = []
    draft: _Draft[C] = _Draft(room, settings, min(share, settings.max_batch_requests))
    full = False
    while (queue := _next_queue(queues, settings, now_s)) and queue.head is not None:
        if full := not draft.fits(queue.head):
            break
        taken = queue.take()
        draft.add(taken)
        if _pass_over(queues, queue, settings.floor_share):
            queue.claims -= taken.slots
            claimed.append(taken)
    if not full and draft.should_wait(now_s):
        return Batch((), tuple(lane.credit for lane in lanes))
    return Batch(tuple(draft.requests), tuple(q.credit for q in queues), tuple(claimed))


def _next_queue(
    queues: list[_Queue[C]], settings: SchedulerSettings, now_s: float
) -> _Queue[C] | None:
    waiting = [q for q in queues if q.head is not None]
    for queue in waiting:
        has_aged = queue.head is not None and now_s - queue.head.queued_s >= settings.ageing_s
        if queue.credit >= 1.0 and has_aged and queue.claims > 0:
            return queue
    return waiting[0] if waiting else None


def _pass_over(queues: list[_Queue[C]], served: _Queue[C], share: float) -> bool:
    """Credit the lanes below the served one; charge it if it went ahead of a more urgent lane.

    Returns:
        Whether it went ahead.
    """
    place = queues.index(served)
    is_ahead = any(q.head is not None for q in queues[:place])
    if is_ahead:
        served.credit -= 1.0 - share
    for queue in queues[place + 1 :]:
        if queue.head is not None:
            queue.credit = min(1.0, queue.credit + share)
    return is_ahead
