"""Which messages are left out of a conversation that is too long."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidRequest
from headrace.v1.responses_pb2 import ListInputItemsRequest
from headrace_gateway.api.responses.wire.pages import page_of
from headrace_gateway.api.responses.wire.truncating import without_oldest

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
