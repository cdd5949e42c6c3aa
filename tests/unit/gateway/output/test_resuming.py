"""A client that resumes after any event gets the rest: both parts are the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidRequest
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.api.bodies.generation import StreamOptions
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.http.deliver import ResponseFormat
from headrace_gateway.api.native.rest_service import RestResponseFormat
from headrace_gateway.api.openai.chunks import (
    CHAT,
    COMPLETION,
    ChunkFormatter,
    ResponseFields,
    ResponseShape,
)
from headrace_gateway.api.openai.logprobs_formatter import LogprobsFormatter, Prompt
from headrace_gateway.models.text import StopStrings, TextStream
from headrace_gateway.models.token_text import VocabularyTexts
from headrace_gateway.output.assembler import OutputAssembler
from headrace_gateway.output.position import (
    BEGINNING,
    EventIds,
    Offset,
    read_event_id,
    read_position,
)
from headrace_gateway.output.replay import Replay
from headrace_gateway.parsers.families.json_calls import HermesCalls
from headrace_gateway.request.generation import (
    ChoiceEnded,
    RecordedRequest,
    RequestDescription,
    Tokens,
)
from helpers.tiny_tokenizers import byte_level

SPELLING = VocabularyTexts(byte_level())
CALL = '<tool_call>\n{"name": "sky", "arguments": {"at": "水🌊"}}\n</tool_call>'
TEXTS = ["the mill 🌊", "go STO", "run STOP, and more", "", f"so {CALL} and \n{CALL}  done", CALL]
LENGTH = FinishReason.FINISH_REASON_LENGTH

Events = list[tuple[str, Any]]
"""Event ids and what came with them."""


@dataclass
class Question:
    """The undisturbed answer, as any reader gets it."""

    outputs: list[list[int]]
    form: ResponseShape | None
    logprobs: bool
    echo: bool

    def transcript(self) -> OutputAssembler:
        stops = StopStrings(["STOP", "\n\nthe"])
        streams = [
            TextStream(
                byte_level().decode,
                stops=stops,
                silent=frozenset({1}),
                includes_stop=choice % 3 == 1,
                unstopped_tokens=3 * (choice % 3 == 2),
            )
            for choice in range(len(self.outputs))
        ]
        return OutputAssembler(
            streams, prompt_tokens=2, request_id="r-1", make_parser=lambda: HermesCalls({})
        )

    def dialect(self, places: list[Offset]) -> ResponseFormat:
        if self.form is None:
            request: RequestDescription = RecordedRequest(
                RequestRecord(request_id="r-1", n=len(self.outputs))
            )
            return RestResponseFormat(request, places)
        asked = OutputOptions(
            chat=self.form is CHAT,
            logprobs=2 if self.logprobs else None,
            token_ids=True,
            echo=self.echo and self.form is COMPLETION,
            echo_last_message=self.echo and self.form is CHAT,
            tokens_as_ids=self.echo,
        )
        told = LogprobsFormatter(asked, SPELLING, Prompt("the ", [5]), choices=len(self.outputs))
        head = ResponseFields(self.form, "r-1", "valley", created=1, fingerprint="fp_1")
        usage = StreamOptions(include_usage=True)
        return ChunkFormatter(head, places=places, usage=usage, ids=True, formatter=told)

    def events(self, cuts: Random) -> Iterator[list[Tokens | ChoiceEnded]]:
        """In runs of some length, of one choice or of all, the ends with them or behind."""
        sent = [0] * len(self.outputs)
        over = [False] * len(self.outputs)
        while not all(over):
            some: list[Tokens | ChoiceEnded] = []
            for choice, ids in enumerate(self.outputs):
                upto = min(len(ids), sent[choice] + cuts.randint(0, 9))
                if upto > sent[choice]:
                    some.append(self._run(choice, sent[choice], upto))
                    sent[choice] = upto
                if upto == len(ids) and not over[choice] and cuts.random() < 0.5:
                    over[choice] = True
                    some.append(ChoiceEnded(choice, LENGTH))
            if some:
                yield some

    def _run(self, choice: int, first: int, upto: int) -> Tokens:
        ids = self.outputs[choice][first:upto]
        run = None
        if self.logprobs:
            run = Logprobs()
            for index, token in enumerate(ids, first):
                run.extend(Logprobs.of([-index / 8], [token, 3], [-index / 8, -9]))
        return Tokens(choice, first, ids, run)

    def said(self, cuts: Random, after: str | None = None) -> Events:
        """Every event of a stream, to its end."""
        transcript, take = self.transcript(), None
        places = [BEGINNING] * len(self.outputs)
        if after is not None:
            places = read_position(after, len(self.outputs), field="after")
            take = Replay(transcript, places).take
        dialect = self.dialect(places)
        text = dialect.opening()
        for some in self.events(cuts):
            text += dialect.events((take or transcript.take)(some))
        return list(_parsed(text))


def _parsed(text: str) -> Iterator[tuple[str, Any]]:
    for block in text.split("\n\n")[:-1]:
        line, data = block.split("\n")
        yield line.removeprefix("id: "), json.loads(data.removeprefix("data: "))


@dataclass
class Whole:
    """The answer that a client assembles from a stream's events."""

    opened: int = 0
    text: str = ""
    ids: list[int] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def whole(said: Events, choices: int) -> list[Whole]:
    wholes = [Whole() for _ in range(choices)]
    for _, event in said:
        if "delta" in event:
            _add_native(wholes[event["delta"]["choice"]], event["delta"])
        for choice in event.get("choices", ()):
            _add_openai(wholes[choice["index"]], choice)
    return wholes


