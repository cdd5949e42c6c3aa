"""Which model a name means."""

from __future__ import annotations

import doctest

import pytest

import headrace_gateway.request.served_names
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.request.served_names import served_names


def card(model: str, *aliases: str, created_s: int = 0) -> ModelCard:
    made = ModelCard(model=model, aliases=aliases)
    made.create_time.seconds = created_s
    return made


def test_the_examples_hold() -> None:
    assert doctest.testmod(headrace_gateway.request.served_names).failed == 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("valley", ("valley", None)),
        ("valley:poet", ("valley", "poet")),
        ("valley:", ("valley", "")),
        ("valley:poet:x", None),
        ("llama3:8b", ("llama3:8b", None)),
        ("llama3:8b:poet", ("llama3:8b", "poet")),
        ("small:poet", ("Qwen/Qwen3-0.6B", "poet")),
        ("llama3", None),
        ("", None),
        (":", None),
    ],
)
def test_a_name_is_a_model_or_an_alias_and_perhaps_an_adapter_behind_the_last_colon(
    name: str, meant: tuple[str, str | None] | None
) -> None:
    names = served_names(
        [card("valley"), card("llama3:8b"), card("Qwen/Qwen3-0.6B", "small", "gpt-3.5-turbo")]
    )
    assert names.reading(name) == meant


def test_a_name_that_is_served_in_full_is_no_adapter_of_another_model() -> None:
    names = served_names([card("llama3"), card("llama3:8b")])
    assert names.reading("llama3:8b") == ("llama3:8b", None)
    assert names.reading("llama3:7b") == ("llama3", "7b")


def test_a_primary_name_goes_before_an_alias_and_of_two_aliases_the_older_models() -> None:
    younger = card("younger", "shared", "older", created_s=2)
    older = card("older", "shared", "own", created_s=1)
    for cards in ([younger, older], [older, younger]):
        names = served_names(cards)
        assert names.reading("older") == ("older", None)
        assert names.reading("shared") == ("older", None)
        assert names.taken == {"younger": {"shared": "older", "older": "older"}}
        assert names.aliases(younger) == []
        assert names.aliases(older) == ["shared", "own"]


def test_an_alias_that_repeats_the_models_own_name_is_no_second_name() -> None:
    names = served_names([card("a", "a", "b")])
    assert names.aliases(card("a", "a", "b")) == ["b"]
    assert names.taken == {}
