"""When a sequence is over: one rule for every engine."""

from __future__ import annotations

from collections.abc import Collection

from headrace_worker.engine.base.interface import FinishReason, Sequence, SequenceRefused


def finish_reason(
    token_id: int,
    *,
    stop_ids: Collection[int],
    output_tokens: int,
    max_tokens: int,
    total_tokens: int,
    context_tokens: int,
) -> FinishReason | None:
    """Say whether a sequence ends with `token_id`, its latest; STOP wins over LENGTH."""
    if token_id in stop_ids:
        return FinishReason.STOP
    if output_tokens >= max_tokens or total_tokens >= context_tokens:
        return FinishReason.LENGTH
    return None


def stop_ids(sequence: Sequence, eos_token_ids: Collection[int]) -> frozenset[int]:
    """The token ids that end this sequence."""
    parameters = sequence.parameters
    if parameters.ignore_eos:
        return parameters.stop_token_ids
    return parameters.stop_token_ids.union(eos_token_ids)


def finish_reason_so_far(
    sequence: Sequence, *, eos_token_ids: Collection[int], context_tokens: int
) -> FinishReason | None:
    """Say how earlier attempts ended a sequence whose finish was lost on the way."""
    if not sequence.output_ids:
        return None
    return finish_reason(
        sequence.output_ids[-1],
        stop_ids=stop_ids(sequence, eos_token_ids),
        output_tokens=len(sequence.output_ids),
        max_tokens=sequence.parameters.max_tokens,
        total_tokens=len(sequence.prompt_ids) + len(sequence.output_ids),
        context_tokens=context_tokens,
    )


def validate_sequence(sequence: Sequence, *, context_tokens: int, vocabulary_size: int) -> None:
    """Refuse a sequence that could not get one token.

    One whose output already fills the context exactly is fine: it is over, and
    its next step says so.

    Raises:
        SequenceRefused: it is empty, too long, has ids outside the vocabulary (its
            bias included), or a seed of more than 64 bits.
    """
    prompt, output = sequence.prompt_ids, sequence.output_ids
    if not prompt:
        raise SequenceRefused("the prompt has no tokens")
    if sequence.parameters.max_tokens < 1:
        raise SequenceRefused(f"max_tokens is {sequence.parameters.max_tokens}; at least 1 is made")
    if len(prompt) >= context_tokens or len(prompt) + len(output) > context_tokens:
        raise SequenceRefused(
            f"{len(prompt)} prompt and {len(output)} output tokens leave no room "
            f"in a context of {context_tokens}"
        )
    if not 0 <= sequence.seed < 1 << 64:
        raise SequenceRefused(f"the seed {sequence.seed} has more than 64 bits or is below 0")
    parameters = sequence.parameters
    masked = (*parameters.bad_words, parameters.allowed_token_ids)
    for token_ids in (prompt, output, parameters.logit_bias, *masked):
        _require_known(token_ids, vocabulary_size)


def _require_known(token_ids: Collection[int], vocabulary_size: int) -> None:
    if not token_ids:
        return
    least, most = min(token_ids), max(token_ids)
    if least < 0 or most >= vocabulary_size:
        stray = least if least < 0 else most
        raise SequenceRefused(f"token id {stray} is outside the vocabulary of {vocabulary_size}")
