"""The only crossing between the event loop and the engine's thread.

The thread owns the engine: it takes commands between steps, steps while there
is work, and hands each step's output to the loop. The loop never waits for a
step; the thread waits for the loop only when it is `MAX_STEPS_AHEAD` outputs
ahead, so that a busy loop slows the engine instead of filling memory.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from headrace_worker.engine.base.interface import (
    Engine,
    EngineStatistics,
    Sequence,
    SequenceRefused,
    StepOutput,
)

log = logging.getLogger(__name__)

R = TypeVar("R")
Command = Callable[[Engine], None]

MAX_STEPS_AHEAD = 4
IDLE_POLL_S = 1.0
STOP_S = 10.0


class Pump:
    """Runs an engine on a thread of its own.

    Args:
        on_step: called on the loop with every output that is not empty.
        on_refused: called on the loop, with the reason, when the engine refuses a sequence.
        on_death: called on the loop if the engine itself fails; no step follows.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        on_step: Callable[[StepOutput], None],
        on_refused: Callable[[int, str], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._on_step, self._on_refused, self._on_death = on_step, on_refused, on_death
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._ahead = threading.Semaphore(MAX_STEPS_AHEAD)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._statistics = engine.statistics()
        self._busy_since_s: float | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def statistics(self) -> EngineStatistics:
        """Return the statistics after the last step, or after the last command since."""
        return self._statistics

    def busy_s(self) -> float:
        """Return how long the engine has been in one step or command; 0 between them."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def admit(self, sequence: Sequence) -> None:
        """Pass a sequence to the engine; a refusal is reported by `on_refused`."""

        def command(engine: Engine) -> None:
            try:
                engine.admit(sequence)
            except SequenceRefused as refusal:
                self._call(self._on_refused, sequence.sequence_id, str(refusal))

        self._commands.put(command)

    def cancel(self, sequence_id: int) -> None:
        """Drop a sequence before the next step; one that has ended is fine."""
        self._commands.put(lambda engine: engine.cancel(sequence_id))

    async def do(self, act: Callable[[], R]) -> R:
        """Call `act` on the engine's thread, between two steps; raise what it raises.

        Waits for as long as the engine lives: cancel it where that may be too long. If it is
        cancelled before the engine's thread comes to it, `act` is not called.
        """
        done: Future[R] = Future()

        def command(_: Engine) -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(act())
            except Exception as error:  # noqa: BLE001  # raised by the waiting caller
                done.set_exception(error)

        self._commands.put(command)
        return await asyncio.wrap_future(done)

    async def stop(self) -> None:
        """End the thread after its present step; sequences that are held stay held.

        A step that takes longer than `STOP_S` is not awaited; it ends with the process.
        """
        self.end()
        await asyncio.to_thread(self.join)

    def end(self) -> None:
        """As `stop`, without waiting for the thread."""
        self._commands.put(None)

    def join(self) -> None:
        """Wait for the thread's end, at most `STOP_S`; blocks."""
        self._thread.join(STOP_S)

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(callback, *arguments)

    def _run(self) -> None:
        try:
            while self._run_commands():
                if self._engine.has_work:
                    self._step()
        except BaseException as error:  # top of the thread: the process must end
            log.critical("engine.died", exc_info=True)
            self._call(self._on_death, error)

    def _run_commands(self) -> bool:
        """Run all queued commands; wait for one if the engine has no work. False: stop."""
        try:
            block = not self._engine.has_work
            while True:
                command = self._commands.get(block=block, timeout=IDLE_POLL_S)
                if command is None:
                    return False
                self._busy_since_s = time.monotonic()
                command(self._engine)
                self._busy_since_s = None
                block = False
        except queue.Empty:
            if not self._engine.has_work:  # else the next step updates them
                self._statistics = self._engine.statistics()
            return True

    def _step(self) -> None:
        self._busy_since_s = time.monotonic()
        output = self._engine.step()
        self._busy_since_s = None
        self._statistics = self._engine.statistics()
        if output.has_content:
            self._ahead.acquire()
            self._call(self._deliver, output)

    def _deliver(self, output: StepOutput) -> None:
        self._ahead.release()
        self._on_step(output)
