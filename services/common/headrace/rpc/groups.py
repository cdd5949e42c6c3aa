"""Groups what goes over a stream, so that a message costs its many entries little."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Groups(Generic[T]):
    """Entries that wait for a message of their stream, in their order.

    The first of a quiet stream goes at once; what comes within `every_s` of that goes together.

        groups.add(row, size=len(row.body))
        while True:
            await call.write(Message(rows=await groups.next()))
    """

    def __init__(self, *, every_s: float, max_bytes: int) -> None:
        """`max_bytes`: of a group; an entry that is larger goes alone."""
        self._every_s, self._max_bytes = every_s, max_bytes
        self._waiting: deque[tuple[T, int]] = deque()
        self._has_some = asyncio.Event()
        self._next_s = 0.0

    def add(self, entry: T, *, size: int) -> None:
        """Have an entry of this many bytes sent."""
        self._waiting.append((entry, size))
        self._has_some.set()

    async def next(self) -> list[T]:
        """Return the entries of the next message, once there are some and it may be sent."""
        await self._has_some.wait()
        time_s = asyncio.get_running_loop().time
        if (wait_s := self._next_s - time_s()) > 0:
            await asyncio.sleep(wait_s)
        group: list[T] = []
        left = self._max_bytes
        while self._waiting and (not group or self._waiting[0][1] <= left):
            entry, size = self._waiting.popleft()
            group.append(entry)
            left -= size
        if not self._waiting:
            self._has_some.clear()
            self._next_s = time_s() + self._every_s
        return group
