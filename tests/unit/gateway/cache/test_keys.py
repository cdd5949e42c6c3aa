"""Requests have one key if and only if they have one answer, and are of one tenant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace.internal.v1.model_card_pb2 import Capabilities, ModelCard
from headrace.internal.v1.request_pb2 import Rendering, Sampling
from headrace.v1.common_pb2 import PRIORITY_BULK, PRIORITY_STANDARD, Structure
from headrace_gateway.cache.keys import is_reproducible, key_of, vector_key
from headrace_gateway.request.generation import Input, ValidRequest

SECRET = b"s" * 32


def request_of(**fields: Any) -> ValidRequest:
    chosen: dict[str, Any] = {
        "request_id": "r1",
        "card": card("w1"),
        "prompt_ids": (1, 2, 3),
        "sampling": sampling(),
        "seed": 7,
        "n": 1,
        "priority": PRIORITY_STANDARD,
        "timeout_s": 60.0,
        "patience_s": 30.0,
        "trace_context": {},
        "tenant": "acme",
    } | fields
    return ValidRequest(**chosen)


def card(weights: str, *, resume: bool = True) -> ModelCard:
    can = Capabilities(resume=resume)
    return ModelCard(model="toy", weights_digest=weights, capabilities=can)


def sampling(**fields: Any) -> Sampling:
    return Sampling(**({"max_tokens": 10, "temperature": 1.0} | fields))


def grammar() -> Sampling:
    made = sampling()
    made.grammar.structure.CopyFrom(Structure(regex="[0-9]+"))
    return made


BASE = request_of()
DIFFERENT: list[dict[str, Any]] = [
    {"tenant": "bolt"},
    {"card": card("w2")},
    {"adapter": "poet", "adapter_digest": "a1"},
    {"adapter_digest": "a2"},
    {"prompt_ids": (1, 2, 4)},
    {"prompt_ids": (1, 2)},
    {"seed": 8},
    {"n": 2},
    {"sampling": sampling(max_tokens=11)},
    {"sampling": sampling(temperature=0.5)},
    {"sampling": sampling(top_p=0.5)},
    {"sampling": sampling(logprobs=2)},
    {"sampling": grammar()},
    {"rendering": Rendering(stop=["x"])},
    {"rendering": Rendering(calls_tools=True)},
    {"cache_salt": "salt"},
]
EQUAL: list[dict[str, Any]] = [
    {"request_id": "r2"},
    {"priority": PRIORITY_BULK},
    {"timeout_s": 1.0},
    {"key_id": "k2", "person": "ben"},
    {"trace_context": {"traceparent": "00-1-2-01"}},
    {"resumable": True},
]


@pytest.mark.parametrize("change", DIFFERENT)
def test_whatever_changes_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert key_of(replace(BASE, **change), SECRET) != key_of(BASE, SECRET)


@pytest.mark.parametrize("change", EQUAL)
def test_nothing_else_does(change: dict[str, Any]) -> None:
    assert key_of(replace(BASE, **change), SECRET) == key_of(BASE, SECRET)


def test_where_nothing_is_drawn_the_seed_does_not_matter() -> None:
    greedy = request_of(sampling=sampling(temperature=0.0))
    assert key_of(replace(greedy, seed=1), SECRET) == key_of(replace(greedy, seed=2), SECRET)


def test_the_key_is_of_a_secret() -> None:
    assert key_of(BASE, SECRET) != key_of(BASE, b"t" * 32)


@pytest.mark.parametrize(
    ("temperature", "seeded", "resume", "expected"),
    [
        (0.0, False, True, True),
        (1.0, True, True, True),
        (1.0, False, True, False),
        (0.0, True, False, False),
    ],
)
def test_what_is_drawn_without_a_fixed_seed_or_elsewhere_is_not_reproducible(
    temperature: float, seeded: bool, resume: bool, expected: bool
) -> None:
    request = request_of(sampling=sampling(temperature=temperature), card=card("w1", resume=resume))
    assert is_reproducible(request, seeded=seeded) is expected


def test_vectors_have_a_key_by_tenant_weights_and_tokens() -> None:
    given = Input((1, 2, 3))
    same: Callable[[ValidRequest, Input], bool] = lambda r, i: (  # noqa: E731
        vector_key(r, i) == vector_key(BASE, given)
    )
    assert same(request_of(seed=9, prompt_ids=()), Input((1, 2, 3)))
    assert not same(request_of(tenant="bolt"), given)
    assert not same(request_of(card=card("w2")), given)
    assert not same(BASE, Input((1, 2, 3), second_begins=2))
    assert not same(BASE, Input((1, 2)))
