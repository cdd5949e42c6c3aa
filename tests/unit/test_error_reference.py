"""The page of errors is what the code answers and what the SDK does with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import CapacityError, HeadraceError
from headrace.rpc.http_errors import http_status
from helpers.error_reference import (
    answer_of_anthropics_sdk,
    answer_of_the_sdk,
    examples,
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


def test_the_page_of_errors_is_that_of_the_code() -> None:
    command = "PYTHONPATH=tests python tests/helpers/error_reference.py docs/errors.md"
    assert PAGE.read_text() == page(), f"run {command}"
