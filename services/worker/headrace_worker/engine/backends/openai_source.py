"""Sequences that an OpenAI-compatible server computes.

It is spoken to in one of three ways. Token ids both ways are exact: nothing is
decoded or encoded here, and an answer goes on from any output so far. Text is
encoded again as it comes, for servers that do not give ids; chat is text too, with
the conversation sent as messages, for servers that have no other door. Those two
begin every answer anew: what a server would make of half an answer is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from tokenizers import Tokenizer

from headrace.sampling import names_in
from headrace_worker.engine.backends.remote_engine import Piece, SourceFailed, seed_of, tokens_left
from headrace_worker.engine.backends.upstream import Upstream
from headrace_worker.engine.base.interface import FinishReason, SamplingParameters, Sequence

_FINISHES = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
CHAT_TEMPLATE = (
    "{% if tools %}{{ raise_exception('tools are not passed on to its server') }}{% endif %}"
    "{{ messages | tojson }}"
)
"""What the gateway renders for a server that has its own template: the messages themselves."""


class Speech(StrEnum):
    """What goes over the wire."""

    TOKEN_IDS = "token_ids"
    TEXT = "text"
    CHAT = "chat"


class OpenAISource:
    """One model of one upstream."""

    def __init__(
        self, upstream: Upstream, model: str, speech: Speech, tokenizer: Tokenizer, bos: str
    ) -> None:
        self._upstream, self._model, self._tokenizer, self._bos = upstream, model, tokenizer, bos
        self._ask: Callable[[Sequence], tuple[str, dict[str, Any]]]
        self._hear: Callable[[dict[str, Any]], tuple[int, ...]]
        self._ask, self._hear = {
            Speech.TOKEN_IDS: (self._ask_by_ids, self._ids),
            Speech.TEXT: (self._ask_by_text, lambda choice: self._encoded(choice.get("text"))),
            Speech.CHAT: (self._ask_by_messages, self._said),
        }[speech]

    @property
    def refusing(self) -> str:
        return self._upstream.refusing

    async def close(self) -> None:
        await self._upstream.close()

    async def follow(self, sequence: Sequence) -> AsyncGenerator[Piece, None]:
        path, body = self._ask(sequence)
        body |= {"model": self._model, "stream": True, **_sampling(sequence)}
        async with aclosing(self._upstream.events(path, body)) as events:
            async for event in events:
                # Events without a choice carry usage, or the prompt's figures.
                for choice in event.get("choices", ())[:1]:
                    yield Piece(self._hear(choice), self._finish(choice.get("finish_reason")))

    async def require_token_ids(self) -> None:
        """Make one token, to see that ids are taken and given.

        Raises:
            SourceFailed: they are not, or the server cannot be asked.
        """
        prompt = tuple(self._tokenizer.encode("Hello", add_special_tokens=False).ids)
        sequence = Sequence(0, prompt, (), SamplingParameters(max_tokens=1, temperature=0), 0)
        async with aclosing(self.follow(sequence)) as pieces:
            async for piece in pieces:
                if piece.finish is not None:
                    return

    def _finish(self, reason: str | None) -> FinishReason | None:
        if reason is None:
            return None
        if reason not in _FINISHES:
            raise SourceFailed(f"{self._upstream.url} ended the answer by {reason!r}")
        return _FINISHES[reason]

    def _ask_by_ids(self, sequence: Sequence) -> tuple[str, dict[str, Any]]:
        prompt = [*sequence.prompt_ids, *sequence.output_ids]
        return "/completions", {
            "prompt": prompt,
            "max_tokens": tokens_left(sequence),
            "return_token_ids": True,
        }

    def _ids(self, choice: dict[str, Any]) -> tuple[int, ...]:
        token_ids = choice.get("token_ids")
        if token_ids is None and choice.get("text"):
            raise SourceFailed(
                f"{self._upstream.url} gives no token ids: it does not know return_token_ids; "
                "set upstream_speaks to text"
            )
        return tuple(token_ids or ())

    def _ask_by_text(self, sequence: Sequence) -> tuple[str, dict[str, Any]]:
        prompt = self._tokenizer.decode(sequence.prompt_ids, skip_special_tokens=False)
        # The server's own tokenizer puts one there too.
        prompt = prompt.removeprefix(self._bos)
        return "/completions", {"prompt": prompt, "max_tokens": tokens_left(sequence)}

    def _ask_by_messages(self, sequence: Sequence) -> tuple[str, dict[str, Any]]:
        text = self._tokenizer.decode(sequence.prompt_ids, skip_special_tokens=True)
        return "/chat/completions", {
            "messages": _messages(text),
            "max_completion_tokens": tokens_left(sequence),
        }

    def _said(self, choice: dict[str, Any]) -> tuple[int, ...]:
        return self._encoded(choice.get("delta", {}).get("content"))

    def _encoded(self, text: str | None) -> tuple[int, ...]:
        if not text:
            return ()
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def speaks_in_pieces(tokenizer: Tokenizer) -> bool:
    """Whether text that is encoded piece by piece decodes to the same text."""
    pieces = ["The river", " is", " deep", ".\n", "é", " 水", "🌊", " ", " ", "x"]
    ids = [i for piece in pieces for i in tokenizer.encode(piece, add_special_tokens=False).ids]
    return bool(tokenizer.decode(ids, skip_special_tokens=False) == "".join(pieces))


def _messages(text: str) -> list[dict[str, Any]]:
    """A conversation as CHAT_TEMPLATE renders it; any other prompt is what a user says."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, list) and found and all(map(_is_message, found)):
        return list(map(_as_sent, found))
    return [{"role": "user", "content": text}]


def _as_sent(message: dict[str, Any]) -> dict[str, Any]:
    """Arguments of calls are objects in a conversation, and texts in OpenAI's API."""
    for call in message.get("tool_calls", ()):
        function = call["function"]
        if not isinstance(function["arguments"], str):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return message


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value


def _sampling(sequence: Sequence) -> dict[str, Any]:
    """OpenAI's parameters, and of the others those that ask for something: not every server
    knows their names."""
    parameters = sequence.parameters
    neutral = SamplingParameters(max_tokens=1)
    asked = {n: getattr(parameters, n) for n in (*names_in("openai"), "ignore_eos")}
    sampling: dict[str, Any] = {
        **{name: value for name, value in asked.items() if value != getattr(neutral, name)},
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        # OpenAI's seeds are signed.
        "seed": seed_of(sequence, bits=63),
    }
    if parameters.logit_bias:
        sampling["logit_bias"] = {str(i): bias for i, bias in parameters.logit_bias.items()}
    return sampling
