"""Keeps an engine's LoRA adapters in line with a folder.

Each subfolder is an adapter, its name the adapter's. Only this folder decides what is
loaded: no client can name a path.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from headrace.internal.v1.model_card_pb2 import Adapter, ModelCard
from headrace_worker.engine.base.interface import AdapterRefused, AdapterStore, LoadedAdapter
from headrace_worker.runtime.dedicated_thread import run_in_dedicated_thread

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9-]{1,63}")
_FILES = ("adapter_config.json", "adapter_model.safetensors")

OnEngine = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs something where the engine may be called."""
Stamp = tuple[tuple[int, int] | None, ...]
"""Time of change and size of each of an adapter's files; None where there is none."""


class AdapterFolder:
    """Keeps an engine's adapters and a model card in line with a folder."""

    def __init__(self, folder: Path, adapters: AdapterStore, card: ModelCard) -> None:
        """Change `card` in place, so that every report has the adapters that are loaded."""
        self._folder, self._adapters, self._card = folder, adapters, card
        self._stamps: dict[str, Stamp] = {}
        self._digests: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._invalid_names: set[str] = set()

    async def run(
        self, on_engine: OnEngine, on_change: Callable[[], None], *, every_s: float
    ) -> None:
        """Scan at intervals until cancelled; call `on_change` after each change of the card."""
        while True:
            await asyncio.sleep(every_s)
            if await self.scan(on_engine):
                on_change()

    async def scan(self, on_engine: OnEngine) -> bool:
        """Load what is new, unload what is gone; return whether the card has changed.

        An adapter that cannot be loaded is in the card with the reason; an older one of its
        name stays. A folder that cannot be read changes nothing.
        """
        try:
            stamps = await asyncio.to_thread(self._look)
        except OSError as error:
            log.warning(
                "adapters.unreadable", extra={"folder": str(self._folder), "why": str(error)}
            )
            return False
        gone = self._stamps.keys() - stamps.keys()
        for name in gone:
            await self._swap(name, None, on_engine)
            self._failures.pop(name, None)
            log.info("adapter.removed", extra={"adapter": name})
        # Why again: those that failed may fit now that others are unloaded.
        again = self._failures.keys() if gone else ()
        due = [n for n, stamp in stamps.items() if n in again or stamp != self._stamps.get(n)]
        for name in due:
            await self._load(name, on_engine)
        self._stamps = stamps
        if gone or due:
            self._update_card()
        return bool(gone or due)

    def _look(self) -> dict[str, Stamp]:
        stamps = {}
        for each in sorted(self._folder.iterdir()):
            if each.name.startswith(".") or not each.is_dir():
                continue
            if NAME.fullmatch(each.name):
                stamps[each.name] = tuple(_stamp(each / file) for file in _FILES)
            elif each.name not in self._invalid_names:
                self._invalid_names.add(each.name)
                fact = f"its name is not {NAME.pattern}"
                log.warning("adapter.refused", extra={"adapter": each.name, "why": fact})
        return stamps

    async def _load(self, name: str, on_engine: OnEngine) -> None:
        try:
            fitted = await run_in_dedicated_thread(
                partial(self._adapters.load, self._folder / name)
            )
            if fitted.digest != self._digests.get(name):
                await self._swap(name, fitted, on_engine)
                extra = {"adapter": name, "rank": fitted.rank, "bytes": fitted.bytes}
                log.info("adapter.loaded", extra=extra)
            self._failures.pop(name, None)
        except AdapterRefused as error:
            self._fail(name, str(error))
        except Exception as error:  # noqa: BLE001  # no file may cost what is served
            self._fail(name, repr(error))

    def _fail(self, name: str, why: str) -> None:
        self._failures[name] = why
        log.error("adapter.refused", extra={"adapter": name, "why": why})

    async def _swap(self, name: str, fitted: LoadedAdapter | None, on_engine: OnEngine) -> None:
        before = self._digests.pop(name, "")
        shared = before in self._digests.values()
        # Why first: what was accepted by the former card reaches the engine before the change.
        self._update_card()

        def change() -> None:
            if before and not shared:
                self._adapters.remove(before)
            if fitted is not None:
                self._adapters.add(fitted)

        await on_engine(change)
        if fitted is not None:
            self._digests[name] = fitted.digest

    def _update_card(self) -> None:
        del self._card.adapters[:]
        self._card.adapters.extend(
            Adapter(
                name=name,
                digest=self._digests.get(name, ""),
                failure=self._failures.get(name, ""),
            )
            for name in sorted(self._digests.keys() | self._failures.keys())
        )


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
