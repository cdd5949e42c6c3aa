"""Bodies written to cost much or to be read by nothing: never an error of ours."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidRequest, RequestError
from headrace_gateway.api.bodies.generation import ChatBody, CompletionBody, parse
from helpers.openai_bodies import MB, chat, completing, completion, requested


@pytest.mark.parametrize(
    "data",
    [
        chat(**{f"field{i}": i for i in range(200_000)}),
        chat(messages=[{f"field{i}": i for i in range(200_000)}]),
        chat(messages=[1] * 500_000),
        chat(logit_bias={str(i): "x" for i in range(200_000)}),
        chat(stop=[1] * 500_000),
        completion(prompt=["x"] * 300_000),
        chat(metadata={"a": [[]] * 2_000_000}),
    ],
)
def test_a_million_mistakes_cost_no_more_than_one(data: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(RequestError):
        parse(ChatBody, data, max_bytes=16 * MB)
    assert time.process_time() - begun < 1.0


def test_an_error_quotes_only_a_little_of_the_request() -> None:
    with pytest.raises(InvalidRequest) as refused:
        requested(chat(**{"é\n" * 10_000: 1}))
    assert len(refused.value.message) < 400
    assert len(refused.value.field or "") < 100
    assert refused.value.message.isascii()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    sorted(
        {
            *ChatBody.model_fields,
            *ChatBody.UNSUPPORTED_FIELDS,
            *CompletionBody.model_fields,
            "other",
        }
    )
)


def assert_readable(error: RequestError) -> None:
    assert 0 < len(error.message) < 400


@settings(deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_any_json_is_either_read_or_refused(fields: dict[str, Any]) -> None:
    for read, body in ((requested, chat(**fields)), (completing, completion(**fields))):
        try:
            assert read(body).model
        except RequestError as error:
            assert_readable(error)
