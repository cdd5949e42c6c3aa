"""Reasoning is apart from the answer, and counted, however the tokens come."""

from __future__ import annotations

from headrace.internal.v1.request_pb2 import Rendering
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.models.text import TextStream
from headrace_gateway.output.assembler import OutputAssembler
from headrace_gateway.parsers.registry import parser_for
from headrace_gateway.request.generation import ChoiceEnded, Tokens
from helpers.tiny_tokenizers import byte_level

ANSWER = '<think>\nThe sky?</think>\n\n{"sky": "blue"}'


def assembled(text: str, rendering: Rendering) -> OutputAssembler:
    tokenizer = byte_level()
    stream = TextStream(tokenizer.decode, stops=None, silent=frozenset())
    return OutputAssembler(
        [stream],
        prompt_tokens=1,
        request_id="r",
        make_parser=lambda: parser_for(rendering),
        counts_reasoning=bool(rendering.reasoning_parser),
    )


def test_reasoning_has_its_own_text_and_tokens() -> None:
    ids = list(byte_level().encode(ANSWER).ids)
    made = assembled(ANSWER, Rendering(reasoning_parser="qwen3"))
    deltas = made.take([Tokens(0, 0, ids), ChoiceEnded(0, FinishReason.FINISH_REASON_STOP)])
    assert "".join(delta.reasoning for delta in deltas) == "The sky?"
    assert "".join(delta.text for delta in deltas) == '{"sky": "blue"}'
    (choice,) = made.outcome().choices
    assert (choice.reasoning, choice.text) == ("The sky?", '{"sky": "blue"}')
    # Marks that are several tokens count until they are whole.
    ends = [byte_level().decode(ids[:count]) for count in range(1, len(ids) + 1)]
    within = [text for text in ends if "<think>" in text and "</think>" not in text]
    assert made.usage().reasoning_tokens == len(within) - 1


def test_usage_says_nothing_of_reasoning_where_none_is_looked_for() -> None:
    made = assembled(ANSWER, Rendering())
    made.take([Tokens(0, 0, list(byte_level().encode(ANSWER).ids))])
    assert not made.usage().HasField("reasoning_tokens")
    assert made.outcome().choices[0].text == ANSWER
