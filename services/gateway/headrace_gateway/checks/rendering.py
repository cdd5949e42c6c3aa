"""Pure: how the output of a request becomes text, reasoning and calls; as its record says it."""

from __future__ import annotations

import json

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.request_pb2 import OfferedTool, Rendering
from headrace_gateway.parsers.registry import TYPED
from headrace_gateway.request.generation_request import Conversation, GenerationRequest
from headrace_gateway.request.tools import Tool


def rendering_of(request: GenerationRequest, card: ModelCard) -> Rendering:
    rendering = Rendering(
        stop=request.parameters.stop,
        keep_special_tokens=request.parameters.keep_special_tokens,
        include_stop=request.parameters.include_stop,
    )
    if isinstance(request.prompt, Conversation):
        rendering.reasoning_parser = card.reasoning_parser
    if request.tools.usable:
        rendering.calls_tools, rendering.tool_parser = True, card.tool_parser
        rendering.single_call = not request.tools.parallel
        rendering.tools.extend(_offered(tool, card) for tool in request.tools.offered)
    return rendering


def _offered(tool: Tool, card: ModelCard) -> OfferedTool:
    if card.tool_parser not in TYPED:
        return OfferedTool(name=tool.name)
    return OfferedTool(name=tool.name, parameters=json.dumps(tool.schema, ensure_ascii=False))