def _add_native(to: Whole, delta: dict[str, Any]) -> None:
    assert delta["first_index"] == len(to.ids), "a gap, or a repeat"
    to.text += delta["text"]
    to.ids += delta["token_ids"]
    for call in delta.get("tool_calls", ()):
        _add_call(to, call["index"], call["name"], call["arguments"])
    to.told += delta.get("logprobs", {}).get("logprobs", [])
    to.reasons += [delta["finish_reason"]] if delta.get("finish_reason", "")[14:-11] else []


def _add_openai(to: Whole, choice: dict[str, Any]) -> None:
    delta = choice.get("delta", choice)
    to.opened += "role" in delta
    to.text += delta.get("content") or delta.get("text") or ""
    to.ids += choice.get("token_ids", [])
    for call in delta.get("tool_calls", ()):
        function = call["function"]
        _add_call(to, call["index"], function.get("name", ""), function.get("arguments", ""))
    told = choice["logprobs"] or {}
    to.told += told.get("content") or list(
        zip(*(told[k] for k in ("tokens", "token_logprobs", "text_offset")), strict=True)
        if "tokens" in told
        else ()
    )
    to.reasons += [choice["finish_reason"]] if choice["finish_reason"] else []


def _add_call(to: Whole, index: int, name: str, arguments: str) -> None:
    if index == len(to.calls):
        to.calls.append(["", ""])
    to.calls[index][0] += name
    to.calls[index][1] += arguments


outputs = st.lists(
    st.sampled_from(TEXTS).map(lambda text: list(byte_level().encode(text).ids)),
    min_size=1,
    max_size=2,
)
questions = st.builds(
    Question,
    outputs,
    form=st.sampled_from([CHAT, COMPLETION, None]),
    logprobs=st.booleans(),
    echo=st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(question=questions, seed=st.integers(0, 2**32))
def test_the_events_before_and_after_a_resume_are_the_whole_answer(
    question: Question, seed: int
) -> None:
    choices, cuts = len(question.outputs), Random(seed)
    undisturbed = whole(question.said(cuts), choices)
    begun = question.said(cuts)
    kept = begun[: cuts.randint(1, len(begun))]
    event = read_event_id(kept[-1][0], field="Last-Event-ID")
    assert event.request_id == "r-1"
    rest = question.said(cuts, event.position)
    assert whole(kept + rest, choices) == undisturbed


def test_a_position_is_read_as_it_was_written() -> None:
    ids = EventIds("r-1", [BEGINNING, BEGINNING])
    assert ids.opened(0) == "id: r-1:0.\n"
    ids.after_tokens(1, 7)
    assert ids.after_tokens(0, 12, ended=True) == "id: r-1:12f.7\n"
    assert read_position("12f.7", 2, field="after") == [Offset(True, 12, True), Offset(True, 7)]
    assert read_position("", 2, field="after") == [BEGINNING, BEGINNING]
    assert read_position("0.", 2, field="after") == [Offset(True), BEGINNING]
    assert read_position("3", 3, field="after") == [Offset(True, 3), BEGINNING, BEGINNING]


@pytest.mark.parametrize("text", ["1.2.3", "a.b", "1f2.3", "-1.0", "1.2x", "1." + "9" * 10])
def test_a_malformed_position_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_position(text, 2, field="after")
    assert refused.value.field == "after"


@pytest.mark.parametrize("text", ["", "r-1", "a b:1", ":1", "r/1:2"])
def test_a_malformed_event_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_event_id(text, field="Last-Event-ID")


def test_a_position_beyond_the_output_is_refused() -> None:
    question = Question([[5, 6, 7]], CHAT, logprobs=False, echo=False)
    for place in (Offset(True, 9), Offset(True, 2, True)):
        take = Replay(question.transcript(), [place]).take
        with pytest.raises(InvalidRequest, match="tokens"):
            take([Tokens(0, 0, [5, 6, 7]), ChoiceEnded(0, LENGTH)])
