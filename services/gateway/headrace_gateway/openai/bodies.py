"""The JSON bodies of OpenAI's API: what is in them, and of what type. Ranges are `validation`'s.

Types are strict (no "1" for 1), unknown fields are refused, null is the same as
absent. Fields that say in their comment that they have no effect are accepted
because clients send them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from headrace.errors import InvalidRequest, RequestError, Unsupported
from headrace_gateway.json_objects import MAX_ENTRIES, read_object, texts_or_token_ids
from headrace_gateway.openai.fields import CHAT, COMPLETION, MESSAGE, NotServed
from headrace_gateway.quoting import quoted

_UINT32 = 2**32 - 1
TokenId = Annotated[int, Field(ge=0, le=_UINT32)]

_UNSUPPORTED = "unsupported"


class StrictBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    NOT_SERVED: ClassVar[NotServed] = {}

    @model_validator(mode="before")
    @classmethod
    def _only_fields_that_work(cls, data: object) -> object:
        """Why here: pydantic would collect an error for each of a million unknown fields."""
        if not isinstance(data, dict):
            return data
        for name in data.keys() - cls.model_fields.keys():
            value = data[name]
            if name not in cls.NOT_SERVED:
                raise PydanticCustomError("unknown_field", "{name}", {"name": name})
            if value is not None and not _is_neutral(value, cls.NOT_SERVED[name]):
                raise PydanticCustomError(
                    _UNSUPPORTED, "{name} is not served", {"name": name, "field": name}
                )
        return {name: value for name, value in data.items() if name in cls.model_fields}


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    # Why the types: True == 1 in Python, and is not the same in JSON.
    return any(value == one and type(value) is type(one) for one in neutral)


def _joined_text(content: object) -> object:
    """Text parts as one text, a line each, which is what chat templates take."""
    if not isinstance(content, list):
        return content
    texts = []
    for i, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise PydanticCustomError("part", "part {i} has no type", {"i": i})
        if part["type"] != "text":
            raise PydanticCustomError(
                _UNSUPPORTED,
                "part {i} is of type {type}; only text is served",
                {"i": i, "type": quoted(part["type"])},
            )
        if not isinstance(part.get("text"), str):
            raise PydanticCustomError("part", "part {i} has no text", {"i": i})
        texts.append(part["text"])
    return "\n".join(texts)


def _prompts(value: object) -> list[str] | list[list[int]]:
    """Texts or lists of token ids; one that stands alone is a list of one."""
    if (prompts := texts_or_token_ids(value)) is not None:
        # An empty list is a prompt without tokens, which is refused as that.
        return prompts or [""]
    raise PydanticCustomError(
        "prompt", "should be a text, a list of token ids, a list of texts or a list of such lists"
    )


def _bounded(entries: object) -> object:
    """Why before: pydantic would collect an error for each of a million wrong entries."""
    if isinstance(entries, dict) and len(entries) > MAX_ENTRIES:
        raise PydanticCustomError(
            "too_long",
            "has {count} entries; it may have {most}",
            {"count": len(entries), "most": MAX_ENTRIES},
        )
    return entries


def _listed(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class Message(StrictBody):
    NOT_SERVED = MESSAGE

    role: str
    content: Annotated[str | None, BeforeValidator(_joined_text)] = None
    """May be absent beside tool calls only."""
    name: str | None = None
    tool_calls: (
        Annotated[list[dict[str, Any]], Field(fail_fast=True, max_length=MAX_ENTRIES)] | None
    ) = None
    tool_call_id: str | None = None
    """For templates that print it."""


class StreamOptions(StrictBody):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """vLLM's: each chunk says what its choice has used so far."""
    include_obfuscation: bool | None = None
    """No effect: chunks are never padded."""


