"""The JSON bodies of OpenAI's API: what is in them, and of what type. Ranges are `validation`'s.

Types are strict (no "1" for 1; but 1.0 is 1, as JSON Schema has it). Null is the same as absent.
Fields of `IGNORED_FIELDS` are accepted because clients send them; unknown ones are ignored and
noted, or refused, as the caller or the operator configures it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from headrace.errors import InvalidRequest, RequestError, Unsupported
from headrace.sampling import PARAMETERS
from headrace_gateway.api.bodies.entries import call_entries, text_or_parts, tool_entries
from headrace_gateway.api.bodies.json_objects import MAX_ENTRIES, read_object, texts_or_token_ids
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.bodies.strict_body import (
    ENTRIES,
    UNSUPPORTED,
    Count,
    OptionalModel,
    PrioritizedBody,
    StrictBody,
    Unsigned,
    WholeNumber,
    field_error,
)
from headrace_gateway.api.bodies.unknown_fields import UnknownFields
from headrace_gateway.api.bodies.unsupported_fields import (
    BODY_NO_EFFECT,
    CHAT,
    COMPLETION,
    MESSAGE,
    MESSAGE_NO_EFFECT,
    STREAM_NO_EFFECT,
)
from headrace_gateway.base.quoting import quoted
from headrace_gateway.request.generation_request import ROLES


def _prompts(value: object) -> list[str] | list[list[int]]:
    """Return a list of texts or of lists of token ids, also for a single one of either."""
    if (prompts := texts_or_token_ids(value)) is not None:
        # An empty list is a prompt without tokens, which is refused as that.
        return prompts or [""]
    raise PydanticCustomError(
        "prompt", "should be a text, a list of token ids, a list of texts or a list of such lists"
    )


def _bounded(entries: object) -> object:
    """Return the entries unless they are too many.

    Why before their types: pydantic would collect an error for each of a million wrong entries.
    """
    if isinstance(entries, dict) and len(entries) > MAX_ENTRIES:
        raise PydanticCustomError(
            "too_long",
            "has {count} entries; it may have {most}",
            {"count": len(entries), "most": MAX_ENTRIES},
        )
    return entries


def listed(stop: object) -> object:
    """Return a list of one for a text."""
    return [stop] if isinstance(stop, str) else stop


OneBelow = Annotated[WholeNumber, Field(ge=-1, le=2**32 - 1)]
"""Unsigned, or -1."""
Texts = Annotated[list[str], ENTRIES]
TokenIdList = Annotated[list[Unsigned], ENTRIES]
Objects = Annotated[list[dict[str, Any]], ENTRIES]


class Message(StrictBody):
    UNSUPPORTED_FIELDS = MESSAGE
    IGNORED_FIELDS = MESSAGE_NO_EFFECT
    PATH = "messages[]."

    role: str
    content: Annotated[str | list[dict[str, str]] | None, PlainValidator(text_or_parts)] = None
    """It may be null in an assistant's or a tool's message, and in no other."""
    name: str | None = None
    tool_calls: Annotated[Objects, BeforeValidator(call_entries)] | None = None
    tool_call_id: str | None = None
    """For templates that print it."""
    reasoning_content: str | None = None
    """The reasoning before an answer, for templates that print it; so is the next."""
    reasoning: str | None = None
    refusal: str | None = None
    """An answer of OpenAI's own models, where it has no content."""
    function_call: dict[str, Any] | None = None
    """The older form of one tool call."""

    @model_validator(mode="after")
    def _is_a_turn(self) -> Self:
        if self.role not in ROLES:
            raise field_error("role", f"{quoted(self.role)} is none of {', '.join(ROLES)}")
        if self.content is None and self.role in ("system", "developer", "user"):
            raise field_error("content", "is missing")
        if self.role == "tool" and not self.tool_call_id:
            raise field_error(
                "tool_call_id", "is missing; it names the call that this is the result of"
            )
        return self


class StreamOptions(StrictBody):
    IGNORED_FIELDS = STREAM_NO_EFFECT
    PATH = "stream_options."

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """vLLM's: each chunk has the usage of its choice so far."""
    include_obfuscation: bool | None = None


if TYPE_CHECKING:
    SamplingBody = PrioritizedBody
else:
    _NUMBERS = {
        name: (OneBelow if each.whole else float | None, None) for name, each in PARAMETERS.items()
    }
    SamplingBody = create_model("SamplingBody", __base__=PrioritizedBody, **_NUMBERS)
    """A field for each of `headrace.sampling`'s parameters. Of a whole one, -1 is 0, as in vLLM."""


