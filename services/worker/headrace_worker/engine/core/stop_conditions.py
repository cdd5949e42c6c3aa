"""When a sequence ends, and which sequences are refused: the same rules for every engine."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as SequenceOf

from headrace_worker.engine.base.interface import (
    EngineFacts,
    FinishReason,
    Sequence,
    SequenceRefused,
)


def finish_reason(
    sequence: Sequence, output_ids: SequenceOf[int], stop_ids: Collection[int], context_tokens: int
) -> FinishReason | None:
    """Return how the sequence ends with the last of `output_ids`, if it does.

    `output_ids` is all output, that of earlier attempts included. STOP wins over LENGTH.
    """
    if output_ids[-1] in stop_ids:
        return FinishReason.STOP
    total_tokens = len(sequence.prompt_ids) + len(output_ids)
    if len(output_ids) >= sequence.parameters.max_tokens or total_tokens >= context_tokens:
        return FinishReason.LENGTH
    return None


def stop_ids(sequence: Sequence, eos_token_ids: Collection[int]) -> frozenset[int]:
    """Return the token ids that end this sequence."""
    parameters = sequence.parameters
    if parameters.ignore_eos:
        return parameters.stop_token_ids
    return parameters.stop_token_ids.union(eos_token_ids)


def finish_reason_so_far(sequence: Sequence, facts: EngineFacts) -> FinishReason | None:
    """Return how earlier attempts ended a sequence whose finish was lost, if they did."""
    if not sequence.output_ids:
        return None
    end_ids = stop_ids(sequence, facts.eos_token_ids)
    return finish_reason(sequence, sequence.output_ids, end_ids, facts.context_tokens)


def validate_sequence(sequence: Sequence, facts: EngineFacts) -> None:
    """Refuse a sequence for which this engine cannot compute one token.

    A sequence whose output fills the context exactly is accepted: its next step finishes it.

    Raises:
        SequenceRefused: it is empty, too long, has ids outside the vocabulary (its bias
            included), or a seed of more than 64 bits.
    """
    prompt, output = sequence.prompt_ids, sequence.output_ids
    parameters, context_tokens = sequence.parameters, facts.context_tokens
    if not prompt:
        raise SequenceRefused("the prompt has no tokens")
    if parameters.max_tokens < 1:
        raise SequenceRefused(f"max_tokens is {parameters.max_tokens}; at least 1 is made")
    if len(prompt) >= context_tokens or len(prompt) + len(output) > context_tokens:
        raise SequenceRefused(
            f"{len(prompt)} prompt and {len(output)} output tokens leave no room "
            f"in a context of {context_tokens}"
        )
    if not 0 <= sequence.seed < 1 << 64:
        raise SequenceRefused(f"the seed {sequence.seed} has more than 64 bits or is below 0")
    masked = (*parameters.bad_words, parameters.allowed_token_ids)
    for token_ids in (prompt, output, parameters.logit_bias, *masked):
        require_known_ids(token_ids, facts.vocabulary_size)


def require_known_ids(token_ids: Collection[int], vocabulary_size: int) -> None:
    """Raise SequenceRefused for a token id that is outside the vocabulary."""
    for token_id in (min(token_ids), max(token_ids)) if token_ids else ():
        if not 0 <= token_id < vocabulary_size:
            raise SequenceRefused(
                f"token id {token_id} is outside the vocabulary of {vocabulary_size}"
            )