class Body(StrictBody):
    """What both endpoints take."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=-_UINT32, le=_UINT32)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=_UINT32)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: Annotated[
        Annotated[list[str], Field(fail_fast=True, max_length=MAX_ENTRIES)] | None,
        BeforeValidator(_listed),
    ] = None
    logit_bias: Annotated[dict[str, float] | None, BeforeValidator(_bounded)] = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    user: str | None = None
    """No effect, as the next five."""
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None

    background: bool | None = None
    """Ours, named as in OpenAI's Responses: it goes on without any reader."""

    # vLLM's
    top_k: Annotated[int, Field(ge=-1, le=_UINT32)] | None = None
    """0 and -1 keep all."""
    min_p: float | None = None
    repetition_penalty: float | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=_UINT32)] | None = None
    """In whole answers only."""
    stop_token_ids: (
        Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_ENTRIES)] | None
    ) = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    """Each choice also says its output as token ids, end-of-sequence included."""
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: dict[str, Any] | None = None

    response_format: dict[str, Any] | None = None
    """Read by `structures`, as the five before it."""

    @model_validator(mode="after")
    def _fits_its_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "stream_options",
                "stream_options is allowed only when stream is true",
                {"field": "stream_options"},
            )
        if self.prompt_logprobs is not None and self.stream:
            raise PydanticCustomError(
                _UNSUPPORTED,
                "prompt_logprobs is not served in streams",
                {"field": "prompt_logprobs"},
            )
        return self


class ChatBody(Body):
    NOT_SERVED = CHAT

    messages: Annotated[list[Message], Field(fail_fast=True, max_length=MAX_ENTRIES)]
    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True, max_length=MAX_ENTRIES)] | None = (
        None
    )
    """Read by `tools`, as the next two."""
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=0, le=_UINT32)] | None = None
    """The newer name of max_tokens; where both are set, this one counts."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=_UINT32)] | None = None

    @model_validator(mode="after")
    def _likeliest_beside_the_chosen(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError(
                "top_logprobs",
                "top_logprobs is allowed only when logprobs is true",
                {"field": "top_logprobs"},
            )
        return self


class CompletionBody(Body):
    NOT_SERVED = COMPLETION

    prompt: Annotated[list[str] | list[list[int]], PlainValidator(_prompts)]
    """Each has its own choices."""
    best_of: int | None = None
    """Served only where it equals n."""
    logprobs: Annotated[int, Field(ge=0, le=_UINT32)] | None = None
    echo: bool | None = None
    """The prompt stands before each choice, in its logprobs too. With `max_tokens` 0 it is all
    that is told, though one token is made."""

    @model_validator(mode="after")
    def _no_choosing_among_more(self) -> Self:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise PydanticCustomError(
                _UNSUPPORTED, "best_of other than n is not served", {"field": "best_of"}
            )
        return self


T = TypeVar("T", bound=StrictBody)


def parse(kind: type[T], data: bytes, *, max_bytes: int) -> T:
    """Read a body.

    Raises:
        InvalidRequest: it is too long, no JSON, or a field is unknown, missing or of a wrong type.
        Unsupported: a field is known but not served.
    """
    value = read_object(data, max_bytes=max_bytes)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _refusal(first) from error


def _refusal(detail: ErrorDetails) -> RequestError:
    place = _path(detail["loc"])
    context = detail.get("ctx", {})
    if detail["type"] == "unknown_field":
        name = str(context["name"])
        field = f"{place}.{name[:64]}" if place else name[:64]
        return InvalidRequest(f"unknown field {quoted(name)}", field=field)
    if "field" in context:
        place = f"{place}.{context['field']}" if place else str(context["field"])
    message = detail["msg"]
    if detail["type"] == "missing":
        message = "is missing"
    kind = Unsupported if detail["type"] == _UNSUPPORTED else InvalidRequest
    return kind(f"{place}: {message}", field=place)


def _path(places: tuple[int | str, ...]) -> str:
    path = ""
    for place in places:
        path += f"[{place}]" if isinstance(place, int) else f".{place[:64]}"
    return path.removeprefix(".")
