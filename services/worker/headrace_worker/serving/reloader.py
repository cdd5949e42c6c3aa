"""Another model, or the same with other settings, without a moment in which none is served."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable

from headrace.bus import BusUnavailable
from headrace.settings import SettingsRefused
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.loaded import LoadedModel, ModelLoadFailed
from headrace_worker.runtime.metrics import RELOADS
from headrace_worker.serving.model_server import ModelServer

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""Requests made for the old weights may still wait in their lanes, and only they can run there.
A slot that stays free for so long says that there are none."""
CALLBACKS_DONE_S = 0.5
"""By then nothing on its way in the event loop names what has left."""

Reread = Callable[[], WorkerSettings]
Load = Callable[[WorkerSettings], Awaitable[LoadedModel]]
Make = Callable[[WorkerSettings, LoadedModel], ModelServer]


class Reloader:
    """What a worker serves, and what it does when it is told to load anew.

    Args:
        reread: the settings as they are now. Raises SettingsRefused.
        load: raises ModelLoadFailed.
    """

    def __init__(self, settings: WorkerSettings, *, reread: Reread, load: Load) -> None:
        self.settings = settings
        self.servers: list[ModelServer] = []
        """That have begun and not left, oldest first: one, or two while it changes over."""
        self._reread, self._load = reread, load
        self._wanted = asyncio.Event()

    def want(self) -> None:
        """Load anew; told again while it does, it does so once more afterwards."""
        self._wanted.set()

    async def run(self, make: Make) -> None:
        """Load whenever it is wanted, until cancelled; `make` gives a serving to begin.

        What cannot be loaded is said in the log, and changes nothing.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if await self._try_begin(make):
                await self._retire()
                await _forget_what_was()

    async def _try_begin(self, make: Make) -> bool:
        try:
            settings = self.settings.with_model_of(self._reread())
            successor = make(settings, await self._load(settings))
            await successor.begin()
        except Exception as error:  # top of a task; a model's files raise anything
            expected = isinstance(error, SettingsRefused | ModelLoadFailed | BusUnavailable)
            RELOADS.labels(self.settings.model_name, "failed").inc()
            facts = {"why": str(error) if expected else repr(error), "still": "serving as before"}
            log.error("model.load_failed", extra=facts, exc_info=not expected)
            return False
        RELOADS.labels(settings.model_name, "done").inc()
        self.settings = settings
        self.servers.append(successor)
        return True

    async def _retire(self) -> None:
        """Let the oldest leave."""
        old, new = self.servers
        digests = {"old": old.card.weights_digest, "new": new.card.weights_digest}
        log.info("model.switched", extra=digests)
        old.stop_announcing()
        if digests["old"] != digests["new"]:
            await old.wait_until_idle(quiet_s=IDLE_S, within_s=self.settings.drain_s)
        # Of the same weights, what runs here goes on there at once.
        await old.drain(within_s=0)
        await old.leave()
        self.servers.remove(old)


async def _forget_what_was() -> None:
    """Why: what was frozen at the start is never collected, and a model is full of cycles."""
    gc.unfreeze()
    # What callbacks on their way still name would be frozen for good.
    await asyncio.sleep(CALLBACKS_DONE_S)
    gc.collect()
    gc.freeze()
