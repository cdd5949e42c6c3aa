"""The requests of a chaos run."""

from __future__ import annotations

from headrace.chaos.requests import Api, make_requests

APIS = [Api.NATIVE, Api.COMPLETIONS, Api.CHAT]


def test_equal_seeds_give_equal_requests_and_others_give_others() -> None:
    first, again, other = (
        make_requests(30, seed=seed, apis=APIS, max_choices=2, max_tokens=300) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len({request.prompt for request in first}) == 30


def test_the_requests_use_all_that_a_resumed_request_could_get_wrong() -> None:
    requests = make_requests(60, seed=1, apis=APIS, max_choices=2, max_tokens=300)
    assert {request.api for request in requests} == set(APIS)
    assert {request.n for request in requests} == {1, 2}
    used = {name for request in requests for name in request.sampling}
    assert used >= {"stop", "top_p", "repetition_penalty", "presence_penalty", "ignore_eos"}
    assert "logprobs" in used
    assert {request.sampling["temperature"] > 0 for request in requests} == {True, False}


def test_no_request_exceeds_what_the_model_supports() -> None:
    requests = make_requests(60, seed=1, apis=[Api.NATIVE], max_choices=1, max_tokens=50)
    assert {request.n for request in requests} == {1}
    assert max(request.sampling["max_tokens"] for request in requests) == 50
