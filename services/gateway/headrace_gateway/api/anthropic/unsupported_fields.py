"""Fields of Anthropic's bodies that do nothing here, or are not served, as those of OpenAI's."""

from __future__ import annotations

from headrace_gateway.api.bodies.unsupported_fields import (
    IgnoredFields,
    UnsupportedField,
    UnsupportedFields,
)

_CACHES = "beginnings are cached anyway, and the answer is the same"
_ONE_MESH = "requests run where the mesh runs"

BODY: UnsupportedFields = {
    "container": UnsupportedField((), "no code is run"),
    "mcp_servers": UnsupportedField(([],), "no server of tools is called; offer them in tools"),
}
BODY_NO_EFFECT: IgnoredFields = {
    "cache_control": _CACHES,
    "context_management": "messages are read as they are sent",
    "diagnostics": "nothing is compared with earlier requests",
    "inference_geo": _ONE_MESH,
    "metadata": "it names the end user, which changes no answer",
    "speed": "how urgent a request is, its service_tier and its key say",
    "user_profile_id": "keys say on whose behalf a request is made",
    "workspace_id": "keys say on whose behalf a request is made",
}
TOOL: UnsupportedFields = {
    "allowed_callers": UnsupportedField(([], ["direct"]), "no code is run that could call it"),
    "defer_loading": UnsupportedField((False,), "there is no search of tools"),
}
TOOL_NO_EFFECT: IgnoredFields = {
    "cache_control": _CACHES,
    "eager_input_streaming": "inputs are always streamed as they are generated",
}
BLOCK_NO_EFFECT: IgnoredFields = {
    "cache_control": _CACHES,
    "caller": "the model itself calls every tool",
    "citations": "what an answer cited is no part of its text",
    "data": "what was redacted cannot be read",
    "signature": "what the model thought is taken as it is sent",
    "toolset_name": "tools have no sets",
}
