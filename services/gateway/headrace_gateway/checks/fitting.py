"""Pure: whether a prompt and its completion fit the model's context."""

from __future__ import annotations

from headrace.errors import ContextLengthExceeded, InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.request.generation_request import (
    NAME,
    WHOLE_CONTEXT,
    Conversation,
    GenerationRequest,
    TokenIds,
)


def check_prompt_size(
    request: GenerationRequest, card: ModelCard, settings: GatewaySettings
) -> None:
    """Check what can be checked before the prompt is tokenized.

    Raises:
        ContextLengthExceeded: the prompt cannot fit, however it is tokenized.
        InvalidRequest: a message or the truncation is malformed.
    """
    prompt = request.prompt
    _check_cut(request, card)
    if isinstance(prompt, TokenIds):
        if request.truncate_tokens is None:
            check_room(request, card, len(prompt.token_ids))
        return
    if isinstance(prompt, Conversation):
        _check_messages(prompt)
    most = card.context_tokens * settings.max_prompt_characters_per_token
    if prompt.characters > most:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {card.context_tokens} tokens. However,"
            f" there are {prompt.characters} characters in {_place(request)}, of which at most"
            f" {most} are taken. Please reduce the length of {_place(request)}.",
            field=prompt.field,
        )


def cut_to_fit(request: GenerationRequest, card: ModelCard, prompt_ids: list[int]) -> list[int]:
    """Return the last tokens of a prompt that is truncated, and all of any other.

    Call `check_prompt_size` first.
    """
    most = request.truncate_tokens
    if most is None:
        return prompt_ids
    if most == WHOLE_CONTEXT:
        output = request.parameters.max_tokens if request.parameters.HasField("max_tokens") else 1
        return prompt_ids[-max(1, card.context_tokens - output) :]
    return prompt_ids[-most:]


def _check_cut(request: GenerationRequest, card: ModelCard) -> None:
    most = request.truncate_tokens
    if most is None or most == WHOLE_CONTEXT or 1 <= most < card.context_tokens:
        return
    field = request.name_of("truncate_prompt_tokens")
    raise InvalidRequest(
        f"{field} is {most}; it must be {WHOLE_CONTEXT}, or 1 to {card.context_tokens - 1}",
        field=field,
    )


def _place(request: GenerationRequest) -> str:
    """Return where the prompt is, in the words of OpenAI's errors, which clients look for."""
    return "the messages" if isinstance(request.prompt, Conversation) else "your prompt"


def _check_messages(conversation: Conversation) -> None:
    if not conversation.messages:
        raise InvalidRequest("there are no messages", field=conversation.field)
    for i, message in enumerate(conversation.messages):
        if not NAME.fullmatch(message["role"]):
            raise InvalidRequest(
                f"role {quoted(message['role'])} is not 1 to 64 of A-Z a-z 0-9 _ -",
                field=f"{conversation.field}[{i}].role",
            )


def check_room(request: GenerationRequest, card: ModelCard, prompt_tokens: int) -> int:
    """Return how many tokens may follow the prompt.

    Raises:
        ContextLengthExceeded: it leaves no room for one.
    """
    room = card.context_tokens - prompt_tokens
    if room < 1:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {card.context_tokens} tokens. However, you"
            f" requested {prompt_tokens + 1} tokens ({prompt_tokens} in {_place(request)}, at least"
            f" 1 in the completion). Please reduce the length of {_place(request)}.",
            field=request.prompt.field,
        )
    return room


def max_tokens(request: GenerationRequest, card: ModelCard, prompt_tokens: int) -> int:
    """Return how many tokens are generated at most.

    Raises:
        ContextLengthExceeded: prompt and requested output do not fit the context.
    """
    room = check_room(request, card, prompt_tokens)
    if not request.parameters.HasField("max_tokens"):
        return room
    if request.cuts_max_tokens:
        return min(room, request.parameters.max_tokens)
    if request.parameters.max_tokens > room:
        output = request.parameters.max_tokens
        raise ContextLengthExceeded(
            f"This model's maximum context length is {card.context_tokens} tokens. However, you"
            f" requested {prompt_tokens + output} tokens ({prompt_tokens} in {_place(request)},"
            f" {output} in the completion). Please reduce the length of {_place(request)} or the"
            " completion.",
            field=request.name_of("max_tokens"),
        )
    return request.parameters.max_tokens
