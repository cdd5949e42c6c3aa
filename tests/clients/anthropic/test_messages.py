"""Messages, as Anthropic's quick start begins."""

from __future__ import annotations

from anthropic import Anthropic

MODEL = "valley"


def test_an_answer(client: Anthropic) -> None:
    told = client.messages.create(
        model=MODEL,
        max_tokens=64,
        system="Answer briefly.",
        messages=[{"role": "user", "content": "Who are you?"}],
    )
    assert told.content[0].type == "text"
    assert told.content[0].text
    assert told.stop_reason == "end_turn"


def test_the_text_stream(client: Anthropic) -> None:
    with client.messages.stream(
        model=MODEL,
        max_tokens=64,
        extra_body={"temperature": 0},
        messages=[{"role": "user", "content": "Count from 3 to 9."}],
    ) as stream:
        assert "".join(stream.text_stream) == "3, 4, 5, 6, 7, 8, 9"
        assert stream.get_final_message().usage.output_tokens > 0
