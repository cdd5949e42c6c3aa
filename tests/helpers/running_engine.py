"""Sequences, and an engine run until it has nothing left to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from headrace.logprobs import Logprobs
from headrace_worker.engine.base.interface import (
    Engine,
    FinishReason,
    NoFreeSlot,
    SamplingParameters,
    Sequence,
)

GREEDY = SamplingParameters(max_tokens=24, temperature=0)
SAMPLED = SamplingParameters(max_tokens=24, temperature=0.9)


def sequence(
    number: int,
    parameters: SamplingParameters = GREEDY,
    *,
    prompt_tokens: int | None = None,
    output_ids: tuple[int, ...] = (),
) -> Sequence:
    """Sequence `number`, with a prompt and a seed of its own."""
    length = 5 + number * 7 % 23 if prompt_tokens is None else prompt_tokens
    prompt_ids = tuple(10 + (number * 37 + place * 11) % 200 for place in range(length))
    seed = number * 0x9E3779B97F4A7C15 % 2**64
    return Sequence(number, prompt_ids, output_ids, parameters, seed)


@dataclass
class History:
    """What an engine said, checked for order while it is written."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    finished: dict[int, FinishReason] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    logprobs: dict[int, Logprobs] = field(default_factory=dict)
    prompt_logprobs: dict[int, Logprobs] = field(default_factory=dict)
    cached_prompts: dict[int, int] = field(default_factory=dict)
    """As it was said first."""
    refused: dict[int, str] = field(default_factory=dict)
    parked: list[int] = field(default_factory=list)
    """As the engine let them go for want of room; one may come here several times."""
    steps: int = 0

    def step(self, engine: Engine) -> None:
        output = engine.step()
        engine.check_integrity()
        self.steps += 1
        assert len(set(output.sequence_ids)) == len(output.sequence_ids)
        over = self.finished.keys() | self.failed.keys() | self.refused.keys()
        for sequence_id, run in output.prompt_logprobs.items():
            assert sequence_id not in self.tokens.keys() | over, "news of a prompt that has output"
            self.prompt_logprobs.setdefault(sequence_id, Logprobs()).extend(run)
        assert output.cached_prompts.keys() <= set(output.sequence_ids)
        for sequence_id, tokens in output.cached_prompts.items():
            # Again behind output, where the sequence was parked and has come back.
            self.cached_prompts.setdefault(sequence_id, tokens)
        for sequence_id, token_id in zip(output.sequence_ids, output.token_ids, strict=True):
            assert sequence_id not in over, "a token after the end"
            self.tokens.setdefault(sequence_id, []).append(token_id)
        assert output.logprobs.keys() <= set(output.sequence_ids)
        for sequence_id, run in output.logprobs.items():
            assert len(run) == 1
            self.logprobs.setdefault(sequence_id, Logprobs()).extend(run)
        for sequence_id, reason in output.finished:
            assert sequence_id not in self.finished.keys() | self.failed.keys(), "two ends"
            self.finished[sequence_id] = reason
        for sequence_id, fact in output.failed:
            assert sequence_id not in self.finished.keys() | self.failed.keys(), "two ends"
            self.failed[sequence_id] = fact
        for sequence_id, fact in output.refused:
            assert sequence_id not in self.finished.keys() | self.refused.keys(), "two ends"
            self.refused[sequence_id] = fact
        for sequence_id in output.parked:
            assert sequence_id not in self.finished.keys() | self.failed.keys(), "parked at its end"
        self.parked += output.parked

    def continued(self, one: Sequence) -> Sequence:
        """The sequence with what was said of it so far."""
        output_ids = (*one.output_ids, *self.tokens.get(one.sequence_id, ()))
        return replace(one, output_ids=output_ids)


def run(engine: Engine, sequences: Iterable[Sequence]) -> History:
    """Admit each as soon as there is a slot, and step until all are over.

    What the engine parks comes again, after all others, with its output so far.
    """
    history, waiting = History(), list(sequences)
    known = {one.sequence_id: one for one in waiting}
    while waiting or engine.has_work:
        while waiting:
            try:
                engine.admit(waiting[0])
            except NoFreeSlot:
                break
            waiting.pop(0)
        parked_before = len(history.parked)
        history.step(engine)
        waiting += [history.continued(known[i]) for i in history.parked[parked_before:]]
    assert engine.statistics().running == 0
    return history


def alone(engine: Engine, one: Sequence) -> list[int]:
    """The tokens of a sequence that has the engine to itself."""
    return run(engine, [one]).tokens.get(one.sequence_id, [])
