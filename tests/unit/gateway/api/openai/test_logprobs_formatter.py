"""What an answer has beside its text: tokens by themselves, and how likely they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tokenizers import Tokenizer

from headrace.internal.v1.request_pb2 import Rendering
from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import FinishReason, RequestOutcome
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.openai.chunks import (
    CHAT,
    COMPLETION,
    ChunkFormatter,
    ResponseFields,
    ResponseShape,
    response_body,
)
from headrace_gateway.api.openai.logprobs_formatter import LogprobsFormatter, Prompt
from headrace_gateway.models.text import StopStrings, TextStream
from headrace_gateway.models.token_text import VocabularyTexts
from headrace_gateway.output.assembler import ChoiceDelta, OutputAssembler
from headrace_gateway.output.position import BEGINNING
from headrace_gateway.parsers.registry import parser_for
from headrace_gateway.request.generation import ChoiceEnded, Tokens
from helpers.tiny_tokenizers import END, byte_fallback, byte_level

TEXT = "the mill 水🌊!"
SPELLING = VocabularyTexts(byte_level())


def head(shape: ResponseShape) -> ResponseFields:
    return ResponseFields(shape, "abc", "valley", created=1_700_000_000, fingerprint="fp_1")


def ids_of(text: str) -> list[int]:
    return list(byte_level().encode(text, add_special_tokens=False).ids)


def run_of(token_ids: list[int]) -> Logprobs:
    """Each token is the second likeliest in its place, behind its neighbour in the vocabulary."""
    run = Logprobs()
    for place, token_id in enumerate(token_ids):
        own = -1 - place / 8
        run.extend(Logprobs.of([own], [(token_id - 1) % 340, token_id], [-0.5, own]))
    return run


def heard(
    stop: str | None = None, *, prompt: list[int] | None = None, each: int = 1
) -> tuple[list[ChoiceDelta], RequestOutcome]:
    """Return the deltas of TEXT, `each` tokens at a time, and its whole outcome."""
    ids = [*ids_of(TEXT), 1]
    run, of_prompt = run_of(ids), None if prompt is None else run_of(prompt[1:])
    stops = StopStrings([stop]) if stop else None
    stream = TextStream(byte_level().decode, stops=stops, silent=frozenset({1}))
    transcript = OutputAssembler([stream], prompt_tokens=3)
    news: list[ChoiceDelta] = []
    for at in range(0, len(ids), each):
        some = run.cut(at, at + each)
        tokens = Tokens(0, at, ids[at : at + each], some, of_prompt if at == 0 else None)
        news += transcript.take([tokens])
    news += transcript.take([ChoiceEnded(0, FinishReason.FINISH_REASON_STOP)])
    return news, transcript.outcome()


def events(form: ResponseShape, formatter: LogprobsFormatter, news: list[ChoiceDelta]) -> list[Any]:
    chunks = ChunkFormatter(head(form), places=[BEGINNING] * 1, formatter=formatter)
    blocks = chunks.events(news).split("\n\n")[:-1]
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


def formatter(asked: OutputOptions, prompt: Prompt | None = None) -> LogprobsFormatter:
    return LogprobsFormatter(asked, SPELLING, prompt or Prompt("", [5]), choices=1)


@pytest.mark.parametrize("tokenizer", [byte_level(), byte_fallback()])
@settings(deadline=None)
@given(
    text=st.sampled_from([TEXT, "the river runs", "the  the\n水", "é 👩‍👩‍👧‍👦🏽", "a <|end|> b"])
    | st.text(max_size=12)
)
def test_the_bytes_of_tokens_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    spelling = VocabularyTexts(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if 0 in ids:  # what this vocabulary has no token for
        return
    octets = b"".join(spelling[token_id].octets for token_id in ids)
    decoded = tokenizer.decode(ids, skip_special_tokens=False)
    assert octets.decode().removeprefix(" ") == decoded.removeprefix(" ")


def test_specials_and_ids_that_are_no_tokens_are_spelled_too() -> None:
    assert (SPELLING[1].octets, SPELLING[1].is_special) == (END.encode(), True)
    assert (SPELLING[100_000].text, SPELLING[100_000].octets) == ('""', b"")


def test_a_chat_stream_has_logprobs_of_every_token_even_where_its_text_is_held_back() -> None:
    news, outcome = heard()
    asked = OutputOptions(chat=True, logprobs=2)
    chunks = [
        ChatCompletionChunk.model_validate(event, strict=True)
        for event in events(CHAT, formatter(asked), news)
    ]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    told = [
        entry
        for chunk in chunks
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert len(told) == outcome.usage.output_tokens == len(ids_of(TEXT)) + 1
    assert bytes(byte for entry in told for byte in entry.bytes or []).decode() == TEXT + END
    assert [entry.logprob for entry in told[:3]] == [-1, -1.125, -1.25]
    assert [top.logprob for top in told[1].top_logprobs] == [-0.5, -1.125]
    assert told[1].top_logprobs[1].token == told[1].token
    read = ChatCompletion.model_validate_json(response_body(head(CHAT), outcome, formatter(asked)))
    assert read.choices[0].logprobs is not None
    assert read.choices[0].logprobs.content == told


def test_tokens_of_a_stop_string_have_logprobs_and_none_after_it_do() -> None:
    for each in (1, 100):
        news, outcome = heard(stop="水", each=each)
        (choice,) = outcome.choices
        assert choice.text == "the mill "
        assert len(choice.logprobs.logprobs) == len(choice.token_ids) == outcome.usage.output_tokens
        assert sum(len(said.logprobs or ()) for said in news) == len(choice.token_ids)


def test_a_completion_has_offsets_into_its_text_and_its_own_token_among_the_likeliest() -> None:
    news, outcome = heard()
    asked = OutputOptions(chat=False, logprobs=1)
    read = Completion.model_validate_json(
        response_body(head(COMPLETION), outcome, formatter(asked))
    )
    told = read.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.text_offset is not None
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        if not token.startswith(("\\", "<|")):
            assert TEXT[offset:].startswith(token)
    assert told.text_offset[-1] == len(TEXT)
    assert told.top_logprobs is not None
    assert all(
        top[token] == own
        for top, token, own in zip(
            told.top_logprobs, told.tokens, told.token_logprobs or [], strict=True
        )
    )
    assert max(map(len, told.top_logprobs)) == 2
    pieces = events(COMPLETION, formatter(asked), news)
    streamed = [event["choices"][0]["logprobs"] for event in pieces[:-1]]
    assert [offset for piece in streamed for offset in piece["text_offset"]] == told.text_offset


@pytest.mark.parametrize("echo_only", [False, True])
def test_an_echo_puts_the_prompt_before_the_answer_and_its_logprobs_too(echo_only: bool) -> None:
    prompt = ids_of("past the river ")
    news, outcome = heard(prompt=prompt)
    asked = OutputOptions(chat=False, logprobs=1, echo=True, echo_only=echo_only)
    given = Prompt("past the river ", prompt)
    read = json.loads(response_body(head(COMPLETION), outcome, formatter(asked, given)))["choices"][
        0
    ]
    assert read["text"] == "past the river " + ("" if echo_only else TEXT)
    told = read["logprobs"]
    assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (None, None)
    assert told["token_logprobs"][1:3] == [-1, -1.125]
    assert len(told["tokens"]) == len(prompt) + (0 if echo_only else len(ids_of(TEXT)) + 1)
    pieces = [event["choices"][0] for event in events(COMPLETION, formatter(asked, given), news)]
    assert "".join(piece["text"] for piece in pieces) == read["text"]
    for name, column in told.items():
        assert [x for piece in pieces[:-1] for x in piece["logprobs"][name]] == column
    assert pieces[-1]["finish_reason"] == "stop"


def test_vllms_prompt_logprobs_are_by_token_id_with_the_prompts_own_token_among_them() -> None:
    prompt = ids_of("the river")
    _, outcome = heard(prompt=prompt)
    asked = OutputOptions(chat=True, prompt_logprobs=1)
    read = json.loads(response_body(head(CHAT), outcome, formatter(asked, Prompt("", prompt))))
    first, second, *_ = read["prompt_logprobs"]
    assert first is None
    assert second[str(prompt[1])]["logprob"] == -1
    assert {entry["rank"] for entry in second.values()} == {1, None}
    assert len(read["prompt_logprobs"]) == len(prompt)
    assert read["choices"][0]["logprobs"] is None


REASONED = "<think>the mill</think>the river"


@pytest.mark.parametrize("each", [1, 3, 1000])
def test_tokens_of_reasoning_that_is_not_sent_have_no_rows_and_no_ids(each: int) -> None:
    ids = ids_of(REASONED)
    begins = next(i for i in range(len(ids)) if "</think>" in byte_level().decode(ids[:i]))
    rendering = Rendering(reasoning_parser="qwen3", reasoning_open=True)
    stream = TextStream(byte_level().decode, stops=None, silent=frozenset())
    made = OutputAssembler([stream], prompt_tokens=3, make_parser=lambda: parser_for(rendering))
    steps = [Tokens(0, at, ids[at : at + each], run_of(ids[at : at + each]))
             for at in range(0, len(ids), each)]  # fmt: skip
    news = [delta for step in steps for delta in made.take([step])]
    news += made.take([ChoiceEnded(0, FinishReason.FINISH_REASON_STOP)])
    asked = OutputOptions(chat=True, logprobs=0, token_ids=True, reasoning=False)
    form = LogprobsFormatter(
        asked, SPELLING, Prompt("", [5]), choices=1, answer_index=made.answer_index
    )
    streamed = [event["choices"][0] for event in events(CHAT, form, news)]
    sent = [token_id for choice in streamed for token_id in choice.get("token_ids", [])]
    assert sent == ids[begins:]
    rows = [row for choice in streamed for row in (choice["logprobs"] or {}).get("content", [])]
    assert "".join(row["token"] for row in rows) == "the river"
    whole = json.loads(response_body(head(CHAT), made.outcome(), form))["choices"][0]
    assert whole["token_ids"] == ids[begins:]
    assert "".join(row["token"] for row in whole["logprobs"]["content"]) == "the river"
