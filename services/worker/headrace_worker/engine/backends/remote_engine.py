"""An engine whose sequences run elsewhere: in a thread, a process, or a remote server.

A step returns what has arrived since the last one. The rules of the engine interface that do not
depend on where sequences run (refusals, ends, one token per step) are applied here for all
backends.
"""

from __future__ import annotations

import logging
import queue
import struct
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

from headrace_worker.engine.backends.held_sequences import HeldSequence, HoldingEngine
from headrace_worker.engine.backends.loop_thread import LoopThread
from headrace_worker.engine.base.interface import (
    EngineFacts,
    FinishReason,
    Sequence,
    SequenceRefused,
    StepOutput,
)

log = logging.getLogger(__name__)

_FINISHES = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}

POLL_S = 0.01
"""How long a step waits for output. Too small: CPU without use. Too large: new sequences and
cancellations, which come between steps, wait so long."""


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Tokens of one sequence as they arrived; the last chunk has the finish."""

    token_ids: tuple[int, ...] = ()
    finish: FinishReason | None = None


class BackendError(Exception):
    """This sequence cannot continue; the message gives the reason. Others are unaffected."""


class RemoteBackend(Protocol):
    """Where sequences really run."""

    def generate(self, sequence: Sequence) -> AsyncGenerator[TokenChunk, None]:
        """Yield the tokens after `output_ids`, as they come. Closing the generator cancels the
        sequence.

        Raises:
            BackendError: this sequence cannot continue. Any other error means that the backend
                is broken, and ends the engine.
        """
        ...

    @property
    def unavailable_reason(self) -> str:
        """Why the backend runs nothing now; empty if it does. Read from any thread."""
        ...

    async def close(self) -> None: ...


class _Held(HeldSequence):
    def __init__(self, sequence: Sequence, facts: EngineFacts) -> None:
        super().__init__(sequence, facts)
        self.prefilled = self.context_tokens
        self.pending: deque[int] = deque()
        """Arrived and not yet returned; at most `max_tokens`."""
        self.failure: str | None = None
        self.receiving: Future[None] | None = None

    @property
    def has_output(self) -> bool:
        return bool(self.pending) or self.finish is not None or self.failure is not None


class RemoteEngine(HoldingEngine[_Held]):
    """An engine over a backend. Call `close`, or let it end with the process."""

    def __init__(self, facts: EngineFacts, backend: RemoteBackend, loop: LoopThread) -> None:
        super().__init__(facts)
        self._backend, self._loop = backend, loop
        self._received = queue.SimpleQueue[tuple[_Held, TokenChunk | Exception]]()

    @property
    def unavailable_reason(self) -> str:
        return self._backend.unavailable_reason

    def _start(self, sequence: Sequence) -> _Held:
        held = _Held(sequence, self._facts)
        if held.finish is None:
            self._require_supported(sequence)
            receiving = self._receive(held, self._with_bounded_output(sequence))
            held.receiving = self._loop.spawn(receiving)
            self._counters.prompt_tokens += held.context_tokens
        return held

    def _require_supported(self, sequence: Sequence) -> None:
        if sequence.grammar is not None:
            raise SequenceRefused(f"engine {self._facts.name} holds no output to grammars")
        if sequence.parameters.masks_tokens:
            raise SequenceRefused(f"engine {self._facts.name} masks no tokens")
        if sequence.cache_salt and not self._facts.capabilities.cache_salt:
            raise SequenceRefused(f"engine {self._facts.name} keeps no caches apart by salts")
        if sequence.output_ids and not self._facts.capabilities.resume:
            raise SequenceRefused(
                f"it has {len(sequence.output_ids)} output tokens, and engine {self._facts.name}"
                " does not support resuming a partial answer"
            )
        if self.unavailable_reason:
            raise SequenceRefused(self.unavailable_reason)

    def _with_bounded_output(self, sequence: Sequence) -> Sequence:
        """Return the sequence with no more output than the context has room for."""
        room = self._facts.context_tokens - len(sequence.prompt_ids)
        max_tokens = min(sequence.parameters.max_tokens, room)
        return replace(sequence, parameters=replace(sequence.parameters, max_tokens=max_tokens))

    async def _receive(self, held: _Held, sequence: Sequence) -> None:
        try:
            async with aclosing(self._backend.generate(sequence)) as pieces:
                async for piece in pieces:
                    self._received.put((held, piece))
                    if piece.finish is not None:
                        return
            self._received.put((held, BackendError("the stream ended without a finish reason")))
        except BackendError as failure:
            self._received.put((held, failure))
        except Exception as error:  # top of the task: the engine's thread raises it
            log.critical("backend.failed", exc_info=True)
            self._received.put((held, error))

    def _prepare_step(self) -> None:
        """Take all that has arrived; wait only if the step would otherwise be empty."""
        wait_s = 0.0 if any(held.has_output for held in self._held.values()) else POLL_S
        try:
            while True:
                self._apply(*self._received.get(wait_s > 0, wait_s))
                wait_s = 0.0
        except queue.Empty:
            pass

    def _apply(self, held: _Held, news: TokenChunk | Exception) -> None:
        if isinstance(news, TokenChunk):
            held.pending.extend(news.token_ids)
            held.finish = news.finish
        elif isinstance(news, BackendError):
            held.failure = str(news)
        else:
            raise news

    def _advance(self, held: _Held, output: StepOutput) -> None:
        sequence_id = held.sequence.sequence_id
        reason = None
        if held.pending:
            reason = self._emit(held, held.pending.popleft(), output)
        elif held.failure is not None:
            output.failed.append((sequence_id, held.failure))
            return
        if reason is None and not held.pending:
            reason = held.finish
        if reason is not None:
            output.finished.append((sequence_id, reason))

    def cancel(self, sequence_id: int) -> None:
        held = self._held.pop(sequence_id, None)
        if held is not None and held.receiving is not None:
            held.receiving.cancel()

    def check_integrity(self) -> None:
        super().check_integrity()
        for held in self._held.values():
            assert held.receiving is not None or held.finish is not None

    def close(self) -> None:
        """Cancel all sequences and close the backend."""
        for sequence_id in list(self._held):
            self.cancel(sequence_id)
        self._loop.run(self._backend.close())
        self._loop.stop()


def finish_of(server: str, reason: str | None) -> FinishReason | None:
    """Return the finish that a server reports in OpenAI's words, None before the end.

    Raises:
        BackendError: the server ended the sequence for another reason.
    """
    if reason is None:
        return None
    if reason not in _FINISHES:
        raise BackendError(f"{server} ended the answer by {reason!r}")
    return _FINISHES[reason]


def tokens_left(sequence: Sequence) -> int:
    """Return how many more tokens the sequence may get."""
    return sequence.parameters.max_tokens - len(sequence.output_ids)


def seed_of(sequence: Sequence, *, bits: int) -> int:
    """Return a seed for backends with a random generator of their own.

    A resumed sequence gets another seed: a restarted generator would repeat its first draws.
    """
    seed = sequence.seed
    if sequence.output_ids:
        words = struct.pack("<QQ", seed, len(sequence.output_ids))
        seed = int.from_bytes(blake2b(words, digest_size=8).digest(), "little")
    return seed % (1 << bits)
