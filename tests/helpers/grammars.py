"""Models that can be held to a grammar, and what a grammar's output must be."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.interface import (
    Grammar,
    GrammarKind,
    SamplingParameters,
    Sequence,
)
from headrace_worker.engine.base.loaded_model import TokenizerFiles
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.grammar.backends import compiler_for
from headrace_worker.engine.loading.builder import EngineBuilder
from helpers.tiny_models import random_model

VALLEY = Path("services/worker/headrace_worker/default_model")
END = 2
"""What ends the output of models with valley's tokenizer."""


class Vase(BaseModel):
    model_config = ConfigDict(extra="forbid")

    height: int = Field(ge=1, le=99)


class Flower(BaseModel):
    """Whatever is drawn, it is soon whole."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["rose", "lily", "édelweiß"]
    petals: int = Field(ge=3, le=40)
    scented: bool
    colours: list[Literal["red", "white"]] = Field(max_length=2)
    vase: Vase | None
    label: str = Field(max_length=6)


FLOWER = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(Flower.model_json_schema()))


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(VALLEY / "tokenizer.json"))


def tokenizer_files() -> TokenizerFiles:
    return TokenizerFiles((VALLEY / "tokenizer.json").read_bytes(), None, {}, (END,))


@cache
def _model() -> object:
    return random_model("llama", vocab_size=2048, max_position_embeddings=512)


def held_engine(backend: str = "xgrammar", **settings: int) -> SlotEngine:
    """A random model of valley's vocabulary: what it says is sense by its grammar alone."""
    size = {"max_slots": 16, "context_tokens": 256, "prefill_chunk_tokens": 8}
    chosen = WorkerSettings.model_validate(size | settings)
    compiler = compiler_for(backend, tokenizer_files(), 2048)
    return EngineBuilder(_model(), chosen, (END,), "random", compiler).packed()  # type: ignore[arg-type]


def bound(
    number: int,
    grammar: Grammar | None,
    *,
    max_tokens: int = 120,
    temperature: float = 1.5,
    output_ids: tuple[int, ...] = (),
) -> Sequence:
    """Sequence `number`: a prompt and a seed of its own, and a temperature that knows no sense."""
    prompt_ids = tuple(10 + (number * 37 + place * 11) % 900 for place in range(5 + number % 17))
    parameters = SamplingParameters(max_tokens=max_tokens, temperature=temperature)
    return Sequence(number, prompt_ids, output_ids, parameters, number * 7919, grammar)


def text(token_ids: list[int]) -> str:
    said: str = tokenizer().decode(token_ids)
    return said
