"""Page tokens give back what they were made of, and are refused when they were made up."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest

from headrace.errors import InvalidRequest
from headrace_control.base.page_tokens import page_size, page_token, start_after


def made_up(content: object) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def test_a_token_gives_back_its_sort_key() -> None:
    token = page_token("keys", (1_790_000_000_000, "k1"))
    assert start_after(token, "keys", (int, str)) == (1_790_000_000_000, "k1")
    assert start_after("", "keys", (int, str)) is None


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "ä",
        "A" * 2000,
        made_up({}),
        made_up([]),
        made_up(["keys"]),
        made_up(["tenants", 1, "k1"]),
        made_up(["keys", "1", "k1"]),
        made_up(["keys", True, "k1"]),
        made_up(["keys", 2**63, "k1"]),
        made_up(["keys", 1, "a\0b"]),
        made_up(["keys", 1, "\ud800"]),
        made_up(["keys", 1, "k1", "more"]),
    ],
)
def test_a_token_that_was_made_up_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        start_after(token, "keys", (int, str))
    assert refused.value.field == "page_token"


def test_a_page_has_at_most_a_thousand_items() -> None:
    assert (page_size(0), page_size(7), page_size(5000)) == (100, 7, 1000)
    with pytest.raises(InvalidRequest):
        page_size(-1)
