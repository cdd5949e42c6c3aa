"""Sequences computed by an OpenAI-compatible server.

It supports three protocols. Token ids both ways are exact: nothing is decoded or encoded here, and
an answer resumes from any output. Text is encoded again as it comes, for servers that do not return
ids; chat is text too, with the conversation sent as messages, for servers with no other endpoint.
Text and chat do not support resuming a partial answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from tokenizers import Tokenizer

from headrace.sampling import names_in
from headrace_worker.engine.backends.remote_engine import (
    BackendError,
    TokenChunk,
    finish_of,
    seed_of,
    tokens_left,
)
from headrace_worker.engine.backends.upstream import Upstream
from headrace_worker.engine.base.interface import SamplingParameters, Sequence

CHAT_TEMPLATE = (
    "{% if tools %}{{ raise_exception('tools are not passed on to its server') }}{% endif %}"
    "{{ messages | tojson }}"
)
"""The template for servers that have their own: it renders the messages as JSON."""


class UpstreamProtocol(StrEnum):
    """What is sent and received."""

    TOKEN_IDS = "token_ids"
    TEXT = "text"
    CHAT = "chat"


class OpenAIBackend:
    """One model of one upstream."""

    def __init__(
        self,
        upstream: Upstream,
        model: str,
        protocol: UpstreamProtocol,
        tokenizer: Tokenizer,
        bos: str,
    ) -> None:
        self._upstream, self._model, self._protocol = upstream, model, protocol
        self._tokenizer, self._bos = tokenizer, bos

    @property
    def unavailable_reason(self) -> str:
        return self._upstream.unavailable_reason

    async def close(self) -> None:
        await self._upstream.close()

    async def generate(self, sequence: Sequence) -> AsyncGenerator[TokenChunk, None]:
        path, body = self._request(sequence)
        body |= {"model": self._model, "stream": True, **_sampling(sequence)}
        async with aclosing(self._upstream.events(path, body)) as events:
            async for event in events:
                # Events without a choice carry usage, or the prompt's figures.
                for choice in event.get("choices", ())[:1]:
                    yield TokenChunk(
                        self._token_ids(choice),
                        finish_of(self._upstream.url, choice.get("finish_reason")),
                    )

    async def require_token_ids(self) -> None:
        """Generate one token, to check that ids are accepted and returned.

        Raises:
            BackendError: they are not, or the server cannot be reached.
        """
        prompt = tuple(self._tokenizer.encode("Hello", add_special_tokens=False).ids)
        sequence = Sequence(0, prompt, (), SamplingParameters(max_tokens=1, temperature=0), 0)
        async with aclosing(self.generate(sequence)) as pieces:
            async for piece in pieces:
                if piece.finish is not None:
                    return

    def _request(self, sequence: Sequence) -> tuple[str, dict[str, Any]]:
        """Return the path, and what the body has of prompt and length."""
        prompt_ids, most = sequence.prompt_ids, tokens_left(sequence)
        match self._protocol:
            case UpstreamProtocol.TOKEN_IDS:
                prompt = [*prompt_ids, *sequence.output_ids]
                body = {"prompt": prompt, "max_tokens": most, "return_token_ids": True}
                return "/completions", body
            case UpstreamProtocol.TEXT:
                text = self._tokenizer.decode(prompt_ids, skip_special_tokens=False)
                # The server's own tokenizer puts one there too.
                text = text.removeprefix(self._bos)
                return "/completions", {"prompt": text, "max_tokens": most}
            case UpstreamProtocol.CHAT:
                messages = _messages(self._tokenizer.decode(prompt_ids, skip_special_tokens=True))
                return "/chat/completions", {"messages": messages, "max_completion_tokens": most}

    def _token_ids(self, choice: dict[str, Any]) -> tuple[int, ...]:
        text, token_ids = choice.get("text"), choice.get("token_ids")
        if self._protocol is UpstreamProtocol.TOKEN_IDS:
            if token_ids is None and text:
                raise BackendError(
                    f"{self._upstream.url} returns no token ids: it does not support"
                    " return_token_ids; set upstream_speaks to text"
                )
            return tuple(token_ids or ())
        if self._protocol is UpstreamProtocol.CHAT:
            text = choice.get("delta", {}).get("content")
        return tuple(self._tokenizer.encode(text or "", add_special_tokens=False).ids)


def encodes_piecewise(tokenizer: Tokenizer) -> bool:
    """Return whether text that is encoded piece by piece decodes to the same text."""
    pieces = ["The river", " is", " deep", ".\n", "é", " 水", "🌊", " ", " ", "x"]
    ids = [i for piece in pieces for i in tokenizer.encode(piece, add_special_tokens=False).ids]
    return bool(tokenizer.decode(ids, skip_special_tokens=False) == "".join(pieces))


def _messages(text: str) -> list[dict[str, Any]]:
    """Return a conversation as CHAT_TEMPLATE renders it; any other prompt is a user's message."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, list) and found and all(map(_is_message, found)):
        return list(map(_as_sent, found))
    return [{"role": "user", "content": text}]


def _as_sent(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with the arguments of calls as text, as in OpenAI's API."""
    for call in message.get("tool_calls", ()):
        function = call["function"]
        if not isinstance(function["arguments"], str):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return message


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value


def _sampling(sequence: Sequence) -> dict[str, Any]:
    """Return OpenAI's parameters, and others only if set: not every server knows their names."""
    parameters = sequence.parameters
    neutral = SamplingParameters(max_tokens=1)
    values = {n: getattr(parameters, n) for n in (*names_in("openai"), "ignore_eos")}
    sampling: dict[str, Any] = {
        **{name: value for name, value in values.items() if value != getattr(neutral, name)},
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        # OpenAI's seeds are signed.
        "seed": seed_of(sequence, bits=63),
    }
    if parameters.logit_bias:
        sampling["logit_bias"] = {str(i): bias for i, bias in parameters.logit_bias.items()}
    return sampling
