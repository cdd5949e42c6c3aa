"""Which messages are left out of a conversation that is too long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import SamplingParameters
from headrace.v1.responses_pb2 import ListInputItemsRequest
from headrace_gateway.api.responses.wire.pages import page_of
from headrace_gateway.api.responses.wire.truncating import truncated, without_oldest
from headrace_gateway.request.generation_request import Conversation, GenerationRequest

SYSTEM = {"role": "system", "content": "Be kind."}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_the_oldest_go_and_system_messages_and_the_last_one_stay() -> None:
    messages = [SYSTEM, user("a" * 40), user("b" * 40), user("c" * 40)]
    assert without_oldest(messages, 0.2) == [SYSTEM, *messages[2:]]
    assert without_oldest(messages, 0.9) == [SYSTEM, messages[-1]]
    assert without_oldest([SYSTEM, messages[-1]], 0.5) == [SYSTEM, messages[-1]]


def test_a_tools_result_goes_with_its_call() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}
    result = {"role": "tool", "tool_call_id": "c", "content": "9" * 40}
    assert without_oldest([call, result, user("x" * 400)], 0.01) == [user("x" * 400)]


def ids(request: ListInputItemsRequest) -> tuple[list[str], bool]:
    page = page_of([{"id": name} for name in "abcde"], request)
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
    return [item["id"] for item in page["data"]], page["has_more"]


def test_pages_follow_one_another_in_either_order() -> None:
    assert ids(ListInputItemsRequest(limit=2)) == (["e", "d"], True)
    assert ids(ListInputItemsRequest(limit=3, after="d")) == (["c", "b", "a"], False)
    assert ids(ListInputItemsRequest(order="asc", after="c")) == (["d", "e"], False)
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "z"}):
        with pytest.raises(InvalidRequest):
            page_of([], ListInputItemsRequest(**wrong))


@dataclass
class Tokens:
    """An encoder of a model of 1000 tokens."""

    of: Callable[[int], int]
    """Returns the number of tokens of so many messages."""
    calls: int = 0

    async def encoded(self, requested: GenerationRequest) -> tuple[Any, list[int]]:
        self.calls += 1
        assert isinstance(requested.prompt, Conversation)
        served = SimpleNamespace(card=ModelCard(context_tokens=1000))
        return served, [0] * self.of(len(requested.prompt.messages))


def requested(messages: int, max_tokens: int | None = None) -> GenerationRequest:
    return GenerationRequest(
        caller=Caller(),
        request_id="r",
        model="m",
        prompt=Conversation([user("a")] * messages),
        parameters=SamplingParameters(max_tokens=max_tokens),
    )


async def left(encoder: Tokens, of: GenerationRequest) -> int:
    prompt = (await truncated(encoder, of)).prompt
    assert isinstance(prompt, Conversation)
    return len(prompt.messages)


async def test_there_is_room_for_the_output_that_is_requested_or_for_a_quarter() -> None:
    assert await left(Tokens(lambda messages: messages), requested(1000)) == 750
    assert await left(Tokens(lambda messages: messages), requested(1000, max_tokens=10)) == 990
    assert await left(Tokens(lambda messages: messages), requested(700)) == 700


async def test_it_is_done_in_few_rounds_whatever_messages_have() -> None:
    encoder = Tokens(lambda messages: 751 if messages > 1 else 1)
    assert await left(encoder, requested(10_000)) == 1
    assert encoder.calls <= 8
