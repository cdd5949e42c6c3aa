"""Reasoning is apart from the answer, and counted, however the tokens come."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer

from headrace.internal.v1.request_pb2 import Rendering
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.models.text import TextStream
from headrace_gateway.models.tokenizer import Tokenizer as ModelTokenizer
from headrace_gateway.output.assembler import OutputAssembler
from headrace_gateway.output.position import Offset
from headrace_gateway.output.replay import Replay
from headrace_gateway.parsers.registry import marks_of, parser_for
from headrace_gateway.request.generation import ChoiceEnded, Tokens
from helpers.tiny_tokenizers import bundle, byte_level

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


def test_marks_that_are_special_tokens_are_seen_and_others_left_out() -> None:
    made = Tokenizer.from_str(byte_level().to_str())
    made.add_special_tokens([AddedToken(text, special=True) for text in ("[THINK]", "[/THINK]")])
    tokenizer = ModelTokenizer(bundle(made), inline_characters=100)
    rendering = Rendering(reasoning_parser="mistral")
    hidden = tokenizer.hidden_beside(marks_of(rendering))
    assert hidden is not None
    stream = tokenizer.text_stream(None, hidden, keeps_special=True)
    assembler = OutputAssembler(
        [stream], prompt_tokens=1, make_parser=lambda: parser_for(rendering), counts_reasoning=True
    )
    ids = made.encode("[THINK]Hm.[/THINK]Blue.").ids
    # The tokenizer's token 0 is special, and no mark.
    assembler.take([Tokens(0, 0, [0, *ids, 0]), ChoiceEnded(0, FinishReason.FINISH_REASON_STOP)])
    (choice,) = assembler.outcome().choices
    assert (choice.reasoning, choice.text) == ("Hm.", "Blue.")
    assert assembler.usage().reasoning_tokens == len(made.encode("Hm.").ids)
    assert tokenizer.hidden_beside(marks_of(Rendering(reasoning_parser="qwen3"))) is None


def test_an_answer_that_is_resumed_anywhere_goes_on_alike() -> None:
    call = '<tool_call>\n{"name": "sky", "arguments": {"town": "Fernby"}}\n</tool_call>'
    ids = list(byte_level().encode(f"<think>Look.</think>{call}").ids)
    rendering = Rendering(reasoning_parser="qwen3", calls_tools=True, tool_parser="hermes")
    end = ChoiceEnded(0, FinishReason.FINISH_REASON_STOP)
    steps: list[list[Tokens | ChoiceEnded]] = [
        [Tokens(0, i, [token_id])] for i, token_id in enumerate(ids)
    ]
    steps.append([end])
    undisturbed = assembled("", rendering)
    whole = [each for step in steps for each in undisturbed.take(step)]
    for place in range(1, len(ids)):
        replay = Replay(assembled("", rendering), [Offset(True, place)])
        deltas = replay.take([Tokens(0, 0, ids), end])
        rest = [delta for delta in deltas if not delta.replayed]
        expected = [delta for delta in whole if delta.first_index >= place]
        for name in ("text", "reasoning"):
            found = "".join(getattr(delta, name) for delta in rest)
            assert found == "".join(getattr(delta, name) for delta in expected), place
        arguments = "".join(piece.arguments for delta in rest for piece in delta.calls)
        told = "".join(piece.arguments for delta in expected for piece in delta.calls)
        assert arguments == told
