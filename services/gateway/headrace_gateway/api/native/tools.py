"""Converts native tools and tool choices."""

from __future__ import annotations

from headrace.errors import InvalidRequest
from headrace.v1.generation_pb2 import GenerateRequest, ToolChoiceMode
from headrace.v1.generation_pb2 import Tool as OfferedTool
from headrace_gateway.request.tools import Choice, Tool, Tools, as_object

_CHOICES: dict[ToolChoiceMode.ValueType, Choice] = {
    ToolChoiceMode.TOOL_CHOICE_MODE_UNSPECIFIED: "auto",
    ToolChoiceMode.TOOL_CHOICE_MODE_NONE: "none",
    ToolChoiceMode.TOOL_CHOICE_MODE_AUTO: "auto",
    ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED: "required",
}


def requested_tools(request: GenerateRequest) -> Tools:
    """
    Raises:
        InvalidRequest: a tool or the choice of one is malformed; the error names the field.
    """
    choice = _CHOICES.get(request.tool_choice.mode)
    if choice is None or (request.tool_choice.name and choice != "required"):
        raise InvalidRequest(
            "tool_choice has a name without REQUIRED, or a mode that is none", field="tool_choice"
        )
    parallel = not request.HasField("parallel_tool_calls") or request.parallel_tool_calls
    offered = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools))
    return Tools(offered, choice, request.tool_choice.name, parallel)


def _tool(tool: OfferedTool, field: str) -> Tool:
    parameters = None
    if tool.parameters:
        parameters = as_object(tool.parameters)
        if not isinstance(parameters, dict):
            raise InvalidRequest(
                f"{field}.parameters is no JSON Schema", field=f"{field}.parameters"
            )
    return Tool(tool.name, tool.description, parameters, tool.strict)