class Body(SamplingBody):
    """What both endpoints take."""

    IGNORED_FIELDS = BODY_NO_EFFECT

    model: OptionalModel = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Count | None = None
    max_tokens: Unsigned | None = None
    stop: Annotated[Texts | None, BeforeValidator(listed)] = None
    logit_bias: Annotated[dict[str, float] | None, BeforeValidator(_bounded)] = None
    seed: Annotated[WholeNumber, Field(ge=-(2**63), lt=2**64)] | None = None
    metadata: dict[str, Any] | None = None

    background: bool | None = None
    """Ours, named as in OpenAI's Responses: the request runs without any reader."""

    # vLLM's
    prompt_logprobs: Unsigned | None = None
    """In whole answers only."""
    stop_token_ids: TokenIdList | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    """Each choice also has its output and prompt as token ids, end-of-sequence included."""
    return_tokens_as_token_ids: bool | None = None
    """Logprobs name tokens `token_id:17`, of which no two are alike."""
    min_tokens: Unsigned | None = None
    bad_words: Texts | None = None
    allowed_token_ids: TokenIdList | None = None
    truncate_prompt_tokens: OneBelow | None = None
    """The last so many are read; -1: as many as there is room for."""
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    add_special_tokens: bool | None = None
    cache_salt: str | None = None
    request_id: str | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: dict[str, Any] | None = None

    # llama.cpp's
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None

    response_format: dict[str, Any] | None = None
    """Read by `structures`, as the seven before it."""

    @model_validator(mode="after")
    def _fits_its_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise field_error(
                "stream_options", "stream_options is allowed only when stream is true"
            )
        if self.prompt_logprobs is not None and self.stream:
            fact = "prompt_logprobs is not served in streams"
            raise field_error("prompt_logprobs", fact, kind=UNSUPPORTED)
        return self

    @property
    def output_options(self) -> OutputOptions:
        """Return what is sent beside the text."""
        raise NotImplementedError

    def _output_options(self, **own: Any) -> OutputOptions:
        return OutputOptions(
            prompt_logprobs=self.prompt_logprobs,
            token_ids=bool(self.return_token_ids),
            tokens_as_ids=bool(self.return_tokens_as_token_ids),
            **own,
        )


class ChatBody(Body):
    UNSUPPORTED_FIELDS = CHAT

    messages: Annotated[list[Message], ENTRIES]
    tools: Annotated[Objects, BeforeValidator(tool_entries)] | None = None
    """Read by `tools`, as the next two."""
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Unsigned | None = None
    """The newer name of max_tokens; where both are set, this one counts."""
    logprobs: bool | None = None
    top_logprobs: Unsigned | None = None
    documents: Objects | None = None
    add_generation_prompt: bool | None = None
    """Unset: true, unless the last message is continued."""
    continue_final_message: bool | None = None
    echo: bool | None = None
    """The text of the last message comes before each choice, if it is an assistant's."""
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None
    """vLLM's, as the one before and the next; unset: true."""
    thinking_token_budget: Unsigned | None = None

    @property
    def output_options(self) -> OutputOptions:
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self._output_options(
            chat=True,
            logprobs=logprobs,
            echo_last_message=bool(self.echo),
            reasoning=self.include_reasoning is not False,
        )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.add_generation_prompt and self.continue_final_message:
            raise field_error(
                "continue_final_message", "and add_generation_prompt cannot both be true"
            )
        if not self.tools and self.tool_choice not in (None, "none"):
            raise field_error("tool_choice", "is allowed only when tools are offered")
        if not self.tools and self.parallel_tool_calls is not None:
            raise field_error("parallel_tool_calls", "is allowed only when tools are offered")
        if self.top_logprobs and not self.logprobs:
            raise field_error("top_logprobs", "top_logprobs is allowed only when logprobs is true")
        return self


class CompletionBody(Body):
    UNSUPPORTED_FIELDS = COMPLETION

    prompt: Annotated[list[str] | list[list[int]], PlainValidator(_prompts)]
    """Each has its own choices."""
    best_of: WholeNumber | None = None
    """Served only where it equals n."""
    logprobs: Unsigned | None = None
    echo: bool | None = None
    """The prompt comes before each choice, in its logprobs too. With `max_tokens` 0 nothing else
    is returned, though one token is generated."""

    @property
    def output_options(self) -> OutputOptions:
        echo = bool(self.echo)
        return self._output_options(
            chat=False,
            logprobs=self.logprobs,
            echo=echo,
            echo_only=echo and self.max_tokens == 0,
        )

    @model_validator(mode="after")
    def _no_choosing_among_more(self) -> Self:
        if self.best_of is not None and self.best_of != (self.n or 1):
            fact = (
                "best_of other than n is not served: choices are not ranked; request n and rank"
                " them by their logprobs"
            )
            raise field_error("best_of", fact, kind=UNSUPPORTED)
        return self


T = TypeVar("T", bound=StrictBody)


def parse(kind: type[T], data: bytes, *, max_bytes: int, unknown: UnknownFields | None = None) -> T:
    """Read a body; what does nothing in it is noted in `unknown`, without which it is refused.

    Raises:
        InvalidRequest: it is too long, no JSON, or a field is unknown, missing or of a wrong type.
        Unsupported: a field is known but not served.
    """
    return validated(kind, read_object(data, max_bytes=max_bytes), unknown)


def validated(kind: type[T], value: dict[str, Any], unknown: UnknownFields | None = None) -> T:
    """As `parse`, of the object that a body is."""
    try:
        return kind.model_validate(value, context=unknown)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _refusal(first) from error


def _refusal(detail: ErrorDetails) -> RequestError:
    place = _path(detail["loc"])
    context = detail.get("ctx", {})
    if detail["type"] == "unknown_field":
        name = str(context["name"])
        place += str(context.get("within", ""))
        field = f"{place}.{name[:64]}" if place else name[:64]
        return InvalidRequest(f"unknown field {quoted(name)}", field=field)
    if "field" in context:
        place = f"{place}.{context['field']}" if place else str(context["field"])
    message = detail["msg"]
    if detail["type"] == "missing":
        message = "is missing"
    kind = Unsupported if detail["type"] == UNSUPPORTED else InvalidRequest
    return kind(f"{place}: {message}", field=place)


def _path(places: tuple[int | str, ...]) -> str:
    path = ""
    for place in places:
        path += f"[{place}]" if isinstance(place, int) else f".{place[:64]}"
    return path.removeprefix(".")
