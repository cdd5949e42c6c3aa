"""Fields of OpenAI's and vLLM's bodies that do nothing here, or are not served.

A field that cannot change the answer is taken and does nothing. One that would change it and is
not served is refused, unless it has a value that means "not used": so that nobody believes a field
has worked that has not. A field that is not in the bodies and not in these tables is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    neutral: tuple[object, ...]
    """Values that mean "not used", beside null; clients send them."""
    why: str


NotServed = Mapping[str, Refused]
NoEffect = Mapping[str, str]
"""Name to why the answer does not depend on it."""

_NO_BEAM = "beam search is not served: tokens are drawn or greedy"
_PASSED_ON = "what a client says of the model's template is not taken over"
_NO_AUDIO = "only text is made"
_TEXT_ALONE = "only text is read"
_LOADED = "chosen where the worker is configured, not by a request"
_ONE_WORKER = "keys and values are not handed between engines"

_BOTH: NotServed = {
    "guided_whitespace_pattern": Refused((), "white space is the grammar's"),
    "kv_transfer_params": Refused(({},), _ONE_WORKER),
    "length_penalty": Refused((1, 1.0), _NO_BEAM),
    "logits_processors": Refused(([],), "callers' code is not run"),
    "spaces_between_special_tokens": Refused((True,), "the tokenizer's own way is kept"),
    "use_beam_search": Refused((False,), _NO_BEAM),
    "vllm_xargs": Refused(({},), "of vLLM's own extensions"),
}

CHAT: NotServed = {
    **_BOTH,
    "audio": Refused((), _NO_AUDIO),
    "chat_template": Refused((), _PASSED_ON),
    "chat_template_kwargs": Refused(({},), "not passed to the template"),
    "function_call": Refused(("none", "auto"), "use tool_choice"),
    "functions": Refused(([],), "use tools"),
    "include_reasoning": Refused((True,), "reasoning is not told apart from the answer"),
    "modalities": Refused((["text"],), _NO_AUDIO),
    "moderation": Refused((), "nothing is moderated"),
    "prediction": Refused((), "nothing is computed from a prediction"),
    "reasoning_effort": Refused(("none",), "not passed to the template"),
    "verbosity": Refused(("medium",), "say it in a message"),
    "web_search_options": Refused((), "nothing is looked up"),
}

COMPLETION: NotServed = {
    **_BOTH,
    "parallel_tool_calls": Refused((True, False), "completions call no tools"),
    "prompt_embeds": Refused((), _TEXT_ALONE),
    "suffix": Refused(("",), "text is not filled in"),
}

EMBEDDINGS: NotServed = {
    "add_special_tokens": Refused((True,), "the model's own are kept"),
    "embed_dtype": Refused(("float32",), "vectors are float32"),
    "normalize": Refused((), "the model's own way is kept"),
}

RERANK: NotServed = {
    "max_chunks_per_doc": Refused((), "documents are not cut into pieces"),
    "max_tokens_per_doc": Refused((), "use truncate_prompt_tokens"),
    "rank_fields": Refused(([], ["text"]), "documents are ranked by their text"),
}

RERANK_V2: NotServed = {
    "priority": Refused((0,), "use service_tier"),
    "rank_fields": Refused(([], ["text"]), "documents are ranked by their text"),
}

_ONE_SCORE = "scores pass the model's own activation"
_CUT_AT_THE_END = "what is too long is cut at its end"

SCORE: NotServed = {
    "activation": Refused((True,), _ONE_SCORE),
    "add_special_tokens": Refused((True,), "the model's own are kept"),
    "mm_processor_kwargs": Refused(({},), _TEXT_ALONE),
    "priority": Refused((0,), "use service_tier"),
    "truncation_side": Refused(("right",), _CUT_AT_THE_END),
    "use_activation": Refused((True,), _ONE_SCORE),
}

TEI_EMBED: NotServed = {"truncation_direction": Refused(("Right", "right"), _CUT_AT_THE_END)}

TEI_RERANK: NotServed = {**TEI_EMBED, "raw_scores": Refused((False,), _ONE_SCORE)}

TOKENIZE_CONTENT: NotServed = {
    "parse_special": Refused((True,), "what is written like a special token is one")
}

MESSAGE: NotServed = {"audio": Refused((), _TEXT_ALONE)}

_KNOWN_CALLER = "it says who asks, which changes no answer"
_CACHES = "beginnings are cached anyway, and the answer is the same"

BODY_NO_EFFECT: NoEffect = {
    "guided_decoding_backend": _LOADED,
    "media_io_kwargs": _TEXT_ALONE,
    "metadata": "nothing is kept with an answer",
    "mm_processor_kwargs": _TEXT_ALONE,
    "prompt_cache_key": _CACHES,
    "prompt_cache_options": _CACHES,
    "prompt_cache_retention": _CACHES,
    "safety_identifier": _KNOWN_CALLER,
    "store": "answers are kept as the gateway is configured, and not listed",
    "user": _KNOWN_CALLER,
}
VECTOR_NO_EFFECT: NoEffect = {"user": _KNOWN_CALLER}
STREAM_NO_EFFECT: NoEffect = {"include_obfuscation": "chunks are never padded"}
MESSAGE_NO_EFFECT: NoEffect = {
    "annotations": "what an answer cited is no part of its text",
    "parsed": "the text is there unparsed",
}
PART_NO_EFFECT: NoEffect = {"cache_control": _CACHES, "prompt_cache_breakpoint": _CACHES}
CALL_NO_EFFECT: NoEffect = {"index": "calls are in order"}
CALLED_NO_EFFECT: NoEffect = {"parsed_arguments": "the arguments are there unparsed"}
