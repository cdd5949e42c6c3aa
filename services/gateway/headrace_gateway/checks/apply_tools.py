"""Pure: puts the tools of a request into its prompt and the structure of its output."""

from __future__ import annotations

import dataclasses

from headrace.errors import InvalidRequest, Unsupported
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import SamplingParameters, Structure
from headrace_gateway.checks.structures import check_structure
from headrace_gateway.parsers.formats import FORMATS
from headrace_gateway.parsers.registry import HARMONY_REASONING
from headrace_gateway.parsers.structures import (
    calls_alone,
    calls_in_text,
    calls_or_answer,
    harmony_answer,
)
from headrace_gateway.request.generation_request import Conversation, GenerationRequest
from headrace_gateway.request.tools import Tools, check_tools


def apply_tools(request: GenerationRequest, card: ModelCard) -> GenerationRequest:
    """Return the request with its tools applied; unchanged if it has no usable tools.

    Raises:
        InvalidRequest: its tools are malformed, or it has no conversation.
        Unsupported: the model does not support tool calling, or not a required tool call.
    """
    tools = request.tools
    field, choice_field = request.name_of("tools"), request.name_of("tool_choice")
    check_tools(tools, card, field, choice_field)
    if not tools.usable:
        return _in_final_message(request, card)
    if card.tool_parser not in FORMATS:
        raise Unsupported(
            f"this gateway does not know how model {card.model} writes calls: {card.tool_parser}",
            field=field,
        )
    if not isinstance(request.prompt, Conversation):
        raise InvalidRequest(f"{field} are for conversations only", field=field)
    offered = [tool.for_template() for tool in tools.offered]
    prompt = dataclasses.replace(request.prompt, tools=offered)
    request = dataclasses.replace(request, prompt=prompt)
    if not card.capabilities.grammar:
        return request
    structure = _structure(request, tools, card)
    if structure is None:
        return request
    is_of_tools = tools.choice == "required" or not request.parameters.HasField("structure")
    names = {**request.names, "structure": field} if is_of_tools else request.names
    return _held_to(dataclasses.replace(request, names=names), structure)


def _structure(request: GenerationRequest, tools: Tools, card: ModelCard) -> Structure | None:
    if tools.choice == "required":
        return calls_alone(tools, card.tool_parser)
    if not request.parameters.HasField("structure"):
        return calls_in_text(tools, card.tool_parser)
    answer = request.parameters.structure
    check_structure(answer, card, request.name_of("structure"))
    return calls_or_answer(tools, card.tool_parser, answer)


def _in_final_message(request: GenerationRequest, card: ModelCard) -> GenerationRequest:
    """Return the request with its structure where an answer of gpt-oss has it."""
    is_chat = isinstance(request.prompt, Conversation)
    if not is_chat or card.reasoning_parser != HARMONY_REASONING:
        return request
    if not request.parameters.HasField("structure"):
        return request
    check_structure(request.parameters.structure, card, request.name_of("structure"))
    return _held_to(request, harmony_answer(request.parameters.structure))


def _held_to(request: GenerationRequest, structure: Structure) -> GenerationRequest:
    parameters = SamplingParameters()
    parameters.CopyFrom(request.parameters)
    parameters.structure.CopyFrom(structure)
    return dataclasses.replace(request, parameters=parameters)
