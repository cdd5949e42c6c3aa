"""Form a batch: which waiting requests one worker is sent together, now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.workers.worker import Worker


class LaneView(NamedTuple):
    waiting: Iterable[Request]
    """Requests that could run there, in the order in which they are to leave."""
    credit: float = 0.0
    """Earned by being passed over; a whole credit buys an aged head the next place."""
    claims: float = float("inf")
    """Slots for which it may buy places ahead of more urgent lanes; the last may exceed them."""


@dataclass(frozen=True, slots=True)
class Batch:
    requests: tuple[Request, ...]
    credits: tuple[float, ...]
    """Credits of the lanes after this batch."""
    claimed: tuple[Request, ...] = ()
    """Requests that go ahead of a more urgent lane, for a credit."""


class _Queue:
    """One lane while a batch is formed: its head and its credit."""

    def __init__(self, lane: LaneView) -> None:
        self.credit, self.claims = lane.credit, lane.claims
        self._rest = iter(lane.waiting)
        self.head = next(self._rest, None)

    def take(self) -> Request:
        taken = self.head
        assert taken is not None
        self.head = next(self._rest, None)
        return taken


class _Draft:
    """A batch that is being formed, and what is left for it."""

    def __init__(self, worker: Worker, settings: SchedulerSettings, max_requests: float) -> None:
        self._settings, self._max_requests = settings, max_requests
        self._is_worker_idle = worker.is_idle
        self.requests: list[Request] = []
        self._slots, self._cache_tokens = worker.free_slots, worker.free_cache_tokens
        self._prefill_tokens = settings.max_batch_prefill_tokens
        self._bytes = settings.max_batch_bytes

    def fits(self, head: Request) -> bool:
        if len(self.requests) == self._max_requests or head.slots > self._slots:
            return False
        if not self.requests and self._is_worker_idle:
            return True
        if head.cache_tokens > self._cache_tokens:
            return False
        return not self.requests or (
            head.prefill_tokens <= self._prefill_tokens and head.message_bytes <= self._bytes
        )

    def add(self, request: Request) -> None:
        self.requests.append(request)
        self._slots -= request.slots
        self._cache_tokens -= request.cache_tokens
        self._prefill_tokens -= request.prefill_tokens
        self._bytes -= request.message_bytes

    def should_wait(self, now_s: float) -> bool:
        """Return whether an idle worker's batch should wait for more requests."""
        if not self._is_worker_idle or not self.requests or not self._slots:
            return False
        return now_s - min(r.queued_s for r in self.requests) < self._settings.max_batch_wait_s


def form_batch(
    lanes: Sequence[LaneView],
    worker: Worker,
    settings: SchedulerSettings,
    *,
    now_s: float,
    share: float = float("inf"),
) -> Batch:
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
    claimed: list[Request] = []
    draft = _Draft(worker, settings, min(share, settings.max_batch_requests))
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


def _next_queue(queues: list[_Queue], settings: SchedulerSettings, now_s: float) -> _Queue | None:
    waiting = [q for q in queues if q.head is not None]
    for queue in waiting:
        has_aged = queue.head is not None and now_s - queue.head.queued_s >= settings.ageing_s
        if queue.credit >= 1.0 and has_aged and queue.claims > 0:
            return queue
    return waiting[0] if waiting else None


def _pass_over(queues: list[_Queue], served: _Queue, share: float) -> bool:
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
