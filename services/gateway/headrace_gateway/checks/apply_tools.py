"""Pure: puts the tools of a request into its prompt and the structure of its output."""

from __future__ import annotations

import dataclasses

from headrace.errors import InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import SamplingParameters
from headrace_gateway.request.generation_request import Conversation, GenerationRequest
from headrace_gateway.request.tools import check_tools, structure_of


def apply_tools(request: GenerationRequest, card: ModelCard) -> GenerationRequest:
    """Return the request with its tools applied; unchanged if it has no usable tools.

    Raises:
        InvalidRequest: its tools are malformed, it has no conversation, or two structures
            would constrain its output.
        Unsupported: the model does not support tool calling, or not a required tool call.
    """
    tools = request.tools
    field, choice_field = request.name_of("tools"), request.name_of("tool_choice")
    check_tools(tools, card, field, choice_field)
    if not tools.usable:
        return request
    if not isinstance(request.prompt, Conversation):
        raise InvalidRequest(f"{field} are for conversations only", field=field)
    offered = [tool.for_template() for tool in tools.offered]
    prompt = dataclasses.replace(request.prompt, tools=offered)
    structure = structure_of(tools, card)
    other_form = request.parameters.HasField("structure")
    if structure is None or (other_form and not tools.binding):
        return dataclasses.replace(request, prompt=prompt)
    if other_form:
        other = request.name_of("structure")
        raise InvalidRequest(
            f"{other} and the calls that {field} and {choice_field} request cannot both constrain"
            " the output",
            field=other,
        )
    parameters = SamplingParameters()
    parameters.CopyFrom(request.parameters)
    parameters.structure.CopyFrom(structure)
    names = {**request.names, "structure": field}
    return dataclasses.replace(request, prompt=prompt, parameters=parameters, names=names)
