"""Keyword arguments of `headrace.client`; made by `make proto`, not by hand."""

from __future__ import annotations

from typing import TypedDict


class Sampling(TypedDict, total=False):
    """Fields of `headrace.v1.SamplingParameters`; absent: the model's default."""

    max_tokens: int | None
    temperature: float | None
    """In [0, 2]."""
    top_p: float | None
    """In (0, 1]."""
    top_k: int | None
    min_p: float | None
    """In [0, 1]."""
    repetition_penalty: float | None
    """In (0, 10]."""
    presence_penalty: float | None
    """In [-2, 2]."""
    frequency_penalty: float | None
    """In [-2, 2]."""
    logit_bias: dict[int, float]
    stop: str | list[str]
    stop_token_ids: list[int]
    ignore_eos: bool | None
    logprobs: int | None
    prompt_logprobs: int | None
    min_tokens: int | None
    bad_words: list[str]
    allowed_token_ids: list[int]
    keep_special_tokens: bool | None
    include_stop: bool | None
    typical_p: float | None
    """In (0, 1]."""
