"""What models of further families write; with those of `model_outputs`, all."""

from __future__ import annotations

from helpers import model_outputs
from helpers.model_outputs import JSON_QUOTES, QUOTES, SKY, TIME, Family, Written

ALL = model_outputs.ALL
_DS_BEGIN, _DS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_DS_CALL, _DS_CLOSE, _DS_SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
DEEPSEEK_V3 = Family(
    "deepseek_v3",
    "deepseek_r1",
    (
        Written(
            f"Hm.</think>\n\nWell.{_DS_BEGIN}{_DS_CALL}function{_DS_SEP}sky\n```json\n{JSON_QUOTES}\n"
            f"```{_DS_CLOSE}\n{_DS_CALL}function{_DS_SEP}time\n```json\n{{}}\n```{_DS_CLOSE}{_DS_END}",
            "Well.",
            (("sky", QUOTES), TIME),
            "Hm.",
            opens=True,
        ),
        Written("<think>\nHm.\n</think>\n\nBlue.", "Blue.", reasoning="Hm.", opens=True),
    ),
)
DEEPSEEK_V31 = Family(
    "deepseek_v31",
    "deepseek_v3",
    (
        Written(
            f"{_DS_BEGIN}{_DS_CALL}sky{_DS_SEP}{JSON_QUOTES}{_DS_CLOSE}{_DS_CALL}time{_DS_SEP}{{}}"
            f"{_DS_CLOSE}{_DS_END}",
            calls=(("sky", QUOTES), TIME),
        ),
        Written(f"{_DS_BEGIN}{_DS_CALL}time{_DS_SEP}{_DS_CLOSE}{_DS_END}", calls=(TIME,)),
        Written(f"{_DS_CALL}a b{{{_DS_CLOSE}", f"{_DS_CALL}a b{{{_DS_CLOSE}"),
    ),
)

_K_BEGIN, _K_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_K_CALL, _K_ARGUMENTS, _K_CLOSE = (
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
KIMI = Family(
    "kimi_k2",
    "kimi_k2",
    (
        Written(
            f"Well.{_K_BEGIN}{_K_CALL}functions.sky:0{_K_ARGUMENTS}{JSON_QUOTES}{_K_CLOSE}"
            f"{_K_CALL}functions.time:1{_K_ARGUMENTS}{{}}{_K_CLOSE}{_K_END}",
            "Well.",
            (("sky", QUOTES), TIME),
        ),
        Written(
            f"<think>Hm. {_K_BEGIN}{_K_CALL}time:0{_K_ARGUMENTS}{_K_CLOSE}{_K_END}",
            calls=(TIME,),
            reasoning="Hm.",
        ),
        Written(f"{_K_CALL}{{}}{_K_CLOSE}", f"{_K_CALL}{{}}{_K_CLOSE}"),
    ),
)

HARMONY = Family(
    "openai",
    "openai_gptoss",
    (
        Written(
            "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant<|channel|>"
            f"commentary to=functions.sky <|constrain|>json<|message|>{JSON_QUOTES}<|call|>",
            calls=(("sky", QUOTES),),
            reasoning="Look it up.",
        ),
        Written(
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
            "Blue < sky.<|return|>",
            "Blue < sky.",
            reasoning="Hm.",
        ),
        Written(
            "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.time"
            "<|channel|>commentary json<|message|>{}",
            "I look.",
            (TIME,),
        ),
        Written("<|channel|>analysis<|message|>cut", reasoning="cut"),
        Written("<|channel|>fin", ""),
        Written('{"colour": "blue"}', '{"colour": "blue"}'),
        Written("<|channel|>final no message", "<|channel|>final no message"),
    ),
)

GEMMA = Family(
    "gemma",
    "",
    (
        Written('```tool_code\nprint(sky(town="Fernby"))\n```', calls=(SKY,)),
        Written("I do.\n```tool_code\nsky(town='Fernby')\ntime()\n```", "I do.\n", (SKY, TIME)),
        Written("```tool_code\n1 + 1\n```\nsee", "```tool_code\n1 + 1\n```\nsee"),
        Written("```python\nx\n```", "```python\nx\n```"),
    ),
)
_ESCAPE = "<escape>"
FUNCTION_GEMMA = Family(
    "functiongemma",
    "",
    (
        Written(
            "<start_function_call>call:sky{town:<escape>7<escape>,days:3,warm:true,"
            "tags:[<escape>a<escape>,<escape>b<escape>],at:{x:[1,null]},share:0.5,note:null}"
            "<end_function_call><start_function_call>call:time{}<end_function_call>",
            calls=(("sky", ALL), TIME),
        ),
        Written("<start_function_call>call:sky{town", "<start_function_call>call:sky{town"),
    ),
)
GEMMA4 = Family(
    "gemma4",
    "gemma4",
    (
        Written(
            "<|channel>thought\nHm.<channel|>"
            '<|tool_call>call:sky{town:<|"|>a, }{b<|"|>}<tool_call|>',
            calls=(("sky", {"town": "a, }{b"}),),
            reasoning="Hm.",
        ),
        Written("<|tool_call>call:sky<tool_call|>.", "<|tool_call>call:sky<tool_call|>."),
    ),
)
GRANITE = Family(
    "",
    "granite",
    (
        Written(
            "Here is my thought process: Hm. Here is my response: Blue.", "Blue.", reasoning="Hm."
        ),
        Written("Here is my cat.", "Here is my cat."),
    ),
)

_EVERYWHERE = {**vars(model_outputs), **globals()}
FAMILIES = {name.lower(): each for name, each in _EVERYWHERE.items() if isinstance(each, Family)}
