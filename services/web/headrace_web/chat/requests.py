"""What is asked of the mesh for an answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.json_format import ParseDict, ParseError

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import SamplingParameters
from headrace.v1.generation_pb2 import ChatMessage, GenerateRequest
from headrace_web.base.records import Conversation, JsonObject, Turn

_ANSWER_S = 3600
"""Deadline of an answer: as long as the mesh keeps what has ended."""


def sampling_parameters(given: JsonObject) -> SamplingParameters:
    """Return parameters that a page has sent.

    Raises:
        InvalidRequest: there are no such parameters.
    """
    try:
        return ParseDict(dict(given), SamplingParameters())
    except ParseError as error:
        raise InvalidRequest(f"parameters: {error}", field="parameters") from None


def generate_request(
    conversation: Conversation, path: Sequence[Turn], answer: Turn
) -> GenerateRequest:
    """Return the request for an answer.

    Args:
        path: the turns before it, from the first on.
    """
    assert answer.answer is not None
    request = GenerateRequest(
        request_id=answer.answer.request_id,
        model=answer.answer.model,
        messages=_messages(conversation, path),
        parameters=sampling_parameters(answer.answer.parameters),
        seed=int(answer.answer.seed),
        detached=True,
    )
    request.timeout.FromSeconds(_ANSWER_S)
    return request


def _messages(conversation: Conversation, path: Sequence[Turn]) -> Iterator[ChatMessage]:
    if conversation.system:
        yield ChatMessage(role="system", content=conversation.system)
    for turn in path:
        # Why not the reasoning: templates print it for calls of tools alone.
        yield ChatMessage(role=turn.role, content=turn.content)
