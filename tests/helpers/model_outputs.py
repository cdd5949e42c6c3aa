"""What models of each family write, and what it means: content, reasoning, and calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from headrace.internal.v1.request_pb2 import OfferedTool, Rendering

SCHEMAS: dict[str, dict[str, Any]] = {
    "sky": {
        "type": "object",
        "properties": {
            "town": {"type": "string"},
            "days": {"type": "integer"},
            "warm": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "at": {"type": "object"},
            "share": {"type": "number"},
            "note": {"type": ["string", "null"]},
        },
    },
    "time": {"type": "object", "properties": {}},
}


@dataclass(frozen=True)
class Written:
    """A text, and what its parser makes of it."""

    text: str
    content: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    reasoning: str = ""
    opens: bool = False


@dataclass(frozen=True)
class Family:
    tools: str = ""
    reasoning: str = ""
    texts: tuple[Written, ...] = field(default=())

    def rendering(self, *, opens: bool = False, single_call: bool = False) -> Rendering:
        offered = [
            OfferedTool(name=name, parameters=json.dumps(schema))
            for name, schema in SCHEMAS.items()
        ]
        return Rendering(
            calls_tools=bool(self.tools),
            tool_parser=self.tools,
            reasoning_parser=self.reasoning,
            reasoning_open=opens,
            tools=offered,
            single_call=single_call,
        )


FERNBY = {"town": "Fernby"}
Call = tuple[str, dict[str, Any]]
SKY: Call = ("sky", FERNBY)
TIME: Call = ("time", {})
QUOTES = {"town": 'a "b" }{ <x>\n', "tags": ["]", "水"]}
JSON_SKY = '{"town": "Fernby"}'
JSON_QUOTES = json.dumps(QUOTES)
ALL = {
    "town": "7",
    "days": 3,
    "warm": True,
    "tags": ["a", "b"],
    "at": {"x": [1, None]},
    "share": 0.5,
    "note": None,
}


def _hermes(*calls: str) -> str:
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)


_HERMES_SKY = f'{{"name": "sky", "arguments": {JSON_SKY}}}'
_HERMES_TIME = '{"name": "time", "arguments": {}}'

HERMES = Family(
    "hermes",
    "qwen3",
    (
        Written("Plain < text.", "Plain < text."),
        Written(_hermes(_HERMES_SKY, _HERMES_TIME), calls=(SKY, TIME)),
        Written(
            f"<think>\nLook it up.\n</think>\n\n{_hermes(_HERMES_SKY)}",
            calls=(SKY,),
            reasoning="Look it up.",
        ),
        Written(
            "Look <tool_call> up.</think>Blue.",
            "Blue.",
            reasoning="Look <tool_call> up.",
            opens=True,
        ),
        Written("<think>cut off", reasoning="cut off"),
        Written("<think></think>", ""),
        Written("<think>\n\n</think>\n\nBlue.", "Blue."),
        Written("No <think>second</think>", "No <think>second</think>"),
        Written("<thin", "<thin"),
        Written(
            f'<tool_call>{{"name": "sky", "arguments": {JSON_QUOTES}}}</tool_call>',
            "",
            (("sky", QUOTES),),
        ),
        Written("<tool_call>nothing</tool_call>!", "<tool_call>nothing</tool_call>!"),
    ),
)

_CODER_ALL = (
    "<tool_call>\n<function=sky>\n<parameter=town>\n7\n</parameter>\n<parameter=days>\n3\n"
    "</parameter>\n<parameter=warm>\nTrue\n</parameter>\n<parameter=tags>\n['a', \"b\"]\n"
    '</parameter>\n<parameter=at>\n{"x": [1, null]}\n</parameter>\n<parameter=share>\n0.5\n'
    "</parameter>\n<parameter=note>\nnull\n</parameter>\n</function>\n</tool_call>"
)
QWEN_CODER = Family(
    "qwen3_coder",
    "",
    (
        Written(f"I look.\n{_CODER_ALL}", "I look.\n", (("sky", ALL),)),
        Written(
            "<tool_call>\n<function=time>\n</function>\n</tool_call>\n<tool_call>\n<function=sky>\n"
            "<parameter=town>\na\n<b> </tool_call>\n</parameter>\n</function>\n</tool_call>",
            calls=(TIME, ("sky", {"town": "a\n<b> </tool_call>"})),
        ),
        Written(
            "<function=sky>\n<parameter=town>Fernby</parameter>\n</function>\n</tool_call>\nDone.",
            "\nDone.",
            (SKY,),
        ),
        Written("<function=time></function>", calls=(TIME,)),
        Written(
            "<tool_call><function=sky><parameter=town>Fernby",
            "<tool_call><function=sky><parameter=town>Fernby",
        ),
        Written("<tool_call>no</tool_call> <function", "<tool_call>no</tool_call> <function"),
    ),
)

GLM = Family(
    "glm45",
    "glm45",
    (
        Written(
            "<think>Hm.</think>\n<tool_call>sky\n<arg_key>town</arg_key>\n<arg_value>7</arg_value>\n"
            "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n<arg_key>warm</arg_key>\n"
            '<arg_value>true</arg_value>\n<arg_key>tags</arg_key>\n<arg_value>["a", "b"]'
            '</arg_value>\n<arg_key>at</arg_key>\n<arg_value>{"x": [1, null]}</arg_value>\n'
            "<arg_key>share</arg_key>\n<arg_value>0.5</arg_value>\n<arg_key>note</arg_key>\n"
            "<arg_value>null</arg_value>\n</tool_call>",
            calls=(("sky", ALL),),
            reasoning="Hm.",
        ),
        Written(
            "<tool_call>sky<arg_key>town</arg_key><arg_value>Fernby</arg_value></tool_call>"
            "<tool_call>time</tool_call>",
            calls=(SKY, TIME),
        ),
        Written("<tool_call>unknown</tool_call>", "<tool_call>unknown</tool_call>"),
        Written("a <tool_call>sky\n<arg_key>to", "a <tool_call>sky\n<arg_key>to"),
    ),
)

LLAMA = Family(
    "llama3_json",
    "",
    (
        Written(f'{{"name": "sky", "parameters": {JSON_SKY}}}', calls=(SKY,)),
        Written(
            f'<|python_tag|>{{"name": "sky", "parameters": {JSON_QUOTES}}}; '
            '{"name": "time", "parameters": {}}',
            calls=(("sky", QUOTES), TIME),
        ),
        Written(
            f'\n{{"type": "function", "name": "sky", "parameters": {JSON_SKY}}}\n', calls=(SKY,)
        ),
        Written('{"parameters": {}, "name": "time"}', calls=(TIME,)),
        Written('{"name": "rain", "parameters": {}}', '{"name": "rain", "parameters": {}}'),
        Written('{"colour": "blue"} {"name"', '{"colour": "blue"} {"name"'),
        Written('<|python_tag|>sky.call(town="Fernby")', calls=(SKY,)),
        Written("<|python_tag|>print(1)", "<|python_tag|>print(1)"),
        Written('{"name": "sky", "param', '{"name": "sky", "param'),
        Written("Blue. { }", "Blue. { }"),
        Written('{"name": "time", "parameters": {}} and so on', " and so on", (TIME,)),
    ),
)

PYTHON = Family(
    "pythonic",
    "",
    (
        Written('[sky(town="Fernby"), time()]', calls=(SKY, TIME)),
        Written(
            "<|python_start|>[sky(town='7', days=3, warm=True, tags=['a', \"b\"],"
            " at={'x': [1, None]}, share=0.5, note=None)]<|python_end|>",
            calls=(("sky", ALL),),
        ),
        Written("[sky(town='a]', tags=['水'])]", calls=(("sky", {"town": "a]", "tags": ["水"]}),)),
        Written("[rain()]", "[rain()]"),
        Written("[1, 2]", "[1, 2]"),
        Written("[sky(Fernby)]", "[sky(Fernby)]"),
        Written("[sky(town=open('x'))]", "[sky(town=open('x'))]"),
        Written("[sky(town='Fer", "[sky(town='Fer"),
        Written(" See [sky()]", " See [sky()]"),
    ),
)

MISTRAL = Family(
    "mistral",
    "mistral",
    (
        Written(
            f'[TOOL_CALLS] [{{"name": "sky", "arguments": {JSON_QUOTES}}}, '
            '{"name": "time", "arguments": {}}]',
            calls=(("sky", QUOTES), TIME),
        ),
        Written(f"[TOOL_CALLS]sky[ARGS]{JSON_SKY}[TOOL_CALLS]time[ARGS]{{}}", calls=(SKY, TIME)),
        Written(f"Well. [TOOL_CALLS]sky[CALL_ID]a1b2c3d4e[ARGS]{JSON_SKY}", "Well. ", (SKY,)),
        Written(f"[THINK]Hm.[/THINK][TOOL_CALLS]sky{JSON_SKY}", calls=(SKY,), reasoning="Hm."),
        Written("[TOOL_CALLS] nothing of the kind", "[TOOL_CALLS] nothing of the kind"),
        Written("[TOOL_CALLS] [1]", "[TOOL_CALLS] [1]"),
        Written("[TOOL_CALLS]sk", "[TOOL_CALLS]sk"),
        Written("[TOOL_", "[TOOL_"),
    ),
)
