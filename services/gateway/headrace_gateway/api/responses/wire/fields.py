"""Fields of Responses that do nothing here, or are not served; see `unsupported_fields`."""

from __future__ import annotations

from headrace_gateway.api.bodies.unsupported_fields import (
    BODY_NO_EFFECT,
    IgnoredFields,
    UnsupportedField,
    UnsupportedFields,
)

_NO_PROGRAMS = "no programs run here; send the calls of functions as items"

RESPONSE: UnsupportedFields = {
    "access_programs": UnsupportedField((), "of OpenAI's own models"),
    "background_options": UnsupportedField(({},), "a background response begins as soon as it can"),
    "context_management": UnsupportedField(([],), "nothing is compacted; use truncation"),
    "image": UnsupportedField((), "only text is read"),
    "moderation": UnsupportedField((), "nothing is moderated"),
    "personality": UnsupportedField((), "use instructions"),
    "prompt": UnsupportedField((), "no prompt templates are stored; send instructions and input"),
}
RESPONSE_NO_EFFECT: IgnoredFields = {
    name: BODY_NO_EFFECT[name] for name in ("prompt_cache_options", "prompt_cache_retention")
} | {"max_tool_calls": "it bounds built-in tools, of which there are none"}
REASONING: UnsupportedFields = {
    "context": UnsupportedField(("auto", "all_turns"), "all reasoning items of the input are read"),
    "mode": UnsupportedField(("standard",), "there is one"),
}
TEXT: UnsupportedFields = {
    "verbosity": UnsupportedField(("medium",), "request it in the instructions")
}
TOOL: UnsupportedFields = {
    "allowed_callers": UnsupportedField(([], ["direct"]), _NO_PROGRAMS),
    "async": UnsupportedField((False,), "a call is answered before the model goes on"),
    "defer_loading": UnsupportedField((False,), "all tools are in the prompt"),
}
TOOL_NO_EFFECT: IgnoredFields = {"output_schema": "what a function returns is not checked"}

_CALLER: UnsupportedFields = {
    "async": UnsupportedField((False,), "a call is answered before the model goes on"),
    "caller": UnsupportedField(({"type": "direct"},), _NO_PROGRAMS),
    "namespace": UnsupportedField(("",), "functions have no namespaces"),
}
ITEMS_NOT_SERVED: dict[str, UnsupportedFields] = {
    "message": {},
    "function_call": _CALLER,
    "function_call_output": {name: _CALLER[name] for name in ("caller", "namespace")},
    "reasoning": {},
    "item_reference": {},
}
_WHOLE = "what is sent is taken as complete"
ITEMS_NO_EFFECT: dict[str, IgnoredFields] = {
    "message": {"phase": "it marks what is shown, and changes no prompt", "status": _WHOLE},
    "function_call": {"status": _WHOLE, "created_by": "of OpenAI's own"},
    "function_call_output": {
        "status": _WHOLE,
        "created_by": "of OpenAI's own",
        "name": "the call has it",
    },
    "reasoning": {"status": _WHOLE},
    "item_reference": {},
}
ITEMS: dict[str, frozenset[str]] = {
    "message": frozenset({"type", "id", "role", "content"}),
    "function_call": frozenset({"type", "id", "call_id", "name", "arguments"}),
    "function_call_output": frozenset({"type", "id", "call_id", "output"}),
    "reasoning": frozenset({"type", "id", "summary", "content", "encrypted_content"}),
    "item_reference": frozenset({"type", "id"}),
}
"""Fields of items that are served, by the item's type."""
