"""Serves, over the bus, which workers of this machine stay stopped once they have ended.

So a drain that is requested from another machine is kept as `headrace drain` keeps one here: the
mark is a file of the state directory, which the worker's `SupervisedProcess` reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from headrace.bus import Bus, BusError
from headrace.bus.control import serve_drained_mark
from headrace.supervisor.state.state_dir import StateDir

log = logging.getLogger(__name__)

_RETRY_S = 0.5


async def serve_drained_marks(
    connect: Callable[[], Awaitable[Bus]], state_dir: StateDir, workers: Iterable[str]
) -> None:
    """Serve the marks of these workers until cancelled."""
    while True:
        try:
            bus = await connect()
        except BusError:
            # Why not raised: a mesh whose broker is away goes on without this.
            await asyncio.sleep(_RETRY_S)
            continue
        try:
            for name in workers:
                await serve_drained_mark(bus, name, partial(_set_drained, state_dir, name))
            await asyncio.get_running_loop().create_future()
        finally:
            await bus.close()


def _set_drained(state_dir: StateDir, name: str, drained: bool) -> bool:
    was_drained = state_dir.is_marked_drained(name)
    if drained:
        state_dir.mark_drained(name)
    else:
        state_dir.clear_drained(name)
    log.info("worker.drained_mark", extra={"worker": name, "drained": drained})
    return was_drained
