"""Positions at which a model may begin to behave otherwise, as its configuration names them.

There are two kinds. Positions, such as `original_max_position_embeddings`, decide by a token's own
position or by the longest sequence. Windows, such as `sliding_window`, decide how far back layers
look, or count tokens themselves, as Llama 4's `floor_scale`. The check at load crosses positions
with prompts that begin just before them, and windows by making them small while it runs, so that no
long prompt is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

_POSITIONS = re.compile(r"position|floor|context|seq_len|max_len|n_ctx")
_WIDTHS = re.compile(r"window|attention_chunk|local_attention|floor")
_NEITHER = re.compile(r"(^|_)(num|n|use)_|layers|pattern|type")
"""Parts of names that count other things, as `max_window_layers` does."""
_MOST = 4
"""How many positions are tried, the smallest; each costs a pass of the plain model."""


def threshold_positions(config: PreTrainedConfig, *, first: int, context_tokens: int) -> list[int]:
    """Return positions from `first` to the end of the context at which something may change."""
    named = {
        value
        for name, value in _numbers(config.to_dict())
        if _POSITIONS.search(name) and first <= value < context_tokens
    }
    return sorted(named)[:_MOST]


@contextmanager
def narrow_windows(model: PreTrainedModel, tokens: int) -> Iterator[list[int]]:
    """Set all windows of the model's layers to `tokens` while the context lasts.

    Yields the contexts that do not exceed the original windows, ascending; none if there is no
    window.
    """
    places = [
        (owner, name, value)
        for owner in _owners(model)
        for name, value in vars(owner).items()
        if type(value) is int and value > tokens
        if _WIDTHS.search(name) and not _NEITHER.search(name)
    ]
    try:
        for owner, name, _ in places:
            setattr(owner, name, tokens)
        # A window of so many tokens is whole in a context of as many; a floor is reached there.
        yield sorted({value - ("floor" in name) for _, name, value in places})
    finally:
        for owner, name, value in places:
            setattr(owner, name, value)


def _owners(model: PreTrainedModel) -> list[Any]:
    """Return whatever holds numbers of the configuration: it, its parts, and the modules."""
    found: dict[int, Any] = {}
    waiting = [model.config]
    for module in model.modules():
        found[id(module)] = module
        waiting += [each for each in vars(module).values() if isinstance(each, PreTrainedConfig)]
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            waiting += [e for e in vars(config).values() if isinstance(e, PreTrainedConfig)]
    return list(found.values())


def _numbers(tree: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif type(value) is int:
            yield name, value
