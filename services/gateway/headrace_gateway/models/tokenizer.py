"""A model's tokenizer and chat template: prompts to token ids, token ids to text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import tokenizers

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import TokenizerBundle
from headrace_gateway.models.chat_template import ChatTemplate, TemplateUnusable
from headrace_gateway.models.text import StopStrings, TextStream
from headrace_gateway.models.token_text import VocabularyTexts
from headrace_gateway.request.generation import Input
from headrace_gateway.request.generation_request import Conversation, Text, TextPair

T = TypeVar("T")


class TokenizerUnusable(Exception):
    """A bundle cannot be loaded; the text says why."""


class Tokenizer:
    """Immutable once loaded; used from the event loop and from threads at once."""

    def __init__(self, bundle: TokenizerBundle, *, inline_characters: int) -> None:
        """Takes up to a second for a large vocabulary.

        A chat template that cannot be read makes it refuse conversations, and nothing else.

        Raises:
            TokenizerUnusable: the tokenizer's file cannot be read.
        """
        self._inline_characters = inline_characters
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(bundle.tokenizer_json)
        except ValueError as error:
            raise TokenizerUnusable(str(error)) from error
        self._template, self.template_fault = _chat_template(bundle)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.spelling = VocabularyTexts(self._tokenizer)
        added = self._tokenizer.get_added_tokens_decoder()
        self._specials = {str(each.content): i for i, each in added.items() if each.special}
        self._hidden: dict[frozenset[str], frozenset[int]] = {}

    @property
    def chats(self) -> bool:
        """Return whether there is a chat template that works."""
        return self._template is not None and self._template.takes_text

    async def encode(
        self, prompt: Text | Conversation, *, special_tokens: bool | None = None
    ) -> list[int]:
        """Return the prompt's token ids; a long prompt is encoded in a thread.

        `special_tokens`: whether the model's own are put around it; unset: around texts only.

        Raises:
            InvalidRequest, Unsupported: of a conversation, as `render`.
        """
        return await self._sized(prompt.characters, lambda: self._encode(prompt, special_tokens))

    def _encode(self, prompt: Text | Conversation, special_tokens: bool | None) -> list[int]:
        plain = isinstance(prompt, Text) if special_tokens is None else special_tokens
        text = prompt.text if isinstance(prompt, Text) else self.render(prompt)
        # Why: `encode` keeps the interpreter's lock for its whole run, a batch of one does not.
        batch = self._tokenizer.encode_batch_fast([text], add_special_tokens=plain)
        return list(batch[0].ids)

    async def encode_inputs(
        self, texts: Sequence[Text | TextPair], *, cut_tokens: int | None
    ) -> list[Input]:
        """Return each text or pair with the model's special tokens, truncated to `cut_tokens`.

        Of a pair, the second text is truncated first. A thread encodes much text.
        """
        size = sum(text.characters for text in texts)
        return await self._sized(size, lambda: self._encode_inputs(texts, cut_tokens))

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
        """Truncate a text before the special tokens are put around it, because they must stay."""
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
        """Return the conversation as one text that ends where the model's answer begins.

        Raises:
            InvalidRequest: the model has no chat template, or it refuses the conversation.
            Unsupported: its chat template cannot be read, or leaves a message out.
        """
        if self.template_fault:
            raise Unsupported(
                "the model takes no messages: its chat template cannot be read:"
                f" {self.template_fault}",
                field=conversation.field,
            )
        if self._template is None:
            raise InvalidRequest(
                "the model has no chat template and takes no messages", field=conversation.field
            )
        return self._template.render(conversation)

    def decode(self, token_ids: list[int]) -> str:
        """Return the text without special tokens; ids that are no tokens add nothing."""
        return self._tokenizer.decode(token_ids)

    def decode_whole(self, token_ids: list[int]) -> str:
        """Return the text with special tokens."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)

    def hidden_beside(self, marks: frozenset[str]) -> frozenset[int] | None:
        """Return the special tokens but those that are such marks; None: none of the marks is one.

        A text that is to have these marks is decoded with special tokens, and without the others.
        """
        found = self._hidden.get(marks)
        if found is None and marks & self._specials.keys():
            others = (token_id for text, token_id in self._specials.items() if text not in marks)
            found = self._hidden[marks] = frozenset(others)
        return found

    def special_ids(self, texts: Iterable[str]) -> list[int]:
        """Return the special tokens that have these texts."""
        return sorted(self._specials[text] for text in texts if text in self._specials)

    def runs_of(self, words: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each word at the beginning of a text, and after a space if they
        differ: models write most words in the latter way."""
        runs: list[list[int]] = []
        for word in words:
            plain, spaced = (self.token_run(prefix + word.lstrip()) for prefix in ("", " "))
            runs.append(plain)
            if spaced[-len(plain) :] != plain:
                runs.append(spaced)
        return [run for run in runs if run]

    def token_run(self, text: str) -> list[int]:
        """Return the token ids of a text by itself; a special token's text is that token."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    async def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text of each id alone, with special tokens; a thread decodes many."""
        return await self._sized(
            len(token_ids), lambda: [self.decode_whole([token_id]) for token_id in token_ids]
        )

    async def spelled_out(self, token_ids: list[int]) -> str:
        """Return their text, special tokens included; a thread decodes many."""
        return await self._sized(len(token_ids), lambda: self.decode_whole(token_ids))

    async def _sized(self, size: int, work: Callable[[], T]) -> T:
        """Return the result of some work; large work is done in a thread."""
        return work() if size <= self._inline_characters else await asyncio.to_thread(work)

    def names(self, token_ids: Sequence[int]) -> list[str]:
        """Return the tokens as the vocabulary has them; an id that is no token has an empty one."""
        return [self._tokenizer.id_to_token(each) or "" for each in token_ids]

    async def beginnings(self, texts: Sequence[str], most_tokens: int) -> list[str]:
        """Return each text, truncated after so many of its tokens; a thread encodes them."""
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

    def text_stream(
        self,
        stops: StopStrings | None,
        silent: frozenset[int],
        *,
        keeps_special: bool = False,
        includes_stop: bool = False,
        unstopped_tokens: int = 0,
    ) -> TextStream:
        return TextStream(
            self.decode_whole if keeps_special else self.decode,
            stops=stops,
            silent=silent,
            includes_stop=includes_stop,
            unstopped_tokens=unstopped_tokens,
        )


def _input(encoding: tokenizers.Encoding) -> Input:
    types = encoding.type_ids
    return Input(tuple(encoding.ids), types.index(1) if 1 in types else 0)


def _chat_template(bundle: TokenizerBundle) -> tuple[ChatTemplate | None, str]:
    """Return the template, and why there is none though the bundle has one."""
    if not bundle.HasField("chat_template"):
        return None, ""
    try:
        return ChatTemplate(bundle.chat_template, bundle.special_tokens), ""
    except TemplateUnusable as error:
        return None, str(error)[:300]
