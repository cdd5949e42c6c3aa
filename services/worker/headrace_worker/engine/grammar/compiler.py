"""Compile grammars in background threads, with a cache by grammar.

Everything but the compilation itself happens on the engine's thread, inside `poll`. A grammar that
takes too long is refused for the sequences that wait for it, and delays no other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from headrace_worker.engine.base.interface import Grammar

COMPILE_S = 10.0
AT_ONCE = 2
MOST_OVERDUE = 4
"""Threads past their time limit, which nothing can stop; with so many, other grammars wait."""
REMEMBERED = 256
REMEMBERED_CHARACTERS = 1 << 20
"""Of all cached sources together; a compiled grammar takes some hundred times its size."""


class GrammarRefused(Exception):
    """The grammar is invalid or cannot be enforced; the message gives the reason."""


class Matcher(Protocol):
    """One sequence's state in its grammar."""

    def fill_bitmask(self, bits: Tensor, row: int) -> None:
        """Write which tokens may come next: bit t % 32 of word t // 32 in a row of int32."""
        ...

    def accept(self, token_id: int) -> bool:
        """Advance by a token; return False, and change nothing, if it is forbidden."""
        ...

    @property
    def is_terminated(self) -> bool:
        """Whether nothing may follow, not even a token that ends the sequence."""
        ...


Compiled = Callable[[], Matcher]
"""Makes matchers at the grammar's start."""
CompileFunction = Callable[[Grammar], Compiled]
"""Called from several threads at once; raises GrammarRefused."""


@dataclass(eq=False, slots=True)
class Compilation:
    """A grammar being compiled; done once it has `compiled` or `refusal`."""

    grammar: Grammar
    began_s: float | None = None
    compiled: Compiled | None = None
    refusal: str | None = None

    @property
    def is_done(self) -> bool:
        return self.compiled is not None or self.refusal is not None


class Compiler:
    """Not thread-safe: one thread requests and polls."""

    def __init__(
        self, compile_one: CompileFunction, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._compile_one, self._now_s = compile_one, now_s
        self._known: OrderedDict[Grammar, Compilation] = OrderedDict()
        """Done, the latest requested last."""
        self._characters = 0
        self._open: dict[Grammar, Compilation] = {}
        """Running, or in the queue."""
        self._queue: deque[Compilation] = deque()
        self._overdue = 0
        self._results = queue.SimpleQueue[tuple[Compilation, Compiled | None, str]]()

    def request(self, grammar: Grammar) -> Compilation:
        """Return the cached compilation, or start one as soon as a thread is free."""
        known = self._known.get(grammar)
        if known is not None:
            self._known.move_to_end(grammar)
            return known
        if grammar not in self._open:
            self._open[grammar] = compilation = Compilation(grammar)
            self._queue.append(compilation)
            self._begin_more()
        return self._open[grammar]

    def poll(self, wait_s: float = 0.0) -> None:
        """Collect results; wait up to `wait_s` for the first if there is none."""
        try:
            # Why not block=True always: a timeout of 0 still costs a system call.
            self._take(*self._results.get(wait_s > 0, wait_s or None))
            while True:
                self._take(*self._results.get_nowait())
        except queue.Empty:
            pass
        now_s = self._now_s()
        for compilation in list(self._open.values()):
            if compilation.began_s is not None and now_s - compilation.began_s > COMPILE_S:
                compilation.refusal = f"it takes more than {COMPILE_S:g} s to compile"
                self._overdue += 1
                self._remember(compilation)
        self._begin_more()

    def _begin_more(self) -> None:
        running = len(self._open) - len(self._queue)
        while self._queue and running < AT_ONCE and self._overdue < MOST_OVERDUE:
            compilation = self._queue.popleft()
            compilation.began_s = self._now_s()
            # Why daemons: one that never ends must not keep the process from ending.
            threading.Thread(
                target=self._run, args=(compilation,), name="grammar", daemon=True
            ).start()
            running += 1

    def _run(self, compilation: Compilation) -> None:
        try:
            self._results.put((compilation, self._compile_one(compilation.grammar), ""))
        except GrammarRefused as refusal:
            self._results.put((compilation, None, str(refusal)))
        except Exception as error:  # noqa: BLE001  # a library's fault must not leave sequences waiting
            self._results.put((compilation, None, f"{type(error).__name__}: {error}"))

    def _take(self, compilation: Compilation, compiled: Compiled | None, refusal: str) -> None:
        if compilation.refusal is not None:
            self._overdue -= 1
        # One that came late is cached for later requests.
        compilation.compiled = compiled
        compilation.refusal = None if compiled is not None else refusal
        if compilation.grammar in self._open:
            self._remember(compilation)

    def _remember(self, compilation: Compilation) -> None:
        del self._open[compilation.grammar]
        self._known[compilation.grammar] = compilation
        self._characters += len(compilation.grammar.source)
        while len(self._known) > REMEMBERED or self._characters > REMEMBERED_CHARACTERS:
            oldest, _ = self._known.popitem(last=False)
            self._characters -= len(oldest.source)
