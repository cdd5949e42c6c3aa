"""What a torture asks of a mesh."""

from __future__ import annotations

from headrace.chaos.requests import Api, make_requests

DOORS = [Api.NATIVE, Api.COMPLETIONS, Api.CHAT]


def test_equal_seeds_ask_the_same_and_others_something_else() -> None:
    first, again, other = (
        make_requests(30, seed=seed, doors=DOORS, max_choices=2, max_tokens=300)
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len({ask.prompt for ask in first}) == 30


def test_what_a_continuation_could_get_wrong_is_all_asked_for() -> None:
    asks = make_requests(60, seed=1, doors=DOORS, max_choices=2, max_tokens=300)
    assert {ask.door for ask in asks} == set(DOORS)
    assert {ask.n for ask in asks} == {1, 2}
    used = {name for ask in asks for name in ask.sampling}
    assert used >= {"stop", "top_p", "repetition_penalty", "presence_penalty", "ignore_eos"}
    assert "logprobs" in used
    assert {ask.sampling["temperature"] > 0 for ask in asks} == {True, False}


def test_a_model_is_not_asked_for_more_than_it_can() -> None:
    asks = make_requests(60, seed=1, doors=[Api.NATIVE], max_choices=1, max_tokens=50)
    assert {ask.n for ask in asks} == {1}
    assert max(ask.sampling["max_tokens"] for ask in asks) == 50
