"""The page of errors is what the code answers and what the SDK does with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import CapacityError, HeadraceError
from headrace.rpc.http_errors import http_status
from helpers.error_reference import (
    answer_of_anthropics_sdk,
    answer_of_the_sdk,
    answers_of_the_client,
    examples,
    is_retried_by_the_client,
    page,
)

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.mark.parametrize("error", list(examples()), ids=lambda error: type(error).__name__)
def test_the_sdks_send_again_what_may_succeed_and_nothing_else(error: HeadraceError) -> None:
    may_succeed = isinstance(error, CapacityError)
    internal = error.reason in ("INTERNAL", "ENGINE_FAILED")
    assert answer_of_the_sdk(error).retried is (may_succeed or internal)
    assert answer_of_anthropics_sdk(error).retried is (may_succeed or internal)
    assert 400 <= http_status(error) <= 504


@pytest.mark.parametrize("error", list(examples()), ids=lambda error: type(error).__name__)
def test_the_client_raises_the_same_error_over_rest_and_grpc(error: HeadraceError) -> None:
    error.field = "model"
    for raised in answers_of_the_client(error):
        assert type(raised) is type(error)
        assert (raised.message, raised.field) == ("refused", "model")
        assert raised.retry_after_s == error.retry_after_s
        assert is_retried_by_the_client(raised) is isinstance(error, CapacityError)


def test_the_page_of_errors_is_that_of_the_code() -> None:
    command = "PYTHONPATH=tests python tests/helpers/error_reference.py docs/errors.md"
    assert PAGE.read_text() == page(), f"run {command}"
