"""Reloads a worker's model, or loads another, without a moment in which none is served."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable

from headrace.bus import BusUnavailable
from headrace.settings import InvalidSettings
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.loaded_model import LoadedModel, ModelLoadFailed
from headrace_worker.runtime.metrics import RELOADS
from headrace_worker.serving.model_server import ModelServer

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""How long nothing must run before the old weights are unloaded: requests that were made for them
may still wait in their lanes, and can run nowhere else."""
CALLBACKS_DONE_S = 0.5
"""By then no callback of the event loop refers to what was unloaded."""

Reread = Callable[[], WorkerSettings]
Load = Callable[[WorkerSettings], Awaitable[LoadedModel]]
Make = Callable[[WorkerSettings, LoadedModel], ModelServer]


class Reloader:
    """The models that a worker serves, and how it replaces one.

    Args:
        reread: the settings as they are now. Raises InvalidSettings.
        load: raises ModelLoadFailed.
    """

    def __init__(self, settings: WorkerSettings, *, reread: Reread, load: Load) -> None:
        self.settings = settings
        self.servers: list[ModelServer] = []
        """Those that have begun and not left, oldest first: one, or two during a reload."""
        self._reread, self._load = reread, load
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Reload; a call during a reload makes it reload once more afterwards."""
        self._requested.set()

    async def run(self, make: Make) -> None:
        """Reload on request, until cancelled; `make` returns a server to begin.

        A model that cannot be loaded is logged and changes nothing.
        """
        while True:
            await self._requested.wait()
            self._requested.clear()
            if await self._try_begin(make):
                await self._retire()
                await _collect_garbage()

    async def _try_begin(self, make: Make) -> bool:
        try:
            settings = self.settings.with_model_of(self._reread())
            successor = make(settings, await self._load(settings))
            await successor.begin()
        except Exception as error:  # top of a task; a model's files raise anything
            expected = isinstance(error, InvalidSettings | ModelLoadFailed | BusUnavailable)
            RELOADS.labels(self.settings.model_name, "failed").inc()
            facts = {"why": str(error) if expected else repr(error), "still": "serving as before"}
            log.error("model.load_failed", extra=facts, exc_info=not expected)
            return False
        RELOADS.labels(settings.model_name, "done").inc()
        self.settings = settings
        self.servers.append(successor)
        return True

    async def _retire(self) -> None:
        """Unload the oldest."""
        old, new = self.servers
        digests = {"old": old.card.weights_digest, "new": new.card.weights_digest}
        log.info("model.switched", extra=digests)
        old.stop_announcing()
        if digests["old"] != digests["new"]:
            await old.wait_until_idle(quiet_s=IDLE_S, within_s=self.settings.drain_s)
        # Why at once: with the same weights, requests can be resumed on the successor.
        await old.drain(within_s=0)
        await old.leave()
        self.servers.remove(old)


async def _collect_garbage() -> None:
    """Collect the old model. What was frozen at the start is never collected by itself, and a
    model is full of cycles."""
    gc.unfreeze()
    # Why wait: what callbacks still refer to would be frozen for good.
    await asyncio.sleep(CALLBACKS_DONE_S)
    gc.collect()
    gc.freeze()
