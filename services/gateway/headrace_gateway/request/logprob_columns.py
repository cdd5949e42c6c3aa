"""Pure: log probabilities, from delivery messages and to and from public messages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from headrace.internal.v1.delivery_pb2 import DeliverRequest, RowLogprobs
from headrace.logprobs import Logprobs
from headrace.v1 import common_pb2


class UnequalColumns(Exception):
    """What belongs together differs in length; the text has the numbers."""


def by_row(message: DeliverRequest) -> Iterator[Logprobs | None]:
    """For each row of the message's columns in order, the log probabilities of its token.

    Raises:
        UnequalColumns: they do not match each other, or are of rows that are not there.
    """
    if not message.HasField("logprobs"):
        return repeat(None, len(message.slots))
    columns = message.logprobs
    _require_equal(columns, len(message.slots))
    rows: list[Logprobs | None] = [None] * len(message.slots)
    own, end = columns.logprobs, 0
    for at, (row, count) in enumerate(zip(columns.rows, columns.top_counts, strict=True)):
        begin, end = end, end + count
        rows[row] = Logprobs.of(
            own[at : at + 1], columns.top_token_ids[begin:end], columns.top_logprobs[begin:end]
        )
    return iter(rows)


def _require_equal(columns: RowLogprobs, rows: int) -> None:
    lengths = {len(columns.rows), len(columns.logprobs), len(columns.top_counts)}
    likeliest = {sum(columns.top_counts), len(columns.top_token_ids), len(columns.top_logprobs)}
    if len(lengths) > 1 or len(likeliest) > 1 or max(columns.rows, default=0) >= max(rows, 1):
        raise UnequalColumns(
            f"logprobs in columns of {sorted(lengths)} and {sorted(likeliest)}, of {rows} tokens"
        )


def read_run(message: common_pb2.Logprobs) -> Logprobs:
    """
    Raises:
        UnequalColumns: its tokens do not all have equally many.
    """
    tokens, likeliest = len(message.logprobs), len(message.top_logprobs)
    if likeliest != len(message.top_token_ids) or likeliest % max(tokens, 1):
        raise UnequalColumns(f"{likeliest} likeliest of {tokens} tokens")
    return Logprobs.of(message.logprobs, message.top_token_ids, message.top_logprobs)


def written(run: Logprobs | None) -> common_pb2.Logprobs | None:
    """As the public messages have it; None if there are none."""
    if run is None:
        return None
    return common_pb2.Logprobs(logprobs=run.own, top_token_ids=run.top_ids, top_logprobs=run.top)
