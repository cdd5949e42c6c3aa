"""What a client pays for that leaves before the end: what was made up to its stop strings."""

from __future__ import annotations

from headrace.clock import SystemClock
from headrace.internal.v1.request_pb2 import RequestRecord, Sampling
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.models.text import StopStrings, TextStream
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import OutputAssembler
from headrace_gateway.request.generation import RecordedRequest
from headrace_gateway.stream.open_request import OpenRequest
from helpers.tiny_tokenizers import bundle, byte_level

TOKENIZER = Tokenizer(bundle(byte_level()), inline_characters=2048)
STOPPED = list(byte_level().encode("the mill, STOP").ids)
"""Up to and with the stop string."""


class Opened:
    """A request with two choices, and how it was closed."""

    def __init__(self) -> None:
        record = RequestRecord(request_id="r1", n=2, sampling=Sampling(max_tokens=100))
        self.outcomes: list[RequestOutcome] = []
        self.request = OpenRequest(
            record, 60.0, SystemClock(), lambda _, o: self.outcomes.append(o)
        )
        self.request.output.open(0, 1)

    def answer(self) -> Answer:
        stops = StopStrings(["STOP"])
        streams = [
            TextStream(byte_level().decode, stops=stops, silent=frozenset()) for _ in range(2)
        ]
        request = RecordedRequest(self.request.record)
        assembler = OutputAssembler(streams, prompt_tokens=3)
        return Answer(self.request.reader(), request, assembler, TOKENIZER)

    def make(self, token_ids: list[int], *, choice: int = 0) -> None:
        first = self.request.output.length(choice)
        for index, token_id in enumerate(token_ids, first):
            self.request.output.take(choice, 1, index, token_id)
        self.request.wake()

    @property
    def billed(self) -> int:
        (outcome,) = self.outcomes
        return outcome.usage.output_tokens


async def test_what_came_behind_a_stop_string_is_not_billed_though_it_was_not_read() -> None:
    opened = Opened()
    async with opened.answer():
        opened.make([*STOPPED, 5, 5, 5])
        opened.make([6, 6], choice=1)
    assert opened.billed == len(STOPPED) + 2


async def test_what_came_with_a_stop_string_that_was_read_is_not_billed() -> None:
    opened = Opened()
    async with opened.answer() as answer:
        opened.make([*STOPPED, 5, 5, 5])
        await anext(answer)
        opened.make([6], choice=1)
    assert opened.billed == len(STOPPED) + 1


async def test_the_last_of_several_readers_pays_for_what_any_of_them_has_had() -> None:
    opened = Opened()
    async with opened.answer() as last:
        async with opened.answer() as first:
            opened.make([7, 7, 7])
            await anext(first)
        assert opened.outcomes == []
        await anext(last)
        opened.make([8])
    assert opened.billed == 4
