"""What the formats of errors have to say in words that clients look for."""

from __future__ import annotations

import json

import pytest

from headrace.errors import ContextLengthExceeded, HeadraceError, InvalidRequest
from headrace_gateway.api.http.errors import ANTHROPIC_ERRORS

MAXIMUM = "This model's maximum context length is 1024 tokens."


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ContextLengthExceeded(MAXIMUM), f"prompt is too long: {MAXIMUM}"),
        (InvalidRequest("max_tokens is 0"), "max_tokens is 0"),
    ],
)
def test_a_prompt_beyond_the_context_is_too_long_in_anthropics_words(
    error: HeadraceError, message: str
) -> None:
    body = json.loads(ANTHROPIC_ERRORS.error_response(error, "a").body)
    assert body["error"] == {"type": "invalid_request_error", "message": message}
    event = ANTHROPIC_ERRORS.error_event(error, None, "a").partition("data: ")[2]
    assert json.loads(event)["error"]["message"] == message
