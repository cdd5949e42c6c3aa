"""A parser that fails ends the search for calls, not the answer; arguments cost their length."""

from __future__ import annotations

import logging
import time

import pytest

from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.models.text import TextStream
from headrace_gateway.output.assembler import OutputAssembler
from headrace_gateway.parsers.pieces import CallPiece, Parser, Piece
from headrace_gateway.request.generation import ChoiceEnded, Tokens
from helpers.tiny_tokenizers import byte_level

SECRET = "the model's words"
END = ChoiceEnded(0, FinishReason.FINISH_REASON_STOP)


class Failing:
    """Fails at a word, or at the end."""

    reasons = True

    def __init__(self, word: str) -> None:
        self._word = word

    def feed(self, text: str) -> list[Piece]:
        if self._word and self._word in text:
            raise ValueError(SECRET)
        return [text] if text else []

    def flush(self) -> list[Piece]:
        raise ValueError(SECRET)


class Arguments:
    """Takes all text for the arguments of one call."""

    reasons = False

    def __init__(self) -> None:
        self._name: str | None = "sky"

    def feed(self, text: str) -> list[Piece]:
        name, self._name = self._name, None
        return [CallPiece(0, name, text)]

    def flush(self) -> list[Piece]:
        return []


def assembler(parser: Parser) -> OutputAssembler:
    stream = TextStream(byte_level().decode, stops=None, silent=frozenset())
    return OutputAssembler([stream], prompt_tokens=1, make_parser=lambda: parser)


@pytest.mark.parametrize("word", ["b", ""])
def test_the_rest_is_plain_text(word: str, caplog: pytest.LogCaptureFixture) -> None:
    made = assembler(Failing(word))
    with caplog.at_level(logging.ERROR):
        made.take([Tokens(0, 0, list(byte_level().encode("a b c").ids)), END])
    assert made.outcome().choices[0].text == "a b c"
    (record,) = caplog.records
    assert record.getMessage() == "output.parser_failed"
    assert SECRET not in caplog.text


def test_arguments_cost_their_length() -> None:
    made = assembler(Arguments())
    ids = list(byte_level().encode("x" * 200).ids) * 300
    began_s = time.process_time()
    made.take([Tokens(0, 0, ids), END])
    assert time.process_time() - began_s < 5
    assert made.outcome().choices[0].tool_calls[0].arguments == byte_level().decode(ids)
