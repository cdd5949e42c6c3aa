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
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "min_tokens": (0,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
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
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

COMPLETION: NotServed = {
    **_BOTH,
    "parallel_tool_calls": (True, False),
    "add_special_tokens": (True,),
    "suffix": ("",),
}

EMBEDDINGS: NotServed = {
    "add_special_tokens": (True,),
    "embed_dtype": ("float32",),
    "normalize": (),
    "priority": (0,),
}

RERANK: NotServed = {
    "max_chunks_per_doc": (),
    "max_tokens_per_doc": (),
    "priority": (0,),
    "rank_fields": ([], ["text"]),
}

RERANK_V2: NotServed = {"priority": (0,), "rank_fields": ([], ["text"])}

SCORE: NotServed = {
    "activation": (True,),
    "add_special_tokens": (True,),
    "mm_processor_kwargs": ({},),
    "priority": (0,),
    "truncation_side": ("right",),
    "use_activation": (True,),
}

TEI_EMBED: NotServed = {"truncation_direction": ("Right", "right")}

TEI_RERANK: NotServed = {"raw_scores": (False,), "truncation_direction": ("Right", "right")}

TOKENIZE_CONTENT: NotServed = {"parse_special": (True,)}

MESSAGE: NotServed = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "reasoning": (),
    "reasoning_content": (),
    "refusal": (),
}
