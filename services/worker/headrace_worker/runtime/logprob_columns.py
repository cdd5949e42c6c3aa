"""Writes log probabilities into the columns of a delivery message."""

from __future__ import annotations

from headrace.internal.v1.delivery_pb2 import DeliverRequest
from headrace.logprobs import Logprobs


def add_rows(message: DeliverRequest, first_row: int, run: Logprobs) -> None:
    """Add those of the tokens in the message's columns from `first_row` on."""
    if not run:
        return
    columns, tokens = message.logprobs, len(run)
    columns.rows.extend(range(first_row, first_row + tokens))
    columns.logprobs.extend(run.own)
    columns.top_counts.extend([run.width] * tokens)
    columns.top_token_ids.extend(run.top_ids)
    columns.top_logprobs.extend(run.top)


def add_prompt(message: DeliverRequest, slot: int, first_index: int, run: Logprobs) -> None:
    """Add those of a part of a slot's prompt."""
    piece = message.prompt_logprobs.add(slot=slot, first_index=first_index)
    piece.logprobs.logprobs.extend(run.own)
    piece.logprobs.top_token_ids.extend(run.top_ids)
    piece.logprobs.top_logprobs.extend(run.top)


def entries(message: DeliverRequest) -> int:
    """Return the number of tokens and log probabilities in a message."""
    prompts = (piece.logprobs for piece in message.prompt_logprobs)
    return (
        len(message.slots)
        + len(message.logprobs.top_logprobs)
        + sum(len(run.logprobs) + len(run.top_logprobs) for run in prompts)
    )
