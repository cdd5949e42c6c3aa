"""Pure: converts Anthropic's bodies to `GenerationRequest`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from headrace.errors import InvalidRequest
from headrace.v1.common_pb2 import Priority, SamplingParameters, Structure
from headrace_gateway.api.anthropic.blocks import Block
from headrace_gateway.api.anthropic.bodies import (
    CountTokensBody,
    Message,
    MessagesBody,
    ToolBody,
    ToolChoiceBody,
)
from headrace_gateway.api.bodies.structures import response_format
from headrace_gateway.api.bodies.tools import tool_call
from headrace_gateway.base.calls import Call, wants_cache
from headrace_gateway.request.generation_request import (
    REASONING_SWITCHES,
    Conversation,
    GenerationRequest,
    ReasoningOptions,
)
from headrace_gateway.request.tools import Choice, Tool, Tools

Turn = dict[str, Any]
"""A message as chat templates take it."""

_CHOICES: dict[str, Choice] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}
_TIERS = {"standard_only": Priority.PRIORITY_STANDARD}
_NAMES = {"stop": "stop_sequences", "priority": "service_tier"}


def counted_request(body: CountTokensBody, call: Call) -> GenerationRequest:
    """Return a request with the prompt of such a message, which is not to be opened."""
    return GenerationRequest(
        call.request_id,
        body.model,
        _conversation(body),
        SamplingParameters(),
        tools=_tools(body),
        reasoning=_reasoning(body),
        caller=call.caller,
    )


def message_request(body: MessagesBody, call: Call) -> GenerationRequest:
    """
    Raises:
        InvalidRequest: its messages cannot be continued, or two fields request its structure.
    """
    structure = _structure(body)
    parameters = SamplingParameters(
        max_tokens=body.max_tokens,
        stop=body.stop_sequences,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        structure=structure[0],
    )
    return GenerationRequest(
        request_id=call.request_id,
        model=body.model,
        prompt=_conversation(body),
        parameters=parameters,
        tools=_tools(body),
        reasoning=_reasoning(body),
        priority=_TIERS.get(body.service_tier or "", Priority.PRIORITY_UNSPECIFIED),
        time_remaining_s=call.time_remaining_s,
        trace_context=call.trace_context,
        caller=call.caller,
        stream=bool(body.stream),
        cached=wants_cache(call),
        cuts_max_tokens=True,
        names=_NAMES | {"structure": structure[1]},
    )


def _structure(body: CountTokensBody) -> tuple[Structure | None, str]:
    """Return the structure of the output, and the field that requests it."""
    newer = body.output_config and body.output_config.format
    if newer is not None and body.output_format is not None:
        raise InvalidRequest(
            "output_format and output_config.format are both set; one may be",
            field="output_format",
        )
    value, field = (
        (newer, "output_config.format") if newer else (body.output_format, "output_format")
    )
    return (response_format(value, field) if value is not None else None), field


def _conversation(body: CountTokensBody) -> Conversation:
    turns = conversation_turns(body.system or (), body.messages)
    continues = bool(body.messages) and body.messages[-1].role == "assistant"
    if continues and turns[-1].get("tool_calls"):
        raise InvalidRequest(
            "the last message uses tools, and has to be followed by their results",
            field=f"messages[{len(body.messages) - 1}]",
        )
    return Conversation(turns, opens_answer=not continues, continues=continues)


def conversation_turns(system: Sequence[Block], messages: Iterable[Message]) -> list[Turn]:
    """Return the messages as chat templates take them; consecutive ones of a role are one."""
    turns: list[Turn] = []
    if system:
        turns.append({"role": "system", "content": _parts(system)})
    names: dict[str, str] = {}
    for message in messages:
        names |= {block.id: block.name for block in message.content if block.type == "tool_use"}
        for turn in _turns(message, names):
            if turns and turns[-1]["role"] == turn["role"] and turn["role"] != "tool":
                _append(turns[-1], turn)
            else:
                turns.append(turn)
    for turn in turns:
        turn["content"] = _plain(turn["content"])
    return turns


def _turns(message: Message, names: dict[str, str]) -> Iterator[Turn]:
    """Yield a message; results of tools, which are parts of a user's, are messages of their own."""
    blocks = message.content
    if message.role == "assistant":
        turn: Turn = {"role": "assistant", "content": _parts(blocks)}
        if thoughts := [block.thinking for block in blocks if block.thinking]:
            turn["reasoning_content"] = "\n".join(thoughts)
        if used := [block for block in blocks if block.type == "tool_use"]:
            turn["tool_calls"] = [tool_call(each.id, each.name, each.input) for each in used]
        yield turn
        return
    texts: list[Block] = []
    for block in blocks:
        if block.type == "text":
            texts.append(block)
            continue
        if texts:
            yield {"role": message.role, "content": _parts(texts)}
            texts = []
        yield _result(block, names)
    if texts or not blocks:
        yield {"role": message.role, "content": _parts(texts)}


def _result(block: Block, names: dict[str, str]) -> Turn:
    text = _plain(_parts(block.content or ()))
    turn: Turn = {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}
    if block.is_error:
        # Why in the text: templates have no other place for it.
        turn["content"] = [{"type": "text", "text": "Error:"}, *_parts(block.content or ())]
    if name := names.get(block.tool_use_id):
        turn["name"] = name
    return turn


def _append(turn: Turn, more: Turn) -> None:
    turn["content"] = [*turn["content"], *more["content"]]
    if "tool_calls" in more:
        turn["tool_calls"] = [*turn.get("tool_calls", ()), *more["tool_calls"]]
    if "reasoning_content" in more:
        both = (turn.get("reasoning_content"), more["reasoning_content"])
        turn["reasoning_content"] = "\n".join(filter(None, both))


def _parts(blocks: Iterable[Block]) -> list[dict[str, str]]:
    return [{"type": "text", "text": block.text} for block in blocks if block.type == "text"]


def _plain(content: str | list[dict[str, str]]) -> str | list[dict[str, str]]:
    """Return a single part as its text, and no part as an empty one."""
    if isinstance(content, str) or len(content) > 1:
        return content
    return content[0]["text"] if content else ""


def _reasoning(body: CountTokensBody) -> ReasoningOptions:
    """Return the variables of chat templates that mean the same; none: the model's own way."""
    variables: dict[str, Any] = {}
    if body.thinking is not None:
        variables |= dict.fromkeys(REASONING_SWITCHES, body.thinking.type != "disabled")
    effort = body.output_config and body.output_config.effort
    if effort and not (body.thinking and body.thinking.type == "disabled"):
        variables["reasoning_effort"] = effort
    return ReasoningOptions(template_kwargs=variables)


def _tools(body: CountTokensBody) -> Tools:
    choice = body.tool_choice or ToolChoiceBody(type="auto")
    return Tools(
        tuple(map(_tool, body.tools or ())),
        _CHOICES[choice.type],
        choice.name or "",
        parallel=not choice.disable_parallel_tool_use,
    )


def _tool(tool: ToolBody) -> Tool:
    schema = tool.input_schema
    if tool.input_examples:
        schema = {**schema, "examples": tool.input_examples}
    return Tool(tool.name, tool.description or "", schema, strict=bool(tool.strict))
