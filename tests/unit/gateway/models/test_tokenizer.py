"""Prompts to token ids: chat templates render as transformers renders them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import TokenizerBundle
from headrace_gateway.models.tokenizer import Tokenizer, TokenizerUnusable
from headrace_gateway.request.generation_request import Conversation, Text, TextPair
from helpers.tiny_tokenizers import BEGIN, CHATML, END, bundle, byte_level, word_pieces

LLAMA_3 = """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message + builtin tools #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("Conversation roles must alternate user/assistant/...") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""

TRICKS = """
{% for message in messages %}
    {% if message.role == "tool" %}{% continue %}{% endif %}
    {% generation %}{{ message | tojson }}{% endgeneration %}
    {% if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}
{{ strftime_now("%Y") }}{{ tools is none }}{{ add_generation_prompt }}
"""

TEMPLATES = [CHATML, LLAMA_3, MISTRAL, TRICKS]

TALKS = [
    [{"role": "user", "content": "Hello <b>you</b> & 'me'\n\n  "}],
    [
        {"role": "system", "content": " Be brief; 谷 "},
        {"role": "user", "content": "Who are you?", "name": "ada"},
        {"role": "assistant", "content": " I am 🌊 "},
        {"role": "user", "content": "{{ bos_token }} <|eot_id|>"},
    ],
]

_THEIRS = """\
import json, sys
from transformers import PreTrainedTokenizerFast
from tokenizers import Tokenizer
asked = json.load(sys.stdin)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer.from_str(asked["tokenizer"]), **asked["specials"]
)
answers = [
    [
        [
            tokenizer.apply_chat_template(
                talk, chat_template=template, add_generation_prompt=True, tokenize=tokenize,
                return_dict=False,
            )
            for tokenize in (False, True)
        ]
        for talk in asked["talks"]
    ]
    for template in asked["templates"]
]
print(json.dumps(answers))
"""


def loaded(template: str | None, inline_characters: int = 10_000) -> Tokenizer:
    return Tokenizer(bundle(byte_level(), template), inline_characters=inline_characters)


@pytest.fixture(scope="module")
def theirs() -> list[list[tuple[str, list[int]]]]:
    """What transformers makes of each talk by each template; in a process of its own, as it is slow
    to import and what it imports is not the gateway's to load."""
    asked = {
        "tokenizer": byte_level().to_str(),
        "specials": {"bos_token": BEGIN, "eos_token": END},
        "templates": TEMPLATES,
        "talks": TALKS,
    }
    done = subprocess.run(
        [sys.executable, "-c", _THEIRS],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        cwd=Path(__file__).parent,
    )
    answers: list[list[tuple[str, list[int]]]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("template", range(len(TEMPLATES)))
@pytest.mark.parametrize("talk", range(len(TALKS)))
async def test_chat_templates_render_and_tokenise_as_in_transformers(
    theirs: list[list[tuple[str, list[int]]]], template: int, talk: int
) -> None:
    tokenizer, conversation = loaded(TEMPLATES[template]), Conversation(TALKS[talk])
    text, token_ids = theirs[template][talk]
    assert tokenizer.render(conversation) == text
    assert await tokenizer.encode(conversation) == token_ids


def test_a_template_that_refuses_the_messages_refuses_the_request() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate") as refused:
        loaded(MISTRAL).render(Conversation([{"role": "assistant", "content": "Hi"}]))
    assert refused.value.field == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[9].content }}",
        "{{ messages + 1 }}",
        "{{ 1 // 0 }}",
        "{{ missing.thing }}",
        "{{ ''.__class__.__mro__ }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ range(999999999) | list }}",
    ],
)
def test_a_template_that_breaks_refuses_the_request(template: str) -> None:
    tokenizer = loaded(template)
    with pytest.raises(InvalidRequest, match="chat template refuses"):
        tokenizer.render(Conversation(TALKS[0]))


def test_a_model_without_a_template_takes_no_messages() -> None:
    tokenizer = loaded(None)
    assert not tokenizer.chats
    with pytest.raises(InvalidRequest, match="no chat template"):
        tokenizer.render(Conversation(TALKS[0]))


