"""A model's tokenizer and chat template: prompts to token ids, token ids to text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import jinja2
import tokenizers
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, EvalContext, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.errors import InvalidRequest
from headrace.internal.v1.model_card_pb2 import TokenizerBundle
from headrace_gateway.generation import Input
from headrace_gateway.spelling import Spelling
from headrace_gateway.text import StopStrings, TextStream
from headrace_gateway.wanted import Conversation, Text, TextPair

# Why: a template is a program over the caller's messages; these are what it can fail with.
_TEMPLATE_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class TokenizerUnusable(Exception):
    """A bundle cannot be loaded; the text says why."""


class Tokenizer:
    """Immutable once loaded; used from the event loop and from threads at once."""

    def __init__(self, bundle: TokenizerBundle, *, inline_characters: int) -> None:
        """Takes up to a second for a large vocabulary.

        Raises:
            TokenizerUnusable: the tokenizer's file or the chat template cannot be read.
        """
        self._inline_characters = inline_characters
        self._specials = dict(bundle.special_tokens)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(bundle.tokenizer_json)
            self._template = (
                _ENVIRONMENT.from_string(bundle.chat_template)
                if bundle.HasField("chat_template")
                else None
            )
        except (ValueError, jinja2.TemplateError) as error:
            raise TokenizerUnusable(str(error)) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.spelling = Spelling(self._tokenizer)

    @property
    def chats(self) -> bool:
        """Whether it has a chat template."""
        return self._template is not None

    async def encode(self, prompt: Text | Conversation) -> list[int]:
        """The prompt's token ids; of a long prompt, found in a thread.

        Raises:
            InvalidRequest: the model has no chat template, or it refuses the conversation.
        """
        if prompt.characters <= self._inline_characters:
            return self._encode(prompt)
        return await asyncio.to_thread(self._encode, prompt)

    def _encode(self, prompt: Text | Conversation) -> list[int]:
        plain = isinstance(prompt, Text)
        text = prompt.text if isinstance(prompt, Text) else self.render(prompt)
        # Why: `encode` keeps the interpreter's lock for its whole run, a batch of one does not.
        batch = self._tokenizer.encode_batch_fast([text], add_special_tokens=plain)
        return list(batch[0].ids)

    async def encode_inputs(
        self, texts: Sequence[Text | TextPair], *, cut_tokens: int | None
    ) -> list[Input]:
        """Each text or pair with the model's special tokens, cut to `cut_tokens`; of a pair, the
        second text is. Where they are many or long, found in a thread."""
        if sum(text.characters for text in texts) <= self._inline_characters:
            return self._encode_inputs(texts, cut_tokens)
        return await asyncio.to_thread(self._encode_inputs, texts, cut_tokens)

    def _encode_inputs(
        self, texts: Sequence[Text | TextPair], cut_tokens: int | None
    ) -> list[Input]:
        plain = [t.text if isinstance(t, Text) else (t.first, t.second) for t in texts]
        whole = self._tokenizer.encode_batch_fast(plain)
        return [
            _input(self._cut(text, cut_tokens) if cut_tokens and len(found) > cut_tokens else found)
            for text, found in zip(texts, whole, strict=True)
        ]

    def _cut(self, text: Text | TextPair, cut_tokens: int) -> tokenizers.Encoding:
        """Cut before the special tokens are put around it, as they must stay."""
        encode, is_pair = self._tokenizer.encode, isinstance(text, TextPair)
        room = max(0, cut_tokens - self._tokenizer.num_special_tokens_to_add(is_pair))
        if isinstance(text, Text):
            only = encode(text.text, add_special_tokens=False)
            only.truncate(room)
            return self._tokenizer.post_process(only)
        first = encode(text.first, add_special_tokens=False)
        second = encode(text.second, add_special_tokens=False)
        first.truncate(room)
        second.truncate(room - len(first))
        return self._tokenizer.post_process(first, second)

    def render(self, conversation: Conversation) -> str:
        """The conversation as one text that ends where the model's answer begins."""
        if self._template is None:
            raise InvalidRequest(
                "the model has no chat template and takes no messages", field=conversation.field
            )
        try:
            return self._template.render(
                **self._specials,
                messages=[dict(message) for message in conversation.messages],
                tools=list(conversation.tools) or None,
                documents=None,
                add_generation_prompt=True,
            )
        except _TEMPLATE_FAILURES as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {str(error)[:200]}",
                field=conversation.field,
            ) from error

    def decode(self, token_ids: list[int]) -> str:
        """Their text, without special tokens; ids that are no tokens say nothing."""
        return self._tokenizer.decode(token_ids)

    async def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each by itself, special tokens included; of many, found in a thread."""
        if len(token_ids) <= self._inline_characters:
            return self._pieces(token_ids)
        return await asyncio.to_thread(self._pieces, token_ids)

    def _pieces(self, token_ids: Sequence[int]) -> list[str]:
        one = self._tokenizer.decode
        return [one([token_id], skip_special_tokens=False) for token_id in token_ids]

    async def encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """As `encode` of a text, with the model's special tokens around it or without."""

        def encoded() -> list[int]:
            batch = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
            return list(batch[0].ids)

        if len(text) <= self._inline_characters:
            return encoded()
        return await asyncio.to_thread(encoded)

    async def spelled_out(self, token_ids: Sequence[int]) -> str:
        """Their text, special tokens included; of many, found in a thread."""
        decode = partial(self._tokenizer.decode, token_ids, skip_special_tokens=False)
        if len(token_ids) <= self._inline_characters:
            return decode()
        return await asyncio.to_thread(decode)

    def names(self, token_ids: Sequence[int]) -> list[str]:
        """As the vocabulary has them; an id that is no token has none."""
        return [self._tokenizer.id_to_token(each) or "" for each in token_ids]

    async def beginnings(self, texts: Sequence[str], most_tokens: int) -> list[str]:
        """Each text, cut behind so many of its tokens; found in a thread."""
        long = [text for text in texts if len(text.encode()) > most_tokens]
        if not long:
            return list(texts)

        def cut() -> dict[str, str]:
            found = self._tokenizer.encode_batch(long, add_special_tokens=False)
            return {
                text: text[: tokens.offsets[most_tokens - 1][1]]
                for text, tokens in zip(long, found, strict=True)
                if len(tokens) > most_tokens
            }

        shorter = await asyncio.to_thread(cut)
        return [shorter.get(text, text) for text in texts]

    def text_stream(self, stops: StopStrings | None, silent: frozenset[int]) -> TextStream:
        return TextStream(self.decode, stops=stops, silent=silent)


def _input(encoding: tokenizers.Encoding) -> Input:
    types = encoding.type_ids
    return Input(tuple(encoding.ids), types.index(1) if 1 in types else 0)


class _Generation(Extension):
    """`{% generation %}` marks what a trainer learns from; here it is no more than its content."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it as a plain set

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _content(self, context: EvalContext, caller: Callable[[], str]) -> str:
        return caller()


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(  # transformers' signature, which templates use
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML, which models were not trained on."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers sets it up: templates are written against that."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


_ENVIRONMENT = _environment()
