"""A backend whose sequences get what is written for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from headrace_worker.engine.backends.loop_thread import LoopThread
from headrace_worker.engine.backends.remote_engine import RemoteEngine, TokenChunk
from headrace_worker.engine.backends.scripted_text import vocabulary_size
from headrace_worker.engine.base.interface import Capabilities, EngineFacts
from headrace_worker.engine.base.interface import Sequence as EngineSequence

Written = Sequence[TokenChunk | Exception]


@dataclass
class ScriptedBackend:
    """Every sequence gets all of `pieces`; without a finish or an error in them, it waits then."""

    pieces: Written
    unavailable_reason: str = ""
    received: list[EngineSequence] = field(default_factory=list)
    closed: int = 0

    async def generate(self, sequence: EngineSequence) -> AsyncGenerator[TokenChunk, None]:
        self.received.append(sequence)
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
            if not self.pieces or self.pieces[-1].token_ids:  # type: ignore[union-attr]
                await asyncio.Event().wait()
        finally:
            self.closed += 1

    async def close(self) -> None:
        pass


def remote_engine(source: ScriptedBackend, *, resume: bool = True) -> RemoteEngine:
    """An engine over it, with 4 slots and 128 tokens of context."""
    facts = EngineFacts(
        name="written",
        dtype="none",
        max_slots=4,
        context_tokens=128,
        vocabulary_size=vocabulary_size(),
        eos_token_ids=(7,),
        weights_digest="scripted-1",
        batch_invariant=False,
        capabilities=Capabilities(resume=resume),
    )
    return RemoteEngine(facts, source, LoopThread("written"))