@pytest.mark.parametrize("text", ["the mill", "the mill " * 10, "\x00\x1b[0m\u202e \ufeff", ""])
async def test_threads_and_the_event_loop_give_the_same_ids(text: str) -> None:
    expected = byte_level().encode(text).ids
    assert await loaded(None, inline_characters=0).encode(Text(text)) == expected
    assert await loaded(None).encode(Text(text)) == expected


@pytest.mark.parametrize("word", ["mill", " mill", "the mill", "é", "12345", "水"])
def test_a_bad_word_is_found_at_the_beginning_of_a_text_and_after_a_space(word: str) -> None:
    runs = loaded(None).runs_of([word])

    def contains(ids: list[int], run: list[int]) -> bool:
        return any(ids[at : at + len(run)] == run for at in range(len(ids)))

    for text in (word.lstrip(), f"past {word.lstrip()}", f"past {word.lstrip()} there"):
        ids = byte_level().encode(text).ids
        assert any(contains(ids, run) for run in runs), text


async def test_a_tokenizer_that_truncates_or_pads_in_its_file_does_neither_here() -> None:
    shortening = type(byte_level()).from_str(byte_level().to_str())
    shortening.enable_truncation(2)
    shortening.enable_padding(length=50)
    tokenizer = Tokenizer(bundle(shortening), inline_characters=100)
    assert await tokenizer.encode(Text("the mill")) == byte_level().encode("the mill").ids


@pytest.mark.parametrize(
    "broken",
    [
        TokenizerBundle(tokenizer_json=b"{}"),
        TokenizerBundle(tokenizer_json=b"\xff"),
    ],
)
def test_a_bundle_that_cannot_be_read_is_unusable(broken: TokenizerBundle) -> None:
    with pytest.raises(TokenizerUnusable):
        Tokenizer(broken, inline_characters=1)


async def test_a_chat_template_that_does_not_parse_refuses_messages_and_nothing_else() -> None:
    tokenizer = loaded("{{ bos_token }}\n\n{% if %}")
    assert not tokenizer.chats
    assert await tokenizer.encode(Text("the mill")) == byte_level().encode("the mill").ids
    with pytest.raises(Unsupported, match="chat template cannot be read: line 3") as refused:
        await tokenizer.encode(Conversation(TALKS[0]))
    assert refused.value.field == "messages"


def test_the_gateway_does_not_import_transformers_or_torch() -> None:
    heavy = "{'transformers', 'torch'}"
    code = f"import sys, headrace_gateway.app; print({heavy} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == "set()"


WORD_PIECES = Tokenizer(bundle(word_pieces(), chat_template=None), inline_characters=50)


@pytest.mark.parametrize("long", [False, True], ids=["inline", "in a thread"])
async def test_inputs_are_encoded_as_the_tokenizers_library_does(long: bool) -> None:
    texts = ["the river", "", "the mill " * (9 if long else 1)]
    inputs = await WORD_PIECES.encode_inputs([Text(t) for t in texts], cut_tokens=None)
    assert [list(i.token_ids) for i in inputs] == [word_pieces().encode(t).ids for t in texts]
    assert {i.second_begins for i in inputs} == {0}


async def test_a_pair_has_the_index_at_which_its_second_text_begins() -> None:
    pair = TextPair("the river", "the mill", "documents[0]")
    (found,) = await WORD_PIECES.encode_inputs([pair], cut_tokens=None)
    whole = word_pieces().encode("the river", "the mill")
    assert list(found.token_ids) == whole.ids
    assert found.second_begins == len(word_pieces().encode("the river").ids)


async def test_what_is_cut_keeps_its_special_tokens_and_of_a_pair_the_first_text() -> None:
    whole = word_pieces().encode("the river runs past").ids
    (cut,) = await WORD_PIECES.encode_inputs([Text("the river runs past")], cut_tokens=4)
    assert list(cut.token_ids) == [*whole[:3], whole[-1]]
    pair = TextPair("the river", "the mill and the wheel", "documents[0]")
    (short,) = await WORD_PIECES.encode_inputs([pair], cut_tokens=6)
    assert list(short.token_ids) == word_pieces().encode("the river", "the").ids
    (exact,) = await WORD_PIECES.encode_inputs([Text("the river")], cut_tokens=4)
    assert list(exact.token_ids) == word_pieces().encode("the river").ids
