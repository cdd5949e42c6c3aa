"""The JSON bodies of /v1/responses and /v1/conversations: what is in them, and of what type."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

from headrace.errors import InvalidRequest, Unsupported
from headrace_gateway.api.bodies.generation import SamplingBody, Texts, listed
from headrace_gateway.api.bodies.strict_body import (
    ENTRIES,
    OptionalModel,
    RequestBody,
    StrictBody,
    Unsigned,
    WholeNumber,
    field_error,
    unknown_fields,
)
from headrace_gateway.api.bodies.unsupported_fields import STREAM_NO_EFFECT
from headrace_gateway.api.responses.wire.fields import (
    REASONING,
    RESPONSE,
    RESPONSE_NO_EFFECT,
    TEXT,
    TOOL,
    TOOL_NO_EFFECT,
)
from headrace_gateway.api.responses.wire.items import read_items
from headrace_gateway.base.quoting import quoted

Json = dict[str, Any]

LOGPROBS, ENCRYPTED = "message.output_text.logprobs", "reasoning.encrypted_content"
_INCLUDABLE = (
    *(LOGPROBS, ENCRYPTED, "file_search_call.results", "web_search_call.results"),
    *("web_search_call.action.sources", "message.input_image.image_url"),
    *("computer_call_output.output.image_url", "code_interpreter_call.outputs"),
)
"""Values of `include`; the others are of tools that do not run here, and so find nothing."""
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512


def _items(value: object, info: ValidationInfo) -> list[Json]:
    return read_items(value, info.field_name or "input", unknown_fields(info))


def _metadata(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > _MAX_PAIRS:
        raise InvalidRequest(
            f"metadata should be an object of at most {_MAX_PAIRS} pairs", field="metadata"
        )
    for key, each in value.items():
        if not isinstance(each, str) or len(key) > _MAX_KEY or len(each) > _MAX_VALUE:
            raise InvalidRequest(
                f"metadata: keys are of at most {_MAX_KEY} characters, values texts of at most"
                f" {_MAX_VALUE}",
                field=f"metadata.{key[:_MAX_KEY]}",
            )
    return value


def _include(value: object) -> list[str]:
    given = [] if value is None else value
    if not isinstance(given, list):
        raise InvalidRequest("include should be a list", field="include")
    for each in given:
        if each not in _INCLUDABLE:
            raise InvalidRequest(
                f"include has {quoted(str(each))}; it may have {', '.join(_INCLUDABLE)}",
                field="include",
            )
    return given


def _conversation(value: object) -> str | None:
    """Return the id of a conversation, which may be in an object."""
    if isinstance(value, dict) and value.keys() == {"id"}:
        value = value["id"]
    if value is not None and not isinstance(value, str):
        raise InvalidRequest("conversation should be an id", field="conversation")
    return value


Items = Annotated[list[Json], PlainValidator(_items)]
Metadata = Annotated[dict[str, str] | None, PlainValidator(_metadata)]


class FunctionTool(StrictBody):
    UNSUPPORTED_FIELDS = TOOL
    IGNORED_FIELDS = TOOL_NO_EFFECT
    PATH = "tools[]."

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None
    """Unset: false, unlike OpenAI's, which rewrites schemas that it cannot enforce."""


def _tools(value: object, info: ValidationInfo) -> object:
    """Refuse tools that are no functions by their names."""
    for i, tool in enumerate(value if isinstance(value, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind is not None and kind != "function":
            raise Unsupported(
                f"tools[{i}] is of type {quoted(str(kind))}, which is not served: no tools run"
                " here; functions are called by the client",
                field=f"tools[{i}].type",
            )
    return value


class Reasoning(StrictBody):
    UNSUPPORTED_FIELDS = REASONING
    PATH = "reasoning."

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """The older name of `summary`."""


class TextConfig(StrictBody):
    UNSUPPORTED_FIELDS = TEXT
    PATH = "text."

    format: Json | None = None


class ResponseStreamOptions(StrictBody):
    IGNORED_FIELDS = STREAM_NO_EFFECT
    PATH = "stream_options."

    include_obfuscation: bool | None = None


class InputBody(RequestBody):
    """What the model is given: of a response, and where only its tokens are counted."""

    UNSUPPORTED_FIELDS = RESPONSE
    IGNORED_FIELDS = RESPONSE_NO_EFFECT

    input: Items = Field(default_factory=list)
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Annotated[str | None, PlainValidator(_conversation)] = None
    """An id, or an object with it."""
    tools: Annotated[Annotated[list[FunctionTool], ENTRIES] | None, BeforeValidator(_tools)] = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    """auto: the oldest messages are left out where there are too many."""

    @model_validator(mode="after")
    def _has_one_past(self) -> Self:
        if self.conversation and self.previous_response_id:
            raise field_error("previous_response_id", "is set beside conversation; one may be")
        return self


class CountBody(InputBody):
    model: OptionalModel = ""


class ResponseBody(InputBody, SamplingBody):
    model: OptionalModel = ""
    include: Annotated[list[str], PlainValidator(_include)] = Field(default_factory=list)
    max_output_tokens: Unsigned | None = None
    top_logprobs: Unsigned | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = None
    """Unset: true."""
    background: bool | None = None
    metadata: Metadata = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None

    # vLLM's
    seed: Annotated[WholeNumber, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Annotated[Texts | None, BeforeValidator(listed)] = None
    ignore_eos: bool | None = None
    cache_salt: str | None = None

    @property
    def is_stored(self) -> bool:
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in self.include or bool(self.top_logprobs)

    @model_validator(mode="after")
    def _fits_its_store(self) -> Self:
        for name in ("background", "conversation"):
            if getattr(self, name) and not self.is_stored:
                raise field_error(name, f"{name} needs `store`, which is false")
        if self.stream_options is not None and not self.stream:
            raise field_error(
                "stream_options", "stream_options is allowed only when stream is true"
            )
        return self


class ConversationBody(StrictBody):
    items: Items = Field(default_factory=list)
    metadata: Metadata = None


class ConversationUpdateBody(StrictBody):
    metadata: Metadata


class ConversationItemsBody(StrictBody):
    items: Items
