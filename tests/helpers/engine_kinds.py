"""Engines that compute in their own steps, made small, for the suites that all of them pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace_worker.engine.backends.scripted import (
    ScriptedEngine,
    ScriptedFaults,
    ScriptedSettings,
)
from headrace_worker.engine.base.interface import Engine, Sequence
from helpers.running_engine import sequence
from helpers.tiny_models import (
    POISON,
    packed,
    poisoned_llama,
    stepwise,
    tiny_llama,
    unpacked_llama,
)


@dataclass(frozen=True)
class Kind:
    """How to make one kind of engine: 4 slots, 128 tokens of context, chunks of 8."""

    make: Callable[[], Engine]
    make_poisoned: Callable[[], Engine]
    """One that cannot compute `poisoned`."""
    poisoned: Sequence


def _scripted(faults: ScriptedFaults) -> Engine:
    return ScriptedEngine(
        ScriptedSettings(max_slots=4, context_tokens=128, prefill_chunk_tokens=8, faults=faults)
    )


POISONED = replace(sequence(3), prompt_ids=(20, 21, POISON, 22))
STEPPED = {
    "scripted": Kind(
        lambda: _scripted(ScriptedFaults()),
        lambda: _scripted(ScriptedFaults(fail_prompts_containing=POISON)),
        POISONED,
    ),
    "packed": Kind(lambda: packed(tiny_llama()), lambda: packed(poisoned_llama()), POISONED),
    "stepwise": Kind(
        lambda: stepwise(unpacked_llama()), lambda: stepwise(poisoned_llama()), POISONED
    ),
    "packed, pages": Kind(
        lambda: packed(tiny_llama(), kv_store="pages"),
        lambda: packed(poisoned_llama(), kv_store="pages"),
        POISONED,
    ),
    "packed, async": Kind(
        lambda: packed(tiny_llama(), kv_store="pages", async_scheduling=True),
        lambda: packed(poisoned_llama(), kv_store="pages", async_scheduling=True),
        POISONED,
    ),
}
