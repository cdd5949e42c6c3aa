"""Pure room: the one table of sampling parameters that are numbers.

A field of `SamplingNumbers` is a parameter everywhere: in OpenAI's bodies, in `headrace.v1` (whose
message names it too), in validation, in the stored request, in `headrace.client` and in engines.
What a field says of itself is read with `PARAMETERS`:

    >>> top_p = PARAMETERS["top_p"]
    >>> top_p.range, top_p.neutral, top_p.model_default
    ('(0, 1]', 1.0, True)
    >>> top_p.allows(0.0), top_p.allows(1.0), top_p.allows(float("nan"))
    (False, True, False)
    >>> names_in("llama_cpp")["repetition_penalty"]
    'repeat_penalty'
    >>> "typical_p" in names_in("vllm")
    False
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class SamplingParameter:
    """What is to be known of one parameter, beside what it does."""

    name: str
    low: float
    high: float
    neutral: float
    """The value of a request where neither the caller nor the model sets one; it changes nothing
    (of `temperature`: nothing of the model's own distribution)."""
    above_low: bool
    """`low` itself is out of range."""
    whole: bool
    """An unsigned integer."""
    model_default: bool
    """A model's `generation_config.json` may set its default."""
    engine_names: Mapping[str, str | None]
    """By engine: what it calls the parameter where it calls it otherwise; None: it has none."""

    def allows(self, value: float) -> bool:
        """Return whether the value is in range; NaN is in none."""
        # Why not `not value < low`: every comparison with NaN is false.
        return (value > self.low if self.above_low else value >= self.low) and value <= self.high

    @property
    def range(self) -> str:
        return f"{'(' if self.above_low else '['}{self.low:g}, {self.high:g}]"

    @property
    def everywhere(self) -> bool:
        """Every engine applies it; else models say which they apply."""
        return None not in self.engine_names.values()


def _parameter(
    neutral: float,
    low: float,
    high: float,
    *,
    above_low: bool = False,
    model_default: bool = False,
    **engine_names: str | None,
) -> Any:
    whole = isinstance(neutral, int)
    facts = (low, high, neutral, above_low, whole, model_default, engine_names)
    return field(default=neutral, metadata={"facts": facts})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingNumbers:
    """How the next token is drawn, as far as numbers say it. In the order in which they apply."""

    repetition_penalty: float = _parameter(
        1.0, 0, 10, above_low=True, model_default=True, llama_cpp="repeat_penalty"
    )
    """Over prompt and output, as transformers has it (CTRL, section 4.1)."""
    presence_penalty: float = _parameter(0.0, -2, 2)
    """Over the output only, as OpenAI has it."""
    frequency_penalty: float = _parameter(0.0, -2, 2)
    """Over the output only, as OpenAI has it."""
    temperature: float = _parameter(1.0, 0, 2, model_default=True)
    """0 is greedy: the highest logit, ties to the lowest token id."""
    top_k: int = _parameter(0, 0, 2**32 - 1, model_default=True)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = _parameter(1.0, 0, 1, above_low=True, model_default=True)
    """Keep the likeliest tokens that together have this mass; 1 keeps all."""
    min_p: float = _parameter(0.0, 0, 1, model_default=True)
    """Keep tokens at least this likely relative to the likeliest; 0 keeps all."""
    typical_p: float = _parameter(
        1.0, 0, 1, above_low=True, model_default=True, vllm=None, openai=None
    )
    """Keep the tokens whose information is nearest to the entropy, up to this mass; 1 keeps all."""


PARAMETERS: Mapping[str, SamplingParameter] = {
    each.name: SamplingParameter(each.name, *each.metadata["facts"])
    for each in fields(SamplingNumbers)
}


@cache
def names_in(engine: str) -> Mapping[str, str]:
    """Return the parameters that the engine applies, with the names that it has for them."""
    names = {each.name: each.engine_names.get(engine, each.name) for each in PARAMETERS.values()}
    return {name: own for name, own in names.items() if own is not None}
