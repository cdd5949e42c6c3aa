"""Responses, conversations and their items."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseFailure(BaseModel):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens"]


class OutputText(BaseModel):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class SummaryText(BaseModel):
    type: Literal["summary_text"]
    text: str


class ReasoningText(BaseModel):
    type: Literal["reasoning_text"]
    text: str


class OutputMessage(BaseModel):
    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]


class ReasoningItem(BaseModel):
    id: str
    type: Literal["reasoning"]
    summary: list[SummaryText]
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None


class FunctionCallItem(BaseModel):
    id: str
    type: Literal["function_call"]
    status: ItemStatus | None = None
    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(BaseModel):
    id: str
    type: Literal["function_call_output"]
    status: ItemStatus | None = None
    call_id: str
    output: str | list[Any]


class InputPart(BaseModel):
    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class MessageItem(BaseModel):
    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["user", "system", "developer", "assistant"]
    content: list[InputPart]


OutputItem = OutputMessage | ReasoningItem | FunctionCallItem
AnyItem = MessageItem | ReasoningItem | FunctionCallItem | FunctionOutputItem


class ConversationReference(BaseModel):
    id: str


class ResponseObject(BaseModel):
    """Fields that repeat what was requested are as in the request."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    background: bool
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    output: list[OutputItem]
    usage: ResponseUsage | None
    model: str
    conversation: ConversationReference | None = None


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response.deleted"]
    deleted: Literal[True]


class InputTokens(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class ItemList(BaseModel):
    object: Literal["list"]
    data: list[AnyItem]
    first_id: str
    last_id: str
    has_more: bool


class ConversationObject(BaseModel):
    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str] | None


class DeletedConversation(BaseModel):
    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class ResponseOfEvent(BaseModel):
    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: ResponseObject


class ItemOfEvent(BaseModel):
    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class PartOfEvent(BaseModel):
    type: Literal[
        "response.content_part.added",
        "response.content_part.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
    ]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int | None = None
    summary_index: int | None = None
    part: OutputText | ReasoningText | SummaryText


class TextOfEvent(BaseModel):
    type: Literal[
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
    ]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int | None = None
    summary_index: int | None = None
    delta: str | None = None
    text: str | None = None
    arguments: str | None = None
    logprobs: list[Any] | None = None


class ErrorOfEvent(BaseModel):
    type: Literal["error"]
    sequence_number: int
    code: str | None
    message: str
    param: str | None


RESPONSE_EVENTS: tuple[type[BaseModel], ...] = (
    *(ResponseOfEvent, ItemOfEvent, PartOfEvent, TextOfEvent, ErrorOfEvent),
)
