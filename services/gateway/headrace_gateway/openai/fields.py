"""Fields of OpenAI's and vLLM's bodies that are known and not served.

Each is listed with the values that mean "not used"; those, and null, are accepted,
because clients send them. Anything else is refused, so that nobody believes a field
has worked that has not.
"""

from __future__ import annotations

from collections.abc import Mapping

NotServed = Mapping[str, tuple[object, ...]]

_BOTH: NotServed = {
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "min_tokens": (0,),
    "prompt_logprobs": (),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "structured_outputs": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
}

CHAT: NotServed = {
    **_BOTH,
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "audio": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

COMPLETION: NotServed = {
    **_BOTH,
    "add_special_tokens": (True,),
    "echo": (False,),
    "logprobs": (),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
}

MESSAGE: NotServed = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "reasoning": (),
    "reasoning_content": (),
    "refusal": (),
    "tool_calls": ([],),
}

STREAM_OPTIONS: NotServed = {
    "continuous_usage_stats": (False,),
}
