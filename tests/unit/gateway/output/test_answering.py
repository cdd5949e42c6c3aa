"""One answer: its deltas, the ends of its choices, and that a generation is ended exactly once."""

from __future__ import annotations

import asyncio

import pytest

from headrace.errors import EngineFailed, InternalError
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.request_pb2 import Sampling
from headrace.v1.common_pb2 import Priority
from headrace_gateway.models.text import StopStrings, TextStream
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.output.assembler import ChoiceDelta, OutputAssembler
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Tokens, ValidRequest
from helpers.scripted_admission import LENGTH, STOP, ScriptedGeneration
from helpers.tiny_tokenizers import bundle, byte_level

NONE: frozenset[int] = frozenset()
TOKENIZER = Tokenizer(bundle(byte_level()), inline_characters=2048)


def ids_of(text: str) -> list[int]:
    return list(byte_level().encode(text).ids)


def answer_to(
    script: list[list[Event]], *, n: int = 1, stop: str | None = None
) -> tuple[Answer, ScriptedGeneration]:
    request = ValidRequest(
        "r-1", ModelCard(), (1, 2, 3), Sampling(), 0, n, Priority.PRIORITY_STANDARD, 9.0, 9.0, {}
    )
    generation = ScriptedGeneration(request, script)
    stops = StopStrings([stop]) if stop else None
    streams = [TextStream(byte_level().decode, stops=stops, silent=NONE) for _ in range(n)]
    transcript = OutputAssembler(streams, prompt_tokens=3)
    return Answer(generation, request, transcript, TOKENIZER), generation


async def all_of(answer: Answer) -> list[ChoiceDelta]:
    return [said async for news in answer for said in news]


async def test_tokens_and_the_end_that_arrive_together_are_one_delta() -> None:
    answer, _ = answer_to([[Tokens(0, 0, ids_of("mill")), ChoiceEnded(0, LENGTH)]])
    (said,) = await all_of(answer)
    assert (said.text, said.finish_reason, said.first_index) == ("mill", LENGTH, 0)
    assert list(said.token_ids) == ids_of("mill")


async def test_each_choice_has_deltas_of_its_own() -> None:
    answer, _ = answer_to(
        [
            [Tokens(0, 0, ids_of("river")), Tokens(1, 0, ids_of("mill"))],
            [Tokens(1, len(ids_of("mill")), ids_of("!")), ChoiceEnded(0, STOP)],
            [ChoiceEnded(1, LENGTH)],
        ],
        n=2,
    )
    said = await all_of(answer)
    assert [(s.choice, s.text) for s in said] == [
        (0, "river"),
        (1, "mill"),
        (1, "!"),
        (0, ""),
        (1, ""),
    ]
    assert said[2].first_index == len(ids_of("mill"))
    outcome = answer.outcome()
    assert [(c.text, c.finish_reason) for c in outcome.choices] == [
        ("river", STOP),
        ("mill!", LENGTH),
    ]
    assert outcome.usage.prompt_tokens == 3


async def test_a_stop_string_ends_its_choice_alone_and_its_tokens_are_counted() -> None:
    text = "the mill, STOP and more"
    ids = ids_of(text)
    script: list[list[Event]] = [
        [Tokens(0, 0, ids), Tokens(1, 0, ids_of("river"))],
        [Tokens(0, len(ids), [5, 5]), ChoiceEnded(1, STOP)],
    ]
    answer, generation = answer_to(script, n=2, stop="STOP")
    said = await all_of(answer)
    assert (said[0].text, said[0].finish_reason) == ("the mill, ", STOP)
    assert generation.ended_here == [0]
    used = list(answer.outcome().choices[0].token_ids)
    assert byte_level().decode(used).endswith("STOP")
    assert "STOP" not in byte_level().decode(used[:-1])
    assert answer.usage().output_tokens == len(used) + len(ids_of("river"))


async def test_text_held_back_at_the_end_is_sent_with_the_end() -> None:
    answer, _ = answer_to([[Tokens(0, 0, ids_of("go STO"))], [ChoiceEnded(0, LENGTH)]], stop="STOP")
    said = await all_of(answer)
    assert [(s.text, s.finish_reason != 0) for s in said] == [("go ", False), ("STO", True)]


async def test_a_failure_follows_the_output_before_it() -> None:
    error = EngineFailed("broken")
    answer, _ = answer_to([[Tokens(0, 0, ids_of("mill")), Failed(error)]])
    assert [said.text for said in await anext(answer)] == ["mill"]
    with pytest.raises(GenerationFailed) as failed:
        await anext(answer)
    assert failed.value.error is error
    assert answer.outcome().error.message == "broken"


async def test_a_generation_that_stops_without_an_end_is_an_internal_error() -> None:
    answer, generation = answer_to([[Tokens(0, 0, ids_of("mill"))]])
    await anext(answer)
    generation.end_choice(0, 1)
    with pytest.raises(InternalError):
        await anext(answer)


async def test_leaving_after_settling_ends_the_generation_once() -> None:
    answer, generation = answer_to([[ChoiceEnded(0, STOP)]])
    async with answer:
        await all_of(answer)
        await answer.settle()
    assert (len(generation.settled), generation.abandoned) == (1, 0)


async def test_leaving_early_abandons_the_generation_once() -> None:
    answer, generation = answer_to([[ChoiceEnded(0, STOP)]])
    with pytest.raises(RuntimeError):
        async with answer:
            raise RuntimeError("the door broke")
    assert (len(generation.settled), generation.abandoned) == (0, 1)


async def test_a_cancelled_reader_abandons_the_generation_once() -> None:
    answer, generation = answer_to([[]])

    async def read() -> None:
        async with answer:
            await all_of(answer)

    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(read())
        await asyncio.sleep(0)
        reader.cancel()
    assert (len(generation.settled), generation.abandoned) == (0, 1)
