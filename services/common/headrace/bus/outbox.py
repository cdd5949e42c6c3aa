"""Messages that are sent again until the receiver has confirmed them.

An `Outbox` sends one batch at a time and retries with growing pauses; what is added meanwhile
goes with the next batch. With `send` as a call over the bus, two items a batch, and the peer away
for a moment:

    outbox = Outbox[int]("numbers", send, max_items=2)
    add(1), add(2), add(3)         waiting: 1 2 3
    send([1, 2])                   raises NoReply; pause 0.05 s
    send([1, 2])                   returns [2], which was not confirmed; waiting: 3 2; pause 0.1 s
    send([3, 2])                   returns None, so all are confirmed; waiting: nothing

Delivery is at least once: `send` may see an item again after it failed, so what it sends must be
idempotent. Items are bounded by the caller, which adds one for each thing that it holds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from headrace.bus import BusError

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_RETRY_S = 0.05
MAX_MESSAGE_BYTES = 512 * 1024
"""Half of NATS' default limit. A message with a single item may be larger."""


def portions(
    items: Iterable[T], size: Callable[[T], int], *, max_bytes: int = MAX_MESSAGE_BYTES
) -> Iterator[list[T]]:
    """Cut items, in their order, into lists of at most `max_bytes` or of one item."""
    portion, total = list[T](), 0
    for item in items:
        item_bytes = size(item)
        if portion and total + item_bytes > max_bytes:
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += item_bytes
    if portion:
        yield portion


class Outbox(Generic[T]):
    """Items that wait to be sent, or to be confirmed; `len` is their number."""

    def __init__(
        self,
        name: str,
        send: Callable[[list[T]], Awaitable[Iterable[T] | None]],
        *,
        key: Callable[[T], Hashable] | None = None,
        size: Callable[[T], int] = lambda _: 0,
        max_items: int = 256,
        wait_s: float = 0.0,
        max_retry_s: float = 2.0,
        on_retry: Callable[[int], object] = lambda _: None,
    ) -> None:
        """
        Args:
            name: in the log.
            send: sends one batch. It returns once the receiver has confirmed, or returns the items
                that were not confirmed. It raises BusError where none was.
            key: identifies an item. An item replaces a waiting one of the same key, and is sent
                even if the older one is in flight. Default: each item is distinct.
            size: bytes of an item; a batch has at most MAX_MESSAGE_BYTES, or one item.
            max_items: most items of a batch.
            wait_s: how long a batch that is not full waits for more items.
            max_retry_s: longest pause before a batch is sent again; pauses double from 0.05 s.
            on_retry: called with the number of items that were not confirmed, for a metric.
        """
        self._name, self._send, self._size = name, send, size
        numbers = itertools.count()
        self._key = key or (lambda _: next(numbers))
        self._max_items, self._max_retry_s, self._on_retry = max_items, max_retry_s, on_retry
        self._wait_s = wait_s
        self._waiting: dict[Hashable, T] = {}
        self._added = asyncio.Event()
        self._confirmed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T) -> None:
        """Send this item, with the next batch that has room for it."""
        self._waiting[self._key(item)] = item
        self._added.set()

    async def confirmed(self, keys: Iterable[Hashable] | None = None) -> None:
        """Wait until no item of these keys waits; unset: of those that wait now. No deadline."""
        pending = set(self._waiting if keys is None else keys)
        async with self._confirmed:
            # Why from the keys: they look at the fewer of the two, however many wait.
            await self._confirmed.wait_for(lambda: self._waiting.keys().isdisjoint(pending))

    async def run(self) -> None:
        """Send until cancelled. What then waits stays unsent."""
        retry_s = 0.0
        while True:
            await self._added.wait()
            if self._wait_s and len(self._waiting) < self._max_items:
                await asyncio.sleep(self._wait_s)
            unconfirmed = await self._send_batch(is_retry=retry_s > 0)
            async with self._confirmed:
                self._confirmed.notify_all()
            if not self._waiting:
                self._added.clear()
            if not unconfirmed:
                retry_s = 0.0
                continue
            self._on_retry(unconfirmed)
            retry_s = min(max(2 * retry_s, FIRST_RETRY_S), self._max_retry_s)
            await asyncio.sleep(retry_s)

    async def _send_batch(self, *, is_retry: bool) -> int:
        """Send one batch; return how many of its items were not confirmed."""
        batch = self._next_batch()
        items = list(batch.values())
        try:
            rejected = list(await self._send(items) or ())
        except BusError as error:
            if not is_retry:
                self._log("outbox.unconfirmed", items=len(items), error=str(error))
            return len(items)
        if is_retry and not rejected:
            self._log("outbox.confirmed", items=len(items))
        for key, item in batch.items():
            # A newer item of the same key came while this one was in flight.
            if self._waiting[key] is not item:
                continue
            del self._waiting[key]
            if any(item is each for each in rejected):
                # Last, so that items which fail each time hold up no others.
                self._waiting[key] = item
        return len(rejected)

    def _next_batch(self) -> dict[Hashable, T]:
        first = itertools.islice(self._waiting.items(), self._max_items)
        return dict(next(portions(first, lambda pair: self._size(pair[1]))))

    def _log(self, event: str, *, items: int, error: str = "") -> None:
        log.warning(event, extra={"outbox": self._name, "items": items, "error": error})


class OutboxPerModel(Generic[T]):
    """One outbox for each model, so that a model without a leader holds up no other."""

    def __init__(
        self, name: str, send: Callable[[str, list[T]], Awaitable[Iterable[T] | None]]
    ) -> None:
        """`send` is that of `Outbox`, with the model first."""
        self._name, self._send = name, send
        self._outboxes: dict[str, Outbox[T]] = {}
        self._unstarted: asyncio.Queue[Outbox[T]] = asyncio.Queue()

    def __len__(self) -> int:
        return sum(map(len, self._outboxes.values()))

    def add(self, model: str, item: T) -> None:
        """Send this item to the model's leader."""
        if (outbox := self._outboxes.get(model)) is None:
            outbox = Outbox(f"{self._name}.{model}", lambda items: self._send(model, items))
            self._outboxes[model] = outbox
            self._unstarted.put_nowait(outbox)
        outbox.add(item)

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                outbox = await self._unstarted.get()
                tasks.create_task(outbox.run())
